/** The driver's side of split and packed rings (virtio 1.2, sections 2.7 and 2.8), for `virtio_driver.ts`. */
import type { MockDriver } from './virtio_driver.ts';

export const F_INDIRECT = 1n << 28n;
export const F_EVENT_IDX = 1n << 29n;
export const F_VERSION_1 = 1n << 32n;
export const F_PACKED = 1n << 34n;
export const F_IN_ORDER = 1n << 35n;
export const F_RING_RESET = 1n << 40n;

const DESC_NEXT = 1;
const DESC_WRITE = 2;
const DESC_INDIRECT = 4;
const PACKED_AVAIL = 1 << 7;
const PACKED_USED = 1 << 15;
/** A buffer that was made available. */
export interface Sent {
  readonly id: number;
  /** Writable pieces: address and bytes. */
  readonly writable: readonly { readonly address: number; readonly length: number }[];
  /** Ring descriptors that it takes. */
  readonly descriptors: number;
  readonly first: number;
}

export interface Returned {
  readonly sent: Sent;
  readonly written: number;
  /** What stands in the writable pieces now, as far as `written` goes. */
  readonly bytes: Uint8Array;
}

/** The driver's side of a virtqueue. */
export abstract class DriverQueue {
  readonly index: number;
  readonly size: number;
  readonly descriptors: number;
  readonly driver: number;
  readonly device: number;
  protected readonly owner: MockDriver;
  protected readonly view: DataView;
  /** Buffers at the device, by id. */
  readonly outstanding = new Map<number, Sent>();
  /** Ids in the order of making available, to see that in-order devices keep it. */
  readonly order: number[] = [];
  readonly ring: () => void;

  constructor(owner: MockDriver, index: number, size: number, ring: () => void, driver: number, device: number) {
    this.owner = owner;
    this.view = owner.memory.view;
    this.index = index;
    this.size = size;
    this.ring = ring;
    this.descriptors = owner.allocate(size * 16, 16);
    this.driver = owner.allocate(driver, 4);
    this.device = owner.allocate(device, 4);
    owner.memory.bytes.fill(0, this.descriptors, this.device + device);
  }

  protected get eventIndex(): boolean {
    return (this.owner.features & F_EVENT_IDX) !== 0n;
  }

  /**
   * Makes a buffer of pieces available; the device is not told.
   * @param writable bytes of each piece that the device may write.
   */
  add(readable: readonly Uint8Array[], writable: readonly number[], indirect = false): Sent {
    const pieces = [
      ...readable.map((bytes) => ({ address: this.owner.put(bytes), length: bytes.length, flags: 0 })),
      ...writable.map((length) => ({ address: this.owner.allocate(length), length, flags: DESC_WRITE })),
    ];
    const sent = this.place(
      indirect ? [{ address: this.table(pieces), length: pieces.length * 16, flags: DESC_INDIRECT }] : pieces,
      pieces.filter(({ flags }) => flags & DESC_WRITE),
    );
    this.outstanding.set(sent.id, sent);
    this.order.push(sent.id);
    return sent;
  }

  /** Adds a buffer, and tells the device when it wants to be told. */
  send(readable: readonly Uint8Array[], writable: readonly number[], indirect = false): Sent {
    const sent = this.add(readable, writable, indirect);
    this.kick();
    return sent;
  }

  /** Sends a buffer and expects it back. */
  request(readable: readonly Uint8Array[], writable: readonly number[], indirect = false): Returned {
    const { id } = this.send(readable, writable, indirect);
    const returned = this.collect();
    if (returned.length !== 1 || returned[0].sent.id !== id) {
      throw new Error(`queue ${this.index}: ${returned.length} buffers came back. ${this.owner.faults.join('; ')}`);
    }
    return returned[0];
  }

  /** Tells the device of new buffers if it wants that. @returns whether it did. */
  kick(): boolean {
    const wanted = this.wantsNotification();
    if (wanted) this.ring();
    return wanted;
  }

  /** All buffers that the device has given back. */
  collect(): Returned[] {
    const all: Returned[] = [];
    for (let used = this.next(); used; used = this.next()) {
      const { id, written } = used;
      const sent = this.outstanding.get(id);
      if (!sent) throw new Error(`queue ${this.index}: buffer ${id} came back, which the device did not have`);
      this.outstanding.delete(id);
      const turn = this.order.indexOf(id);
      if (this.owner.features & F_IN_ORDER && turn !== 0) throw new Error(`queue ${this.index}: ${id} is out of order`);
      this.order.splice(turn, 1);
      this.free(sent);
      const room = sent.writable.reduce((sum, { length }) => sum + length, 0);
      if (written > room) throw new Error(`queue ${this.index}: ${written} bytes were written to room for ${room}`);
      const bytes = new Uint8Array(written);
      let at = 0;
      for (const { address, length } of sent.writable) {
        const part = this.owner.memory.bytes.subarray(address, address + Math.min(length, written - at));
        bytes.set(part, at);
        at += part.length;
      }
      all.push({ sent, written, bytes });
    }
    this.armed();
    return all;
  }

