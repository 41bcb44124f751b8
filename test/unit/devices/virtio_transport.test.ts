import { describe, expect, test } from 'vitest';
import { PCI } from '../../../src/devices/pci/config_space.ts';
import { VirtioBlk } from '../../../src/devices/virtio/blk.ts';
import { VirtioRng } from '../../../src/devices/virtio/rng.ts';
import { random } from '../../support/random.ts';
import { MemoryDisk } from '../../support/virtio_backends.ts';
import {
  ACKNOWLEDGE,
  COMMON,
  DRIVER,
  DRIVER_OK,
  type DriverOptions,
  F_EVENT_IDX,
  F_IN_ORDER,
  F_INDIRECT,
  F_PACKED,
  F_RING_RESET,
  F_VERSION_1,
  FEATURES_OK,
  MockDriver,
  NEEDS_RESET,
  RINGS,
} from '../../support/virtio_driver.ts';

const rng = (options: DriverOptions = {}) =>
  new MockDriver(new VirtioRng('rng', (into) => into.fill(7)), { packed: true, inOrder: true, ...options });
const blk = (options: DriverOptions = {}) => {
  const disk = new MemoryDisk(65536);
  const device = new VirtioBlk({ name: 'vda', backend: disk, queues: 2 });
  return { disk, device, driver: new MockDriver(device, { packed: true, inOrder: true, ...options }) };
};
const RUNNING = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;
const FLUSH = Uint8Array.of(4, 0, 0, 0, ...new Array(12).fill(0));

describe('status and features', () => {
  test('what is offered goes with how the device was made', () => {
    const base = F_VERSION_1 | F_INDIRECT | F_EVENT_IDX | F_RING_RESET;
    expect(rng().offered).toBe(base | F_PACKED | F_IN_ORDER);
    expect(rng({ packed: false, inOrder: false }).offered).toBe(base);
  });

  test('features that are not offered, or without version 1, are refused', () => {
    const driver = rng();
    expect(driver.negotiate(F_VERSION_1)).toBe(true);
    expect(driver.negotiate(F_VERSION_1 | 1n)).toBe(false);
    expect(driver.negotiate(F_VERSION_1 | (1n << 63n))).toBe(false);
    expect(driver.negotiate(F_INDIRECT)).toBe(false);
    expect(driver.negotiate(0n)).toBe(false);
    expect(rng({ packed: false }).negotiate(F_VERSION_1 | F_PACKED)).toBe(false);
    expect(driver.status).toBe(ACKNOWLEDGE | DRIVER);
  });

  test('a refused driver can ask for less without a reset', () => {
    const driver = rng();
    expect(driver.negotiate(F_VERSION_1 | 1n)).toBe(false);
    driver.write(COMMON.DRIVER_FEATURE_SELECT, 4, 0);
    driver.write(COMMON.DRIVER_FEATURE, 4, 0);
    driver.status = ACKNOWLEDGE | DRIVER | FEATURES_OK;
    expect(driver.status & FEATURES_OK).toBe(FEATURES_OK);
  });

  test('features are settled with FEATURES_OK', () => {
    const driver = rng();
    driver.negotiate(F_VERSION_1);
    driver.write(COMMON.DRIVER_FEATURE_SELECT, 4, 0);
    driver.write(COMMON.DRIVER_FEATURE, 4, 0xffffffff);
    expect(driver.read(COMMON.DRIVER_FEATURE, 4)).toBe(0);
    driver.write(COMMON.DRIVER_FEATURE_SELECT, 4, 1);
    expect(driver.read(COMMON.DRIVER_FEATURE, 4)).toBe(1);
  });

  test('words that there are not read 0', () => {
    const driver = rng();
    driver.write(COMMON.DEVICE_FEATURE_SELECT, 4, 2);
    expect(driver.read(COMMON.DEVICE_FEATURE, 4)).toBe(0);
    driver.write(COMMON.DEVICE_FEATURE_SELECT, 4, 0xffffffff);
    expect(driver.read(COMMON.DEVICE_FEATURE, 4)).toBe(0);
  });

  test('bits of the status stay until a reset', () => {
    const driver = rng();
    const [queue] = driver.start(F_VERSION_1);
    driver.status = ACKNOWLEDGE;
    expect(driver.status).toBe(RUNNING);
    expect(queue.request([], [8]).bytes).toEqual(new Uint8Array(8).fill(7));
    driver.status = 128 | RUNNING;
    expect(driver.status).toBe(128 | RUNNING);
    driver.reset();
    expect(driver.status).toBe(0);
  });

  test('nothing is done before DRIVER_OK, then all that waits', () => {
    const driver = rng();
    driver.negotiate(F_VERSION_1);
    const queue = driver.setUpQueue(0);
    queue.add([], [8]);
    queue.ring();
    expect(queue.collect()).toEqual([]);
    driver.status = RUNNING;
    expect(queue.collect().length).toBe(1);
  });

  test('DRIVER_OK without FEATURES_OK starts nothing', () => {
    const driver = rng();
    driver.status = ACKNOWLEDGE | DRIVER | DRIVER_OK;
    const queue = driver.setUpQueue(0);
    queue.add([], [8]);
    queue.ring();
    expect(queue.collect()).toEqual([]);
  });

  test('a reset in the middle leaves nothing behind', () => {
    const driver = rng();
    for (let steps = 0; steps < 6; steps++) {
      driver.status = 0;
      if (steps > 0) driver.status = ACKNOWLEDGE;
      if (steps > 1) driver.status = ACKNOWLEDGE | DRIVER;
      if (steps > 2) driver.negotiate(F_VERSION_1 | F_PACKED);
      if (steps > 3) driver.setUpQueue(0);
      if (steps > 4) driver.status = RUNNING;
      driver.status = 0;
      expect(driver.status).toBe(0);
      driver.write(COMMON.QUEUE_SELECT, 2, 0);
      expect(driver.read(COMMON.QUEUE_ENABLE, 2)).toBe(0);
      expect(driver.read(COMMON.QUEUE_DESC, 4)).toBe(0);
      expect(driver.read(COMMON.QUEUE_VECTOR, 2)).toBe(0xffff);
      const [queue] = driver.start(F_VERSION_1);
      expect(queue.request([], [3]).written).toBe(3);
    }
  });
});

