/**
 * A driver that means harm: rings, descriptors and registers of any kind, in any order, with resets in between. What
 * it promises to find: an exception that leaves the device, work without bounds, memory that grows, and a device that
 * does not work any more after a reset.
 */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { PCI, PCI_COMMAND_MASTER, PCI_COMMAND_MEMORY } from '../../src/devices/pci/config_space.ts';
import type { VirtioDevice } from '../../src/devices/virtio/device.ts';
import { random } from './random.ts';
import { COMMON, F_PACKED, F_VERSION_1, FEATURES_OK, MockDriver, NEEDS_RESET, RING_FEATURES } from './virtio_driver.ts';

/** A device that runs has FEATURES_OK, and needs no reset. */
const RUNS = FEATURES_OK | NEEDS_RESET;

export type Pick = (limit: number) => number;

export interface Prey {
  readonly device: VirtioDevice;
  /** What a request of this device begins with, more or less. */
  readonly request: (pick: Pick) => Uint8Array;
  /** Something happens on the other side: completions, frames, time. */
  readonly disturb?: (pick: Pick) => void;
  /** The other side is as at the start. */
  readonly settle?: () => void;
  /** Uses the device as it is meant to be, just started. @throws when it does not work. */
  readonly works: (driver: MockDriver) => void;
}

const MEMORY = 2 ** 18;
const RINGS_AT = 0x1000;
const RING_ROOM = 0x2000;
const DATA_AT = 0x20000;
/** Pieces of memory that a device may look up for one access: each queue's buffers at their longest, and some. */
const MOST_SLICES = 600_000;
/** Far more than any access takes, even on a busy machine. */
const MOST_MS = 5000;

const LENGTHS = [
  0, 1, 2, 4, 6, 8, 11, 12, 15, 16, 17, 20, 60, 64, 512, 513, 1024, 4096, 0x10000, 0x80000000, 0xffffffff,
];

class Attack {
  readonly prey: Prey;
  readonly driver: MockDriver;
  readonly #pick: Pick;
  #slices = 0;
  #packed = false;
  #queues: { size: number; descriptors: number; driver: number; device: number; available: number; wrap: boolean }[] =
    [];

  constructor(prey: Prey, pick: Pick) {
    this.prey = prey;
    this.#pick = pick;
    this.driver = new MockDriver(prey.device, { packed: true, inOrder: true, memory: MEMORY });
    const { memory } = this.driver;
    const slice = memory.slice.bind(memory);
    memory.slice = (gpa, length) => {
      if (++this.#slices > MOST_SLICES) throw new Error(`one access looked up memory ${MOST_SLICES} times`);
      return slice(gpa, length);
    };
  }

  /** Does one thing to the device and sees that it ends. */
  #act(what: () => void): void {
    this.#slices = 0;
    const start = performance.now();
    what();
    if (performance.now() - start > MOST_MS) throw new Error('one access took seconds');
  }

  one(): void {
    const pick = this.#pick;
    const { driver } = this;
    if (pick(30) === 0 || (driver.status & RUNS) !== FEATURES_OK) this.#act(() => this.#setUp());
    const steps = 1 + pick(12);
    for (let step = 0; step < steps; step++) {
      const queue = pick(this.#queues.length);
      switch (pick(12)) {
        case 0:
          this.#act(() => this.#anyRegister());
          break;
        case 1:
        case 2:
          this.#act(() => this.prey.disturb?.(pick));
          break;
        case 3:
          if (pick(4) === 0) this.#act(() => driver.resetQueue(queue));
          break;
        case 4:
          if (pick(4) === 0) this.#act(() => this.#enable(queue));
          break;
        case 5:
          if (pick(8) === 0) {
            const master = pick(2) ? PCI_COMMAND_MASTER : 0;
            this.#act(() => driver.pci.config.write(PCI.COMMAND, 2, PCI_COMMAND_MEMORY | master));
          }
          break;
        case 6:
          // Anything anywhere, rings included.
          if (pick(2)) break;
          driver.memory.view.setUint32(pick(MEMORY - 4), pick(3) ? pick(0x20000) : pick(2 ** 32), true);
          break;
        case 7:
          if (pick(30) === 0) this.#act(() => this.#snapshot());
          this.#nonsense(queue);
          break;
        default:
          this.#buffers(queue);
      }
      // What was put off, not all of it: it may put itself off again.
      for (let i = driver.slot.deferred.length; i > 0; i--) this.#act(() => driver.slot.deferred.shift()?.());
      const { bar, offset } = this.#notify;
      this.#act(() => bar.write(offset + 4 * queue, 2, queue));
      if ((driver.status & RUNS) !== FEATURES_OK && pick(4)) break;
    }
    driver.slot.messages.length = 0;
  }

  get #notify() {
    const bar = this.driver.pci.bars.find((each) => each.index === 4);
    if (!bar) throw new Error('the registers are gone');
    return { bar: bar.region, offset: 0x3000 };
  }

