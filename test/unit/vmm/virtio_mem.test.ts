/** Memory by blocks on the host's side: where regions are, what KVM and devices have of them, and requests for sizes. */
import { describe, expect, test } from 'vitest';
import { type MachineInput, parseMachine } from '../../../src/client/description.ts';
import type { LiveRequest } from '../../../src/client/live.ts';
import type { MachineEvent } from '../../../src/client/machine_client.ts';
import type { VirtioMem } from '../../../src/devices/virtio/mem.ts';
import * as libc from '../../../src/ffi/libc.ts';
import { Hotplug } from '../../../src/vmm/hotplug/hotplug.ts';
import type { PciHotplug } from '../../../src/vmm/hotplug/pci.ts';
import { DimmRoom } from '../../../src/vmm/hotplug/room.ts';
import { VirtioMemories } from '../../../src/vmm/hotplug/virtio_mem.ts';
import { GuestMemoryView } from '../../../src/vmm/memory.ts';
import { hotplugRegion, memoryEnd, ramLayout, virtioMemRegions } from '../../../src/vmm/memory_layout.ts';
import { VirtioMemMemory } from '../../../src/vmm/virtio_mem_memory.ts';
import { FakeClock } from '../../support/board.ts';
import { MockDriver } from '../../support/virtio_driver.ts';

const MiB = 2 ** 20;
const GiB = 2 ** 30;
const START = 4 * GiB;
const MS = 1_000_000n;
const INACCESSIBLE = 1n << 1n;

type Device = Omit<Extract<NonNullable<MachineInput['devices']>[number], { type: 'virtio-mem' }>, 'type'>;
const describeMachine = (devices: readonly Device[], more: Partial<MachineInput> = {}) =>
  parseMachine({
    ...{ kernel: { image: '/k' }, ...more },
    ...{ memory: { size: '512M', ...more.memory }, devices: devices.map((each) => ({ type: 'virtio-mem', ...each })) },
  });
const regionsOf = (...parameters: Parameters<typeof describeMachine>) => {
  const description = describeMachine(...parameters);
  return virtioMemRegions(description, ramLayout(description.memory.size));
};

/** A host that writes down what KVM, devices and madvise are told. */
function fakeHost() {
  const log: string[] = [];
  const slots = new Map<number, string>();
  const state = { full: false };
  const text = (gpa: number, size: number) => `${(gpa - START) / MiB}+${size / MiB}`;
  const host = {
    vm: {
      setMemoryRegion: (slot: number, _: number, gpa: number, size: number) => {
        if (state.full && size > 0) throw new Error('ENOMEM');
        if (size > 0) slots.set(slot, text(gpa, size));
        else slots.delete(slot);
      },
    },
    memory: {
      add: ({ gpa, size }: { gpa: number; size: number }) => void log.push(`add ${text(gpa, size)}`),
      remove: ({ gpa, size }: { gpa: number; size: number }) => void log.push(`remove ${text(gpa, size)}`),
      hostAddress: (gpa: number) => gpa,
    },
    handle: { base: 0, span: 0, ranges: [] },
    discard: (_: unknown, backend: { backend: string }, gpa: number, size: number) =>
      void log.push(`discard ${text(gpa, size)} ${backend.backend}`),
  };
  return { host, log, slots, state };
}

describe('regions', () => {
  test('stand above the room for DIMMs, on borders of sections and of their blocks', () => {
    const devices = [
      { id: 'a', size: '200M' },
      { id: 'b', size: '2G', block: '1G', node: 0 },
    ];
    const memory = { size: '512M', max: '1G', slots: 2 };
    const regions = regionsOf(devices, { memory });
    expect(regions.map(({ id, address, size }) => [id, address / GiB, size / MiB])).toEqual([
      ['a', 12.5, 200],
      ['b', 13, 2048],
    ]);
    const description = describeMachine(devices, { memory });
    const ranges = ramLayout(description.memory.size);
    // What SRAT tells of reaches over them all.
    expect(hotplugRegion(description, ranges)).toEqual({ gpa: START, size: 11 * GiB });
    expect(memoryEnd(description, ranges)).toBe(15 * GiB);
    const room = new DimmRoom({ description, ranges, physicalBits: 40, isOthersId: () => false });
    const take = (more: object) => room.take({ size: 512 * MiB, ...more }, 'dimm', (place) => place as never);
    expect(() => take({ id: 'a' })).toThrow('There is a a already.');
    expect(() => take({ address: 13 * GiB })).toThrow('is not within the room for DIMMs, 0x100000000–0x31fffffff');
    expect(take({})).toMatchObject({ address: START });
    expect(() => new DimmRoom({ description, ranges, physicalBits: 32, isOthersId: () => false })).toThrow(
      /has 32 bits of them/,
    );
  });

  test.each([
    [{ size: '3M' }, 'virtio-mem: size=3145728 is not a multiple of the block size, 2 MiB.'],
    [{ size: '1G', block: '3M' }, 'a block of 3145728 bytes is no power of two from 2 MiB to 1 GiB.'],
    [{ size: '1G', block: '1M' }, 'a block of 1048576 bytes is no power of two from 2 MiB to 1 GiB.'],
    [{ size: '1G', requested: '2G', id: 'm' }, 'virtio-mem m: requested=2147483648 is more than its size'],
    [{ size: '1G', hugepages: '1G' as const }, 'with hugepages=1G, block=1G is needed.'],
    [{ size: '1G', node: 1 }, 'virtio-mem: there is no node 1: nodes 0 to 0 are made with --numa node,…'],
    [{ size: '4T' }, 'is more than 1048576 blocks of 2 MiB: use larger ones, with block=.'],
  ])('%j is refused', (device, message) => expect(() => describeMachine([device])).toThrow(message));
});