describe('the configuration', () => {
  test('each change has another generation', () => {
    const { device, driver } = blk();
    driver.start();
    const seen = new Set([driver.generation]);
    for (let i = 0; i < 100; i++) {
      device.resized();
      seen.add(driver.generation);
    }
    expect(seen.size).toBe(101);
    for (let i = 0; i < 200; i++) device.resized();
    expect(driver.generation).toBeLessThan(256);
  });

  test('a change while no driver is there interrupts nobody, but has another generation', () => {
    const { device, driver } = blk();
    const before = driver.generation;
    device.resized();
    expect(driver.generation).not.toBe(before);
    expect(driver.takeMessages()).toEqual([]);
    expect(driver.readIsr()).toBe(0);
  });

  test('the window in configuration space reaches registers of all widths (section 4.1.4.9)', () => {
    const { driver } = blk();
    driver.start();
    const { config } = driver.pci;
    let at = config.read(PCI.CAPABILITY_LIST, 1);
    while (config.read(at, 1) !== 9 || config.read(at + 3, 1) !== 5) at = config.read(at + 1, 1);
    const access = (offset: number, length: number) => {
      config.write(at + 4, 1, 4);
      config.write(at + 8, 4, offset);
      config.write(at + 12, 4, length);
      return config.read(at + 16, length);
    };
    expect(access(COMMON.STATUS, 1)).toBe(RUNNING);
    expect(access(COMMON.NUM_QUEUES, 2)).toBe(2);
    expect(access(0x2000, 4)).toBe(128);
    access(COMMON.STATUS, 1);
    config.write(at + 16, 1, 0);
    expect(driver.status).toBe(0);
    // Neither outside, nor across, nor of another width.
    for (const [offset, length] of [
      [0x4000, 4],
      [2, 4],
      [0, 3],
      [0xfffffffc, 4],
    ]) {
      access(offset, length);
      config.write(at + 16, 4, 0);
    }
  });
});

