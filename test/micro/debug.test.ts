/** Breakpoints, watchpoints and single steps of a debugger, on guests of a few instructions. */
import { describe, expect, test } from 'vitest';
import { probeHost } from '../../src/cli/probe.ts';
import type { DebugStop } from '../../src/client/debug.ts';
import type { MachineClient, MachineEvent } from '../../src/client/machine_client.ts';
import type { Assembler } from '../../src/vmm/x86/assembler.ts';
import { CODE, DEBUG_EXIT, hostHasKvm, LSR, type MicroGuest, microPlace, THR } from '../support/micro.ts';

// A KVM that emulates its guests' kernels has no breakpoints: the lab's has some.
const onHost = hostHasKvm && (await probeHost()).stockKernels;
const { boot } = microPlace(onHost);

const COUNTER = 0x50_0000;
const IDT = 0x20_0000;
const hex = (value: number) => `0x${value.toString(16)}`;

/** Counts in rbx for ever, by a function that stores it; prints a dot in front. */
function counting(): { code: (asm: Assembler) => void; tick: () => number } {
  let assembler: Assembler | undefined;
  return {
    code: (asm) => {
      assembler = asm;
      asm.movImm('rsi', COUNTER).movImm('rbx', 0).print(THR, '.');
      asm.label('loop').addImm('rbx', 1).call('tick').movImm('rdx', LSR).in(1).jump('loop');
      asm.label('tick').store('rsi', 0, 'rbx').ret();
    },
    tick: () => assembler?.addressOf('tick') ?? 0,
  };
}

/** What stops the machine, as it comes. */
class Stops {
  readonly #stops: DebugStop[] = [];
  readonly #states: string[] = [];
  readonly machine: MachineClient;

  constructor(machine: MachineClient) {
    this.machine = machine;
    machine.onEvent((event: MachineEvent) => {
      if (event.type === 'debug') this.#stops.push(event);
      if (event.type === 'state') this.#states.push(event.state);
    });
  }