  /** A snapshot of whatever is going on, taken back as it is or with other numbers in it. */
  #snapshot(): void {
    const pick = this.#pick;
    const { pci } = this.driver;
    const saved = JSON.stringify(pci.save());
    const other = pick(2)
      ? saved
      : saved.replace(/\b\d+\b/g, (text) => (pick(100) ? text : `${pick(2 ** (1 + pick(32)))}`));
    try {
      pci.restore(JSON.parse(other));
    } catch (error) {
      if (other === saved || !/^(Error|RingError)$/.test((error as Error).name)) throw error;
    }
  }

  /** A driver's start, in which now and then something is wrong. */
  #setUp(): void {
    const pick = this.#pick;
    const { driver } = this;
    if (pick(20)) driver.enable();
    driver.status = 0;
    if (pick(20) === 0) driver.memory.bytes.fill(0);
    let features = driver.offered | F_VERSION_1;
    for (let bit = 0n; bit < 64n; bit++) if (bit !== 32n && pick(2)) features &= ~(1n << bit);
    if (pick(50) === 0) features ^= 1n << BigInt(pick(64));
    // The rings' own features as often as not, whatever else there is.
    if (pick(2)) features |= driver.offered & RING_FEATURES & ~F_PACKED;
    this.#packed = (features & F_PACKED) !== 0n;
    driver.negotiate(features);
    const count = driver.read(COMMON.NUM_QUEUES, 2);
    this.#queues = [];
    for (let index = 0; index < count; index++) this.#enable(index);
    if (pick(20)) driver.status = 0x0f;
    // Once more while it runs, and too late.
    if (pick(20) === 0) this.#enable(pick(count));
  }

  #enable(index: number): void {
    const pick = this.#pick;
    const { driver } = this;
    const base = RINGS_AT + index * RING_ROOM;
    driver.write(COMMON.QUEUE_SELECT, 2, index);
    const most = driver.read(COMMON.QUEUE_SIZE, 2);
    let size = Math.min(most, 2 ** (pick(10) ? 2 + pick(4) : pick(3)));
    if (pick(20) === 0) size = most;
    if (pick(200) === 0) size = pick(0x10000);
    const place = (usual: number) => {
      if (pick(200)) return usual;
      return [
        0,
        MEMORY - 8,
        MEMORY,
        2 ** 32 - 16,
        2 ** 53,
        usual + 1,
        usual + 2,
        base,
        pick(MEMORY),
        2 ** 64 - 2 ** 12,
      ][pick(10)];
    };
    const queue = {
      size,
      descriptors: place(base),
      driver: place(base + 0x1000),
      device: place(base + 0x1400),
      available: 0,
      wrap: true,
    };
    const writes = [
      () => driver.write(COMMON.QUEUE_SIZE, 2, size),
      () => driver.write(COMMON.QUEUE_VECTOR, 2, pick(10)),
      () => driver.write64(COMMON.QUEUE_DESC, queue.descriptors),
      () => driver.write64(COMMON.QUEUE_DRIVER, queue.driver),
      () => driver.write64(COMMON.QUEUE_DEVICE, queue.device),
    ];
    if (pick(50) === 0) writes.splice(pick(writes.length), 0, () => driver.write(COMMON.QUEUE_ENABLE, 2, 1));
    if (pick(4)) driver.memory.bytes.fill(0, base, base + RING_ROOM);
    while (writes.length > 0) writes.splice(pick(writes.length), 1)[0]();
    if (pick(100)) driver.write(COMMON.QUEUE_ENABLE, 2, 1);
    this.#queues[index] = queue;
  }

  #anyRegister(): void {
    const pick = this.#pick;
    const { bars, config } = this.driver.pci;
    const size = [1, 2, 4][pick(3)];
    const value = pick(2) ? pick(4) : pick(2 ** (8 * size));
    if (pick(8) === 0) {
      // The capabilities behind the header, with the window on the registers.
      const offset = 0x40 + Math.floor(pick(0x80) / size) * size;
      if (pick(2)) config.read(offset, size);
      else config.write(offset, size, value);
      return;
    }
    const { region } = bars[pick(bars.length)];
    const near = [0, 0x1000, 0x2000, 0x3000][pick(4)] + pick(0x40);
    const offset = Math.min(pick(4) ? near : pick(region.size), region.size - size);
    if (pick(2)) region.read(offset, size);
    else region.write(offset, size, value);
  }

  #address(): number {
    const pick = this.#pick;
    switch (pick(12)) {
      case 0:
        return RINGS_AT + pick(0x4000);
      case 1:
        return [MEMORY - 1, MEMORY, 2 ** 32 - 1, 2 ** 40, 2 ** 63, 2 ** 64 - 2048][pick(6)];
      default:
        return DATA_AT + 16 * pick(0x400);
    }
  }

  /** Descriptors at `at`: a request, more or less. @returns how many. */
  #chain(at: number, room: number, packed: boolean, slots: readonly number[] | undefined, mark: number): number {
    const pick = this.#pick;
    const { memory } = this.driver;
    const { view } = memory;
    const count = Math.max(1, Math.min(room, pick(10) ? 2 + pick(3) : 1 + pick(8)));
    const request = this.prey.request(pick);
    const readable = pick(8) ? Math.min(count, 1 + pick(Math.max(1, count - 1))) : pick(count + 1);
    for (let i = 0; i < count; i++) {
      let address = this.#address();
      let length = pick(12) ? [16, 24, 64, 512, 513, 1, 100][pick(7)] : LENGTHS[pick(LENGTHS.length)];
      if (i === 0 && readable > 0 && pick(20)) {
        address = DATA_AT + 16 * pick(0x400);
        memory.bytes.set(request, address);
        length = request.length;
      }
      let flags = (i < readable ? 0 : 2) | (i === count - 1 ? 0 : 1);
      if (pick(25) === 0) flags ^= [1, 2, 4, 4, 8, 0x80][pick(6)];
      let next = slots ? (slots[i + 1] ?? 0) : i + 1;
      if (pick(40) === 0) next = pick(3) ? pick(room + 2) : pick(0x10000);
      const place = at + 16 * (slots ? slots[i] : i);
      if (place + 16 > MEMORY) break;
      view.setBigUint64(place, BigInt(address), true);
      view.setUint32(place + 8, length, true);
      view.setUint16(place + 12, packed ? pick(pick(10) ? room : 0x10000) : flags, true);
      view.setUint16(place + 14, packed ? flags | mark : next, true);
    }
    return count;
  }

  /** Makes buffers available as the ring wants it, with what is wrong in them. */
  #buffers(index: number): void {
    const pick = this.#pick;
    const queue = this.#queues[index];
    if (!queue || queue.size === 0 || queue.descriptors + 16 * queue.size > MEMORY || queue.driver + 0x500 > MEMORY)
      return;
    const { view } = this.driver.memory;
    const { size } = queue;
    const buffers = 1 + pick(3);
    for (let buffer = 0; buffer < buffers; buffer++) {
      const indirect = pick(4) === 0;
      const table = DATA_AT + 16 * pick(0x400);
      const head = pick(size);
      if (this.#packed) {
        const position = queue.available;
        const mark = pick(30) ? (queue.wrap ? 0x80 : 0x8000) : [0, 0x80, 0x8000, 0x8080][pick(4)];
        let taken = 1;
        if (indirect) {
          const entries = this.#chain(table, 8, true, undefined, 0);
          this.#table(queue.descriptors + 16 * position, table, entries, pick(size), 4 | mark, true);
        } else {
          const slots = Array.from({ length: Math.min(size, 8) }, (_, i) => (position + i) % size);
          taken = this.#chain(queue.descriptors, slots.length, true, slots, mark);
        }
        queue.available += taken;
        if (queue.available >= size) {
          queue.available -= size;
          queue.wrap = !queue.wrap;
        }
        continue;
      }
      if (indirect) {
        const entries = this.#chain(table, 8, false, undefined, 0);
        this.#table(queue.descriptors + 16 * head, table, entries, 4, 0, false);
      } else {
        const slots = Array.from({ length: Math.min(size, 8) }, (_, i) => (head + i) % size);
        this.#chain(queue.descriptors, slots.length, false, slots, 0);
      }
      view.setUint16(queue.driver + 4 + 2 * (queue.available % size), pick(40) ? head : pick(0x10000), true);
      queue.available = (queue.available + (pick(60) ? 1 : pick(0x10000))) & 0xffff;
      view.setUint16(queue.driver + 2, queue.available, true);
    }
    if (pick(10) === 0) view.setUint16(queue.driver, pick(0x10000), true);
  }

  #table(at: number, table: number, entries: number, low: number, high: number, packed: boolean): void {
    const pick = this.#pick;
    const { view } = this.driver.memory;
    let length = 16 * entries;
    if (pick(20) === 0) length = [0, 8, 17, 0xfffffff0, 16 * 1024, 16 * 1025, 16 * 8192][pick(7)];
    view.setBigUint64(at, BigInt(pick(30) ? table : this.#address()), true);
    view.setUint32(at + 8, length, true);
    view.setUint16(at + 12, pick(30) ? low : low | 1, true);
    view.setUint16(at + 14, pick(30) || !packed ? high : high | 1, true);
  }

  /** A ring of noise. */
  #nonsense(index: number): void {
    const pick = this.#pick;
    const queue = this.#queues[index];
    if (!queue || pick(8)) return;
    const { view } = this.driver.memory;
    for (let i = 0; i < 8; i++) {
      const at = [queue.descriptors + 16 * pick(queue.size || 1), queue.driver, queue.device][pick(3)] + 2 * pick(8);
      if (at + 2 <= MEMORY)
        view.setUint16(at, pick(2) ? pick(0x10000) : [0, 1, 0x80, 0x8000, 0x8080, 0xffff][pick(6)], true);
    }
  }

  /** The device is reset by whatever means, and used as it is meant to be. */
  check(): void {
    const pick = this.#pick;
    const { driver, prey } = this;
    if (pick(2)) driver.pci.reset();
    driver.enable();
    driver.status = 0;
    for (let action = driver.slot.deferred.shift(); action; action = driver.slot.deferred.shift()) action();
    // What was in flight completes.
    prey.settle?.();
    if (driver.status !== 0) throw new Error('a reset does not come to its end');
    this.#slices = 0;
    // With rings of one kind and another.
    let features = driver.offered;
    for (let bit = 0n; bit < 64n; bit++) if (RING_FEATURES & (1n << bit) && pick(2)) features &= ~(1n << bit);
    driver.wanted = features;
    const mark = driver.allocated;
    driver.faults.length = 0;
    try {
      prey.works(driver);
      if (driver.faults.length > 0) throw new Error(driver.faults.join());
    } finally {
      driver.release(mark);
      driver.reset();
      driver.slot.messages.length = 0;
    }
  }
}