  protected abstract table(pieces: readonly { address: number; length: number; flags: number }[]): number;
  protected abstract place(
    pieces: readonly { address: number; length: number; flags: number }[],
    writable: Sent['writable'],
  ): Sent;
  protected abstract next(): { id: number; written: number } | undefined;
  protected abstract free(sent: Sent): void;
  protected abstract wantsNotification(): boolean;
  /** Moves the event on, where there is one, so that the next buffer interrupts. */
  protected abstract armed(): void;
  /** Whether the driver wants interrupts. With an event index, the next one comes after `after` more buffers. */
  abstract setInterrupts(on: boolean, after?: number): void;

  protected putDescriptor(at: number, address: number, length: number, low: number, high: number): void {
    this.view.setBigUint64(at, BigInt(address), true);
    this.view.setUint32(at + 8, length, true);
    this.view.setUint16(at + 12, low, true);
    this.view.setUint16(at + 14, high, true);
  }
}

/** Whether an index that went from `before` to `after` has passed `event` (section 2.7.10). */
const passed = (event: number, after: number, before: number) =>
  ((after - event - 1) & 0xffff) < ((after - before) & 0xffff);

export class SplitRing extends DriverQueue {
  /** Index of the available ring, public for those who break it. */
  available = 0;
  #kicked = 0;
  #lastUsed = 0;
  #interrupts = true;
  readonly #freeList: number[];

  constructor(owner: MockDriver, index: number, size: number, ring: () => void) {
    super(owner, index, size, ring, 6 + 2 * size, 6 + 8 * size);
    this.#freeList = Array.from({ length: size }, (_, i) => i);
  }

  protected table(pieces: readonly { address: number; length: number; flags: number }[]): number {
    const at = this.owner.allocate(pieces.length * 16);
    for (const [i, { address, length, flags }] of pieces.entries()) {
      const last = i === pieces.length - 1;
      this.putDescriptor(at + i * 16, address, length, flags | (last ? 0 : DESC_NEXT), last ? 0 : i + 1);
    }
    return at;
  }

