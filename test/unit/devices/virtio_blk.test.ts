import { describe, expect, test } from 'vitest';
import { type BlkErrorAction, VirtioBlk } from '../../../src/devices/virtio/blk.ts';
import { random } from '../../support/random.ts';
import { MemoryDisk } from '../../support/virtio_backends.ts';
import {
  COMMON,
  type DriverOptions,
  type DriverQueue,
  F_PACKED,
  F_RING_RESET,
  F_VERSION_1,
  MockDriver,
  NEEDS_RESET,
  RING_FEATURES,
  RINGS,
} from '../../support/virtio_driver.ts';

const KIB = 1024;
const IN = 0;
const OUT = 1;
const FLUSH = 4;
const GET_ID = 8;
const DISCARD = 11;
const WRITE_ZEROES = 13;
const OK = 0;
const IOERR = 1;
const UNSUPP = 2;

const F_RO = 1n << 5n;
const F_FLUSH = 1n << 9n;
const F_WCE = 1n << 11n;
const F_MQ = 1n << 12n;
const F_DISCARD = 1n << 13n;
const F_WRITE_ZEROES = 1n << 14n;
const CONFIG = { CAPACITY: 0, SEG_MAX: 12, BLK_SIZE: 20, WRITEBACK: 32, NUM_QUEUES: 34 };

function header(type: number, sector = 0): Uint8Array {
  const bytes = new Uint8Array(16);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, type, true);
  view.setBigUint64(8, BigInt(sector), true);
  return bytes;
}

function range(sector: number, sectors: number, flags = 0): Uint8Array {
  const bytes = new Uint8Array(16);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, BigInt(sector), true);
  view.setUint32(8, sectors, true);
  view.setUint32(12, flags, true);
  return bytes;
}

const pattern = (length: number, seed: number) => {
  const pick = random(seed);
  return Uint8Array.from({ length }, () => pick(256));
};

interface SetUp {
  readonly disk?: MemoryDisk;
  readonly queues?: number;
  readonly serial?: string;
  readonly features?: bigint;
  readonly size?: number;
  readonly onError?: (operation: string, errno: number, offset: number) => BlkErrorAction;
  readonly options?: DriverOptions;
}

function setUp(given: SetUp = {}) {
  const disk = given.disk ?? new MemoryDisk(64 * KIB);
  const device = new VirtioBlk({
    name: 'vda',
    backend: disk,
    ...(given.queues !== undefined && { queues: given.queues }),
    ...(given.serial !== undefined && { serial: given.serial }),
    ...(given.onError && { onError: given.onError }),
  });
  const driver = new MockDriver(device, { packed: true, inOrder: true, ...given.options });
  const [queue] = driver.start(
    given.features ?? (driver.offered & ~RING_FEATURES) | F_VERSION_1 | F_RING_RESET,
    undefined,
    given.size === undefined ? {} : { size: given.size },
  );
  return { disk, device, driver, queue };
}

/** Sends a request whose only writable byte is the status. */
const status = (queue: DriverQueue, ...readable: Uint8Array[]) => {
  const { bytes, written } = queue.request(readable, [1]);
  expect(written).toBe(1);
  return bytes[0];
};

/** What a mock driver cannot know when the request is not back yet. */
const statusOf = (driver: MockDriver, { writable }: { writable: readonly { address: number; length: number }[] }) => {
  const last = writable[writable.length - 1];
  return driver.memory.bytes[last.address + last.length - 1];
};

