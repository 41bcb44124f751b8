import { describe, expect, test } from 'vitest';
import { type BalloonStatistics, VirtioBalloon } from '../../../src/devices/virtio/balloon.ts';
import { F_RING_RESET, F_VERSION_1, MockDriver, RINGS } from '../../support/virtio_driver.ts';

const F_STATS = 1n << 1n;
const F_OOM = 1n << 2n;
const F_POISON = 1n << 4n;
const F_REPORTING = 1n << 5n;
const PAGE = 4096;
const MIB = 2 ** 20;

function setUp(features = F_VERSION_1 | F_STATS | F_REPORTING | F_RING_RESET, which?: number[]) {
  const discarded: [number, number][] = [];
  const actual: number[] = [];
  const statistics: BalloonStatistics[] = [];
  const device = new VirtioBalloon({
    name: 'balloon',
    backend: { discard: (gpa, length) => void discarded.push([gpa, length]) },
    deflateOnOom: true,
    onActual: (bytes) => actual.push(bytes),
    onStatistics: (each) => statistics.push(each),
  });
  const driver = new MockDriver(device, { packed: true, inOrder: true });
  driver.start(features, which);
  driver.takeMessages();
  return { device, driver, discarded, actual, statistics, queues: driver.queues };
}

const pfns = (...numbers: number[]) => new Uint8Array(Uint32Array.from(numbers).buffer);

function stats(...entries: [number, bigint][]): Uint8Array {
  const bytes = new Uint8Array(entries.length * 10);
  const view = new DataView(bytes.buffer);
  for (const [i, [tag, value]] of entries.entries()) {
    view.setUint16(i * 10, tag, true);
    view.setBigUint64(i * 10 + 2, value, true);
  }
  return bytes;
}

describe.each(RINGS)('pages, $name', ({ features }) => {
  test('that go into the balloon are given back to the host, neighbours together', () => {
    const { discarded, queues, driver } = setUp(features | F_STATS);
    expect(queues[0].request([pfns(16, 17, 18, 40, 41, 60)], []).written).toBe(0);
    expect(discarded).toEqual([
      [16 * PAGE, 3 * PAGE],
      [40 * PAGE, 2 * PAGE],
      [60 * PAGE, PAGE],
    ]);
    expect(driver.takeMessages()).toEqual([1]);
    discarded.length = 0;
    // As Linux does it, downwards; and in pieces that cut a number.
    const down = pfns(63, 62, 61, 20);
    queues[0].request([down.subarray(0, 7), down.subarray(7)], []);
    expect(discarded).toEqual([
      [61 * PAGE, 3 * PAGE],
      [20 * PAGE, PAGE],
    ]);
  });

  test('that come out of it are the guest’s again', () => {
    const { discarded, queues } = setUp(features);
    queues[1].request([pfns(16, 17)], []);
    expect(discarded).toEqual([]);
  });

  test('that are no RAM are nobody’s to give', () => {
    const { discarded, queues, driver } = setUp(features);
    queues[0].request([pfns(255, 256, 0xffffffff, 16)], []);
    queues[0].request([Uint8Array.of(1, 2, 3)], []);
    expect(discarded).toEqual([
      [255 * PAGE, PAGE],
      [16 * PAGE, PAGE],
    ]);
    expect(driver.faults).toEqual([]);
  });
});

describe('the size', () => {
  test('that is wanted is told to the guest, and the guest tells what there is', () => {
    const { device, driver, actual } = setUp();
    device.setTarget(16 * MIB);
    expect(driver.takeMessages()).toEqual([0]);
    expect(driver.config(0, 4)).toBe(4096);
    device.setTarget(16 * MIB);
    expect(driver.takeMessages()).toEqual([]);
    driver.setConfig(4, 4, 1000);
    expect(device.actual).toBe(1000 * PAGE);
    expect(actual).toEqual([1000 * PAGE]);
    expect(device.target).toBe(16 * MIB);
    expect(() => device.setTarget(-1)).toThrow(/cannot hold -1 bytes/);
    expect(() => device.setTarget(2 ** 60)).toThrow(/cannot hold/);
    expect(() => device.setTarget(Number.NaN)).toThrow(/cannot hold/);
    // The wish is the host's to change.
    driver.setConfig(0, 4, 5);
    expect(driver.config(0, 4)).toBe(4096);
    // A driver that starts anew has an empty balloon, and the same wish to fulfil.
    driver.reset();
    expect(device.actual).toBe(0);
    expect(driver.config(0, 4)).toBe(4096);
  });

  test('deflate-on-oom is offered when it was asked for', () => {
    expect(setUp().driver.offered & F_OOM).toBe(F_OOM);
    const plain = new VirtioBalloon({ name: 'balloon', backend: { discard: () => {} }, reporting: false });
    expect(plain.features & (F_OOM | F_REPORTING)).toBe(0n);
  });

  test('a snapshot has it', () => {
    const { device, driver } = setUp(F_VERSION_1 | F_POISON);
    device.setTarget(MIB);
    driver.setConfig(4, 4, 100);
    driver.setConfig(12, 4, 0xaaaaaaaa);
    driver.pci.restore(JSON.parse(JSON.stringify(driver.pci.save())));
    expect(device.target).toBe(MIB);
    expect(device.actual).toBe(100 * PAGE);
    expect(driver.config(12, 4)).toBe(0xaaaaaaaa);
  });
});