  protected place(
    pieces: readonly { address: number; length: number; flags: number }[],
    writable: Sent['writable'],
  ): Sent {
    if (this.#freeList.length < pieces.length) throw new Error(`queue ${this.index} is full`);
    const used = this.#freeList.splice(0, pieces.length);
    for (const [i, { address, length, flags }] of pieces.entries()) {
      const last = i === pieces.length - 1;
      const at = this.descriptors + used[i] * 16;
      this.putDescriptor(at, address, length, flags | (last ? 0 : DESC_NEXT), last ? 0 : used[i + 1]);
    }
    this.view.setUint16(this.driver + 4 + 2 * (this.available % this.size), used[0], true);
    this.available = (this.available + 1) & 0xffff;
    this.view.setUint16(this.driver + 2, this.available, true);
    return { id: used[0], writable, descriptors: pieces.length, first: used[0] };
  }

  protected free({ first, descriptors }: Sent): void {
    let index = first;
    for (let i = 0; i < descriptors; i++) {
      this.#freeList.push(index);
      index = this.view.getUint16(this.descriptors + index * 16 + 14, true);
    }
  }

  protected next(): { id: number; written: number } | undefined {
    if (this.view.getUint16(this.device + 2, true) === this.#lastUsed) return undefined;
    const at = this.device + 4 + 8 * (this.#lastUsed % this.size);
    this.#lastUsed = (this.#lastUsed + 1) & 0xffff;
    return { id: this.view.getUint32(at, true), written: this.view.getUint32(at + 4, true) };
  }

  protected wantsNotification(): boolean {
    const before = this.#kicked;
    this.#kicked = this.available;
    if (!this.eventIndex) return !(this.view.getUint16(this.device, true) & 1);
    return passed(this.view.getUint16(this.device + 4 + 8 * this.size, true), this.available, before);
  }

  protected armed(): void {
    if (this.#interrupts) this.view.setUint16(this.driver + 4 + 2 * this.size, this.#lastUsed, true);
  }

  setInterrupts(on: boolean, after = 0): void {
    this.#interrupts = on && after === 0;
    this.view.setUint16(this.driver, on || this.eventIndex ? 0 : 1, true);
    // An event that lies behind never comes.
    const event = on ? this.#lastUsed + after : this.#lastUsed - 1;
    this.view.setUint16(this.driver + 4 + 2 * this.size, event & 0xffff, true);
  }
}

export class PackedRing extends DriverQueue {
  #next = 0;
  #wrap = true;
  #usedNext = 0;
  #usedWrap = true;
  #room: number;
  #added = 0;
  #interrupts = true;
  readonly #ids: number[];

  constructor(owner: MockDriver, index: number, size: number, ring: () => void) {
    super(owner, index, size, ring, 4, 4);
    this.#room = size;
    this.#ids = Array.from({ length: size }, (_, i) => i);
  }

  protected table(pieces: readonly { address: number; length: number; flags: number }[]): number {
    const at = this.owner.allocate(pieces.length * 16);
    for (const [i, { address, length, flags }] of pieces.entries()) {
      this.putDescriptor(at + i * 16, address, length, 0, flags);
    }
    return at;
  }

  protected place(
    pieces: readonly { address: number; length: number; flags: number }[],
    writable: Sent['writable'],
  ): Sent {
    if (this.#room < pieces.length) throw new Error(`queue ${this.index} is full`);
    const id = this.#ids.shift() as number;
    const first = this.#next;
    let head: (() => void) | undefined;
    for (const [i, { address, length, flags }] of pieces.entries()) {
      const at = this.descriptors + this.#next * 16;
      const more = i === pieces.length - 1 ? 0 : DESC_NEXT;
      const mark = this.#wrap ? PACKED_AVAIL : PACKED_USED;
      const put = () => this.putDescriptor(at, address, length, id, flags | more | mark);
      // The first one's flags come last: with them the whole chain is the device's.
      if (i === 0) head = put;
      else put();
      if (++this.#next === this.size) {
        this.#next = 0;
        this.#wrap = !this.#wrap;
      }
    }
    head?.();
    this.#room -= pieces.length;
    this.#added += pieces.length;
    return { id, writable, descriptors: pieces.length, first };
  }

  protected free({ id, descriptors }: Sent): void {
    this.#ids.push(id);
    this.#room += descriptors;
    this.#usedNext += descriptors;
    if (this.#usedNext >= this.size) {
      this.#usedNext -= this.size;
      this.#usedWrap = !this.#usedWrap;
    }
  }

  protected next(): { id: number; written: number } | undefined {
    const at = this.descriptors + this.#usedNext * 16;
    const flags = this.view.getUint16(at + 14, true);
    const available = (flags & PACKED_AVAIL) !== 0;
    const used = (flags & PACKED_USED) !== 0;
    if (available !== used || used !== this.#usedWrap) return undefined;
    // Without the write flag the length means nothing (section 2.8.4).
    const written = flags & DESC_WRITE ? this.view.getUint32(at + 8, true) : 0;
    return { id: this.view.getUint16(at + 12, true), written };
  }

  protected wantsNotification(): boolean {
    const added = this.#added;
    this.#added = 0;
    const flags = this.view.getUint16(this.device + 2, true) & 3;
    if (flags !== 2) return flags === 0;
    const event = this.view.getUint16(this.device, true);
    let offset = event & 0x7fff;
    if (event >> 15 !== (this.#wrap ? 1 : 0)) offset -= this.size;
    return offset >= this.#next - added && offset < this.#next;
  }

  protected armed(): void {
    if (this.#interrupts && this.eventIndex) this.setInterrupts(true);
  }

  setInterrupts(on: boolean, after = 0): void {
    this.#interrupts = on && after === 0;
    const position = this.#usedNext + after;
    const lap = position >= this.size;
    const wrap = lap ? !this.#usedWrap : this.#usedWrap;
    this.view.setUint16(this.driver, (position % this.size) | (wrap ? 0x8000 : 0), true);
    this.view.setUint16(this.driver + 2, on ? (this.eventIndex ? 2 : 0) : 1, true);
  }
}

/** The kinds of rings that a driver can ask for, each with what else goes with it. */
export const RINGS: readonly { readonly name: string; readonly features: bigint }[] = [
  { name: 'split', features: F_VERSION_1 },
  { name: 'split, event index, indirect', features: F_VERSION_1 | F_EVENT_IDX | F_INDIRECT },
  { name: 'split, in order', features: F_VERSION_1 | F_IN_ORDER | F_INDIRECT },
  { name: 'packed', features: F_VERSION_1 | F_PACKED },
  { name: 'packed, event index, indirect', features: F_VERSION_1 | F_PACKED | F_EVENT_IDX | F_INDIRECT },
  { name: 'packed, in order', features: F_VERSION_1 | F_PACKED | F_IN_ORDER | F_EVENT_IDX | F_INDIRECT },
];

/** The bits that are the rings' and the transport's. */
export const RING_FEATURES = F_INDIRECT | F_EVENT_IDX | F_PACKED | F_IN_ORDER | F_RING_RESET;
