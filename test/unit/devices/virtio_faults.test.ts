/** What a device does with a driver that breaks the rules of its rings, and without bus mastering. */
import { describe, expect, test } from 'vitest';
import { PCI, PCI_COMMAND_MASTER, PCI_COMMAND_MEMORY } from '../../../src/devices/pci/config_space.ts';
import { VirtioBlk } from '../../../src/devices/virtio/blk.ts';
import { VirtioRng } from '../../../src/devices/virtio/rng.ts';
import { MemoryDisk } from '../../support/virtio_backends.ts';
import {
  ACKNOWLEDGE,
  COMMON,
  DRIVER,
  DRIVER_OK,
  type DriverOptions,
  F_IN_ORDER,
  F_INDIRECT,
  F_PACKED,
  F_VERSION_1,
  FEATURES_OK,
  MockDriver,
  NEEDS_RESET,
} from '../../support/virtio_driver.ts';

const rng = (options: DriverOptions = {}) =>
  new MockDriver(new VirtioRng('rng', (into) => into.fill(7)), { packed: true, inOrder: true, ...options });
const blk = (options: DriverOptions = {}) => {
  const disk = new MemoryDisk(65536);
  const device = new VirtioBlk({ name: 'vda', backend: disk, queues: 2 });
  return { disk, device, driver: new MockDriver(device, { packed: true, inOrder: true, ...options }) };
};
const RUNNING = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;

