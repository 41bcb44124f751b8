import { KVM_GET_MP_STATE, KVM_SET_MP_STATE, kvm_mp_state } from '../../ffi/kvm/common.ts';
import * as x86 from '../../ffi/kvm/x86.ts';
import type { Accessor } from '../../ffi/struct.ts';
import type { EntryState } from '../boot/plan.ts';
import type { KvmVcpu } from '../kvm.ts';

const MSR_IA32_MISC_ENABLE = 0x1a0;
const MSR_IA32_MISC_ENABLE_FAST_STRING = 1n;
const MSR_MTRRdefType = 0x2ff;
/** MTRRs on, default type write-back. */
const MTRR_ENABLED_WB = (1n << 11n) | 6n;

/** Local APIC register offsets (Intel SDM volume 3, table 11-1). */
const APIC_LVT_LINT0 = 0x350;
const APIC_LVT_LINT1 = 0x360;
const DELIVERY_NMI = 0x400;
const DELIVERY_EXTINT = 0x700;

const CR0_PE = 1n << 0n;
const CR0_ET = 1n << 4n;
const CR0_NE = 1n << 5n;
const CR0_PG = 1n << 31n;
const CR4_PAE = 1n << 5n;
const EFER_LME = 1n << 8n;
const EFER_LMA = 1n << 10n;

/** What reset puts back: everything that a guest could have changed in a vCPU, as raw bytes. */
export interface VcpuResetState {
  readonly regs: Uint8Array;
  readonly sregs: Uint8Array;
  readonly lapic: Uint8Array;
  readonly events: Uint8Array;
  readonly debugregs: Uint8Array;
  readonly mpState: number;
  readonly xcrs: Uint8Array;
  readonly fpu: Uint8Array;
  readonly msrs: readonly { index: number; data: bigint }[];
}

export type Registers = { [K in keyof Omit<Accessor<typeof x86.kvm_regs.fields>, 'offset_'>]: bigint } & {
  /** Of the control registers, bases and limits too, and of selectors, by name. */
  [name: string]: bigint | number;
  mpState: number;
};

/** A vCPU's x86 state. Each call needs the vCPU out of KVM_RUN, or it waits until it is. */
export class X86Vcpu {
  readonly kvm: KvmVcpu;
  readonly #regs;
  readonly #sregs;
  readonly #lapic;
  readonly #mp;
  readonly #events;
  readonly #debug;
  readonly #xcrs;
  readonly #fpu;
  readonly #translation;
  readonly #msrs;

  constructor(vcpu: KvmVcpu) {
    this.kvm = vcpu;
    const { arena } = vcpu;
    this.#regs = arena.struct(x86.kvm_regs);
    this.#sregs = arena.struct(x86.kvm_sregs);
    this.#lapic = arena.struct(x86.kvm_lapic_state);
    this.#mp = arena.struct(kvm_mp_state);
    this.#events = arena.struct(x86.kvm_vcpu_events);
    this.#debug = arena.struct(x86.kvm_debugregs);
    this.#xcrs = arena.struct(x86.kvm_xcrs);
    this.#fpu = arena.struct(x86.kvm_fpu);
    this.#translation = arena.struct(x86.kvm_translation);
    this.#msrs = arena.alloc(x86.kvm_msrs.size + 64 * x86.kvm_msr_entry.size);
  }

