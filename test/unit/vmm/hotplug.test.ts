/** Requests through their stages, with a device that does what the test says; and where DIMMs are put. */
import { describe, expect, test } from 'vitest';
import { parseMachine } from '../../../src/client/description.ts';
import {
  type LiveRequest,
  type MemoryDevice,
  type MemoryPlug,
  type PlugInput,
  parsePlug,
} from '../../../src/client/live.ts';
import type { AcpiMemoryHotplug } from '../../../src/devices/acpi_memory_hotplug.ts';
import { DimmHotplug } from '../../../src/vmm/hotplug/dimms.ts';
import { Hotplug } from '../../../src/vmm/hotplug/hotplug.ts';
import type { GuestActs, LiveKind } from '../../../src/vmm/hotplug/kind.ts';
import { readOst } from '../../../src/vmm/hotplug/ost.ts';
import { DimmRoom } from '../../../src/vmm/hotplug/room.ts';
import { RequestWatch } from '../../../src/vmm/hotplug/watch.ts';
import type { KvmVm } from '../../../src/vmm/kvm.ts';
import type { GuestMemoryView } from '../../../src/vmm/memory.ts';
import { ramLayout } from '../../../src/vmm/memory_layout.ts';
import { FakeClock } from '../../support/board.ts';

const MiB = 2 ** 20;
const GiB = 2 ** 30;
const MS = 1_000_000n;
const INSERTION = 0x200;
const EJECTION = 0x103;

const PLUG = parsePlug({ kind: 'memory', size: '128M' }) as MemoryPlug;
const DEVICE: MemoryDevice = { ...PLUG, id: 'd0', slot: 0, address: 4 * GiB, node: 0 };

/** A kind with one device; `log` is what was done with it. */
class OneDevice implements LiveKind {
  readonly log: string[] = [];
  readonly guest: GuestActs;
  onlineWhenAccepted = false;
  there = false;
  attachError: string | undefined;
  /** Set: the device goes only when the test says so. */
  left: (() => void) | undefined;
  slow = false;

  constructor(guest: GuestActs) {
    this.guest = guest;
  }

  reserve(): MemoryDevice {
    this.log.push('reserve');
    return DEVICE;
  }

  attach(): void {
    this.log.push('attach');
    if (this.attachError) throw new Error(this.attachError);
    this.there = true;
  }

  requireRemovable(): void {}

  requestRemoval(): void {
    this.log.push('ask');
  }

  detach(_: unknown, done: () => void): void {
    this.log.push('detach');
    this.there = false;
    if (this.slow) this.left = done;
    else done();
  }

  vacate(): void {
    this.log.push('vacate');
  }

  present(): MemoryDevice[] {
    return this.there ? [DEVICE] : [];
  }
}

function setUp() {
  const clock = new FakeClock();
  const events: LiveRequest[] = [];
  const releases: number[] = [];
  const hotplug = new Hotplug({
    clock,
    hasStarted: () => true,
    changed: (request) => events.push(request),
    release: (id) => releases.push(id),
  });
  const kind = hotplug.add('memory', (guest) => new OneDevice(guest));
  /** A device that the guest has online. */
  const plugged = () => {
    const { id } = hotplug.plug(PLUG);
    hotplug.prepared(id);
    kind.guest.answered(DEVICE, INSERTION, 0);
    kind.guest.started(DEVICE);
    events.length = 0;
    kind.log.length = 0;
  };
  return { clock, events, releases, hotplug, kind, plugged, stages: () => events.map(({ stage }) => stage) };
}