describe('queues', () => {
  test('a queue that does not exist has size 0', () => {
    const driver = rng();
    driver.write(COMMON.QUEUE_SELECT, 2, 1);
    expect(driver.read(COMMON.QUEUE_SIZE, 2)).toBe(0);
    expect(driver.read(COMMON.QUEUE_ENABLE, 2)).toBe(0);
    driver.write(COMMON.QUEUE_ENABLE, 2, 1);
    driver.write(COMMON.QUEUE_RESET, 2, 1);
    expect(driver.read(COMMON.QUEUE_RESET, 2)).toBe(0);
    expect(driver.faults).toEqual([]);
  });

  test('a split ring has a power of two of descriptors, a packed one any number up to the limit', () => {
    const enable = (features: bigint, size: number) => {
      const driver = rng();
      driver.negotiate(features);
      driver.setUpQueue(0, { size });
      return driver.read(COMMON.QUEUE_ENABLE, 2) === 1;
    };
    expect([1, 2, 4, 8].every((size) => enable(F_VERSION_1, size))).toBe(true);
    expect([3, 6, 7, 16].some((size) => enable(F_VERSION_1, size))).toBe(false);
    expect([1, 3, 7, 8].every((size) => enable(F_VERSION_1 | F_PACKED, size))).toBe(true);
    expect(enable(F_VERSION_1 | F_PACKED, 9)).toBe(false);
  });

  test('registers of an enabled queue do not change', () => {
    const driver = rng();
    driver.negotiate(F_VERSION_1);
    const queue = driver.setUpQueue(0);
    driver.write(COMMON.QUEUE_SIZE, 2, 2);
    driver.write64(COMMON.QUEUE_DESC, 0x123456000);
    expect(driver.read(COMMON.QUEUE_SIZE, 2)).toBe(8);
    expect(driver.read(COMMON.QUEUE_DESC, 4)).toBe(queue.descriptors);
    // Writing 0 does not disable it (section 4.1.4.3.2).
    driver.write(COMMON.QUEUE_ENABLE, 2, 0);
    expect(driver.read(COMMON.QUEUE_ENABLE, 2)).toBe(1);
  });

  test('addresses are of 64 bits', () => {
    const driver = rng();
    driver.negotiate(F_VERSION_1);
    driver.write(COMMON.QUEUE_SELECT, 2, 0);
    for (const field of [COMMON.QUEUE_DESC, COMMON.QUEUE_DRIVER, COMMON.QUEUE_DEVICE]) {
      driver.write(field, 4, 0x89abcdef);
      driver.write(field + 4, 4, 0x12345);
      expect(driver.read(field, 4)).toBe(0x89abcdef);
      expect(driver.read(field + 4, 4)).toBe(0x12345);
    }
    driver.write(COMMON.QUEUE_ENABLE, 2, 1);
    expect(driver.read(COMMON.QUEUE_ENABLE, 2)).toBe(0);
    expect(driver.status & NEEDS_RESET).toBe(NEEDS_RESET);
  });

  test.each(RINGS)('of any size carry what fits, $name', ({ features }) => {
    for (const size of [1, 2, 8, ...(features & F_PACKED ? [3, 5, 7] : [])]) {
      const driver = rng();
      const [queue] = driver.start(features, [0], { size });
      const mark = driver.allocated;
      for (let round = 0; round < 100; round++) {
        driver.release(mark);
        const pieces = 1 + (round % size);
        const { bytes } = queue.request([], new Array(pieces).fill(10));
        expect(bytes).toEqual(new Uint8Array(pieces * 10).fill(7));
      }
      for (let round = 0; round < 100; round++) {
        driver.release(mark);
        for (let i = 0; i < 1 + (round % size); i++) queue.add([], [10]);
        queue.kick();
        expect(queue.collect().length).toBe(1 + (round % size));
      }
      if (features & F_INDIRECT) {
        expect(queue.request([], new Array(40).fill(10), true).written).toBe(400);
      }
      expect(driver.faults).toEqual([]);
    }
  });

  test.each(RINGS)('one is reset and enabled again, $name', ({ features }) => {
    const { driver } = blk();
    driver.start(features | F_RING_RESET);
    for (let round = 0; round < 5; round++) {
      const [first, second] = driver.queues;
      expect(first.request([FLUSH], [1]).bytes[0]).toBe(0);
      expect(second.request([FLUSH], [1]).bytes[0]).toBe(0);
      expect(driver.resetQueue(0)).toBe(true);
      expect(driver.read(COMMON.QUEUE_SIZE, 2)).toBe(256);
      first.add([FLUSH], [1]);
      first.ring();
      expect(first.collect()).toEqual([]);
      expect(second.request([FLUSH], [1]).bytes[0]).toBe(0);
      driver.setUpQueue(0, { size: 64 });
    }
  });
});

