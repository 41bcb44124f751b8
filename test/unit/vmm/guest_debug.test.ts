/** Breakpoints and steps as KVM is asked for them, and what its exits mean: what the lab's processor cannot do is tested here. */
import { describe, expect, onTestFinished, test } from 'vitest';
import { kvm_run } from '../../../src/ffi/kvm/common.ts';
import * as x86 from '../../../src/ffi/kvm/x86.ts';
import type { BreakInstruction } from '../../../src/vmm/guest_debug.ts';
import { GuestDebug } from '../../../src/vmm/guest_debug.ts';
import type { Processors } from '../../../src/vmm/processors.ts';

const SIZE = 0x1_0000;
const [SW, HW] = [x86.KVM_GUESTDBG_USE_SW_BP, x86.KVM_GUESTDBG_USE_HW_BP];
const [ON, STEP, BLOCK] = [x86.KVM_GUESTDBG_ENABLE, x86.KVM_GUESTDBG_SINGLESTEP, x86.KVM_GUESTDBG_BLOCKIRQ];
const [DB, BP] = [1, 3];
const BS = 1n << 14n;

interface Block {
  readonly view: DataView;
}

/** A vCPU that takes what it is told. */
class FakeVcpu {
  control = 0;
  debugreg: bigint[] = [];
  rip = 0n;
  dr6 = 0n;
  readonly run = new DataView(new ArrayBuffer(4096));

  ioctl(request: number, _name: string, { view }: Block): number {
    if (request === x86.KVM_SET_GUEST_DEBUG) {
      this.control = view.getUint32(0, true);
      this.debugreg = Array.from({ length: 8 }, (_, index) => view.getBigUint64(8 + 8 * index, true));
    }
    const { rip } = x86.kvm_regs.offsets;
    if (request === x86.KVM_GET_REGS) view.setBigUint64(rip, this.rip, true);
    if (request === x86.KVM_SET_REGS) this.rip = view.getBigUint64(rip, true);
    if (request === x86.KVM_SET_DEBUGREGS) this.dr6 = view.getBigUint64(x86.kvm_debugregs.offsets.dr6, true);
    return 0;
  }

  exit(exception: number, pc: bigint, dr6 = 0n): void {
    const at = kvm_run.offsets;
    this.run.setUint32(at['debug.arch.exception'], exception, true);
    this.run.setBigUint64(at['debug.arch.pc'], pc, true);
    this.run.setBigUint64(at['debug.arch.dr6'], dr6, true);
  }
}

/** Linear addresses are physical ones behind 0x100000. */
const LINEAR = 0x10_0000n;

function setUp(breakInstruction: BreakInstruction = 'int3') {
  const bytes = new Uint8Array(SIZE).fill(0x48);
  const vcpus = [new FakeVcpu(), new FakeVcpu()];
  const processors = {
    present: [0, 1],
    canBlockIrqs: true,
    onAdd: (_vcpu: number) => {},
    kvm: (vcpu: number) => vcpus[vcpu],
    run: (vcpu: number) => vcpus[vcpu].run,
    translate: (_vcpu: number, linear: bigint) => (linear >= LINEAR ? Number(linear - LINEAR) : undefined),
  };
  const isRam = (gpa: number, length: number) => gpa >= 0 && gpa + length <= SIZE;
  const memory = {
    read: () => false,
    write: (gpa: number, from: Uint8Array) => {
      if (!isRam(gpa, from.length)) return false;
      bytes.set(from, gpa);
      return true;
    },
    slice: (gpa: number, length: number) => (isRam(gpa, length) ? bytes.subarray(gpa, gpa + length) : undefined),
  };
  const debug = new GuestDebug({ processors: processors as unknown as Processors, memory, breakInstruction });
  onTestFinished(() => debug.close());
  return { debug, bytes, vcpus, processors };
}

const software = (address: string) => ({ kind: 'software', address }) as const;