describe.each(RINGS)('requests, $name', ({ features }) => {
  const deviceBits = F_FLUSH | F_WCE | F_DISCARD | F_WRITE_ZEROES;
  const start = (given: SetUp = {}) => setUp({ ...given, features: features | deviceBits });
  const indirect = (features & (1n << 28n)) !== 0n;

  test('reads and writes go where they say, in pieces of any size', () => {
    const { disk, queue } = start();
    disk.bytes.set(pattern(64 * KIB, 1));
    const read = queue.request([header(IN, 8)], [512, 100, 412, 1], indirect);
    expect(read.written).toBe(1025);
    expect(read.bytes.subarray(0, 1024)).toEqual(disk.bytes.subarray(4096, 5120));
    expect(read.bytes[1024]).toBe(OK);
    const data = pattern(1536, 2);
    const write = queue.request([header(OUT, 3), data.subarray(0, 700), data.subarray(700)], [1], indirect);
    expect([...write.bytes]).toEqual([OK]);
    expect(disk.bytes.subarray(1536, 3072)).toEqual(data);
  });

  test('header, data and status may share descriptors', () => {
    const { disk, queue } = start();
    const data = pattern(512, 3);
    const head = header(OUT, 1);
    expect(status(queue, head.subarray(0, 5), Uint8Array.of(...head.subarray(5), ...data))).toBe(OK);
    expect(disk.bytes.subarray(512, 1024)).toEqual(data);
    const { bytes } = queue.request([header(IN, 1)], [513]);
    expect(bytes.subarray(0, 512)).toEqual(data);
    expect(bytes[512]).toBe(OK);
  });

  test('a flush, the serial number and what is not known', () => {
    const { disk, queue } = start({ serial: 'disk-4711' });
    expect(status(queue, header(FLUSH))).toBe(OK);
    expect(disk.log).toEqual(['flush']);
    const { bytes } = queue.request([header(GET_ID)], [20, 1]);
    expect(Buffer.from(bytes.subarray(0, 20)).toString()).toBe('disk-4711'.padEnd(20, '\0'));
    expect(bytes[20]).toBe(OK);
    expect(queue.request([header(GET_ID)], [3, 1]).bytes.subarray(0, 3)).toEqual(Uint8Array.from(Buffer.from('dis')));
    for (const type of [2, 3, 5, 99, 0xffffffff]) expect(status(queue, header(type))).toBe(UNSUPP);
  });

  test('discard and write zeroes', () => {
    const { disk, queue } = start();
    disk.bytes.fill(1);
    expect(status(queue, header(DISCARD), range(8, 8))).toBe(OK);
    expect(status(queue, header(WRITE_ZEROES), range(32, 1, 0))).toBe(OK);
    expect(status(queue, header(WRITE_ZEROES), range(48, 2, 1))).toBe(OK);
    expect(disk.log).toEqual(['discard', 'zeroes', 'unmap zeroes']);
    expect(disk.bytes.subarray(4096, 8192).every((byte) => byte === 0)).toBe(true);
    expect(disk.bytes.subarray(8192, 16384).every((byte) => byte === 1)).toBe(true);
    expect(disk.bytes.subarray(16384, 16896).every((byte) => byte === 0)).toBe(true);
    // Unmapping is nothing that a discard can be told, and there are no other flags.
    expect(status(queue, header(DISCARD), range(8, 8, 1))).toBe(UNSUPP);
    expect(status(queue, header(WRITE_ZEROES), range(8, 8, 2))).toBe(UNSUPP);
    // One range of 16 bytes.
    expect(status(queue, header(DISCARD), range(8, 8), range(16, 8))).toBe(UNSUPP);
    expect(status(queue, header(DISCARD), new Uint8Array(15))).toBe(UNSUPP);
    expect(status(queue, header(DISCARD))).toBe(UNSUPP);
    expect(status(queue, header(DISCARD), range(127, 2))).toBe(IOERR);
    expect(status(queue, header(WRITE_ZEROES), range(2 ** 54, 1))).toBe(IOERR);
    expect(disk.log.length).toBe(3);
  });

  test('what lies outside of the disk, or is no whole sector, is an error', () => {
    const { disk, queue } = start();
    for (const [sector, bytes] of [
      [128, 512],
      [127, 1024],
      [2 ** 53, 512],
      [0, 511],
      [0, 513],
    ]) {
      expect(queue.request([header(IN, sector)], [bytes, 1]).bytes[bytes]).toBe(IOERR);
      expect(status(queue, header(OUT, sector), new Uint8Array(bytes))).toBe(IOERR);
    }
    const wraps = header(IN);
    wraps.fill(0xff, 8);
    expect(queue.request([wraps], [512, 1]).bytes[512]).toBe(IOERR);
    expect(disk.log).toEqual([]);
  });

  test('many requests complete in any order', () => {
    const { disk, driver, queue } = start();
    disk.bytes.set(pattern(64 * KIB, 5));
    disk.hold = true;
    const pick = random(6);
    const mark = driver.allocated;
    for (let round = 0; round < 50; round++) {
      driver.release(mark);
      const sectors = new Map<number, number>();
      const count = 1 + pick(40);
      for (let i = 0; i < count; i++) {
        const sector = pick(128);
        sectors.set(queue.add([header(IN, sector)], [512, 1], indirect).id, sector);
      }
      queue.kick();
      disk.complete(pick);
      const returned = queue.collect();
      expect(returned.length).toBe(count);
      for (const { sent, bytes } of returned) {
        const sector = sectors.get(sent.id) as number;
        expect(bytes[512]).toBe(OK);
        expect(bytes.subarray(0, 512)).toEqual(disk.bytes.subarray(sector * 512, sector * 512 + 512));
      }
    }
    expect(driver.faults).toEqual([]);
  });

  test('indices wrap', () => {
    const { disk, driver, queue } = start();
    const mark = driver.allocated;
    for (let i = 0; i < 70_000; i++) {
      driver.release(mark);
      if (queue.request([header(GET_ID)], [1]).bytes[0] !== OK) throw new Error(`request ${i}`);
    }
    expect(disk.log).toEqual([]);
  });
});

