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

const DESC_AVAIL = 1 << 7;
const DESC_USED = 1 << 15;
const EVENT_ENABLE = 0;
const EVENT_DISABLE = 1;
const EVENT_DESC = 2;
const WRAP = 1 << 15;

/** A packed virtqueue (virtio 1.2, section 2.8). Positions have the wrap counter as bit 15. */
export class PackedQueue extends VirtQueue {
  readonly #ring: Uint32Array;
  readonly #flags: Uint16Array;
  readonly #driverEvent: Uint16Array;
  readonly #deviceEvent: Uint16Array;
  #next = 0;
  #nextWrap = true;
  #usedNext = 0;
  #usedWrap = true;
  /** Used descriptors since the driver was last asked whether it wants an interrupt. */
  #usedSince = 0;

  /** @throws RingError when a part of the ring is not RAM. */
  constructor(memory: GuestMemory, layout: QueueLayout) {
    super(memory, layout);
    this.#ring = this.words32(layout.descriptors, layout.size * DESC_SIZE, 'descriptor ring');
    this.#flags = this.words16(layout.descriptors, layout.size * DESC_SIZE, 'descriptor ring');
    this.#driverEvent = this.words16(layout.driver, 4, 'driver event suppression');
    this.#deviceEvent = this.words16(layout.device, 4, 'device event suppression');
  }

  #isAvailable(flags: number): boolean {
    return ((flags & DESC_AVAIL) !== 0) === this.#nextWrap && ((flags & DESC_USED) !== 0) !== this.#nextWrap;
  }

  protected get waiting(): boolean {
    return this.#isAvailable(Atomics.load(this.#flags, this.#next * 8 + 7));
  }

  protected take(sequence: number): Chain | undefined {
    let flags = Atomics.load(this.#flags, this.#next * 8 + 7);
    if (!this.#isAvailable(flags)) return undefined;
    let index = this.#next;
    let wrap = this.#nextWrap;
    const pieces: { address: number; length: number; flags: number }[] = [];
    let id = 0;
    for (;;) {
      if (pieces.length === this.size) throw new RingError('a chain is longer than its queue');
      const at = index * 4;
      pieces.push({ address: this.#ring[at] + this.#ring[at + 1] * 2 ** 32, length: this.#ring[at + 2], flags });
      // The last descriptor of a chain has the buffer's id.
      id = this.#flags[index * 8 + 6];
      if (++index === this.size) {
        index = 0;
        wrap = !wrap;
      }
      if (!(flags & DESC_NEXT)) break;
      flags = Atomics.load(this.#flags, index * 8 + 7);
    }
    this.#next = index;
    this.#nextWrap = wrap;
    const chain = new Chain(id, sequence);
    chain.descriptors = pieces.length;
    for (const piece of pieces) {
      if (piece.flags & DESC_INDIRECT) {
        if (pieces.length > 1) throw new RingError('an indirect descriptor has a next one');
        this.addIndirect(chain, piece.address, piece.length, false);
      } else chain.add(this.memory, piece.address, piece.length, (piece.flags & DESC_WRITE) !== 0);
    }
    return chain;
  }

  protected give(chain: Chain, written: number): void {
    const at = this.#usedNext;
    this.#ring[at * 4 + 2] = written;
    this.#flags[at * 8 + 6] = chain.id;
    const used = this.#usedWrap ? DESC_AVAIL | DESC_USED : 0;
    Atomics.store(this.#flags, at * 8 + 7, used | (written > 0 ? DESC_WRITE : 0));
    this.#usedNext += chain.descriptors;
    this.#usedSince += chain.descriptors;
    if (this.#usedNext >= this.size) {
      this.#usedNext -= this.size;
      this.#usedWrap = !this.#usedWrap;
    }
  }

  wantsInterrupt(): boolean {
    const since = this.#usedSince;
    this.#usedSince = 0;
    if (since === 0) return false;
    const flags = Atomics.load(this.#driverEvent, 1) & 3;
    if (flags === EVENT_DISABLE) return false;
    if (flags !== EVENT_DESC || !this.layout.eventIndex) return true;
    const event = Atomics.load(this.#driverEvent, 0);
    let offset = event & (WRAP - 1);
    // Positions on one line: an event of the lap before stands a ring's length back.
    if (((event & WRAP) !== 0) !== this.#usedWrap) offset -= this.size;
    return offset >= this.#usedNext - since && offset < this.#usedNext;
  }

  enableNotification(): boolean {
    if (this.layout.eventIndex) {
      Atomics.store(this.#deviceEvent, 0, this.#next | (this.#nextWrap ? WRAP : 0));
      Atomics.store(this.#deviceEvent, 1, EVENT_DESC);
    } else Atomics.store(this.#deviceEvent, 1, EVENT_ENABLE);
    return this.available;
  }

  disableNotification(): void {
    Atomics.store(this.#deviceEvent, 1, EVENT_DISABLE);
  }

  protected indices(): { available: number; used: number } {
    return {
      available: this.#next | (this.#nextWrap ? WRAP : 0),
      used: this.#usedNext | (this.#usedWrap ? WRAP : 0),
    };
  }

  protected setIndices(available: number, used: number): void {
    this.#next = Math.min(available & (WRAP - 1), this.size - 1);
    this.#nextWrap = (available & WRAP) !== 0;
    this.#usedNext = Math.min(used & (WRAP - 1), this.size - 1);
    this.#usedWrap = (used & WRAP) !== 0;
    this.#usedSince = 0;
  }
}