describe('interrupts', () => {
  test('messages go to the vector of the queue and of the configuration', () => {
    const { device, driver } = blk();
    const [first, second] = driver.start();
    driver.takeMessages();
    first.request([FLUSH], [1]);
    second.request([FLUSH], [1]);
    device.resized();
    expect(driver.takeMessages()).toEqual([1, 2, 0]);
  });

  test('queues may share a vector, or have none', () => {
    const { driver } = blk();
    const [first, second] = driver.start(undefined, undefined, { vector: 2 });
    driver.takeMessages();
    first.request([FLUSH], [1]);
    second.request([FLUSH], [1]);
    expect(driver.takeMessages()).toEqual([2, 2]);
    driver.write(COMMON.QUEUE_SELECT, 2, 1);
    driver.write(COMMON.QUEUE_VECTOR, 2, 0xffff);
    second.request([FLUSH], [1]);
    expect(driver.takeMessages()).toEqual([]);
  });

  test('a vector that does not exist reads back as none', () => {
    const { driver } = blk();
    driver.negotiate(F_VERSION_1);
    driver.write(COMMON.QUEUE_SELECT, 2, 0);
    for (const vector of [3, 100, 0xfffe]) {
      driver.write(COMMON.QUEUE_VECTOR, 2, vector);
      expect(driver.read(COMMON.QUEUE_VECTOR, 2)).toBe(0xffff);
      driver.write(COMMON.CONFIG_VECTOR, 2, vector);
      expect(driver.read(COMMON.CONFIG_VECTOR, 2)).toBe(0xffff);
    }
  });

  test('the pin is raised until the status is read', () => {
    const { device, driver } = blk({ intx: true });
    const [queue] = driver.start();
    driver.readIsr();
    expect(driver.slot.intx.level).toBe(false);
    queue.request([FLUSH], [1]);
    expect(driver.slot.intx.level).toBe(true);
    device.resized();
    expect(driver.readIsr()).toBe(3);
    expect(driver.slot.intx.level).toBe(false);
    expect(driver.readIsr()).toBe(0);
    queue.request([FLUSH], [1]);
    driver.reset();
    expect(driver.slot.intx.level).toBe(false);
    expect(driver.readIsr()).toBe(0);
    expect(driver.takeMessages()).toEqual([]);
  });

  test.each([0n, F_PACKED])('a driver that wants none gets none, until it wants them again (%i)', (ring) => {
    const { driver } = blk();
    const [queue] = driver.start(F_VERSION_1 | ring);
    driver.takeMessages();
    queue.setInterrupts(false);
    queue.request([FLUSH], [1]);
    expect(driver.takeMessages()).toEqual([]);
    queue.setInterrupts(true);
    queue.request([FLUSH], [1]);
    expect(driver.takeMessages()).toEqual([1]);
  });

  test.each([0n, F_PACKED])('with an event index the driver is interrupted where it asked for it (%i)', (ring) => {
    const disk = new MemoryDisk(65536);
    const driver = new MockDriver(new VirtioBlk({ name: 'vda', backend: disk }), { packed: true });
    const [queue] = driver.start(F_VERSION_1 | F_EVENT_IDX | F_INDIRECT | ring, [0], { size: 16 });
    queue.request([FLUSH], [1], true);
    driver.takeMessages();
    for (let round = 0; round < 50; round++) {
      const after = round % 7;
      queue.setInterrupts(true, after);
      disk.hold = true;
      for (let i = 0; i < 8; i++) queue.send([FLUSH], [1], true);
      disk.hold = false;
      for (let i = 0; i < 8; i++) {
        disk.waiting.shift()?.();
        expect(driver.takeMessages()).toEqual(i === after ? [1] : []);
      }
      expect(queue.collect().length).toBe(8);
    }
  });

  test.each([0n, F_PACKED])('with nothing given back there is nothing to tell (%i)', (ring) => {
    const { driver } = blk();
    const [queue] = driver.start(F_VERSION_1 | ring);
    queue.ring();
    expect(driver.takeMessages()).toEqual([]);
  });

  test.each(RINGS)('no notification is lost, $name', ({ features }) => {
    const { driver, disk } = blk();
    const [queue] = driver.start(features);
    for (let round = 0; round < 300; round++) {
      const mark = driver.allocated;
      disk.hold = round % 3 === 0;
      queue.send([FLUSH], [1]);
      if (round % 2) queue.send([FLUSH], [1]);
      disk.complete();
      expect(queue.collect().length).toBe(1 + (round % 2));
      driver.release(mark);
    }
  });
});