describe('features and configuration', () => {
  test('a disk tells what it is', () => {
    const { driver } = setUp({ queues: 3 });
    expect(driver.config64(CONFIG.CAPACITY)).toBe(128);
    expect(driver.config(CONFIG.SEG_MAX, 4)).toBe(254);
    expect(driver.config(CONFIG.BLK_SIZE, 4)).toBe(512);
    expect(driver.config(CONFIG.NUM_QUEUES, 2)).toBe(3);
    expect(driver.offered & F_MQ).toBe(F_MQ);
    expect(setUp().driver.offered & F_MQ).toBe(0n);
  });

  test('a read-only disk takes no change', () => {
    const disk = new MemoryDisk(64 * KIB, { readOnly: true });
    const { driver, queue } = setUp({ disk });
    expect(driver.offered & (F_RO | F_DISCARD | F_WRITE_ZEROES)).toBe(F_RO);
    for (const request of [
      [header(OUT), new Uint8Array(512)],
      [header(DISCARD), range(0, 8)],
      [header(WRITE_ZEROES), range(0, 8)],
    ]) {
      expect(status(queue, ...request)).toBe(IOERR);
    }
    expect(queue.request([header(IN)], [512, 1]).bytes[512]).toBe(OK);
    expect(status(queue, header(FLUSH))).toBe(OK);
  });

  test('a disk that cannot give space back says so', () => {
    const disk = new MemoryDisk(64 * KIB, { canDiscard: false });
    const { driver, queue } = setUp({ disk });
    expect(driver.offered & (F_DISCARD | F_WRITE_ZEROES)).toBe(F_WRITE_ZEROES);
    expect(status(queue, header(DISCARD), range(0, 8))).toBe(UNSUPP);
    expect(status(queue, header(WRITE_ZEROES), range(0, 8))).toBe(OK);
  });

  test('write-through: each write is flushed before it is answered', () => {
    const { disk, driver, queue } = setUp();
    expect(driver.config(CONFIG.WRITEBACK, 1)).toBe(1);
    expect(status(queue, header(OUT), new Uint8Array(512))).toBe(OK);
    expect(disk.log).toEqual(['write']);
    driver.setConfig(CONFIG.WRITEBACK, 1, 0);
    expect(driver.config(CONFIG.WRITEBACK, 1)).toBe(0);
    expect(status(queue, header(OUT), new Uint8Array(512))).toBe(OK);
    expect(disk.log).toEqual(['write', 'write', 'flush']);
    driver.setConfig(CONFIG.WRITEBACK, 1, 1);
    expect(status(queue, header(OUT), new Uint8Array(512))).toBe(OK);
    expect(disk.log.length).toBe(4);
    driver.setConfig(CONFIG.WRITEBACK, 1, 0);
    driver.start();
    expect(driver.config(CONFIG.WRITEBACK, 1)).toBe(1);
  });

  test('a driver that knows no flush has its writes on stable storage (section 5.2.6.2)', () => {
    const { disk, queue } = setUp({ features: F_VERSION_1 });
    expect(status(queue, header(OUT), new Uint8Array(512))).toBe(OK);
    expect(disk.log).toEqual(['write', 'flush']);
  });

  test('with the switch but without a flush, write-through is where it starts (section 5.2.5.2)', () => {
    const { disk, driver, queue } = setUp({ features: F_VERSION_1 | F_WCE });
    expect(driver.config(CONFIG.WRITEBACK, 1)).toBe(0);
    expect(status(queue, header(OUT), new Uint8Array(512))).toBe(OK);
    expect(disk.log).toEqual(['write', 'flush']);
  });

  test('a failed write is not flushed, a failed flush fails its write', () => {
    const { disk, driver, queue } = setUp();
    driver.setConfig(CONFIG.WRITEBACK, 1, 0);
    disk.errno = 5;
    expect(status(queue, header(OUT), new Uint8Array(512))).toBe(IOERR);
    expect(disk.log).toEqual(['write']);
    disk.errno = 0;
    disk.hold = true;
    const sent = queue.send([header(OUT), new Uint8Array(512)], [1]);
    disk.errno = 28;
    disk.complete();
    expect(queue.collect().length).toBe(1);
    expect(statusOf(driver, sent)).toBe(IOERR);
  });

  test('a new size is told, with a new generation', () => {
    const { disk, device, driver, queue } = setUp();
    driver.takeMessages();
    const before = driver.generation;
    disk.bytes = new Uint8Array(256 * KIB);
    device.resized();
    expect(driver.takeMessages()).toEqual([0]);
    expect(driver.generation).not.toBe(before);
    expect(driver.config64(CONFIG.CAPACITY)).toBe(512);
    expect(queue.request([header(IN, 511)], [512, 1]).bytes[512]).toBe(OK);
    disk.bytes = new Uint8Array(32 * KIB);
    device.resized();
    expect(queue.request([header(IN, 64)], [512, 1]).bytes[512]).toBe(IOERR);
  });
});

