/** Processors and DIMMs come and go under a guest that a test plays: a good one, one that says no, and a bad one. */
import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, onTestFinished, test } from 'vitest';
import type { LiveRequest, Stage } from '../../src/client/live.ts';
import type { MachineEvent } from '../../src/client/machine_client.ts';
import { hostHasKvm, microPlace } from '../support/micro.ts';
import { random } from '../support/random.ts';
import { RegisterGuest } from '../support/register_guest.ts';

const { boot } = microPlace();

/** docs/specs/acpi_cpu_hotplug of QEMU, at q35's place. */
const CPU = { SELECTOR: 0xcd8, FLAGS: 0xcdc, COMMAND: 0xcdd, DATA: 0xce0 } as const;
/** docs/specs/acpi_mem_hotplug. */
const MEM = { SELECTOR: 0xa00, OST_EVENT: 0xa04, OST_STATUS: 0xa08, FLAGS: 0xa14 } as const;
const [GPE0_STATUS, GPE0_ENABLE] = [0x620, 0x628];
const [GPE_CPU, GPE_DIMM] = [1 << 2, 1 << 3];
const [ENABLED, INSERT, REMOVE, EJECT] = [1, 2, 4, 8];
const [DEVICE_CHECK, EJECT_REQUEST] = [1, 3];
/** Where firmware looks up how many processors there are, less one. */
const [CMOS_INDEX, CMOS_PROCESSORS] = [0x70, 0x5f];
const MiB = 2 ** 20;
/** cli; hlt; jmp back. */
const HALT = [0xfa, 0xf4, 0xeb, 0xfd];

/** Names of this process's vCPU threads, when the machine is in it. */
const vcpuThreads = () =>
  readdirSync('/proc/self/task')
    .map((tid) => {
      try {
        return readFileSync(`/proc/self/task/${tid}/comm`, 'utf8').trim();
      } catch {
        // It ended meanwhile.
        return '';
      }
    })
    .filter((name) => /^vcpu\d+$/.test(name))
    .sort();

class Guest {
  readonly regs: RegisterGuest;
  readonly stages: string[] = [];
  readonly #waiting: (() => void)[] = [];