/**
 * Runs `cases` cases against new devices, a batch each with its own seed. @throws with the seed of the batch.
 */
export function attack(make: () => Prey, cases: number, batch = 500): void {
  const only = process.env.NEMU_FUZZ_SEED;
  const batches = only === undefined ? Math.ceil(cases / batch) : 1;
  for (let number = 0; number < batches; number++) {
    const seed = only === undefined ? number + 1 : Number(only);
    const pick = random(seed);
    const attacker = new Attack(make(), pick);
    let at = 0;
    try {
      for (; at < batch; at++) {
        attacker.one();
        if (at % 50 === 49) attacker.check();
      }
    } catch (cause) {
      throw new Error(
        `Case ${at} of the batch with seed ${seed} (NEMU_FUZZ_SEED=${seed} runs it alone): ${(cause as Error).stack}`,
        { cause },
      );
    }
  }
}

/** Bytes that the heap grows by over `cases` cases against one device, after as many that warm it up. */
export function growth(make: () => Prey, cases: number): number {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const attacker = new Attack(make(), random(77));
  const run = () => {
    for (let at = 0; at < cases; at++) {
      attacker.one();
      if (at % 50 === 49) attacker.check();
    }
    attacker.check();
    collect();
    return process.memoryUsage().heapUsed;
  };
  const before = run();
  return run() - before;
}