describe('queues', () => {
  test('each has its own interrupt', () => {
    const { driver } = setUp({ queues: 4 });
    expect(driver.read(COMMON.NUM_QUEUES, 2)).toBe(4);
    driver.takeMessages();
    for (const queue of driver.queues) {
      expect(status(queue, header(FLUSH))).toBe(OK);
      expect(driver.takeMessages()).toEqual([queue.index + 1]);
    }
  });

  test('one interrupt tells of all that completes together', () => {
    const { disk, driver, queue } = setUp();
    disk.hold = true;
    driver.takeMessages();
    for (let i = 0; i < 10; i++) queue.add([header(FLUSH)], [1]);
    queue.kick();
    expect(driver.takeMessages()).toEqual([]);
    disk.complete();
    expect(driver.takeMessages()).toEqual([1]);
    expect(queue.collect().length).toBe(10);
  });

  test.each([0n, F_PACKED])(
    'a queue that is reset while its requests are in flight hears nothing of them (%i)',
    (ring) => {
      const { disk, driver, queue } = setUp({ features: F_VERSION_1 | F_RING_RESET | F_FLUSH | ring });
      disk.hold = true;
      queue.send([header(IN)], [512, 1]);
      queue.send([header(FLUSH)], [1]);
      // The device still reads into the driver's memory: it is not done before the disk is.
      expect(driver.resetQueue(0)).toBe(false);
      disk.complete();
      expect(driver.queueIsReset(0)).toBe(true);
      expect(queue.collect()).toEqual([]);
      disk.hold = false;
      const again = driver.setUpQueue(0);
      expect(again.collect()).toEqual([]);
      expect(status(again, header(FLUSH))).toBe(OK);
      expect(again.collect()).toEqual([]);
    },
  );

  test('what was in flight does not go into the ring that took the place', () => {
    const { disk, driver, queue } = setUp();
    disk.hold = true;
    const sent = queue.send([header(FLUSH)], [1]);
    driver.memory.bytes[sent.writable[0].address] = 0xaa;
    driver.resetQueue(0);
    const again = driver.setUpQueue(0);
    again.send([header(FLUSH)], [1]);
    disk.complete();
    expect(again.collect().length).toBe(1);
    expect(driver.memory.bytes[sent.writable[0].address]).toBe(0xaa);
    expect(driver.faults).toEqual([]);
  });
});

