import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import type { MachineEvent } from '../../src/client/machine_client.ts';
import { SCHED_FIFO } from '../../src/ffi/libc.ts';
import { ThreadPool } from '../../src/vmm/threads.ts';
import { DEBUG_EXIT, hostHasKvm, LSR, microPlace, THR } from '../support/micro.ts';

const { boot } = microPlace();

/** Counts in rcx for ever, printing a dot now and then: something to pause. */
const LOOP_PRINTS = 2000;

const mayRaisePriority = (): boolean => {
  const [, capabilities] = /^CapEff:\s+(\w+)/m.exec(readFileSync('/proc/self/status', 'latin1')) ?? [];
  const CAP_SYS_NICE = 23n;
  return ((BigInt(`0x${capabilities}`) >> CAP_SYS_NICE) & 1n) === 1n;
};

/** Scheduling policies of this process's threads of a name (proc_pid_stat(5), field 41). */
const policyOf = (name: string): number[] =>
  readdirSync('/proc/self/task')
    .map((thread) => readFileSync(`/proc/self/task/${thread}/stat`, 'latin1'))
    .filter((stat) => stat.includes(`(${name})`))
    .map((stat) => Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[38]));

describe('a machine from start to end', () => {
  test('prints through the serial port and ends through isa-debug-exit', async () => {
    const guest = await boot((asm) => asm.print(THR, 'hello').outByte(DEBUG_EXIT, 21));
    await guest.machine.start();
    expect(await guest.machine.ended()).toMatchObject({ reason: 'debug-exit', exitCode: 43 });
    await guest.printed('hello');
    expect(guest.output).toBe('hello');
  });

  test('a byte that nothing follows still arrives', async () => {
    const guest = await boot((asm) => asm.print(THR, 'x').label('halt').hlt().jump('halt'));
    await guest.machine.start();
    await guest.printed('x');
  });

  test('on one processor an exit has been served when its vCPU runs again', async ({ skip }) => {
    if (hostHasKvm && !mayRaisePriority()) return skip('It needs CAP_SYS_NICE.');
    const READS = 500;
    const guest = await boot(
      (asm) => {
        // The reset control register is read on the machine thread.
        asm.movImm('rbx', 0).movImm('rdx', 0xcf9).label('loop').in(1).addImm('rbx', 1);
        asm.cmpImm('rbx', READS).jumpIf('nz', 'loop').print(THR, '.').label('halt').hlt().jump('halt');
      },
      {},
      { oneProcessor: true },
    );
    await guest.machine.start();
    await guest.printed('.');
    const { vcpus } = await guest.machine.counters();
    expect(vcpus[0].forwarded).toBeGreaterThanOrEqual(READS);
    // On several processors nobody hands his over: what can be seen there is who would go first.
    if (hostHasKvm) expect(policyOf('machine')).toContain(SCHED_FIFO);
    else expect(vcpus[0].slept).toBeLessThan(READS / 10);
    await guest.machine.close();
  });

  test('string I/O arrives whole and in order', async () => {
    const text = 'abcdefghij'.repeat(300);
    const guest = await boot((asm) => {
      asm.movLabel('rsi', 'text').movImm('rcx', text.length).movImm('rdx', THR).repOutsb();
      asm.outByte(DEBUG_EXIT, 0).label('text').text(text);
    });
    await guest.machine.start();
    await guest.machine.ended();
    await guest.printed(text);
    expect(guest.output).toBe(text);
  });

  test('input reaches the guest, every byte once', async () => {
    const guest = await boot((asm) => {
      asm.movImm('r8', 0);
      asm.label('wait').movImm('rdx', LSR).in(1).andImm('rax', 1).jumpIf('z', 'wait');
      asm.movImm('rdx', THR).movImm('rax', 0).in(1).out(1).addImm('r8', 1).cmpImm('r8', 500).jumpIf('nz', 'wait');
      asm.outByte(DEBUG_EXIT, 0);
    });
    const text = Array.from({ length: 500 }, (_, i) => String.fromCharCode(33 + (i % 90))).join('');
    await guest.machine.start();
    expect(guest.machine.console('com1').write(Buffer.from(text))).toBe(500);
    await guest.machine.ended();
    await guest.printed(text.slice(-5));
    expect(guest.output).toBe(text);
  });

  test('a triple fault ends it with the registers of the vCPU', async () => {
    const events: MachineEvent[] = [];
    const guest = await boot((asm) => {
      // An IDT without an entry: the first exception cannot be delivered, nor the next.
      asm
        .movLabel('rax', 'idtr')
        .lidt('rax')
        .movImm('r15', 0x1234)
        .movImm('rax', 1n << 47n)
        .load('rax', 'rax');
      asm.align(8).label('idtr').u16(0).u64(0n);
    });
    guest.machine.onEvent((event) => events.push(event));
    await guest.machine.start();
    const end = await guest.machine.ended();
    expect(end).toMatchObject({ reason: 'triple-fault', vcpu: 0 });
    // AMD's processors leave nothing to read after a shutdown; KVM puts the vCPU back to INIT there.
    if (end.registers?.rip === '0xfff0') expect(end.detail).toContain('registers were reset');
    else expect(end.registers?.r15).toBe('0x1234');
    expect(events.map(({ type }) => type)).toContain('triple-fault');
  });

  test('the reset register resets it: the guest starts again', async () => {
    const guest = await boot(
      (asm) => {
        // Memory outlives a reset: the second start finds what the first one left.
        asm.movImm('rsi', 0x50_0000).load('rax', 'rsi').cmpImm('rax', 77).jumpIf('z', 'second');
        asm.movImm('rax', 77).store('rsi', 0, 'rax').print(THR, '1').outByte(0xcf9, 6);
        asm.label('halt').hlt().jump('halt').label('second').print(THR, '2').outByte(DEBUG_EXIT, 0);
      },
      { onReset: 'reset' },
    );
    const causes: string[] = [];
    guest.machine.onEvent((event) => event.type === 'reset' && causes.push(event.cause));
    await guest.machine.start();
    expect(await guest.machine.ended()).toMatchObject({ reason: 'debug-exit' });
    await guest.printed('2');
    expect(guest.output).toBe('12');
    expect(causes).toEqual(['the reset control register']);
  });

  test('a PCI configuration address is no reset, whatever its bytes', async () => {
    const guest = await boot((asm) => {
      asm.movImm('rdx', 0xcf8).movImm('rax', 0x8000ffff).out(4).in(4).print(THR, 'on').outByte(DEBUG_EXIT, 0);
    });
    await guest.machine.start();
    expect(await guest.machine.ended()).toMatchObject({ reason: 'debug-exit' });
    await guest.printed('on');
    const { regions } = await guest.machine.counters();
    expect(regions.find(({ name }) => name === 'pci-config-address')).toMatchObject({ reads: 1, writes: 1 });
  });

  test('with onReset=stop a reset is the end', async () => {
    const guest = await boot((asm) => asm.outByte(0xcf9, 6).label('halt').hlt().jump('halt'));
    await guest.machine.start();
    expect(await guest.machine.ended()).toMatchObject({ reason: 'reset' });
  });

  test('pvpanic is an event and an end', async () => {
    const guest = await boot((asm) => asm.outByte(0x505, 1).label('halt').hlt().jump('halt'));
    await guest.machine.start();
    expect(await guest.machine.ended()).toMatchObject({ reason: 'panic' });
  });
});