describe('in software', () => {
  test('an int3 stands in memory, which is read and written as if it did not', () => {
    const { debug, bytes, vcpus } = setUp();
    debug.setBreakpoints([software('0x100')]);
    expect(bytes[0x100]).toBe(0xcc);
    for (const vcpu of vcpus) expect(vcpu.control).toBe(ON | SW);
    expect([...debug.readable(0xfe, bytes.subarray(0xfe, 0x102).slice())]).toEqual([0x48, 0x48, 0x48, 0x48]);
    expect(debug.writeMemory(0xff, Uint8Array.of(1, 2, 3))).toBe(true);
    expect([...bytes.subarray(0xff, 0x102)]).toEqual([1, 0xcc, 3]);
    expect([...debug.readable(0xff, bytes.subarray(0xff, 0x102).slice())]).toEqual([1, 2, 3]);
    debug.setBreakpoints([]);
    expect([...bytes.subarray(0xff, 0x102)]).toEqual([1, 2, 3]);
    for (const vcpu of vcpus) expect(vcpu.control).toBe(0);
  });

  test('what the guest has put in its place stays', () => {
    const { debug, bytes } = setUp();
    debug.setBreakpoints([software('0x100')]);
    bytes[0x100] = 0x77;
    expect([...debug.readable(0x100, Uint8Array.of(0x77))]).toEqual([0x77]);
    debug.setBreakpoints([]);
    expect(bytes[0x100]).toBe(0x77);
    debug.setBreakpoints([software('0x200')]);
    debug.reset();
    expect(bytes[0x200]).toBe(0x48);
  });

  test('one that is no RAM changes nothing', () => {
    const { debug, bytes } = setUp();
    debug.setBreakpoints([software('0x100')]);
    expect(() => debug.setBreakpoints([software('0x200'), software('0x10000')])).toThrow('0x10000 is not RAM');
    expect([bytes[0x100], bytes[0x200]]).toEqual([0xcc, 0x48]);
    expect(debug.writeMemory(SIZE - 1, Uint8Array.of(1, 2))).toBe(false);
  });

  test('a vCPU that reaches one stops the machine; an int3 of the guest is its own', () => {
    const { debug, vcpus } = setUp();
    debug.setBreakpoints([software('0x100')]);
    vcpus[1].exit(BP, LINEAR + 0x300n);
    debug.exited(1);
    expect(debug.stops).toBe(false);
    expect(vcpus[1].control).toBe(ON | SW | x86.KVM_GUESTDBG_INJECT_BP);
    vcpus[1].exit(BP, 0x5n);
    debug.exited(1);
    expect(debug.stops).toBe(false);
    vcpus[1].exit(BP, LINEAR + 0x100n);
    vcpus[0].exit(BP, LINEAR + 0x100n);
    debug.exited(1);
    debug.exited(0);
    expect(debug.settle()).toEqual({ vcpu: 1, reason: 'breakpoint', address: '0x100100' });
    expect(debug.stops).toBe(false);
    expect(vcpus[0].control).toBe(ON | SW);
  });

  test('a vCPU that is plugged has them too', () => {
    const { debug, vcpus, processors } = setUp();
    debug.setBreakpoints([software('0x100')]);
    vcpus[1].control = 0;
    processors.onAdd(1);
    expect(vcpus[1].control).toBe(ON | SW);
  });

  test('as an access to a port, it takes two bytes and is gone back to', () => {
    const { debug, bytes, vcpus } = setUp('out');
    debug.setBreakpoints([software('0x100')]);
    expect([...bytes.subarray(0x100, 0x102)]).toEqual([0xe6, 0xe5]);
    expect(vcpus[0].control).toBe(0);
    vcpus[0].rip = LINEAR + 0x200n;
    expect(debug.wroteToPort(0)).toBe(false);
    vcpus[0].rip = LINEAR + 0x100n;
    expect(debug.wroteToPort(0)).toBe(true);
    vcpus[0].rip += 2n;
    expect(debug.settle()).toMatchObject({ vcpu: 0, reason: 'breakpoint' });
    expect(vcpus[0].rip).toBe(LINEAR + 0x100n);
    for (const opcode of [0x50, 0x5d, 0x90, 0xc3, 0xcc, 0xf4, 0xfa]) {
      bytes[0x300] = opcode;
      expect(() => debug.setBreakpoints([software('0x300')])).toThrow('takes 2 bytes in the lab');
    }
    for (const opcode of [0x48, 0x0f, 0xe8, 0xf3, 0x66, 0x9a, 0xc7]) {
      bytes[0x300] = opcode;
      debug.setBreakpoints([software('0x300')]);
    }
    expect(() => debug.setBreakpoints([{ kind: 'execute', address: '0x1', size: 1 }])).toThrow('no debug registers');
  });
});

