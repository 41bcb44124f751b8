/** A vCPU's registers as a debugger has them: by gdb's names, as hexadecimal text. */
import type { RegisterValues } from '../../client/debug.ts';
import { NemuError } from '../../client/errors.ts';
import { Arena } from '../../ffi/arena.ts';
import * as x86 from '../../ffi/kvm/x86.ts';
import { SystemError } from '../../ffi/libc.ts';
import type { KvmVcpu } from '../kvm.ts';

const MSR_KERNEL_GS_BASE = 0xc0000102;
const GENERAL = [
  ...(['rax', 'rbx', 'rcx', 'rdx', 'rsi', 'rdi', 'rbp', 'rsp', 'r8', 'r9', 'r10', 'r11', 'r12', 'r13'] as const),
  ...(['r14', 'r15', 'rip'] as const),
];
const SELECTORS = ['cs', 'ss', 'ds', 'es', 'fs', 'gs'] as const;
const CONTROL = ['cr0', 'cr2', 'cr3', 'cr4', 'cr8', 'efer'] as const;
/**
 * Bytes of the x87 and SSE state in the legacy region of XSAVE (Intel SDM volume 1, table 10-2). KVM_GET_FPU has the same
 * but for MXCSR.
 */
const LEGACY = { fctrl: 0, fstat: 2, ftag: 4, fop: 6, fioff: 8, fooff: 16, mxcsr: 24, st: 32, xmm: 160 } as const;
/** The first word behind that region: which parts are not as after a reset. */
const XSTATE_BV = 512;
const X87_AND_SSE = 3;

const hex = (value: bigint | number) => `0x${value.toString(16)}`;

/** A number of `bytes` bytes, little endian. */
function readBig(bytes: Uint8Array): bigint {
  let value = 0n;
  for (let i = bytes.length - 1; i >= 0; i--) value = (value << 8n) | BigInt(bytes[i]);
  return value;
}

function writeBig(bytes: Uint8Array, value: bigint): void {
  for (let i = 0; i < bytes.length; i++) bytes[i] = Number((value >> BigInt(8 * i)) & 0xffn);
}

/** Two bits a register, 11 for an empty one (Intel SDM volume 1, 8.1.7); KVM has one, set when it is not empty. */
function fullTag(abridged: number): number {
  let tag = 0;
  for (let i = 0; i < 8; i++) if (!(abridged & (1 << i))) tag |= 3 << (2 * i);
  return tag;
}

function abridgedTag(tag: number): number {
  let abridged = 0;
  for (let i = 0; i < 8; i++) if (((tag >> (2 * i)) & 3) !== 3) abridged |= 1 << i;
  return abridged;
}

/** Where KVM is asked for registers, whichever vCPU's. Each call needs the vCPU out of KVM_RUN. */
export class RegisterFile {
  readonly #arena = new Arena(16384);
  readonly #regs = this.#arena.struct(x86.kvm_regs);
  readonly #sregs = this.#arena.struct(x86.kvm_sregs);
  readonly #fpu = this.#arena.struct(x86.kvm_xsave);
  readonly #msr = this.#arena.alloc(x86.kvm_msrs.size + x86.kvm_msr_entry.size);
  readonly #debug = this.#arena.struct(x86.kvm_guest_debug);
  readonly #debugregs = this.#arena.struct(x86.kvm_debugregs);