describe('failures', () => {
  test('report: the guest is told', () => {
    const seen: unknown[] = [];
    const { disk, queue } = setUp({
      onError: (...what) => {
        seen.push(what);
        return 'report';
      },
    });
    disk.errno = 5;
    expect(queue.request([header(IN, 2)], [512, 1]).bytes[512]).toBe(IOERR);
    expect(status(queue, header(OUT, 3), new Uint8Array(512))).toBe(IOERR);
    expect(status(queue, header(FLUSH))).toBe(IOERR);
    expect(status(queue, header(DISCARD), range(8, 8))).toBe(IOERR);
    expect(status(queue, header(WRITE_ZEROES), range(8, 8))).toBe(IOERR);
    expect(seen).toEqual([
      ['read', 5, 1024],
      ['write', 5, 1536],
      ['flush', 5, 0],
      ['discard', 5, 4096],
      ['write-zeroes', 5, 4096],
    ]);
  });

  test('ignore: the guest is not', () => {
    const { disk, queue } = setUp({ onError: () => 'ignore' });
    disk.errno = 5;
    expect(status(queue, header(FLUSH))).toBe(OK);
  });

  test('stop: the request waits, and is tried again', () => {
    const { disk, device, driver, queue } = setUp({ onError: () => 'stop' });
    disk.errno = 28;
    const data = pattern(512, 9);
    const sent = queue.send([header(OUT, 5), data], [1]);
    expect(queue.collect()).toEqual([]);
    expect(device.heldRequests).toBe(1);
    device.retry();
    expect(device.heldRequests).toBe(1);
    disk.errno = 0;
    driver.takeMessages();
    device.retry();
    expect(device.heldRequests).toBe(0);
    expect(device.inFlight).toBe(0);
    expect(driver.takeMessages()).toEqual([1]);
    expect(queue.collect().map((each) => each.sent.id)).toEqual([sent.id]);
    expect(statusOf(driver, sent)).toBe(OK);
    expect(disk.bytes.subarray(2560, 3072)).toEqual(data);
  });

  test('a reset of the queue or the device forgets what waits', () => {
    const { disk, device, driver, queue } = setUp({ onError: () => 'stop' });
    disk.errno = 28;
    queue.send([header(FLUSH)], [1]);
    expect(driver.resetQueue(0)).toBe(true);
    expect(device.heldRequests).toBe(0);
    const again = driver.setUpQueue(0);
    again.send([header(FLUSH)], [1]);
    driver.reset();
    expect(device.heldRequests).toBe(0);
    disk.errno = 0;
    device.retry();
    expect(again.collect()).toEqual([]);
  });
});

describe('resets', () => {
  test.each([0n, F_PACKED])(
    'with requests in flight: the status is 0 when the disk is done with memory (%i)',
    (ring) => {
      const { disk, driver, queue } = setUp({ features: F_VERSION_1 | F_FLUSH | ring });
      disk.bytes.fill(0x55);
      disk.hold = true;
      const sent = queue.send([header(IN)], [512, 1]);
      driver.memory.bytes[sent.writable[1].address] = 0xaa;
      driver.status = 0;
      expect(driver.status).not.toBe(0);
      disk.complete();
      expect(driver.status).toBe(0);
      expect(statusOf(driver, sent)).toBe(0xaa);
      disk.hold = false;
      const [again] = driver.start(F_VERSION_1 | F_FLUSH | ring);
      expect(status(again, header(FLUSH))).toBe(OK);
      expect(queue.collect()).toEqual([]);
    },
  );

  test('a driver that does not wait breaks only what is its own', () => {
    const { disk, driver, queue } = setUp();
    disk.hold = true;
    queue.send([header(FLUSH)], [1]);
    const [again] = driver.start();
    again.send([header(FLUSH)], [1]);
    disk.complete();
    expect(again.collect().length).toBe(1);
    expect(driver.faults).toEqual([]);
  });
});

describe('broken requests', () => {
  test.each([
    ['a short header', [new Uint8Array(15)], [1]],
    ['no header', [], [1]],
    ['no status', [header(FLUSH)], []],
  ])('%s needs a reset', (_name, readable, writable) => {
    const { disk, driver, queue } = setUp();
    driver.takeMessages();
    queue.add(readable, writable);
    // What comes after it is not done.
    queue.add([header(OUT), new Uint8Array(512)], [1]);
    queue.kick();
    expect(driver.status & NEEDS_RESET).toBe(NEEDS_RESET);
    expect(driver.takeMessages()).toEqual([0]);
    expect(driver.faults.length).toBe(1);
    expect(queue.collect()).toEqual([]);
    expect(disk.log).toEqual([]);
    queue.ring();
    expect(driver.faults.length).toBe(1);
    const [again] = driver.start();
    expect(status(again, header(FLUSH))).toBe(OK);
  });
});