describe('a request to plug', () => {
  test('goes from stage to stage, with the time of each', () => {
    const { clock, hotplug, kind, events, stages } = setUp();
    const { id } = hotplug.plug(PLUG);
    clock.advance(5n);
    hotplug.prepared(id);
    clock.advance(5n);
    kind.guest.noticed(DEVICE);
    kind.guest.answered(DEVICE, INSERTION, 0x80);
    kind.guest.answered(DEVICE, INSERTION, 0);
    clock.advance(5n);
    kind.guest.started(DEVICE);
    expect(stages()).toEqual(['reserved', 'notified', 'accepted', 'online']);
    expect(events.at(-1)).toMatchObject({
      ...{ id: 1, action: 'plug', origin: 'user', device: DEVICE, guest: 'it started the device' },
      history: [
        { stage: 'reserved', at: '0' },
        { stage: 'notified', at: '5' },
        { stage: 'accepted', at: '10' },
        { stage: 'online', at: '15' },
      ],
    });
    expect(hotplug.requests()).toEqual([events.at(-1)]);
    // What was told is not changed afterwards.
    expect(events[0].history).toHaveLength(1);
  });

  test('is done when it is accepted, where nothing more can be seen', () => {
    const { hotplug, kind, stages } = setUp();
    kind.onlineWhenAccepted = true;
    hotplug.prepared(hotplug.plug(PLUG).id);
    kind.guest.answered(DEVICE, 1, 0);
    expect(stages()).toEqual(['reserved', 'notified', 'online']);
  });

  test('that the guest refuses is taken back before the refusal is told', () => {
    const { hotplug, kind, events, releases, stages } = setUp();
    hotplug.prepared(hotplug.plug(PLUG).id);
    kind.slow = true;
    kind.guest.answered(DEVICE, INSERTION, 0x82);
    kind.left?.();
    expect(stages()).toEqual(['reserved', 'notified']);
    expect(releases).toEqual([1]);
    // Whatever the guest still says is about nothing.
    kind.guest.started(DEVICE);
    kind.guest.answered(DEVICE, INSERTION, 0);
    kind.guest.ejected(DEVICE);
    hotplug.released(1);
    expect(events.at(-1)).toMatchObject({
      stage: 'refused',
      reason: 'The guest refused: it does not support insertion (_OST 0x82).',
    });
    expect(kind.log).toEqual(['reserve', 'attach', 'detach', 'vacate']);
    hotplug.released(1);
    hotplug.prepared(1);
    expect(stages()).toHaveLength(3);
  });

  test('that the host cannot do is refused with its reason, before and after the guest could see it', () => {
    const { hotplug, kind, events } = setUp();
    hotplug.prepared(hotplug.plug(PLUG).id, 'No huge pages.');
    expect(events.at(-1)).toMatchObject({ stage: 'refused', reason: 'No huge pages.' });
    expect(kind.log.splice(0)).toEqual(['reserve', 'vacate']);
    kind.attachError = 'KVM has no slots.';
    const { id } = hotplug.plug(PLUG);
    hotplug.prepared(id);
    hotplug.released(id);
    expect(events.at(-1)).toMatchObject({ stage: 'refused', reason: 'KVM has no slots.' });
    expect(kind.log).toEqual(['reserve', 'attach', 'detach', 'vacate']);
  });

  test('times out with what the guest did last, and can still come true', () => {
    const { clock, hotplug, kind, events } = setUp();
    hotplug.prepared(hotplug.plug(PLUG, 1000).id);
    clock.advance(999n * MS);
    expect(events.at(-1)?.stage).toBe('notified');
    clock.advance(1n * MS);
    expect(events.at(-1)?.reason).toBe('The guest took longer than 1 s. It did not look at the event.');
    kind.guest.answered(DEVICE, INSERTION, 0);
    kind.guest.started(DEVICE);
    expect(events.at(-1)?.stage).toBe('online');
    expect(events.at(-1)?.reason).toBeUndefined();
  });

  test('that timed out gives its place back when the guest refuses late', () => {
    const { clock, hotplug, kind, stages, releases } = setUp();
    const { id } = hotplug.plug(PLUG, 1000);
    hotplug.prepared(id);
    clock.advance(1000n * MS);
    kind.guest.answered(DEVICE, INSERTION, 0x81);
    expect(releases).toEqual([id]);
    expect(() => hotplug.unplug('d0')).toThrow('d0 is being plugged: request 1 is timed-out.');
    hotplug.released(id);
    hotplug.released(id);
    expect(stages()).toEqual(['reserved', 'notified', 'timed-out', 'refused']);
    expect(kind.log.filter((each) => each === 'vacate')).toHaveLength(1);
  });

  test('that was accepted and never used says so when it times out', () => {
    const { clock, hotplug, kind, events } = setUp();
    hotplug.prepared(hotplug.plug(PLUG, 1000).id);
    kind.guest.answered(DEVICE, INSERTION, 0);
    clock.advance(1000n * MS);
    expect(events.at(-1)?.reason).toBe(
      'The guest took longer than 1 s. What it did last: it answered: success (_OST 0x0). It knows the device but does ' +
        'not use it: is there something in it that brings new ones online?',
    );
  });
});