describe('a running machine', () => {
  const counter = () =>
    boot((asm) => {
      asm.movImm('rsi', 0x50_0000).movImm('rbx', 0);
      asm.label('loop').addImm('rbx', 1).store('rsi', 0, 'rbx').movImm('rdx', LSR).in(1);
      asm.cmpImm('rbx', LOOP_PRINTS).jumpIf('nz', 'loop').print(THR, '.').jump('loop');
    });
  const count = async (guest: Awaited<ReturnType<typeof counter>>) =>
    Buffer.from(await guest.machine.readMemory(0x50_0000, 8)).readBigUInt64LE();

  test('pauses, stands still, and goes on', async () => {
    const guest = await counter();
    await guest.machine.start();
    await guest.printed('.');
    await guest.machine.pause();
    expect(guest.machine.state).toBe('paused');
    const before = await count(guest);
    await new Promise((resolve) => setTimeout(resolve, 30));
    expect(await count(guest)).toBe(before);
    await guest.machine.resume();
    while ((await count(guest)) === before) await new Promise((resolve) => setTimeout(resolve, 1));
    await guest.machine.close();
    expect(guest.machine.state).toBe('closed');
  });

  test('pausing and resuming a thousand times loses no exit', async () => {
    const total = 4000;
    const guest = await boot((asm) => {
      asm.movImm('rbx', 0);
      asm.label('loop').movImm('rdx', THR).mov('rax', 'rbx').out(1).movImm('rdx', 0x80).in(1);
      asm.addImm('rbx', 1).cmpImm('rbx', total).jumpIf('nz', 'loop').outByte(DEBUG_EXIT, 0);
    });
    await guest.machine.start();
    for (let i = 0; i < 1000 && guest.machine.state !== 'ended'; i++) {
      // The guest may end between any two of these.
      await guest.machine.pause().catch(() => {});
      await guest.machine.resume().catch(() => {});
    }
    await guest.machine.ended();
    while (guest.output.length < total) await new Promise((resolve) => setTimeout(resolve, 5));
    expect([...guest.output].every((char, i) => char.charCodeAt(0) === (i & 0xff))).toBe(true);
    expect(guest.output.length).toBe(total);
  });

  test('says what its vCPUs do, and how often they left the guest', async () => {
    const guest = await counter();
    await guest.machine.start();
    await guest.printed('.');
    const [vcpu] = await guest.machine.inspect();
    expect(vcpu).toMatchObject({ index: 0, activity: 'running' });
    expect(Number(vcpu.registers?.rsi)).toBe(0x50_0000);
    // Linux' boot protocol has these selectors; the boot processor's APIC is on.
    expect(vcpu.registers).toMatchObject({ cs: '0x10', ss: '0x18', gs: '0x18', fs_base: '0x0', gs_base: '0x0' });
    expect(vcpu.registers).toMatchObject({ apic_base: '0xfee00900', idt_limit: '0x0', cr8: '0x0' });
    expect(Number(vcpu.registers?.gdt_limit)).toBeGreaterThan(0x18);
    const counters = await guest.machine.counters();
    expect(counters.vcpus[0].local['com1 LSR']).toBeGreaterThanOrEqual(LOOP_PRINTS);
    expect(counters.regions.find(({ name }) => name === 'com1')?.reads).toBeGreaterThanOrEqual(LOOP_PRINTS);
    await guest.machine.close();
  });

  test('says which pages its guest writes to, while it is asked', async () => {
    const PAGES = 300;
    const START = 0x40_0000;
    const guest = await boot((asm) => {
      asm.label('again').movImm('rsi', START).label('page').store('rsi', 0, 'rax').addImm('rsi', 4096);
      asm
        .cmpImm('rsi', START + PAGES * 4096)
        .jumpIf('nz', 'page')
        .addImm('rbx', 1);
      asm.cmpImm('rbx', 1).jumpIf('nz', 'again').print(THR, '.').jump('again');
    });
    await guest.machine.start();
    await guest.printed('.');
    const dirty = async (ms: number) => (await guest.machine.dirtyRate(ms)).ranges.map((range) => range.dirty / 4096);
    // Pages of page tables may be among them, whose accessed bits the processor sets.
    for (let round = 0; round < 2; round++) {
      const [pages, ...others] = await dirty(300);
      expect(others).toEqual([]);
      expect(pages).toBeGreaterThanOrEqual(PAGES);
      expect(pages).toBeLessThan(PAGES + 8);
    }
    await guest.machine.pause();
    expect(await dirty(20)).toEqual([0]);
    await guest.machine.resume();
    await expect(guest.machine.dirtyRate(1)).rejects.toThrow(/cannot be watched for 1 ms/);
    await guest.machine.close();
  });

  test('knows a halted vCPU', async () => {
    const guest = await boot((asm) => asm.print(THR, '.').sti().label('halt').hlt().jump('halt'));
    await guest.machine.start();
    await guest.printed('.');
    // Printed is not yet halted.
    while ((await guest.machine.inspect())[0].activity !== 'halted')
      await new Promise((resolve) => setTimeout(resolve, 5));
  });

  test('is reset by its user', async () => {
    const guest = await counter();
    await guest.machine.start();
    await guest.printed('.');
    await guest.machine.reset();
    expect(guest.machine.state).toBe('running');
    await guest.printed('..');
    await guest.machine.close();
  });

  test('refuses what its state does not allow, in a sentence', async () => {
    const guest = await counter();
    await expect(guest.machine.pause()).rejects.toThrow('Cannot pause a machine that is created.');
    await expect(guest.machine.readMemory(0x4000_0000, 16)).rejects.toThrow('is not RAM of this machine');
    expect(() => guest.machine.console('com9')).toThrow('has no console "com9"');
    await guest.machine.close();
    await expect(guest.machine.start()).rejects.toThrow('Cannot start a machine that is closed.');
  });
});