  /** Does something, and waits until the machine has stopped for it. */
  async after(action: () => Promise<void>): Promise<DebugStop> {
    const before = this.#stops.length;
    await action();
    await expect
      .poll(() => this.#stops.length > before && this.machine.state === 'paused', { timeout: 20_000 })
      .toBe(true);
    return this.#stops.at(-1) as DebugStop;
  }

  get count(): number {
    return this.#stops.length;
  }
}

async function debugged(code: (asm: Assembler) => void, before = '.'): Promise<{ guest: MicroGuest; stops: Stops }> {
  const guest = await boot(code);
  const stops = new Stops(guest.machine);
  await guest.machine.start();
  await guest.printed(before);
  await guest.machine.attachDebugger();
  await guest.machine.pause();
  return { guest, stops };
}

const register = async (machine: MachineClient, name: string) => Number((await machine.readRegisters(0))[name]);
const counter = async (machine: MachineClient) => Buffer.from(await machine.readMemory(COUNTER, 8)).readBigUInt64LE();

test('registers and memory are read and written', async () => {
  const { guest } = await debugged(counting().code);
  const { machine } = guest;
  const xmm3 = '0x112233445566778899aabbccddeeff';
  await machine.writeRegisters(0, { rbx: '0x100000000', xmm3, st1: '0x3fff8000000000000000', k_gs_base: '0x1234000' });
  const registers = await machine.readRegisters(0);
  expect(registers).toMatchObject({
    ...{ rbx: '0x100000000', rsi: hex(COUNTER), xmm3, st1: '0x3fff8000000000000000', k_gs_base: '0x1234000' },
    ...{ cs: '0x10', fctrl: '0x37f', mxcsr: '0x1f80', efer: '0x500' },
  });
  await expect(machine.writeRegisters(0, { cs: '0x8' })).rejects.toThrow('The register cs cannot be written.');
  await expect(machine.writeRegisters(0, { cr4: '0xffffffffffffffff' })).rejects.toThrow(
    'The processor does not take cr4=0xffffffffffffffff (EINVAL).',
  );
  await expect(machine.readRegisters(1)).rejects.toThrow('There is no vCPU 1.');
  await machine.writeMemory(0x60_0000, Buffer.from('written'));
  expect(Buffer.from(await machine.readMemory(0x60_0000, 7)).toString()).toBe('written');
  await expect(machine.writeMemory(0xff_fffc, Buffer.alloc(8))).rejects.toThrow('is not RAM of this machine');
  await machine.resume();
  while ((await counter(machine)) <= 0x1_0000_0000n) await new Promise((resolve) => setTimeout(resolve, 5));
  await machine.close();
});

test('a machine that has not started is stepped from its first instruction on', async () => {
  const guest = await boot(counting().code);
  const { machine } = guest;
  const stops = new Stops(machine);
  await machine.attachDebugger();
  expect(await register(machine, 'rip')).toBe(CODE);
  // cli, and a move of ten bytes.
  expect(await stops.after(() => machine.debugRun({ step: [0] }))).toMatchObject({ vcpu: 0, reason: 'step' });
  expect(await register(machine, 'rip')).toBe(CODE + 1);
  await stops.after(() => machine.debugRun({ step: [0], vcpus: [0] }));
  expect(await register(machine, 'rip')).toBe(CODE + 11);
  expect(await register(machine, 'rsp')).toBe(0x9_0000);
  expect(guest.output).toBe('');
  await machine.detachDebugger();
  expect(machine.state).toBe('running');
  await guest.printed('.');
  await machine.close();
});

describe('a breakpoint in software', () => {
  test('stops the machine there, is not seen in memory, and is stepped over', async () => {
    const program = counting();
    const { guest, stops } = await debugged(program.code);
    const { machine } = guest;
    const breakpoint = { kind: 'software', address: hex(program.tick()) } as const;
    const before = await machine.readMemory(program.tick(), 8);
    let last = 0;
    for (let round = 0; round < 5; round++) {
      await machine.setBreakpoints([breakpoint]);
      expect(await machine.readMemory(program.tick(), 8)).toEqual(before);
      expect(await stops.after(() => machine.debugRun())).toMatchObject({
        ...{ vcpu: 0, reason: 'breakpoint', address: breakpoint.address },
      });
      expect(await register(machine, 'rip')).toBe(program.tick());
      const count = await register(machine, 'rbx');
      if (round > 0) expect(count).toBe(last + 1);
      last = count;
      // Where it stands is the guest's own instruction, once the breakpoint is away.
      await machine.setBreakpoints([]);
      expect((await stops.after(() => machine.debugRun({ step: [0], vcpus: [0] }))).reason).toBe('step');
      expect(Number(await counter(machine))).toBe(count);
    }
    await machine.setBreakpoints([breakpoint]);
    await machine.detachDebugger();
    expect(machine.state).toBe('running');
    const now = await counter(machine);
    while ((await counter(machine)) === now) await new Promise((resolve) => setTimeout(resolve, 5));
    await machine.close();
  });

  test('keeps what is written over it for later', async () => {
    const program = counting();
    const { guest, stops } = await debugged(program.code);
    const { machine } = guest;
    await machine.setBreakpoints([{ kind: 'software', address: hex(program.tick()) }]);
    await stops.after(() => machine.debugRun());
    const [from, length] = [program.tick() - 2, 8];
    const bytes = await machine.readMemory(from, length);
    await machine.writeMemory(from, bytes);
    expect(await machine.readMemory(from, length)).toEqual(bytes);
    expect(await stops.after(() => machine.debugRun())).toMatchObject({ reason: 'breakpoint' });
    await machine.close();
  });

  test('leaves the guest its own int3', async () => {
    let unreached = 0;
    const { guest, stops } = await debugged((asm) => {
      asm.movLabel('rax', 'handler').movImm('rbx', IDT + 3 * 16);
      asm.storeSized(2, 'rbx', 0, 'rax').movImm('rcx', 0x10).storeSized(2, 'rbx', 2, 'rcx');
      asm.movImm('rcx', 0x8e00).storeSized(2, 'rbx', 4, 'rcx');
      asm.movLabel('rax', 'handler').bytes(0x48, 0xc1, 0xe8, 16); // shr rax, 16
      asm
        .storeSized(2, 'rbx', 6, 'rax')
        .movImm('rcx', 0)
        .storeSized(4, 'rbx', 8, 'rcx')
        .storeSized(4, 'rbx', 12, 'rcx');
      asm.movLabel('rax', 'idtr').lidt('rax').movImm('r15', 0).movImm('rsi', COUNTER).print(THR, '.');
      asm.label('wait').load('rax', 'rsi').cmpImm('rax', 1).jumpIf('nz', 'wait');
      asm.int3().int3().int3().cmpImm('r15', 3).jumpIf('nz', 'bad').outByte(DEBUG_EXIT, 1);
      asm.label('bad').movImm('rax', 0).outByte(DEBUG_EXIT, 2).label('halt').hlt().jump('halt');
      asm.label('handler').addImm('r15', 1).iretq();
      asm
        .align(8)
        .label('idtr')
        .u16(4 * 16 - 1)
        .u64(BigInt(IDT));
      unreached = asm.addressOf('bad');
    });
    const { machine } = guest;
    await machine.setBreakpoints([{ kind: 'software', address: hex(unreached) }]);
    await machine.writeMemory(COUNTER, Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 0));
    await machine.debugRun();
    expect(await machine.ended()).toMatchObject({ reason: 'debug-exit', exitCode: 3 });
    expect(stops.count).toBe(0);
  });

  test('goes with a reset, and the guest is whole', async () => {
    const program = counting();
    const { guest, stops } = await debugged(program.code);
    const { machine } = guest;
    await machine.setBreakpoints([{ kind: 'software', address: hex(program.tick()) }]);
    await stops.after(() => machine.debugRun());
    await machine.reset();
    await machine.debugRun();
    await guest.printed('..');
    const now = await counter(machine);
    while ((await counter(machine)) === now) await new Promise((resolve) => setTimeout(resolve, 5));
    expect(stops.count).toBe(1);
    await machine.close();
  });

  test('in the lab takes two bytes, and is refused where an instruction has one', async ({ skip }) => {
    if (onHost) return skip('This host intercepts int3.');
    const program = counting();
    const { guest } = await debugged(program.code);
    // The first instruction is cli.
    await expect(guest.machine.setBreakpoints([{ kind: 'software', address: hex(CODE) }])).rejects.toThrow(
      /A breakpoint takes 2 bytes in the lab, and the instruction at 0x100000 has one/,
    );
    await guest.machine.close();
  });
});