describe('a request to unplug', () => {
  test('ends when the guest let go and the host has everything back', () => {
    const { hotplug, kind, plugged, releases, stages } = setUp();
    plugged();
    const { id } = hotplug.unplug('d0');
    kind.guest.noticed(DEVICE);
    kind.guest.answered(DEVICE, EJECTION, 0x84);
    kind.guest.ejected(DEVICE);
    kind.guest.answered(DEVICE, 3, 0);
    expect(stages()).toEqual(['reserved', 'notified', 'accepted']);
    expect(releases).toEqual([id]);
    hotplug.released(id);
    expect(stages().at(-1)).toBe('removed');
    expect(kind.log).toEqual(['ask', 'detach', 'vacate']);
  });

  test('that is refused leaves the device, and can be tried again', () => {
    const { hotplug, kind, plugged, events } = setUp();
    plugged();
    for (const [status, words] of [
      [0x82, 'the device is busy (_OST 0x82)'],
      [0x83, 'something that depends on the device is busy, or does not support ejection (_OST 0x83)'],
      [0x55, 'a reason that ACPI does not know (_OST 0x55)'],
    ] as const) {
      hotplug.unplug('d0');
      kind.guest.answered(DEVICE, EJECTION, status);
      expect(events.at(-1)).toMatchObject({ stage: 'refused', reason: `The guest refused: ${words}.` });
    }
    expect(kind.present()).toEqual([DEVICE]);
    expect(kind.log).toEqual(['ask', 'ask', 'ask']);
  });

  test('for the same device waits for the first one; after a time-out it goes before it', () => {
    const { clock, hotplug, kind, plugged } = setUp();
    plugged();
    hotplug.unplug('d0', 1000);
    expect(() => hotplug.unplug('d0')).toThrow('d0 is being unplugged: request 2 is notified.');
    clock.advance(1000n * MS);
    const { id } = hotplug.unplug('d0');
    kind.guest.ejected(DEVICE);
    hotplug.released(id);
    expect(hotplug.requests().map(({ stage }) => stage)).toEqual(['online', 'timed-out', 'removed']);
  });

  test('by the guest itself is told as the guest’s', () => {
    const { hotplug, kind, plugged, events } = setUp();
    plugged();
    kind.guest.ejected(DEVICE);
    hotplug.released(2);
    expect(events.at(-1)).toMatchObject({ id: 2, origin: 'guest', action: 'unplug', stage: 'removed' });
  });

  test('does not time out once the guest has let go', () => {
    const { clock, hotplug, kind, plugged, stages } = setUp();
    plugged();
    const { id } = hotplug.unplug('d0', 1000);
    kind.guest.ejected(DEVICE);
    clock.advance(5000n * MS);
    hotplug.released(id);
    expect(stages()).toEqual(['reserved', 'notified', 'accepted', 'removed']);
  });
});

test('a reset settles what waits for the guest, and nothing else', () => {
  const { clock, hotplug, kind, events } = setUp();
  const reserved = hotplug.plug(PLUG);
  hotplug.reset();
  expect(hotplug.requests()[0].stage).toBe('reserved');
  hotplug.prepared(reserved.id);
  hotplug.reset();
  expect(events.at(-1)).toMatchObject({ stage: 'online', guest: 'it was reset, and finds the device at its boot' });
  // What the guest was told to have failed stays so.
  hotplug.unplug('d0', 1000);
  clock.advance(1000n * MS);
  hotplug.reset();
  expect(events.at(-1)).toMatchObject({ stage: 'refused', reason: 'The guest was reset before it let go.' });
  expect(kind.present()).toEqual([DEVICE]);
  const { id } = hotplug.unplug('d0');
  hotplug.reset();
  expect(events.at(-1)).toMatchObject({ stage: 'accepted', guest: 'it was reset, and what comes has it no more' });
  hotplug.released(id);
  expect(events.at(-1)).toMatchObject({ id, stage: 'removed' });
  expect(kind.present()).toEqual([]);
});