  /** State after power-on beyond what KVM gives: MTRRs, fast strings, and the BSP's virtual-wire LINT pins. */
  initialise(): void {
    this.setMsrs([
      { index: MSR_IA32_MISC_ENABLE, data: MSR_IA32_MISC_ENABLE_FAST_STRING },
      { index: MSR_MTRRdefType, data: MTRR_ENABLED_WB },
    ]);
    this.kvm.ioctl(x86.KVM_GET_LAPIC, 'KVM_GET_LAPIC', this.#lapic);
    this.#lapic.view.setUint32(APIC_LVT_LINT0, DELIVERY_EXTINT, true);
    this.#lapic.view.setUint32(APIC_LVT_LINT1, DELIVERY_NMI, true);
    this.kvm.ioctl(x86.KVM_SET_LAPIC, 'KVM_SET_LAPIC', this.#lapic);
  }

  /** Puts the vCPU where a boot protocol wants it. */
  enter(entry: EntryState): void {
    const long = entry.mode === 'long64';
    this.kvm.ioctl(x86.KVM_GET_SREGS, 'KVM_GET_SREGS', this.#sregs);
    const sregs = this.#sregs.fields;
    // Linux's boot protocol asks for __BOOT_CS 0x10 and __BOOT_DS 0x18; PVH and Multiboot for any flat ones.
    const code = { selector: 0x10, type: 0xb, l: long ? 1 : 0, db: long ? 0 : 1 };
    const data = { selector: 0x18, type: 0x3, l: 0, db: 1 };
    const flat = { base: 0n, limit: 0xffffffff, present: 1, dpl: 0, s: 1, g: 1, avl: 0, unusable: 0 };
    Object.assign(sregs.cs, flat, code);
    for (const name of ['ds', 'es', 'fs', 'gs', 'ss'] as const) Object.assign(sregs[name], flat, data);
    Object.assign(sregs.tr, { ...flat, limit: 0x67, selector: 0, type: 0xb, s: 0, g: 0, l: 0, db: 0 });
    sregs.gdt.base = BigInt(entry.gdt.base);
    sregs.gdt.limit = entry.gdt.limit;
    sregs.idt.base = 0n;
    sregs.idt.limit = 0;
    sregs.cr0 = CR0_PE | CR0_ET | CR0_NE | (long ? CR0_PG : 0n);
    sregs.cr3 = BigInt(entry.cr3 ?? 0);
    sregs.cr4 = long ? CR4_PAE : 0n;
    sregs.efer = long ? EFER_LME | EFER_LMA : 0n;
    this.kvm.ioctl(x86.KVM_SET_SREGS, 'KVM_SET_SREGS', this.#sregs);

    const regs = this.#regs.fields;
    this.#regs.bytes.fill(0);
    regs.rflags = 2n;
    regs.rip = BigInt(entry.rip);
    regs.rsi = BigInt(entry.rsi ?? 0);
    regs.rbx = BigInt(entry.rbx ?? 0);
    regs.rax = BigInt(entry.rax ?? 0);
    regs.rsp = BigInt(entry.rsp ?? 0);
    this.kvm.ioctl(x86.KVM_SET_REGS, 'KVM_SET_REGS', this.#regs);
  }

  setMsrs(msrs: readonly { index: number; data: bigint }[]): void {
    this.#msrs.bytes.fill(0);
    const header = x86.kvm_msrs.on(this.#msrs.view);
    header.nmsrs = msrs.length;
    for (const [i, msr] of msrs.entries()) {
      const entry = x86.kvm_msr_entry.on(this.#msrs.view, x86.kvm_msrs.size + i * x86.kvm_msr_entry.size);
      entry.index = msr.index;
      entry.data = msr.data;
    }
    const done = this.kvm.ioctl(x86.KVM_SET_MSRS, 'KVM_SET_MSRS', this.#msrs);
    if (done !== msrs.length) throw new Error(`KVM_SET_MSRS stopped at MSR 0x${msrs[done].index.toString(16)}.`);
  }

  registers(): Registers {
    this.kvm.ioctl(x86.KVM_GET_REGS, 'KVM_GET_REGS', this.#regs);
    this.kvm.ioctl(x86.KVM_GET_SREGS, 'KVM_GET_SREGS', this.#sregs);
    this.kvm.ioctl(KVM_GET_MP_STATE, 'KVM_GET_MP_STATE', this.#mp);
    const out: Record<string, bigint | number> = {};
    for (const name of Object.keys(x86.kvm_regs.fields)) {
      out[name] = this.#regs.fields[name as keyof typeof x86.kvm_regs.fields];
    }
    const sregs = this.#sregs.fields;
    const { gdt, idt, fs, gs, tr, cr0, cr2, cr3, cr4, cr8, efer, apic_base } = sregs;
    const selectors = ['cs', 'ss', 'ds', 'es', 'fs', 'gs', 'tr', 'ldt'] as const;
    return {
      ...out,
      ...{ cr0, cr2, cr3, cr4, cr8, efer },
      ...Object.fromEntries(selectors.map((name) => [name, sregs[name].selector])),
      ...{ fs_base: fs.base, gs_base: gs.base, tr_base: tr.base },
      ...{ gdt_base: gdt.base, gdt_limit: gdt.limit, idt_base: idt.base, idt_limit: idt.limit, apic_base },
      mpState: this.#mp.fields.mp_state,
    } as unknown as Registers;
  }

  /** Its local APIC's registers (kvm_lapic_state), which the next call overwrites, and IA32_APIC_BASE. */
  lapic(): { readonly state: DataView; readonly apicBase: bigint } {
    this.kvm.ioctl(x86.KVM_GET_LAPIC, 'KVM_GET_LAPIC', this.#lapic);
    this.kvm.ioctl(x86.KVM_GET_SREGS, 'KVM_GET_SREGS', this.#sregs);
    return { state: this.#lapic.view, apicBase: this.#sregs.fields.apic_base };
  }

  /** Guest-physical address of a linear one by the vCPU's own page tables; undefined when it is not mapped. */
  translate(linear: bigint): number | undefined {
    this.#translation.fields.linear_address = linear;
    this.kvm.ioctl(x86.KVM_TRANSLATE, 'KVM_TRANSLATE', this.#translation);
    return this.#translation.fields.valid ? Number(this.#translation.fields.physical_address) : undefined;
  }

  nmi(): void {
    this.kvm.ioctl(x86.KVM_NMI, 'KVM_NMI');
  }

  /** The state that `reset` restores: taken once, before the vCPU first runs. */
  captureReset(): VcpuResetState {
    const copy = (request: number, name: string, block: { bytes: Uint8Array; address: number; view: DataView }) => {
      this.kvm.ioctl(request, name, block);
      return block.bytes.slice();
    };
    this.kvm.ioctl(KVM_GET_MP_STATE, 'KVM_GET_MP_STATE', this.#mp);
    return {
      regs: copy(x86.KVM_GET_REGS, 'KVM_GET_REGS', this.#regs),
      sregs: copy(x86.KVM_GET_SREGS, 'KVM_GET_SREGS', this.#sregs),
      lapic: copy(x86.KVM_GET_LAPIC, 'KVM_GET_LAPIC', this.#lapic),
      events: copy(x86.KVM_GET_VCPU_EVENTS, 'KVM_GET_VCPU_EVENTS', this.#events),
      debugregs: copy(x86.KVM_GET_DEBUGREGS, 'KVM_GET_DEBUGREGS', this.#debug),
      xcrs: copy(x86.KVM_GET_XCRS, 'KVM_GET_XCRS', this.#xcrs),
      fpu: copy(x86.KVM_GET_FPU, 'KVM_GET_FPU', this.#fpu),
      mpState: this.#mp.fields.mp_state,
      msrs: RESET_MSRS,
    };
  }

  reset(state: VcpuResetState): void {
    const put = (
      request: number,
      name: string,
      block: { bytes: Uint8Array; address: number; view: DataView },
      bytes: Uint8Array,
    ) => {
      block.bytes.set(bytes);
      this.kvm.ioctl(request, name, block);
    };
    // Paravirtual MSRs first: they make KVM write into guest memory for as long as they are on.
    this.setMsrs(state.msrs);
    put(x86.KVM_SET_SREGS, 'KVM_SET_SREGS', this.#sregs, state.sregs);
    put(x86.KVM_SET_REGS, 'KVM_SET_REGS', this.#regs, state.regs);
    put(x86.KVM_SET_XCRS, 'KVM_SET_XCRS', this.#xcrs, state.xcrs);
    put(x86.KVM_SET_FPU, 'KVM_SET_FPU', this.#fpu, state.fpu);
    put(x86.KVM_SET_DEBUGREGS, 'KVM_SET_DEBUGREGS', this.#debug, state.debugregs);
    put(x86.KVM_SET_LAPIC, 'KVM_SET_LAPIC', this.#lapic, state.lapic);
    put(x86.KVM_SET_VCPU_EVENTS, 'KVM_SET_VCPU_EVENTS', this.#events, state.events);
    this.#mp.fields.mp_state = state.mpState;
    this.kvm.ioctl(KVM_SET_MP_STATE, 'KVM_SET_MP_STATE', this.#mp);
  }
}

/** MSRs that a guest sets and that reset must clear (the SYSENTER and SYSCALL set, KVM's paravirtual ones). */
const RESET_MSRS: readonly { index: number; data: bigint }[] = [
  0x174, 0x175, 0x176, 0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084, 0xc0000102, 0x4b564d00, 0x4b564d01, 0x4b564d02,
  0x4b564d03, 0x4b564d04,
].map((index) => ({ index, data: 0n }));