describe('the host', () => {
  const make = (device: Partial<Device> = {}) => {
    const fake = fakeHost();
    const [region] = regionsOf([{ size: '1G', ...device }]);
    return { ...fake, memory: new VirtioMemMemory(region, 0, fake.host) };
  };

  test('has slots where something is plugged, and what is unplugged back', () => {
    const { memory, slots, log } = make();
    expect(memory.memslots).toEqual({ used: 0, all: 8 });
    expect(memory.plug(126 * MiB, 4 * MiB)).toBe(true);
    expect([...slots]).toEqual([
      [4096, '0+128'],
      [4097, '128+128'],
    ]);
    memory.unplug(126 * MiB, 2 * MiB);
    expect([...slots]).toEqual([[4097, '128+128']]);
    memory.unplug(128 * MiB, 2 * MiB);
    expect(memory.memslots.used).toBe(0);
    expect(log).toEqual([
      ...['add 126+4', 'remove 126+2', 'discard 126+2 anonymous', 'remove 128+2', 'discard 128+2 anonymous'],
    ]);
  });

  test('has slots of a size of which there are few, and none behind the end', () => {
    const { memory, slots } = make({ size: '100G', backend: 'memfd' });
    expect(memory.memslots.all).toBe(200);
    memory.plug(100 * GiB - 2 * MiB, 2 * MiB);
    expect([...slots]).toEqual([[4096 + 199, `${99.5 * 1024}+512`]]);
    const uneven = make({ size: '200M' });
    uneven.memory.plug(198 * MiB, 2 * MiB);
    expect([...uneven.slots]).toEqual([[4097, '128+72']]);
  });

  test('has what a driver may read where nothing is plugged', () => {
    const { memory, slots } = make();
    memory.plug(512 * MiB, 2 * MiB);
    memory.readable(256 * MiB);
    expect([...slots.keys()]).toEqual([4100, 4096, 4097]);
    memory.readable(0);
    expect([...slots.keys()]).toEqual([4100]);
  });

  test('that takes no slot leaves all as it was', () => {
    const { memory, slots, log, state } = make();
    state.full = true;
    expect(memory.plug(0, 256 * MiB)).toBe(false);
    expect([...slots]).toEqual([]);
    state.full = false;
    expect(memory.plug(0, 256 * MiB)).toBe(true);
    expect(log).toEqual(['add 0+256']);
  });

  test('has huge pages back as those of a file', () => {
    const { memory, log } = make({ hugepages: '2M' });
    memory.plug(0, 2 * MiB);
    memory.unplug(0, 2 * MiB);
    expect(log.at(-1)).toBe('discard 0+2 memfd');
  });
});

test('what devices reach of memory is joined where it meets, and taken apart', () => {
  const span = 16 * 4096;
  const base = libc.mmap(0, span, libc.PROT_READ | libc.PROT_WRITE, libc.MAP_PRIVATE | libc.MAP_ANONYMOUS, -1, 0);
  const page = (index: number, count = 1) => ({ gpa: index * 4096, size: count * 4096 });
  const view = new GuestMemoryView({ base, span, ranges: [page(0, 2)] });
  const reaches = (index: number, count: number) => view.slice(index * 4096, count * 4096) !== undefined;
  view.add(page(4, 2));
  expect(reaches(0, 3)).toBe(false);
  view.add(page(2, 2));
  expect(reaches(0, 6)).toBe(true);
  expect(view.write(2 * 4096 - 4, new Uint8Array(8))).toBe(true);
  view.remove(page(3));
  expect([reaches(0, 3), reaches(2, 2), reaches(4, 2), reaches(3, 1)]).toEqual([true, false, true, false]);
  view.remove(page(0, 16));
  expect(reaches(4, 1)).toBe(false);
  libc.munmap(base, span);
});

function setUp() {
  const clock = new FakeClock();
  const requests: LiveRequest[] = [];
  const events: MachineEvent[] = [];
  const hotplug = new Hotplug({
    ...{ clock, hasStarted: () => true, release: () => {} },
    changed: (request) => requests.push(request),
  });
  const regions = regionsOf([{ id: 'vm0', size: '1G' }]);
  const memories = new VirtioMemories({
    ...{ regions, host: fakeHost().host, hotplug, clock },
    event: (event) => events.push(event),
  });
  const made = memories.make('vm0', regions[0].description);
  const driver = new MockDriver(made.device, {});
  const ask = (type: number, block: number, count: number) => {
    const view = new DataView(new ArrayBuffer(24));
    view.setUint16(0, type, true);
    view.setBigUint64(8, BigInt(START + block * 2 * MiB), true);
    view.setUint16(16, count, true);
    return driver.queues[0].request([new Uint8Array(view.buffer)], [10]).bytes[0];
  };
  const start = () => {
    driver.start((1n << 32n) | INACCESSIBLE);
  };
  const device = made.device as VirtioMem;
  return { clock, requests, events, memories, made, device, hotplug, ask, start, last: () => requests.at(-1) };
}