describe('debug registers', () => {
  test('have addresses, kinds and sizes', () => {
    const { debug, vcpus } = setUp();
    debug.setBreakpoints([
      { kind: 'execute', address: '0xffffffff81000001', size: 1 },
      { kind: 'write', address: '0x2000', size: 8 },
      { kind: 'access', address: '0x3004', size: 4 },
      { kind: 'write', address: '0x4002', size: 2 },
    ]);
    expect(vcpus[1].control).toBe(ON | HW);
    expect(vcpus[1].debugreg.slice(0, 4)).toEqual([0xffffffff81000001n, 0x2000n, 0x3004n, 0x4002n]);
    // Of each: kind and size in four bits, from the last one on; global enable; a bit that is always set.
    expect(vcpus[1].debugreg[7].toString(16)).toBe('5f9004aa');
    vcpus[1].exit(DB, 0x1234n, 0b100n);
    debug.exited(1);
    expect(debug.settle()).toEqual({ vcpu: 1, reason: 'access', address: '0x3004' });
  });

  test('are four, and aligned', () => {
    const { debug, vcpus } = setUp();
    const five = Array.from({ length: 5 }, (_, index) => ({ kind: 'write', address: `0x${index}`, size: 1 }) as const);
    expect(() => debug.setBreakpoints(five)).toThrow('A processor has 4 debug registers, and 5 are asked for.');
    expect(() => debug.setBreakpoints([{ kind: 'write', address: '0x2', size: 4 }])).toThrow('for 4 bytes at 0x2');
    expect(() => debug.setBreakpoints([{ kind: 'execute', address: '0x2', size: 2 }])).toThrow('for 2 bytes at 0x2');
    expect(vcpus[0].control).toBe(0);
  });
});

describe('steps', () => {
  test('are of the vCPUs that are asked for, and end with the stop', () => {
    const { debug, vcpus } = setUp();
    expect(debug.prepareRun({ step: [1], vcpus: [1] })).toEqual([0]);
    expect([vcpus[0].control, vcpus[1].control]).toEqual([0, ON | STEP | BLOCK]);
    vcpus[1].exit(DB, 0x77n, BS);
    debug.exited(1);
    expect(debug.settle()).toEqual({ vcpu: 1, reason: 'step', address: '0x77' });
    expect(vcpus[1].control).toBe(0);
    expect(debug.prepareRun({ step: [] })).toEqual([]);
    expect(() => debug.prepareRun({ step: [2] })).toThrow('There is no vCPU 2.');
  });

  test("two that are done at once are one stop, and neither is the guest's", () => {
    const { debug, vcpus } = setUp();
    debug.prepareRun({ step: [0, 1] });
    for (const [index, vcpu] of vcpus.entries()) {
      vcpu.exit(DB, 0x77n, BS);
      debug.exited(index);
    }
    expect(vcpus.map(({ control }) => control & x86.KVM_GUESTDBG_INJECT_DB)).toEqual([0, 0]);
    expect(debug.settle()).toMatchObject({ vcpu: 0 });
  });

  test("a debug exception that nobody asked for is the guest's, with its reason", () => {
    const { debug, vcpus } = setUp();
    debug.setBreakpoints([{ kind: 'write', address: '0x2000', size: 8 }]);
    vcpus[0].exit(DB, 0x77n, BS);
    debug.exited(0);
    expect(debug.stops).toBe(false);
    expect(vcpus[0]).toMatchObject({ control: ON | HW | x86.KVM_GUESTDBG_INJECT_DB, dr6: BS });
  });
});

test('there is one debugger; when it leaves, all is as it was', () => {
  const { debug, bytes, vcpus } = setUp();
  expect(() => debug.requireAttached()).toThrow('No debugger is attached');
  debug.attach(true);
  expect(() => debug.attach(true)).toThrow('Another debugger is attached');
  debug.setBreakpoints([software('0x100')]);
  debug.prepareRun({ step: [0] });
  vcpus[0].exit(BP, LINEAR + 0x100n);
  debug.exited(0);
  expect(debug.detach()).toBe(true);
  expect({ stops: debug.stops, byte: bytes[0x100], control: vcpus[0].control }).toEqual({
    ...{ stops: false, byte: 0x48, control: 0 },
  });
  debug.attach(false);
  expect(debug.detach()).toBe(false);
  debug.attach(false);
  debug.prepareRun({ step: [] });
  expect(debug.detach()).toBe(true);
});