  read(vcpu: KvmVcpu): Record<string, string> {
    this.#load(vcpu);
    const out: Record<string, string> = {};
    for (const name of GENERAL) out[name] = hex(this.#regs.fields[name]);
    out.eflags = hex(this.#regs.fields.rflags);
    const sregs = this.#sregs.fields;
    for (const name of SELECTORS) out[name] = hex(sregs[name].selector);
    out.fs_base = hex(sregs.fs.base);
    out.gs_base = hex(sregs.gs.base);
    out.k_gs_base = hex(this.#kernelGsBase(vcpu));
    for (const name of CONTROL) out[name] = hex(sregs[name]);
    const { view } = this.#fpu;
    for (let i = 0; i < 8; i++) out[`st${i}`] = hex(readBig(this.#st(i)));
    for (const name of ['fctrl', 'fstat', 'fop'] as const) out[name] = hex(view.getUint16(LEGACY[name], true));
    out.ftag = hex(fullTag(view.getUint8(LEGACY.ftag)));
    // In 64-bit mode the selectors are not kept, and gdb has room for half of the pointers.
    for (const name of ['fiseg', 'foseg']) out[name] = '0x0';
    for (const name of ['fioff', 'fooff', 'mxcsr'] as const) out[name] = hex(view.getUint32(LEGACY[name], true));
    for (let i = 0; i < 16; i++) out[`xmm${i}`] = hex(readBig(this.#xmm(i)));
    return out;
  }

  /** @throws NemuError REGISTER for one that is none, cannot be written, or has a value that KVM refuses; none is written then. */
  write(vcpu: KvmVcpu, values: RegisterValues): void {
    this.#load(vcpu);
    const touched = new Set<'regs' | 'sregs' | 'fpu' | 'msr'>();
    for (const [name, text] of Object.entries(values)) touched.add(this.#put(name, BigInt(text)));
    try {
      if (touched.has('sregs')) vcpu.ioctl(x86.KVM_SET_SREGS, 'KVM_SET_SREGS', this.#sregs);
      if (touched.has('regs')) vcpu.ioctl(x86.KVM_SET_REGS, 'KVM_SET_REGS', this.#regs);
      if (touched.has('fpu')) {
        this.#fpu.bytes[XSTATE_BV] |= X87_AND_SSE;
        vcpu.ioctl(x86.KVM_SET_XSAVE, 'KVM_SET_XSAVE', this.#fpu);
      }
      if (touched.has('msr')) this.#setKernelGsBase(vcpu, BigInt(values.k_gs_base));
    } catch (cause) {
      if (!(cause instanceof SystemError)) throw cause;
      const names = Object.entries(values).map(([name, value]) => `${name}=${value}`);
      throw new NemuError('REGISTER', `The processor does not take ${names.join(', ')} (${cause.code}).`, { cause });
    }
  }

  rip(vcpu: KvmVcpu): bigint {
    vcpu.ioctl(x86.KVM_GET_REGS, 'KVM_GET_REGS', this.#regs);
    return this.#regs.fields.rip;
  }

  setRip(vcpu: KvmVcpu, rip: bigint): void {
    vcpu.ioctl(x86.KVM_GET_REGS, 'KVM_GET_REGS', this.#regs);
    this.#regs.fields.rip = rip;
    vcpu.ioctl(x86.KVM_SET_REGS, 'KVM_SET_REGS', this.#regs);
  }

  /**
   * KVM_SET_GUEST_DEBUG.
   * @param addresses of DR0 to DR3. @param dr7 what they are for.
   */
  setDebug(vcpu: KvmVcpu, control: number, addresses: readonly bigint[] = [], dr7 = 0n): void {
    const { fields } = this.#debug;
    fields.control = control;
    const registers = fields['arch.debugreg'];
    for (let i = 0; i < 8; i++) registers.set(i, addresses[i] ?? 0n);
    registers.set(7, dr7);
    vcpu.ioctl(x86.KVM_SET_GUEST_DEBUG, 'KVM_SET_GUEST_DEBUG', this.#debug);
  }

  /** What the guest finds in DR6, for an exception that is given on to it. */
  setDr6(vcpu: KvmVcpu, dr6: bigint): void {
    vcpu.ioctl(x86.KVM_GET_DEBUGREGS, 'KVM_GET_DEBUGREGS', this.#debugregs);
    this.#debugregs.fields.dr6 = dr6;
    vcpu.ioctl(x86.KVM_SET_DEBUGREGS, 'KVM_SET_DEBUGREGS', this.#debugregs);
  }

  close(): void {
    this.#arena.free();
  }

  #load(vcpu: KvmVcpu): void {
    vcpu.ioctl(x86.KVM_GET_REGS, 'KVM_GET_REGS', this.#regs);
    vcpu.ioctl(x86.KVM_GET_SREGS, 'KVM_GET_SREGS', this.#sregs);
    vcpu.ioctl(x86.KVM_GET_XSAVE, 'KVM_GET_XSAVE', this.#fpu);
  }

  #st(index: number): Uint8Array {
    return this.#fpu.bytes.subarray(LEGACY.st + 16 * index, LEGACY.st + 16 * index + 10);
  }

  #xmm(index: number): Uint8Array {
    return this.#fpu.bytes.subarray(LEGACY.xmm + 16 * index, LEGACY.xmm + 16 * index + 16);
  }

  #put(name: string, value: bigint): 'regs' | 'sregs' | 'fpu' | 'msr' {
    const general = GENERAL.find((each) => each === name);
    const wide = BigInt.asUintN(64, value);
    if (general) this.#regs.fields[general] = wide;
    if (name === 'eflags') this.#regs.fields.rflags = wide;
    if (general || name === 'eflags') return 'regs';
    if (name === 'k_gs_base') return 'msr';
    const sregs = this.#sregs.fields;
    const control = CONTROL.find((each) => each === name);
    if (control) sregs[control] = wide;
    if (name === 'fs_base') sregs.fs.base = wide;
    if (name === 'gs_base') sregs.gs.base = wide;
    if (control || name === 'fs_base' || name === 'gs_base') return 'sregs';
    this.#putFpu(name, value);
    return 'fpu';
  }

  #putFpu(name: string, value: bigint): void {
    const { view } = this.#fpu;
    const [, kind, digits] = /^(st|xmm)(\d{1,2})$/.exec(name) ?? [];
    const index = Number(digits);
    if (name === 'fctrl' || name === 'fstat' || name === 'fop')
      view.setUint16(LEGACY[name], Number(value & 0xffffn), true);
    else if (name === 'ftag') view.setUint8(LEGACY.ftag, abridgedTag(Number(value & 0xffffn)));
    else if (name === 'fioff' || name === 'fooff' || name === 'mxcsr')
      view.setUint32(LEGACY[name], Number(value & 0xffffffffn), true);
    else if (kind === 'st' && index < 8) writeBig(this.#st(index), value);
    else if (kind === 'xmm' && index < 16) writeBig(this.#xmm(index), value);
    else throw new NemuError('REGISTER', `The register ${name} cannot be written.`);
  }

  #msrEntry() {
    x86.kvm_msrs.on(this.#msr.view).nmsrs = 1;
    const entry = x86.kvm_msr_entry.on(this.#msr.view, x86.kvm_msrs.size);
    entry.index = MSR_KERNEL_GS_BASE;
    return entry;
  }

  #kernelGsBase(vcpu: KvmVcpu): bigint {
    const entry = this.#msrEntry();
    vcpu.ioctl(x86.KVM_GET_MSRS, 'KVM_GET_MSRS', this.#msr);
    return entry.data;
  }

  #setKernelGsBase(vcpu: KvmVcpu, value: bigint): void {
    this.#msrEntry().data = BigInt.asUintN(64, value);
    vcpu.ioctl(x86.KVM_SET_MSRS, 'KVM_SET_MSRS', this.#msr);
  }
}