describe('faults', () => {
  /** Breaks a rule on a running device: it asks for a reset, tells of it, does nothing, and works after the reset. */
  function broken(features: bigint, breakIt: (driver: MockDriver) => void, why: RegExp) {
    const driver = rng();
    driver.start(features);
    driver.takeMessages();
    breakIt(driver);
    expect(driver.faults.join()).toMatch(why);
    expect(driver.status).toBe(RUNNING | NEEDS_RESET);
    expect(driver.takeMessages()).toEqual([0]);
    driver.status = RUNNING;
    expect(driver.status).toBe(RUNNING | NEEDS_RESET);
    driver.queues[0].ring();
    expect(driver.takeMessages()).toEqual([]);
    driver.slot.messages.length = 0;
    const [queue] = driver.start(features);
    expect(queue.request([], [4]).written).toBe(4);
  }
  const split = F_VERSION_1 | F_INDIRECT;
  const packed = split | F_PACKED;
  const descriptor = (
    driver: MockDriver,
    index: number,
    address: bigint,
    length: number,
    low: number,
    high: number,
    at = driver.queues[0].descriptors,
  ) => {
    const { view } = driver.memory;
    view.setBigUint64(at + 16 * index, address, true);
    view.setUint32(at + 16 * index + 8, length, true);
    view.setUint16(at + 16 * index + 12, low, true);
    view.setUint16(at + 16 * index + 14, high, true);
  };
  const head = (driver: MockDriver, index: number, available = 1) => {
    driver.memory.view.setUint16(driver.queues[0].driver + 4, index, true);
    driver.memory.view.setUint16(driver.queues[0].driver + 2, available, true);
    driver.queues[0].ring();
  };
  const AVAIL = 0x80;

  test.each<[string, bigint, (driver: MockDriver) => void, RegExp]>([
    ['an index too far', split, (driver) => head(driver, 0, 9), /9 buffers are available in a queue of 8/],
    ['a head that is none', split, (driver) => head(driver, 8), /descriptor 8 in a queue of 8/],
    [
      'a chain to nowhere',
      split,
      (driver) => {
        descriptor(driver, 0, 0x1000n, 8, 3, 200);
        head(driver, 0);
      },
      /descriptor 200/,
    ],
    [
      'a loop',
      split,
      (driver) => {
        descriptor(driver, 0, 0x1000n, 8, 3, 0);
        head(driver, 0);
      },
      /loops/,
    ],
    [
      'memory that is none',
      split,
      (driver) => {
        descriptor(driver, 0, 0xfffffffffffffff8n, 16, 2, 0);
        head(driver, 0);
      },
      /not RAM/,
    ],
    [
      'no bytes',
      split,
      (driver) => {
        descriptor(driver, 0, 0x1000n, 0, 2, 0);
        head(driver, 0);
      },
      /no bytes/,
    ],
    [
      'the wrong order',
      split,
      (driver) => {
        descriptor(driver, 0, 0x1000n, 8, 3, 1);
        descriptor(driver, 1, 0x1000n, 8, 0, 0);
        head(driver, 0);
      },
      /readable descriptor follows/,
    ],
    [
      'an indirect table that goes on',
      split,
      (driver) => {
        descriptor(driver, 0, 0x1000n, 16, 5, 1);
        head(driver, 0);
      },
      /indirect descriptor has a next/,
    ],
    [
      'an indirect table of odd length',
      split,
      (driver) => {
        descriptor(driver, 0, 0x1000n, 17, 4, 0);
        head(driver, 0);
      },
      /table has 17 bytes/,
    ],
    [
      'a huge indirect table',
      split,
      (driver) => {
        descriptor(driver, 0, 0x1000n, 0xfffffff0, 4, 0);
        head(driver, 0);
      },
      /descriptors/,
    ],
    [
      'tables in tables',
      split,
      (driver) => {
        descriptor(driver, 0, 0x8000n, 16, 4, 0);
        descriptor(driver, 0, 0x8000n, 16, 4, 0, 0x8000);
        head(driver, 0);
      },
      /leads to another/,
    ],
    [
      'a loop in a table',
      split,
      (driver) => {
        descriptor(driver, 0, 0x8000n, 32, 4, 0);
        descriptor(driver, 0, 0x1000n, 8, 3, 1, 0x8000);
        descriptor(driver, 1, 0x1000n, 8, 3, 0, 0x8000);
        head(driver, 0);
      },
      /loops/,
    ],
    [
      'a table that was not negotiated',
      F_VERSION_1,
      (driver) => {
        descriptor(driver, 0, 0x8000n, 16, 4, 0);
        head(driver, 0);
      },
      /not negotiated/,
    ],
    [
      'a packed chain without an end',
      packed,
      (driver) => {
        for (let i = 0; i < 8; i++) descriptor(driver, i, 0x1000n, 8, 0, AVAIL | 3);
        driver.queues[0].ring();
      },
      /longer than its queue/,
    ],
    [
      'a packed table with a next one',
      packed,
      (driver) => {
        descriptor(driver, 0, 0x1000n, 16, 0, AVAIL | 5);
        descriptor(driver, 1, 0x1000n, 16, 0, AVAIL);
        driver.queues[0].ring();
      },
      /indirect descriptor has a next/,
    ],
  ])('%s needs a reset', (_name, features, breakIt, why) => broken(features, breakIt, why));

  test('a ring that is not in RAM needs one too', () => {
    const driver = rng();
    driver.negotiate(F_VERSION_1);
    driver.write(COMMON.QUEUE_SELECT, 2, 0);
    driver.write64(COMMON.QUEUE_DESC, 2 ** 20 - 64);
    driver.write(COMMON.QUEUE_ENABLE, 2, 1);
    expect(driver.status & NEEDS_RESET).toBe(NEEDS_RESET);
    // It is not started like that, and says so once the driver listens.
    driver.status = RUNNING;
    const [queue] = driver.start(F_VERSION_1);
    expect(queue.request([], [4]).written).toBe(4);
  });

  test('more in flight than the ring can hold is refused', () => {
    for (const ring of [0n, F_PACKED, F_IN_ORDER, F_PACKED | F_IN_ORDER]) {
      const { disk, driver } = blk();
      disk.hold = true;
      const [queue] = driver.start(F_VERSION_1 | ring, [0], { size: 4 });
      const { view } = driver.memory;
      const buffer = driver.put(new Uint8Array(32));
      for (let lap = 0; lap < 100; lap++) {
        for (let i = 0; i < 2; i++) {
          const at = queue.descriptors + 32 * i;
          const mark = lap % 2 === 0 ? 0x80 : 0x8000;
          for (const [index, address, length, flags] of [
            [0, buffer, 16, 1],
            [1, buffer + 16, 1, 2],
          ]) {
            view.setBigUint64(at + 16 * index, BigInt(address), true);
            view.setUint32(at + 16 * index + 8, length, true);
            const packed = (ring & F_PACKED) !== 0n;
            view.setUint16(at + 16 * index + 12, packed ? 0 : flags, true);
            view.setUint16(at + 16 * index + 14, packed ? flags | mark : 2 * i + 1, true);
          }
          view.setUint8(buffer, 4);
          if (!(ring & F_PACKED)) {
            view.setUint16(queue.driver + 4 + 2 * ((lap * 2 + i) % 4), 2 * i, true);
            view.setUint16(queue.driver + 2, lap * 2 + i + 1, true);
          }
          queue.ring();
          // In order, what completes behind the first is not given back before it.
          if (ring & F_IN_ORDER) for (const complete of disk.waiting.splice(1)) complete();
        }
      }
      expect(disk.waiting.length).toBeLessThanOrEqual(4);
      expect(driver.status & NEEDS_RESET).toBe(NEEDS_RESET);
    }
  });

  test('without bus mastering nothing is read; what waits is done when it is back', () => {
    const driver = rng();
    const [queue] = driver.start(F_VERSION_1);
    driver.pci.config.write(PCI.COMMAND, 2, PCI_COMMAND_MEMORY);
    queue.send([], [4]);
    expect(queue.collect()).toEqual([]);
    driver.pci.config.write(PCI.COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    expect(queue.collect().length).toBe(1);
    expect(driver.faults).toEqual([]);
  });

  test('a snapshot of a device without bus mastering can be restored', () => {
    const driver = rng();
    const [queue] = driver.start(F_VERSION_1);
    driver.pci.config.write(PCI.COMMAND, 2, PCI_COMMAND_MEMORY);
    queue.send([], [4]);
    driver.pci.restore(JSON.parse(JSON.stringify(driver.pci.save())));
    expect(driver.status).toBe(RUNNING);
    expect(queue.collect()).toEqual([]);
    driver.pci.config.write(PCI.COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    expect(queue.collect().length).toBe(1);
  });
});
