/** Breakpoints and single steps: KVM_SET_GUEST_DEBUG, and what its exits mean. Lives in the machine thread. */
import type { Breakpoint, DebugRun, DebugStop, HardwareBreakpoint, RegisterValues } from '../client/debug.ts';
import { NemuError } from '../client/errors.ts';
import type { GuestMemory } from '../devices/device.ts';
import { kvm_run } from '../ffi/kvm/common.ts';
import * as x86 from '../ffi/kvm/x86.ts';
import { SystemError } from '../ffi/libc.ts';
import type { Processors } from './processors.ts';
import { RegisterFile } from './x86/register_file.ts';

/**
 * How a software breakpoint leaves the guest. `int3` does where the processor lets KVM intercept it. The lab's emulated
 * one gives int3 to the guest whatever is intercepted, but it does intercept accesses to ports: `out` is one to a port
 * that nobody has.
 */
export type BreakInstruction = 'int3' | 'out';

/** Of software breakpoints that are `out`. */
export const BREAK_PORT = 0xe5;
const CODE: Readonly<Record<BreakInstruction, Uint8Array>> = {
  int3: Uint8Array.of(0xcc),
  out: Uint8Array.of(0xe6, BREAK_PORT),
};
/** Opcodes of instructions of one byte (Intel SDM volume 2, appendix A.3). */
const ONE_BYTE = /^(5.|9[0-9b-f]|a[4-7a-f]|c[39bcf]|e[c-f]|f[1458-d])$/;

const [DB_VECTOR, BP_VECTOR] = [1, 3];
const DEBUG_REGISTERS = 4;
const DR6_BS = 1n << 14n;
/** DR7 (Intel SDM volume 3, 17.2.4): what is reserved and set, and the codes of kinds and sizes. */
const DR7_FIXED = 0x400n;
const KIND_CODE = { execute: 0n, write: 1n, access: 3n } as const;
const SIZE_CODE = { 1: 0n, 2: 1n, 4: 3n, 8: 2n } as const;

const at = kvm_run.offsets;
const hex = (value: bigint | number) => `0x${value.toString(16)}`;

interface Patch {
  readonly gpa: number;
  /** What the guest has there. */
  readonly original: Uint8Array;
}

export interface GuestDebugOptions {
  readonly processors: Processors;
  readonly memory: GuestMemory;
  readonly breakInstruction: BreakInstruction;
}

/** All that changes something needs the vCPUs out of the guest. */
export class GuestDebug {
  readonly #processors: Processors;
  readonly #memory: GuestMemory;
  readonly #instruction: BreakInstruction;
  readonly #code: Uint8Array;
  readonly #registers = new RegisterFile();
  /** By guest-physical address. */
  readonly #patches = new Map<number, Patch>();
  #hardware: readonly HardwareBreakpoint[] = [];
  readonly #stepping = new Set<number>();
  /** Of vCPUs that are behind a breakpoint's `out`: where they are put back to. */
  readonly #behind = new Map<number, bigint>();
  #stop: DebugStop | undefined;
  /** A debugger is there; and the machine is to run when it leaves. */
  #attached: { runs: boolean } | undefined;

  constructor({ processors, memory, breakInstruction }: GuestDebugOptions) {
    this.#processors = processors;
    this.#memory = memory;
    this.#instruction = breakInstruction;
    this.#code = CODE[breakInstruction];
    processors.onAdd = (vcpu) => this.#apply(vcpu);
  }

  /** A vCPU has come to a breakpoint or done its step: the machine is to stop. */
  get stops(): boolean {
    return this.#stop !== undefined;
  }

  /** @throws NemuError DEBUGGER when there is one already. */
  attach(isRunning: boolean): void {
    if (this.#attached) {
      throw new NemuError('DEBUGGER', 'Another debugger is attached to this machine.', {
        hint: 'There can be one: detach in that gdb, or close it.',
      });
    }
    this.#attached = { runs: isRunning };
  }