describe('a request for a size', () => {
  test('is reached by and by, and each step is told', () => {
    const { memories, requests, ask, start, last, events, clock } = setUp();
    start();
    memories.resize('vm0', 8 * MiB);
    expect(last()).toMatchObject({ action: 'resize', stage: 'notified', size: 8 * MiB, device: { id: 'vm0' } });
    expect(ask(0, 0, 1)).toBe(0);
    expect(last()).toMatchObject({ stage: 'accepted', guest: 'it has 2 MiB plugged, of 8 MiB that are asked for' });
    expect(ask(0, 1, 3)).toBe(0);
    expect(requests.map(({ stage }) => stage)).toEqual(['reserved', 'notified', 'accepted', 'reached']);
    // The second step came at once after the first: it is told a little later.
    expect(events).toEqual([{ type: 'memory-size', device: 'vm0', plugged: 2 * MiB, requested: 8 * MiB }]);
    clock.advance(100n * MS);
    expect(events).toHaveLength(2);
    expect(memories.report()).toMatchObject([{ plugged: 8 * MiB, requested: 8 * MiB, driver: true }]);
  });

  test('that is there already is reached at once', () => {
    const { memories, start, last } = setUp();
    start();
    memories.resize('vm0', 0);
    expect(last()).toMatchObject({ stage: 'reached' });
  });

  test('waits for a driver, says so, and may be reached late', () => {
    const { memories, clock, ask, start, last } = setUp();
    memories.resize('vm0', 4 * MiB, 1000);
    clock.advance(1000n * MS);
    expect(last()).toMatchObject({
      stage: 'timed-out',
      reason: 'The guest took longer than 1 s. What it did last: it has no driver that is ready with the device.',
    });
    start();
    ask(0, 0, 2);
    expect(last()).toMatchObject({ stage: 'reached' });
  });

  test('gives way to another', () => {
    const { memories, requests, start } = setUp();
    start();
    memories.resize('vm0', 4 * MiB);
    memories.resize('vm0', 6 * MiB);
    expect(requests.filter(({ id }) => id === 1).at(-1)).toMatchObject({
      ...{ stage: 'refused', reason: 'Another size was asked for meanwhile, 6 MiB.' },
    });
    expect(requests.at(-1)).toMatchObject({ id: 2, stage: 'notified' });
  });

  test('is not asked for of a device that is on its way out', () => {
    const { memories, hotplug, start, requests } = setUp();
    start();
    const device = { kind: 'pci', id: 'vm0', type: 'virtio-mem', port: 'rp0', streams: [] } as const;
    const kind = { present: () => [device], requireRemovable: () => {}, requestRemoval: () => {} };
    hotplug.add('pci', () => kind as unknown as PciHotplug);
    hotplug.unplug('vm0');
    expect(() => memories.resize('vm0', 4 * MiB)).toThrow('vm0 is being unplugged: request 1 is notified.');
    expect(requests.at(-1)).toMatchObject({ id: 1, action: 'unplug' });
  });

  test('outlives a reset, after which nothing is plugged', () => {
    const { memories, hotplug, device, ask, start, last } = setUp();
    start();
    memories.resize('vm0', 8 * MiB);
    ask(0, 0, 2);
    hotplug.reset();
    memories.reset();
    expect(device.plugged).toBe(0);
    expect(last()).toMatchObject({ stage: 'accepted' });
    start();
    ask(0, 8, 4);
    expect(last()).toMatchObject({ stage: 'reached' });
  });

  test('keeps the device in the machine, for it may be plugged at any moment', () => {
    const { memories, made, ask, start } = setUp();
    expect(made.kept?.()).toBeUndefined();
    start();
    memories.resize('vm0', 4 * MiB);
    expect(made.kept?.()?.message).toBe('The guest is to have 4 MiB of vm0 plugged.');
    ask(0, 0, 1);
    memories.resize('vm0', 0);
    expect(made.kept?.()?.message).toBe('The guest has 2 MiB of vm0 plugged.');
    ask(1, 0, 1);
    expect(made.kept?.()).toBeUndefined();
  });

  test('for what there is not is refused before anything is touched', () => {
    const { memories, requests, made } = setUp();
    expect(() => memories.resize('vm1', 0)).toThrow('There is no virtio-mem device vm1 in this machine.');
    expect(() => memories.resize('vm0', 2 * GiB)).toThrow('vm0 has room for 1 GiB: it cannot be 2 GiB.');
    expect(() => memories.resize('vm0', 5 * MiB)).toThrow('not a multiple of the block size of vm0, 2 MiB.');
    expect(requests).toEqual([]);
    made.close();
    expect(memories.report()).toEqual([]);
  });
});