test('two machines in one process keep apart', async () => {
  const guests = await Promise.all(
    ['first', 'second'].map((text) => boot((asm) => asm.print(THR, text).outByte(DEBUG_EXIT, 0))),
  );
  await Promise.all(guests.map(({ machine }) => machine.start()));
  await Promise.all(guests.map(({ machine }) => machine.ended()));
  await guests[0].printed('first');
  await guests[1].printed('second');
  expect(guests.map(({ output }) => output)).toEqual(['first', 'second']);
});

test('threads of a rehearsal are those of the next machine, and end with it', async ({ skip }) => {
  if (!hostHasKvm) return skip('In the lab all machines run on such threads: test/guest/lab_image.test.ts.');
  const pool = new ThreadPool();
  try {
    const threads: (number | undefined)[] = [];
    for (const rehearsing of [true, true, false]) {
      pool.rehearsing = rehearsing;
      const guest = await boot(
        (asm) => asm.print(THR, 'done').label('halt').hlt().jump('halt'),
        { cpus: { count: 2 } },
        { pool, oneProcessor: mayRaisePriority() },
      );
      await guest.machine.start();
      await guest.printed('done');
      const begun = async () => (await guest.machine.inspect()).map(({ threadId }) => threadId);
      // The second vCPU's may not have begun yet, and is told as 0.
      await expect.poll(begun).not.toContain(0);
      threads.push(...(await begun()));
      await guest.machine.close();
      // One that waits for a role runs before nobody.
      expect(policyOf('machine')).not.toContain(SCHED_FIFO);
    }
    expect(new Set(threads).size).toBe(2);
    const left = () =>
      readdirSync('/proc/self/task')
        .map(Number)
        .filter((id) => threads.includes(id));
    await expect.poll(left, { timeout: 10_000 }).toEqual([]);
  } finally {
    await pool.close();
  }
});

// 254 is the most: an xAPIC id has 8 bits, and 255 is everybody.
for (const [count, topology] of [
  [64, { sockets: 2, cores: 16, threads: 2 }],
  [254, { sockets: 2, cores: 127, threads: 1 }],
] as const) {
  test(`${count} vCPUs exist, each with its APIC id, and all are paused and ended`, async ({ skip }) => {
    if (count > 64 && !process.env.NEMU_TEST_LONG) return skip('Their threads take a minute: npm run test:long.');
    const guest = await boot((asm) => asm.print(THR, '!').label('halt').hlt().jump('halt'), {
      cpus: { count, ...topology },
    });
    await guest.machine.start();
    await guest.printed('!');
    const vcpus = await guest.machine.inspect();
    expect(new Set(vcpus.map(({ apicId }) => apicId)).size).toBe(count);
    // Each package's ids begin at a power of two.
    expect(vcpus.map(({ apicId }) => apicId)).toEqual(
      Array.from({ length: count }, (_, i) => (count === 64 ? i : Math.floor(i / 127) * 128 + (i % 127))),
    );
    expect(vcpus[count - 1].activity).toBe('uninitialised');
    await guest.machine.close();
  }, 300_000);
}