  /** @throws NemuError DEBUGGER */
  requireAttached(): void {
    if (!this.#attached) throw new NemuError('DEBUGGER', 'No debugger is attached to this machine.');
  }

  /** Takes everything back. @returns whether the machine is to go on, which the debugger may have stopped. */
  detach(): boolean {
    const runs = this.#attached?.runs ?? false;
    this.#attached = undefined;
    this.setBreakpoints([]);
    this.settle();
    return runs;
  }

  /** @throws NemuError BREAKPOINT, ADDRESS; then all is as it was. */
  setBreakpoints(breakpoints: readonly Breakpoint[]): void {
    const hardware = breakpoints.filter((each) => each.kind !== 'software');
    this.#requireHardware(hardware);
    const wanted = new Map<number, Patch>();
    for (const { kind, address } of breakpoints) {
      if (kind === 'software') wanted.set(Number(address), this.#patchFor(Number(address)));
    }
    for (const [gpa, patch] of this.#patches) if (!wanted.has(gpa)) this.#restore(patch);
    for (const [gpa, patch] of wanted) {
      if (this.#patches.has(gpa)) continue;
      this.#memory.write(gpa, this.#code);
      this.#patches.set(gpa, patch);
    }
    this.#hardware = hardware;
    this.#applyAll();
  }

  #requireHardware(hardware: readonly HardwareBreakpoint[]): void {
    if (hardware.length === 0) return;
    if (this.#instruction === 'out') {
      throw new NemuError('BREAKPOINT', 'The emulated processor of the lab has no debug registers for guests.', {
        hint: 'Use software breakpoints there (break), or a host with KVM.',
      });
    }
    if (hardware.length > DEBUG_REGISTERS) {
      throw new NemuError(
        'BREAKPOINT',
        `A processor has ${DEBUG_REGISTERS} debug registers, and ${hardware.length} are asked for.`,
        { hint: 'Delete a hardware breakpoint or watchpoint; one that is not aligned, or wide, takes several.' },
      );
    }
    for (const { kind, address, size } of hardware) {
      if (BigInt(address) % BigInt(size) !== 0n || (kind === 'execute' && size !== 1)) {
        throw new NemuError('BREAKPOINT', `A debug register cannot be for ${size} bytes at ${address}.`, {
          hint: 'An address is a multiple of the size, and instructions have size 1.',
        });
      }
    }
  }

  #patchFor(gpa: number): Patch {
    const known = this.#patches.get(gpa);
    if (known) return known;
    const bytes = this.#memory.slice(gpa, this.#code.length);
    if (!bytes) throw new NemuError('ADDRESS', `${hex(gpa)} is not RAM of this machine.`);
    const original = this.readable(gpa, bytes.slice());
    if (this.#code.length > 1 && ONE_BYTE.test(original[0].toString(16).padStart(2, '0'))) {
      throw new NemuError(
        'BREAKPOINT',
        `A breakpoint takes ${this.#code.length} bytes in the lab, and the instruction at ${hex(gpa)} has one.`,
        { hint: 'Set it at the instruction before or behind.' },
      );
    }
    return { gpa, original };
  }

  /** What is no longer the breakpoint's is not touched: the guest has overwritten it, or given the page back. */
  #restore({ gpa, original }: Patch): void {
    this.#patches.delete(gpa);
    const now = this.#memory.slice(gpa, this.#code.length);
    if (now?.every((byte, index) => byte === this.#code[index])) this.#memory.write(gpa, original);
  }

  /** Memory as the guest has it, without breakpoints. Changes `bytes`, which were read at `gpa`, and returns them. */
  readable(gpa: number, bytes: Uint8Array): Uint8Array {
    for (const patch of this.#patches.values()) {
      for (const [index, byte] of patch.original.entries()) {
        const offset = patch.gpa + index - gpa;
        if (offset >= 0 && offset < bytes.length && bytes[offset] === this.#code[index]) bytes[offset] = byte;
      }
    }
    return bytes;
  }

  /** @returns false, and writes nothing, unless all of it is RAM. Breakpoints stay where they are. */
  writeMemory(gpa: number, bytes: Uint8Array): boolean {
    const inside = [...this.#patches.values()].filter(
      (patch) => patch.gpa + patch.original.length > gpa && patch.gpa < gpa + bytes.length,
    );
    for (const patch of inside) this.#restore(patch);
    const written = this.#memory.write(gpa, bytes);
    for (const { gpa: from } of inside) {
      const now = this.#memory.slice(from, this.#code.length);
      if (!now) continue;
      this.#patches.set(from, { gpa: from, original: now.slice() });
      this.#memory.write(from, this.#code);
    }
    return written;
  }

  readRegisters(vcpu: number): Record<string, string> {
    return this.#registers.read(this.#processors.kvm(vcpu));
  }

  writeRegisters(vcpu: number, values: RegisterValues): void {
    this.#registers.write(this.#processors.kvm(vcpu), values);
  }

  /** @returns vCPUs that stand still meanwhile. @throws NemuError VCPU for one that is not there. */
  prepareRun({ vcpus, step }: DebugRun): number[] {
    const { present } = this.#processors;
    const missing = [...(vcpus ?? []), ...step].find((each) => !present.includes(each));
    if (missing !== undefined) throw new NemuError('VCPU', `There is no vCPU ${missing}.`);
    if (this.#attached) this.#attached.runs = true;
    for (const each of step) this.#stepping.add(each);
    this.#applyAll();
    return vcpus ? present.filter((each) => !vcpus.includes(each)) : [];
  }

  /** The vCPUs stand still: none is stepped any more. @returns why, where it was for a debugger. */
  settle(): DebugStop | undefined {
    const stop = this.#stop;
    this.#stop = undefined;
    for (const [vcpu, rip] of this.#behind) this.#registers.setRip(this.#processors.kvm(vcpu), rip);
    this.#behind.clear();
    const stepped = [...this.#stepping];
    this.#stepping.clear();
    for (const vcpu of stepped) if (this.#processors.present.includes(vcpu)) this.#apply(vcpu);
    return stop;
  }

  /** The guest begins anew: what is in its memory is another program. */
  reset(): void {
    for (const patch of this.#patches.values()) this.#restore(patch);
    this.settle();
    this.#applyAll();
  }

  /** A vCPU left the guest by KVM_EXIT_DEBUG, and waits. What is not for a debugger is the guest's own exception. */
  exited(vcpu: number): void {
    const run = this.#processors.run(vcpu);
    const exception = run.getUint32(at['debug.arch.exception'], true);
    const pc = run.getBigUint64(at['debug.arch.pc'], true);
    const dr6 = run.getBigUint64(at['debug.arch.dr6'], true);
    if (exception === BP_VECTOR && this.#isPatched(vcpu, pc)) {
      this.#stop ??= { vcpu, reason: 'breakpoint', address: hex(pc) };
      return;
    }
    if (exception === DB_VECTOR) {
      const hit = this.#hardware.find((_, index) => dr6 & (1n << BigInt(index)));
      const stepped = this.#stepping.has(vcpu) && (dr6 & DR6_BS) !== 0n;
      // The first one is told; what others came to meanwhile, they come to again.
      if (hit) this.#stop ??= { vcpu, reason: hit.kind, address: hit.address };
      else if (stepped) this.#stop ??= { vcpu, reason: 'step', address: hex(pc) };
      if (hit || stepped) return;
    }
    this.#giveToGuest(vcpu, exception, dr6);
  }

  /** A vCPU wrote to `BREAK_PORT`, and waits. @returns whether that is a breakpoint. */
  wroteToPort(vcpu: number): boolean {
    if (this.#instruction !== 'out') return false;
    const rip = this.#registers.rip(this.#processors.kvm(vcpu));
    if (!this.#isPatched(vcpu, rip)) return false;
    // KVM takes it behind the instruction before it is out of the guest.
    this.#behind.set(vcpu, rip);
    this.#stop ??= { vcpu, reason: 'breakpoint', address: hex(rip) };
    return true;
  }

  #isPatched(vcpu: number, linear: bigint): boolean {
    const gpa = this.#processors.translate(vcpu, linear);
    return gpa !== undefined && this.#patches.has(gpa);
  }

  #giveToGuest(vcpu: number, exception: number, dr6: bigint): void {
    const kvm = this.#processors.kvm(vcpu);
    if (exception === DB_VECTOR) this.#registers.setDr6(kvm, dr6);
    const inject = exception === BP_VECTOR ? x86.KVM_GUESTDBG_INJECT_BP : x86.KVM_GUESTDBG_INJECT_DB;
    try {
      this.#apply(vcpu, inject | x86.KVM_GUESTDBG_ENABLE);
    } catch (error) {
      // EBUSY: the guest has another exception coming, and gets to this one again after it.
      if (!(error instanceof SystemError && error.code === 'EBUSY')) throw error;
    }
  }

  #applyAll(): void {
    for (const vcpu of this.#processors.present) this.#apply(vcpu);
  }

  #apply(vcpu: number, more = 0): void {
    const steps = this.#stepping.has(vcpu);
    const software = this.#patches.size > 0 && this.#instruction === 'int3';
    let control = more;
    if (software) control |= x86.KVM_GUESTDBG_USE_SW_BP;
    if (this.#hardware.length > 0) control |= x86.KVM_GUESTDBG_USE_HW_BP;
    if (steps) control |= x86.KVM_GUESTDBG_SINGLESTEP | (this.#processors.canBlockIrqs ? x86.KVM_GUESTDBG_BLOCKIRQ : 0);
    if (control !== 0) control |= x86.KVM_GUESTDBG_ENABLE;
    let dr7 = DR7_FIXED;
    for (const [index, { kind, size }] of this.#hardware.entries()) {
      const shift = BigInt(16 + 4 * index);
      dr7 |= (2n << BigInt(2 * index)) | (KIND_CODE[kind] << shift) | (SIZE_CODE[size] << (shift + 2n));
    }
    const addresses = this.#hardware.map(({ address }) => BigInt(address));
    this.#registers.setDebug(this.#processors.kvm(vcpu), control, addresses, dr7);
  }

  close(): void {
    this.#registers.close();
  }
}