describe('statistics', () => {
  test.each(RINGS)('come when they are asked for, $name', ({ features }) => {
    const { device, driver, queues, statistics } = setUp(features | F_STATS);
    const [, , queue] = queues;
    expect(device.refreshStats()).toBe(true);
    // What the driver sends when it starts answers that.
    queue.send([stats([4, 1n])], []);
    expect(queue.collect().length).toBe(1);
    queue.send([stats([4, 1234n], [5, 2n ** 33n], [6, 5n], [0, 2n ** 64n - 1n], [77, 1n])], []);
    expect(queue.collect()).toEqual([]);
    expect(device.stats()).toEqual({ freeMemory: 1234, totalMemory: 2 ** 33, availableMemory: 5 });
    driver.takeMessages();
    for (let round = 1n; round < 200n; round++) {
      const mark = driver.allocated;
      expect(device.refreshStats()).toBe(true);
      expect(driver.takeMessages()).toEqual([3]);
      expect(queue.collect().length).toBe(1);
      expect(device.refreshStats()).toBe(true);
      queue.send([stats([4, round])], []);
      // Asked twice meanwhile: it goes round once more.
      expect(queue.collect().length).toBe(1);
      queue.send([stats([4, round + 1n])], []);
      expect(device.stats()).toEqual({ freeMemory: Number(round + 1n) });
      driver.takeMessages();
      driver.release(mark);
    }
    expect(statistics.length).toBe(2 + 2 * 199);
    driver.reset();
    expect(device.stats()).toEqual({});
    expect(device.refreshStats()).toBe(false);
  });

  test('there are none from a driver that has none', () => {
    const { device } = setUp(F_VERSION_1);
    expect(device.refreshStats()).toBe(false);
    expect(device.stats()).toEqual({});
  });

  test('a buffer stands through a snapshot, and is gone with its queue', () => {
    for (const { features } of RINGS) {
      const { device, driver, queues } = setUp(features | F_STATS | F_RING_RESET);
      queues[2].send([stats([4, 1n])], []);
      driver.pci.restore(JSON.parse(JSON.stringify(driver.pci.save())));
      expect(device.stats()).toEqual({ freeMemory: 1 });
      device.refreshStats();
      expect(queues[2].collect().length).toBe(1);
      queues[2].send([stats([4, 2n])], []);
      driver.resetQueue(2);
      driver.setUpQueue(2);
      expect(device.refreshStats()).toBe(true);
      expect(queues[2].collect()).toEqual([]);
    }
  });
});

describe('reports of free pages', () => {
  /** A buffer that is the pages themselves. */
  const report = (driver: MockDriver, index: number, length: number) => {
    const queue = driver.queues[index];
    driver.allocate(0, PAGE);
    const before = Math.ceil(driver.allocated / PAGE) * PAGE;
    driver.allocate(before - driver.allocated, 1);
    const { sent, written } = queue.request([], [length]);
    expect(written).toBe(0);
    return sent.writable[0].address;
  };

  test.each([
    ['as the specification numbers the queues', F_STATS, 4],
    ['as drivers do', F_STATS, 3],
    ['as drivers without statistics do', 0n, 2],
  ])('give them to the host, %s', (_name, features, index) => {
    const { driver, discarded } = setUp(F_VERSION_1 | F_REPORTING | features, [0, 1, index]);
    const at = report(driver, index, 16 * PAGE);
    expect(discarded).toEqual([[at, 16 * PAGE]]);
    report(driver, index, PAGE - 1);
    expect(discarded.length).toBe(1);
  });

  test('but not those that hold poison', () => {
    const { driver, discarded } = setUp(F_VERSION_1 | F_REPORTING | F_POISON);
    report(driver, 3, PAGE);
    expect(discarded.length).toBe(1);
    driver.setConfig(12, 4, 0xaaaaaaaa);
    report(driver, 3, PAGE);
    expect(discarded.length).toBe(1);
  });
});