test('of a device that is still being made no guest has a word', () => {
  for (const status of [0, 0x81]) {
    const { hotplug, kind, stages, releases } = setUp();
    const { id } = hotplug.plug(PLUG);
    kind.guest.answered(DEVICE, INSERTION, status);
    hotplug.prepared(id);
    expect([stages(), releases, kind.present()]).toEqual([['reserved', 'notified'], [], [DEVICE]]);
  }
});

test('requests are remembered, but not without end', () => {
  const { hotplug, kind, plugged } = setUp();
  plugged();
  for (let i = 0; i < 400; i++) {
    hotplug.unplug('d0');
    kind.guest.answered(DEVICE, EJECTION, 0x82);
  }
  expect(hotplug.requests()).toHaveLength(256);
  expect(hotplug.requests().at(-1)?.id).toBe(401);
});

test('an answer about neither coming nor going is none', () => {
  expect(readOst(0x100, 0)).toBeUndefined();
  expect(readOst(1, 0x84)).toMatchObject({ about: 'insertion', outcome: 'failure' });
  expect(readOst(3, 0x80)).toMatchObject({ about: 'ejection', outcome: 'failure' });
});

test('who waits for a request hears of it, also when it settled before', async () => {
  const watch = new RequestWatch();
  const request = (id: number, stage: LiveRequest['stage']): LiveRequest => ({
    ...{ id, action: 'plug', origin: 'user', device: DEVICE, stage, history: [] },
  });
  watch.take(request(1, 'online'));
  expect(await watch.settled(request(1, 'reserved'))).toMatchObject({ stage: 'online' });
  const refused = watch.settled(request(2, 'reserved'));
  watch.take({ ...request(2, 'refused'), reason: 'No.' });
  await expect(refused).rejects.toMatchObject({ code: 'REFUSED', message: 'd0 was not plugged: No.' });
  const late = watch.settled(request(3, 'reserved'));
  watch.fail(new Error('The machine was closed.'));
  await expect(late).rejects.toThrow('The machine was closed.');
});