describe.each([
  ['split', 0n],
  ['packed', F_PACKED],
])('a driver that never stops, %s', (_name, ring) => {
  test('does not keep the device for itself', () => {
    let served = 0;
    let more = 1000;
    const driver: MockDriver = new MockDriver(
      new VirtioRng('rng', (into) => {
        into.fill(1);
        served++;
        const [queue] = driver.queues;
        // Another processor takes the last buffer back and makes the next available.
        queue.collect();
        if (more-- > 0) queue.add([], [8]);
      }),
      { packed: true },
    );
    const [queue] = driver.start(F_VERSION_1 | ring);
    queue.send([], [8]);
    expect(served).toBe(16);
    expect(driver.slot.deferred.length).toBe(1);
    driver.slot.deferred.shift()?.();
    expect(served).toBe(32);
    while (driver.slot.deferred.length > 0) driver.slot.deferred.shift()?.();
    expect(served).toBe(1001);
    more = 100;
    queue.collect();
    queue.send([], [8]);
    driver.reset();
    const before = served;
    driver.slot.deferred.shift()?.();
    expect(served).toBe(before);
  });
});

describe('snapshots', () => {
  test.each(RINGS)('a running device goes on after it was restored, $name', ({ features }) => {
    const { driver } = blk();
    driver.start(features);
    for (let i = 0; i < 300; i++) {
      const mark = driver.allocated;
      driver.queues[i % 2].request([FLUSH], [1]);
      driver.release(mark);
      if (i % 50 === 0) driver.pci.restore(JSON.parse(JSON.stringify(driver.pci.save())));
    }
    expect(driver.faults).toEqual([]);
  });

  test.each(RINGS)('what is in flight is done after it was restored, in any order, $name', ({ features }) => {
    const { disk, driver } = blk();
    const pick = random(12);
    driver.start(features, [0], { size: 32 });
    const [queue] = driver.queues;
    let mark = driver.allocated;
    for (let round = 0; round < 60; round++) {
      disk.hold = true;
      const sectors = new Map<number, number>();
      const returned = [];
      for (let i = 0; i < 8; i++) {
        const sector = pick(64);
        const header = new Uint8Array(16);
        header[8] = sector;
        sectors.set(queue.send([header], [512, 1], (features & F_INDIRECT) !== 0n).id, sector);
      }
      disk.bytes.fill(round);
      for (let i = pick(8); i > 0; i--) disk.waiting.splice(pick(disk.waiting.length), 1)[0]();
      returned.push(...queue.collect());
      const saved = JSON.parse(JSON.stringify(driver.pci.save()));
      if (round % 2) driver.reset();
      driver.queues[0] = queue;
      driver.pci.restore(saved);
      expect(driver.pci.save()).toEqual(saved);
      disk.complete(pick);
      returned.push(...queue.collect());
      expect(returned.length).toBe(8);
      for (const { sent, bytes } of returned) {
        expect(sectors.delete(sent.id)).toBe(true);
        expect([bytes[0], bytes[512]]).toEqual([round, 0]);
      }
      driver.release(mark);
      mark = driver.allocated;
    }
    expect(driver.faults).toEqual([]);
  });

  test('a device that needs a reset still does after it was restored', () => {
    const { disk, driver } = blk();
    driver.start(F_VERSION_1);
    driver.queues[0].send([], [1]);
    expect(driver.status & NEEDS_RESET).toBe(NEEDS_RESET);
    driver.pci.restore(JSON.parse(JSON.stringify(driver.pci.save())));
    expect(driver.status & NEEDS_RESET).toBe(NEEDS_RESET);
    driver.queues[1].send([FLUSH], [1]);
    expect(disk.log).toEqual([]);
  });
});