describe('debug registers', () => {
  test('stop at instructions, at writes and at accesses, four at a time', async ({ skip }) => {
    if (!onHost) return skip("The lab's emulated processor does not arm a guest's debug registers.");
    const program = counting();
    const { guest, stops } = await debugged(program.code);
    const { machine } = guest;
    await machine.setBreakpoints([{ kind: 'execute', address: hex(program.tick()) }]);
    expect(await stops.after(() => machine.debugRun())).toMatchObject({
      reason: 'execute',
      address: hex(program.tick()),
    });
    expect(await register(machine, 'rip')).toBe(program.tick());
    for (const kind of ['write', 'access'] as const) {
      await machine.setBreakpoints([{ kind, address: hex(COUNTER), size: 8 }]);
      const count = await register(machine, 'rbx');
      expect(await stops.after(() => machine.debugRun())).toMatchObject({ reason: kind, address: hex(COUNTER) });
      // It stops behind the instruction that stored.
      expect(Number(await counter(machine))).toBeGreaterThanOrEqual(count);
    }
    const five = Array.from({ length: 5 }, (_, index) => ({ kind: 'execute' as const, address: hex(0x1000 + index) }));
    await expect(machine.setBreakpoints(five)).rejects.toThrow(
      'A processor has 4 debug registers, and 5 are asked for.',
    );
    await expect(machine.setBreakpoints([{ kind: 'write', address: '0x1001', size: 8 }])).rejects.toThrow(
      'A debug register cannot be for 8 bytes at 0x1001.',
    );
    await machine.close();
  });

  test('are refused in the lab, with the reason', async ({ skip }) => {
    if (onHost) return skip('This host has them.');
    const { guest } = await debugged(counting().code);
    await expect(guest.machine.setBreakpoints([{ kind: 'write', address: '0x1000', size: 8 }])).rejects.toThrow(
      'The emulated processor of the lab has no debug registers for guests.',
    );
    await guest.machine.close();
  });
});

test('there is one debugger, and without it nothing is set', async () => {
  const guest = await boot(counting().code);
  const { machine } = guest;
  await expect(machine.setBreakpoints([])).rejects.toThrow('No debugger is attached to this machine.');
  await expect(machine.debugRun()).rejects.toThrow('No debugger is attached to this machine.');
  await machine.attachDebugger();
  await expect(machine.attachDebugger()).rejects.toThrow('Another debugger is attached to this machine.');
  await expect(machine.setBreakpoints([{ kind: 'software', address: 'here' }])).rejects.toThrow(
    'These are no breakpoints: ',
  );
  await expect(machine.setBreakpoints([{ kind: 'software', address: '0xffff0000' }])).rejects.toThrow('is not RAM');
  await machine.detachDebugger();
  await machine.attachDebugger();
  await machine.detachDebugger();
  expect(machine.state).toBe('created');
  await machine.close();
});