describe('the places of DIMMs', () => {
  function dimms(memory: object, physicalBits = 46, others: readonly string[] = []) {
    const description = parseMachine({ kernel: { image: '/k' }, memory });
    const slots = new Map<number, string>();
    const kind = new DimmHotplug({
      room: new DimmRoom({
        description,
        ranges: ramLayout(description.memory.size),
        physicalBits,
        isOthersId: (id) => others.includes(id),
      }),
      memory: { hostAddress: (gpa: number) => gpa, add: () => {}, remove: () => {} } as unknown as GuestMemoryView,
      vm: {
        setMemoryRegion: (slot: number, _: number, gpa: number, size: number) =>
          size > 0 ? slots.set(slot, `${gpa / GiB}+${size / MiB}`) : slots.delete(slot),
      } as unknown as KvmVm,
      guest: {
        ...{ noticed: () => {}, answered: () => {}, started: () => {}, ejected: () => {} },
        ...{ accepted: () => {}, refused: () => {} },
      },
      raiseGpe: () => {},
      knowsGpe: () => true,
      hasStarted: () => true,
    });
    const plug = (input: Omit<Extract<PlugInput, { kind: 'memory' }>, 'kind'>) => {
      const device = kind.reserve(parsePlug({ kind: 'memory', ...input }) as never);
      kind.attach(device);
      return device;
    };
    const unplug = (device: MemoryDevice) => {
      kind.detach(device, () => {});
      kind.vacate(device);
    };
    return { kind, plug, unplug, slots };
  }

  test('are the first gaps above RAM, on a boundary of 1 GiB; slots and ids likewise', () => {
    const { plug, unplug, slots } = dimms({ size: '3G', max: '5G', slots: 4 });
    const first = plug({ size: '256M' });
    const second = plug({ size: '512M', id: 'big' });
    expect([first.address, second.address]).toEqual([5 * GiB, 5 * GiB + 256 * MiB]);
    unplug(first);
    expect(plug({ size: '384M' }).address).toBe(5 * GiB + 768 * MiB);
    expect(plug({ size: '128M', slot: 3 })).toMatchObject({ id: 'dimm3', address: 5 * GiB });
    expect([...slots]).toEqual([
      [17, '5.25+512'],
      [16, '5.75+384'],
      [19, '5+128'],
    ]);
  });

  test('name what has no name, with one that nobody has', () => {
    const { plug } = dimms({ size: '512M', max: '4G', slots: 4 }, 46, ['dimm3', 'net0']);
    const ids = [plug({ size: '128M', id: 'dimm1' }), plug({ size: '128M' }), plug({ size: '128M' })].map(
      ({ id }) => id,
    );
    expect(ids).toEqual(['dimm1', 'dimm2', 'dimm4']);
    for (const id of ['net0', 'dimm2', 'cpu1']) {
      expect(() => plug({ size: '128M', id })).toThrow(`There is a ${id} already.`);
    }
  });

  test('are not those that the guest has emptied and not looked at since, while there are others', () => {
    const { kind, plug, unplug } = dimms({ size: '512M', max: '2G', slots: 2 });
    const registers = kind.registers as AcpiMemoryHotplug;
    const eject = (device: MemoryDevice) => {
      registers.write(0, 4, device.slot);
      registers.write(0x14, 1, 1 << 3);
      unplug(device);
    };
    const first = plug({ size: '128M' });
    eject(first);
    const second = plug({ size: '128M' });
    expect([first.slot, second.slot]).toEqual([0, 1]);
    eject(second);
    // Linux evaluates _STA.
    registers.write(0, 4, first.slot);
    expect(registers.read(0x14, 1)).toBe(0);
    expect(plug({ size: '128M' }).slot).toBe(0);
    expect(plug({ size: '128M' }).slot).toBe(1);
  });

  test('run out by bytes, by slots, and by gaps, each with its sentence', () => {
    const { plug, unplug } = dimms({ size: '512M', max: '1G', slots: 3 });
    const list = [plug({ size: '128M' }), plug({ size: '128M' }), plug({ size: '128M' })];
    expect(() => plug({ size: '256M' })).toThrow(
      "256 MiB more would be 1.13 GiB, above this machine's limit of 1 GiB.",
    );
    expect(() => plug({ size: '128M' })).toThrow('All 3 slots for DIMMs are taken.');
    unplug(list[1]);
    expect(() => plug({ size: '128M', slot: 0 })).toThrow('Slot 0 has dimm0 in it.');
    expect(() => plug({ size: '128M', id: 'dimm0' })).toThrow('There is a dimm0 already.');
    expect(() => plug({ size: '128M', address: 4 * GiB })).toThrow('overlaps dimm0 at 0x100000000');
    expect(() => plug({ size: '128M', address: 4 * GiB + MiB })).toThrow('is not a multiple of 128 MiB');
  });

  test('run out by gaps: there is more than what may be plugged, but not without end', () => {
    const { plug } = dimms({ size: '512M', max: '8G', slots: 8 });
    for (const at of [4, 9, 14]) plug({ size: '1G', address: (at + 2) * GiB });
    expect(() => plug({ size: '4608M' })).toThrow('There is no gap of 4.5 GiB between what is plugged.');
    expect(plug({ size: '4G' }).address).toBe(7 * GiB);
  });

  test('that a guest may have kept are given to others after its reset', () => {
    const description = parseMachine({ kernel: { image: '/k' }, memory: { size: '512M', max: '5G', slots: 1 } });
    const room = new DimmRoom({
      description,
      ranges: ramLayout(description.memory.size),
      physicalBits: 46,
      isOthersId: () => false,
    });
    const size = 4 * GiB;
    const take = () => room.takeRegion('vm0', { size, alignment: 1 });
    for (const at of [4, 8, 12]) {
      expect(take()).toBe(at * GiB);
      // The limit of memory counts what is there.
      expect(() => room.takeRegion('vm1', { size, alignment: 1 })).toThrow('8.5 GiB, above this machine');
      room.retireRegion('vm0');
    }
    let error: unknown;
    try {
      take();
    } catch (cause) {
      error = cause;
    }
    expect(error).toMatchObject({
      message: 'There is no gap of 4 GiB between what is plugged.',
      hint: expect.stringContaining('still hold 12 GiB of addresses of virtio-mem devices'),
    });
    room.reset();
    expect(take()).toBe(4 * GiB);
    room.freeRegion('vm0');
    expect(take()).toBe(4 * GiB);
  });

  test('are not made where addresses do not reach', () => {
    expect(() => dimms({ size: '512M', max: '64G' }, 36)).toThrow(
      'Room for 64 GiB reaches guest-physical 0x12e0000000; this processor has 36 bits of them.',
    );
  });
});
