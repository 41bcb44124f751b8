import type { GuestMemory } from '../device.ts';
import {
  Chain,
  DESC_INDIRECT,
  DESC_NEXT,
  DESC_SIZE,
  DESC_WRITE,
  type QueueLayout,
  RingError,
  VirtQueue,
} from './queue.ts';

const NO_INTERRUPT = 1;
const NO_NOTIFY = 1;

/** A split virtqueue (virtio 1.2, section 2.7). */
export class SplitQueue extends VirtQueue {
  readonly #table: Uint32Array;
  readonly #avail: Uint16Array;
  readonly #used: Uint16Array;
  readonly #usedRing: Uint32Array;
  readonly #mask: number;
  #lastAvail = 0;
  #usedIndex = 0;
  /** Used index when the driver was last interrupted. */
  #signalled = 0;
  /** False when nobody knows what the driver was told: it is interrupted once too often then. */
  #signalledValid = true;

  /** @throws RingError when a part of the ring is not RAM. */
  constructor(memory: GuestMemory, layout: QueueLayout) {
    super(memory, layout);
    const { size } = layout;
    this.#mask = size - 1;
    this.#table = this.words32(layout.descriptors, size * DESC_SIZE, 'descriptor table');
    this.#avail = this.words16(layout.driver, 6 + 2 * size, 'available ring');
    // Event index and padding: the ring's elements are of 32 bits.
    this.#usedRing = this.words32(layout.device, 4 + 8 * size, 'used ring');
    this.#used = this.words16(layout.device, 6 + 8 * size, 'used ring');
  }

  protected get waiting(): boolean {
    return Atomics.load(this.#avail, 1) !== this.#lastAvail;
  }

  protected take(sequence: number): Chain | undefined {
    const available = (Atomics.load(this.#avail, 1) - this.#lastAvail) & 0xffff;
    if (available === 0) return undefined;
    if (available > this.size) throw new RingError(`${available} buffers are available in a queue of ${this.size}`);
    const head = Atomics.load(this.#avail, 2 + (this.#lastAvail & this.#mask));
    if (head >= this.size) throw new RingError(`descriptor ${head} in a queue of ${this.size}`);
    this.#lastAvail = (this.#lastAvail + 1) & 0xffff;
    const chain = new Chain(head, sequence);
    let index = head;
    for (let seen = 0; ; seen++) {
      if (seen === this.size) throw new RingError('a chain loops');
      const at = index * 4;
      const address = this.#table[at] + this.#table[at + 1] * 2 ** 32;
      const length = this.#table[at + 2];
      const flagsAndNext = this.#table[at + 3];
      if (flagsAndNext & DESC_INDIRECT) {
        if (flagsAndNext & DESC_NEXT) throw new RingError('an indirect descriptor has a next one');
        this.addIndirect(chain, address, length, true);
        return chain;
      }
      chain.add(this.memory, address, length, (flagsAndNext & DESC_WRITE) !== 0);
      if (!(flagsAndNext & DESC_NEXT)) return chain;
      index = flagsAndNext >>> 16;
      if (index >= this.size) throw new RingError(`descriptor ${index} in a queue of ${this.size}`);
    }
  }

  protected give(chain: Chain, written: number): void {
    const at = 1 + (this.#usedIndex & this.#mask) * 2;
    this.#usedRing[at] = chain.id;
    this.#usedRing[at + 1] = written;
    this.#usedIndex = (this.#usedIndex + 1) & 0xffff;
    Atomics.store(this.#used, 1, this.#usedIndex);
  }

  wantsInterrupt(): boolean {
    const before = this.#signalled;
    if (before === this.#usedIndex && this.#signalledValid) return false;
    const valid = this.#signalledValid;
    this.#signalled = this.#usedIndex;
    this.#signalledValid = true;
    if (!this.layout.eventIndex) return !(Atomics.load(this.#avail, 0) & NO_INTERRUPT);
    if (!valid) return true;
    const event = Atomics.load(this.#avail, 2 + this.size);
    return ((this.#usedIndex - event - 1) & 0xffff) < ((this.#usedIndex - before) & 0xffff);
  }

  enableNotification(): boolean {
    if (this.layout.eventIndex) Atomics.store(this.#used, 2 + 4 * this.size, this.#lastAvail);
    else Atomics.store(this.#used, 0, 0);
    return this.available;
  }

  disableNotification(): void {
    // With an event index the old event is behind: nothing more comes until it is set anew.
    if (!this.layout.eventIndex) Atomics.store(this.#used, 0, NO_NOTIFY);
  }

  protected indices(): { available: number; used: number } {
    return { available: this.#lastAvail, used: this.#usedIndex };
  }

  protected setIndices(available: number, used: number): void {
    this.#lastAvail = available & 0xffff;
    this.#usedIndex = used & 0xffff;
    this.#signalledValid = false;
  }
}