  private constructor(regs: RegisterGuest) {
    this.regs = regs;
    regs.machine.onEvent((event: MachineEvent) => {
      if (event.type !== 'request') return;
      const { action, device, stage } = event.request;
      this.stages.push(`${action} ${device.id} ${stage}`);
      for (const wake of this.#waiting.splice(0)) wake();
    });
  }

  static async start(more: Parameters<typeof RegisterGuest.start>[1] = {}): Promise<Guest> {
    const roomy = { cpus: { count: 1, max: 4 }, memory: { size: '16M', max: '1G', slots: 3 } };
    const guest = new Guest(await RegisterGuest.start(boot, { ...roomy, ...more }));
    onTestFinished(() => guest.machine.close());
    await guest.listen();
    return guest;
  }

  get machine() {
    return this.regs.machine;
  }

  /** As Linux does late in its boot: all events are cleared, then those enabled that have a handler. */
  async listen(): Promise<void> {
    await this.regs.out8(GPE0_ENABLE, 0);
    await this.regs.out8(GPE0_STATUS, 0xff);
    await this.regs.out8(GPE0_ENABLE, GPE_CPU | GPE_DIMM);
  }

  async reached(device: string, stage: Stage): Promise<void> {
    while (!this.stages.at(-1)?.endsWith(`${device} ${stage}`)) {
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
  }

  async select(cpu: number): Promise<void> {
    await this.regs.out32(CPU.SELECTOR, cpu);
  }

  async cpuFlags(cpu: number): Promise<number> {
    await this.select(cpu);
    return this.regs.in8(CPU.FLAGS);
  }

  async answerCpu(cpu: number, event: number, status: number): Promise<void> {
    await this.select(cpu);
    await this.regs.out8(CPU.COMMAND, 1);
    await this.regs.out32(CPU.DATA, event);
    await this.regs.out8(CPU.COMMAND, 2);
    await this.regs.out32(CPU.DATA, status);
  }

  /** INIT and start-up, to a processor that runs this code in real mode; by itself it halts. */
  async startCpu(apicId: number, code: readonly number[] = HALT): Promise<void> {
    const [APIC_BASE, X2APIC_ICR] = [0x1b, 0x830];
    for (const [at, byte] of code.entries()) await this.regs.store8(0x8000 + at, byte);
    await this.regs.wrmsr(APIC_BASE, 0xfee00d00);
    await this.regs.wrmsr(X2APIC_ICR, 0x4500, apicId);
    await this.regs.wrmsr(X2APIC_ICR, 0x4608, apicId);
  }

  /** Started is not yet halted. */
  async halted(cpu: number): Promise<void> {
    while ((await this.machine.inspect()).find(({ index }) => index === cpu)?.activity !== 'halted') {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  async eject(cpu: number): Promise<void> {
    await this.select(cpu);
    await this.regs.out8(CPU.FLAGS, EJECT);
  }

  /** Plugs a processor and has it started. */
  async plugCpu(cpu: number): Promise<LiveRequest> {
    const plugged = this.machine.plug({ kind: 'cpu', index: cpu });
    await this.reached(`cpu${cpu}`, 'notified');
    await this.answerCpu(cpu, DEVICE_CHECK, 0);
    await this.startCpu(cpu);
    return plugged;
  }
}

describe('a processor', () => {
  test('comes, is used, goes, and comes again', async () => {
    const guest = await Guest.start();
    const { machine, regs } = guest;
    expect(await guest.cpuFlags(1)).toBe(0);
    const plugged = machine.plug({ kind: 'cpu' });
    await guest.reached('cpu1', 'notified');
    expect((await regs.in8(GPE0_STATUS)) & (1 << 2)).not.toBe(0);
    // The search finds it from any selector, and gives its number and its APIC id.
    await guest.select(3);
    await regs.out8(CPU.COMMAND, 0);
    expect(await regs.in32(CPU.DATA)).toBe(1);
    expect(await regs.in8(CPU.FLAGS)).toBe(ENABLED | INSERT);
    await regs.out8(CPU.COMMAND, 3);
    expect(await regs.in32(CPU.DATA)).toBe(1);
    await regs.out8(CPU.FLAGS, INSERT);
    expect(await regs.in8(CPU.FLAGS)).toBe(ENABLED);
    await guest.answerCpu(1, DEVICE_CHECK, 0);
    await guest.reached('cpu1', 'accepted');
    await guest.startCpu(1);
    expect(await plugged).toMatchObject({ action: 'plug', origin: 'user', stage: 'online', device: { index: 1 } });
    expect((await machine.inspect()).map(({ index, apicId }) => [index, apicId])).toEqual([
      [0, 0],
      [1, 1],
    ]);
    if (hostHasKvm) expect(vcpuThreads()).toEqual(['vcpu0', 'vcpu1']);

    // It says no, and all stays as it was.
    const refused = machine.unplug('cpu1');
    await guest.reached('cpu1', 'notified');
    await expect(machine.unplug('cpu1')).rejects.toMatchObject({ code: 'BUSY' });
    expect(await guest.cpuFlags(1)).toBe(ENABLED | REMOVE);
    await regs.out8(CPU.FLAGS, REMOVE);
    const told = expect(refused).rejects.toMatchObject({
      code: 'REFUSED',
      message: 'cpu1 was not unplugged: The guest refused: the device is busy (_OST 0x82).',
    });
    await guest.answerCpu(1, EJECT_REQUEST, 0x82);
    await told;
    expect(await guest.cpuFlags(1)).toBe(ENABLED);
    await guest.halted(1);

    const removed = machine.unplug('cpu1');
    await guest.reached('cpu1', 'notified');
    await guest.answerCpu(1, EJECT_REQUEST, 0x84);
    await guest.eject(1);
    expect(await removed).toMatchObject({ action: 'unplug', stage: 'removed' });
    expect(await guest.cpuFlags(1)).toBe(0);
    expect((await machine.counters()).vcpus.map(({ index }) => index)).toEqual([0]);
    if (hostHasKvm) expect(vcpuThreads()).toEqual(['vcpu0']);

    // The same vCPU in KVM, as after power-on.
    await guest.plugCpu(1);
    await guest.halted(1);
    expect(guest.stages).toEqual([
      ...['reserved', 'notified', 'accepted', 'online'].map((stage) => `plug cpu1 ${stage}`),
      ...['reserved', 'notified', 'refused'].map((stage) => `unplug cpu1 ${stage}`),
      ...['reserved', 'notified', 'accepted', 'removed'].map((stage) => `unplug cpu1 ${stage}`),
      ...['reserved', 'notified', 'accepted', 'online'].map((stage) => `plug cpu1 ${stage}`),
    ]);
    await machine.close();
    if (hostHasKvm) expect(vcpuThreads()).toEqual([]);
  });

  test('that the guest refuses leaves nothing behind', async () => {
    const guest = await Guest.start();
    const plugged = guest.machine.plug({ kind: 'cpu', index: 3 });
    await guest.reached('cpu3', 'notified');
    const told = expect(plugged).rejects.toThrow('its driver could not be loaded (_OST 0x81)');
    await guest.answerCpu(3, DEVICE_CHECK, 0x81);
    await told;
    expect(await guest.cpuFlags(3)).toBe(0);
    if (hostHasKvm) expect(vcpuThreads()).toEqual(['vcpu0']);
    await guest.plugCpu(3);
    await guest.machine.close();
  });

  test('goes when the guest lets go of it by itself, and another one with it', async () => {
    const guest = await Guest.start({ cpus: { count: 2, max: 3 } });
    await guest.plugCpu(2);
    await guest.eject(1);
    await guest.reached('cpu1', 'removed');
    await guest.eject(2);
    await guest.reached('cpu2', 'removed');
    // The boot processor stays, whatever the guest writes.
    await guest.eject(0);
    expect(await guest.cpuFlags(0)).toBe(ENABLED);
    const { cpus } = await guest.machine.plugged();
    expect(cpus).toMatchObject({ max: 3, present: [{ id: 'cpu0' }] });
    expect((await guest.machine.requests()).map(({ origin, stage }) => [origin, stage])).toEqual([
      ['user', 'online'],
      ['guest', 'removed'],
      ['guest', 'removed'],
    ]);
    await guest.machine.close();
  });

  test('that the guest takes its time over times out with what it did, and may still come', async () => {
    const guest = await Guest.start();
    await expect(guest.machine.plug({ kind: 'cpu' }, { timeoutMs: 50 })).rejects.toMatchObject({
      code: 'GUEST_TIMEOUT',
      message: expect.stringContaining('took longer than 0.05 s. It did not look at the event.'),
    });
    await guest.startCpu(1);
    await guest.reached('cpu1', 'online');
    await guest.machine.close();
  });

  test('is plugged into a machine that is paused, and the guest hears of it later', async () => {
    const guest = await Guest.start();
    await guest.machine.pause();
    const plugged = guest.machine.plug({ kind: 'cpu' });
    await guest.reached('cpu1', 'notified');
    await guest.machine.resume();
    await guest.answerCpu(1, DEVICE_CHECK, 0);
    await guest.startCpu(1);
    await plugged;
    await guest.machine.close();
  });

  test('stays through a reset, which settles what the guest was asked', async () => {
    const guest = await Guest.start();
    await guest.plugCpu(1);
    const waiting = [guest.machine.plug({ kind: 'cpu' })];
    await guest.reached('cpu2', 'notified');
    const going = guest.machine.unplug('cpu1');
    await guest.reached('cpu1', 'notified');
    await guest.machine.reset();
    expect(await going).toMatchObject({ stage: 'removed', guest: 'it was reset, and what comes has it no more' });
    expect(await Promise.all(waiting)).toMatchObject([{ stage: 'online' }]);
    guest.regs.forget();
    expect(await guest.cpuFlags(1)).toBe(0);
    expect(await guest.cpuFlags(2)).toBe(ENABLED);
    // Firmware finds how many there are now.
    await guest.regs.out8(CMOS_INDEX, CMOS_PROCESSORS);
    expect(await guest.regs.in8(CMOS_INDEX + 1)).toBe(1);
    expect((await guest.machine.plug({ kind: 'cpu', index: 1 }, { timeoutMs: 1 }).catch((error) => error)).code).toBe(
      'GUEST_TIMEOUT',
    );
    await guest.machine.close();
  });
});

describe('a guest that boots, and clears every event before it listens', () => {
  const booting = async () => {
    const guest = await Guest.start();
    await guest.machine.reset();
    guest.regs.forget();
    return guest;
  };

  test('is told of what came before that', async () => {
    const guest = await booting();
    const { machine, regs } = guest;
    const plugged = [machine.plug({ kind: 'memory', size: '128M' })];
    await guest.reached('dimm0', 'notified');
    plugged.push(machine.plug({ kind: 'cpu' }));
    await guest.reached('cpu1', 'notified');
    expect(await regs.in8(GPE0_STATUS)).toBe(GPE_CPU | GPE_DIMM);
    await guest.listen();
    expect(await regs.in8(GPE0_STATUS)).toBe(GPE_CPU | GPE_DIMM);
    // Once: what it has heard it has heard.
    await regs.out8(GPE0_STATUS, GPE_CPU | GPE_DIMM);
    await guest.listen();
    expect(await regs.in8(GPE0_STATUS)).toBe(0);
    await regs.out32(MEM.SELECTOR, 0);
    expect(await regs.in8(MEM.FLAGS)).toBe(ENABLED | INSERT);
    await regs.out32(MEM.OST_EVENT, DEVICE_CHECK);
    await regs.out32(MEM.OST_STATUS, 0);
    await guest.startCpu(1);
    expect(await Promise.all(plugged)).toMatchObject([{ stage: 'online' }, { stage: 'online' }]);
    await machine.close();
  });

  test('keeps what it found by itself, though it answers that it cannot take it', async () => {
    const guest = await booting();
    const { machine, regs } = guest;
    const plugged = machine.plug({ kind: 'memory', size: '128M' });
    await guest.reached('dimm0', 'notified');
    await guest.listen();
    await regs.out32(MEM.SELECTOR, 0);
    await regs.out32(MEM.OST_EVENT, DEVICE_CHECK);
    await regs.out32(MEM.OST_STATUS, 1);
    expect(await plugged).toMatchObject({ stage: 'online', guest: expect.stringContaining('found the device') });
    const cpu = machine.plug({ kind: 'cpu' }, { timeoutMs: 100_000 });
    await guest.reached('cpu1', 'notified');
    // This one came while it listened: its word counts.
    const refused = expect(cpu).rejects.toMatchObject({ code: 'REFUSED' });
    await guest.answerCpu(1, DEVICE_CHECK, 1);
    await refused;
    await machine.close();
  });
});

describe('at the edges', () => {
  test('a processor ejects itself, in the middle of its own exit', async () => {
    const guest = await Guest.start();
    const plugged = guest.machine.plug({ kind: 'cpu' });
    await guest.reached('cpu1', 'notified');
    await guest.answerCpu(1, DEVICE_CHECK, 0);
    await guest.startCpu(1, [
      ...[0xba, 0xd8, 0x0c, 0x66, 0xb8, 1, 0, 0, 0, 0x66, 0xef], // mov dx, 0xcd8; mov eax, 1; out dx, eax
      ...[0xba, 0xdc, 0x0c, 0xb0, EJECT, 0xee, ...HALT], // mov dx, 0xcdc; mov al, 8; out dx, al
    ]);
    await plugged;
    await guest.reached('cpu1', 'removed');
    expect(guest.stages.at(-1)).toBe('unplug cpu1 removed');
    if (hostHasKvm) expect(vcpuThreads()).toEqual(['vcpu0']);
    expect(await guest.cpuFlags(1)).toBe(0);
  });

  test('a machine is closed while devices are on their way', async () => {
    const guest = await Guest.start();
    await guest.plugCpu(1);
    const memory = { kind: 'memory', size: '512M', prealloc: true } as const;
    const asked = [guest.machine.plug(memory), guest.machine.plug({ kind: 'cpu' }), guest.machine.unplug('cpu1')];
    const outcomes = Promise.allSettled(asked);
    await guest.machine.close();
    expect((await outcomes).map(({ status }) => status)).toEqual(['rejected', 'rejected', 'rejected']);
    await expect(guest.machine.plug({ kind: 'cpu' })).rejects.toThrow('Cannot plug a machine that is closed.');
    // A thread that was joined is in /proc for a moment more.
    if (hostHasKvm) await expect.poll(vcpuThreads).toEqual([]);
  });

  test('coming and going leaves no descriptor, thread or mapping behind', async ({ skip }) => {
    if (!hostHasKvm) return skip('The machine is in the lab: its process cannot be looked into.');
    const guest = await Guest.start();
    const { machine, regs } = guest;
    const cycle = async () => {
      await guest.plugCpu(1);
      const removed = machine.unplug('cpu1');
      await guest.eject(1);
      await removed;
      const plugged = machine.plug({ kind: 'memory', size: '128M', backend: 'memfd' });
      await guest.reached('dimm0', 'notified');
      await regs.out32(MEM.SELECTOR, 0);
      await regs.out32(MEM.OST_EVENT, DEVICE_CHECK);
      await regs.out32(MEM.OST_STATUS, 0);
      await plugged;
      const unplugged = machine.unplug('dimm0');
      await regs.out8(MEM.FLAGS, EJECT);
      await unplugged;
      // As Linux does when it has ejected: until then the slot is not used again.
      expect(await regs.in8(MEM.FLAGS)).toBe(0);
    };
    const count = () => ({
      threads: vcpuThreads(),
      memory: readFileSync('/proc/self/maps', 'utf8').match(/nemu-ram/g)?.length ?? 0,
      // A worker of Node has descriptors of its own, one ahead is kept.
      descriptors: readdirSync('/proc/self/fd').length,
    });
    await cycle();
    await cycle();
    const before = count();
    for (let i = 0; i < 8; i++) await cycle();
    const after = count();
    expect(after).toMatchObject({ threads: ['vcpu0'], memory: 0 });
    // The spare one may be on its way just now.
    expect(after.descriptors).toBeLessThanOrEqual(before.descriptors + 4);
  }, 60_000);
});

describe('a DIMM', () => {
  test('comes, is refused its leave, goes, and its place is free', async () => {
    const guest = await Guest.start();
    const { machine, regs } = guest;
    const plugged = machine.plug({ kind: 'memory', size: '128M', id: 'extra' });
    await guest.reached('extra', 'notified');
    await regs.out32(MEM.SELECTOR, 0);
    expect(await regs.in8(MEM.FLAGS)).toBe(ENABLED | INSERT);
    const words = [];
    for (let at = 0; at < 5; at++) words.push(await regs.in32(MEM.SELECTOR + 4 * at));
    expect(words).toEqual([0, 1, 128 * MiB, 0, 0]);
    await regs.out8(MEM.FLAGS, INSERT);
    await regs.out32(MEM.OST_EVENT, DEVICE_CHECK);
    await regs.out32(MEM.OST_STATUS, 0);
    expect(await plugged).toMatchObject({ stage: 'online', device: { slot: 0, address: 2 ** 32, size: 128 * MiB } });
    expect((await machine.readMemory(2 ** 32, 16)).every((byte) => byte === 0)).toBe(true);
    await expect(machine.readMemory(2 ** 32 + 128 * MiB - 8, 16)).rejects.toMatchObject({ code: 'ADDRESS' });

    // One name is one device, of whatever kind.
    const twin = machine.plug({ kind: 'pci', type: 'virtio-rng', id: 'extra' });
    await expect(twin).rejects.toMatchObject({ code: 'ID', message: 'There is a extra already.' });
    const stream = machine.plug({ kind: 'memory', size: '128M', id: 'com1' });
    await expect(stream).rejects.toMatchObject({ code: 'ID' });

    const refused = expect(machine.unplug('extra')).rejects.toThrow('in use by an application (_OST 0x81)');
    await guest.reached('extra', 'notified');
    await regs.out32(MEM.OST_EVENT, EJECT_REQUEST);
    await regs.out32(MEM.OST_STATUS, 0x81);
    await refused;
    await machine.readMemory(2 ** 32, 16);

    const removed = machine.unplug('extra');
    await guest.reached('extra', 'notified');
    await regs.out8(MEM.FLAGS, REMOVE);
    await regs.out8(MEM.FLAGS, EJECT);
    expect(await removed).toMatchObject({ stage: 'removed' });
    expect(await regs.in8(MEM.FLAGS)).toBe(0);
    await expect(machine.readMemory(2 ** 32, 16)).rejects.toMatchObject({ code: 'ADDRESS' });
    await machine.close();
  });

  test('is told of its bounds before anything is touched', async () => {
    const guest = await Guest.start();
    const { machine } = guest;
    const refusals: [object, string, string][] = [
      [{ kind: 'memory', size: '2G' }, 'MEMORY_LIMIT', 'limit is max= of --memory'],
      [{ kind: 'memory', size: '100M' }, 'PLUG', 'not a multiple of 128 MiB'],
      [{ kind: 'memory', size: '128M', slot: 3 }, 'MEMORY_SLOTS', 'slots= of --memory'],
      [{ kind: 'memory', size: '128M', node: 1 }, 'NUMA_NODE', 'There is no node 1'],
      [{ kind: 'memory', size: '128M', address: 0 }, 'MEMORY_ADDRESS', 'not within the room for DIMMs'],
      [{ kind: 'memory', size: '128M', hugepages: '1G' }, 'MEMORY_ALIGNMENT', '1 GiB'],
      [{ kind: 'memory', size: '128M', id: 'cpu0' }, 'ID', 'There is a cpu0 already.'],
      [{ kind: 'cpu', index: 4 }, 'CPU_LIMIT', '--cpus 1,max=5'],
      [{ kind: 'cpu', index: 0 }, 'BUSY', 'there already'],
      [{ kind: 'cpu', indx: 1 }, 'PLUG', 'Did you mean index?'],
      [{ kind: 'toaster' }, 'PLUG', 'kind'],
    ];
    for (const [device, code, words] of refusals) {
      const error = await machine.plug(device as never).catch((thrown) => thrown);
      expect([error.code, `${error.message} ${error.hint}`]).toEqual([code, expect.stringContaining(words)]);
    }
    await expect(machine.unplug('cpu0')).rejects.toMatchObject({ code: 'BOOT_CPU' });
    await expect(machine.unplug('dimm7')).rejects.toMatchObject({ code: 'NO_DEVICE', hint: 'It has cpu0.' });
    expect(await machine.requests()).toEqual([]);
    expect((await machine.plugged()).memory.dimms).toEqual([]);
    await machine.close();

    const small = await Guest.start({ cpus: { count: 1 }, memory: { size: '16M' } });
    await expect(small.machine.plug({ kind: 'cpu' })).rejects.toMatchObject({ hint: expect.stringContaining('max=2') });
    await expect(small.machine.plug({ kind: 'memory', size: '128M' })).rejects.toMatchObject({
      hint: 'Start it with room: --memory 16M,max=1.02G,slots=8.',
    });
    await small.machine.close();
  });

  test('that the host cannot make is refused with the reason, and its slot is free', async () => {
    const guest = await Guest.start({ memory: { size: '16M', max: '64G', slots: 3 } });
    const huge = { kind: 'memory', size: '32G', hugepages: '1G' } as const;
    await expect(guest.machine.plug(huge)).rejects.toThrow(/needs 32 huge pages of 1G; the (host|lab's memory) has/);
    // The lab has none of the host's files to map, and says so before it asks.
    const file = { kind: 'memory', size: '128M', backend: 'file', path: '/nowhere/memory' } as const;
    await expect(guest.machine.plug(file)).rejects.toThrow(
      hostHasKvm ? 'The memory file /nowhere/memory cannot be opened' : "The lab sees this host's files read-only",
    );
    const refused = ['plug dimm0 reserved', 'plug dimm0 refused'];
    expect(guest.stages).toEqual([...refused, ...(hostHasKvm ? refused : [])]);
    expect((await guest.machine.plugged()).memory.dimms).toEqual([]);
    await guest.machine.close();
  });
});

test('a guest that writes anything anywhere in the registers harms itself alone', async () => {
  const guest = await Guest.start();
  const { machine, regs } = guest;
  const pick = random(7);
  const requests: Promise<unknown>[] = [];
  for (let i = 0; i < 400; i++) {
    if (i % 20 === 0) {
      const ask = pick(2) ? machine.plug({ kind: 'cpu' }) : machine.plug({ kind: 'memory', size: '128M' });
      requests.push(ask.catch(() => {}));
    }
    if (i % 25 === 0) {
      const { cpus, memory } = await machine.plugged();
      const all = [...cpus.present.slice(1), ...memory.dimms];
      if (all.length > 0) requests.push(machine.unplug(all[pick(all.length)].id).catch(() => {}));
    }
    const base = pick(2) ? CPU.SELECTOR : MEM.SELECTOR;
    if (pick(3) === 0) await regs.out32(base, pick(5));
    else if (pick(2)) await regs.out8(base + [4, 5, 0x14][pick(3)], pick(16));
    else await regs.out32(base + [4, 8][pick(2)], pick(4) ? pick(4) : 0x80 + pick(5));
  }
  // It is still there, and what is left can be counted.
  await regs.out32(CPU.SELECTOR, 0);
  expect(await regs.in8(CPU.FLAGS)).toBe(ENABLED);
  expect(machine.state).toBe('running');
  await machine.close();
  await Promise.all(requests);
  if (hostHasKvm) expect(vcpuThreads()).toEqual([]);
}, 60_000);
