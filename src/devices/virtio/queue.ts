import type { GuestMemory } from '../device.ts';

/** Descriptor flags (virtio 1.2, sections 2.7.5 and 2.8.1). */
export const DESC_NEXT = 1;
export const DESC_WRITE = 2;
export const DESC_INDIRECT = 4;
export const DESC_SIZE = 16;

/** A driver broke the rules of its ring: the device needs a reset (section 2.1.2). */
export class RingError extends Error {
  override readonly name = 'RingError';
}

const hex = (value: number) => `0x${value.toString(16)}`;

/** A buffer that the driver has made available: what the device reads, then what it writes. */
export class Chain {
  /** Identifies the buffer to the driver. */
  readonly id: number;
  /** Ring descriptors that it takes, which a packed ring has to know. */
  descriptors = 0;
  /** Place in the order in which buffers were made available. */
  readonly sequence: number;
  readonly readable: Uint8Array[] = [];
  readonly writable: Uint8Array[] = [];
  /** Guest-physical addresses of the readable pieces, then of the writable ones. */
  readonly addresses: number[] = [];
  /** Neighbours among the buffers in flight of their queue. */
  older: Chain | undefined;
  newer: Chain | undefined;
  readLength = 0;
  writeLength = 0;

  constructor(id: number, sequence: number) {
    this.id = id;
    this.sequence = sequence;
  }

  /** @throws RingError for a buffer that is not wholly RAM, or in the wrong order. */
  add(memory: GuestMemory, gpa: number, length: number, write: boolean): void {
    if (length === 0) throw new RingError('a descriptor has no bytes');
    const view = memory.slice(gpa, length);
    if (!view) throw new RingError(`a descriptor's ${length} bytes at ${hex(gpa)} are not RAM`);
    this.addresses.push(gpa);
    // Section 2.7.5.2 allows 2^32 bytes in all, however many descriptors name the same memory.
    if (this.readLength + this.writeLength + length > 2 ** 32) throw new RingError('a chain has more than 2^32 bytes');
    if (write) {
      this.writable.push(view);
      this.writeLength += length;
    } else {
      if (this.writable.length > 0) throw new RingError('a readable descriptor follows a writable one');
      this.readable.push(view);
      this.readLength += length;
    }
  }

  /** Copies readable bytes from `offset` on. @returns how many there were. */
  read(into: Uint8Array, offset = 0): number {
    return copy(this.readable, offset, into.length, (view, at) => into.set(view, at));
  }

  /** Fills writable bytes from `offset` on. @returns how many fitted. */
  write(from: Uint8Array, offset = 0): number {
    return copy(this.writable, offset, from.length, (view, at) => view.set(from.subarray(at, at + view.length)));
  }
}

function copy(
  views: readonly Uint8Array[],
  offset: number,
  length: number,
  each: (view: Uint8Array, at: number) => void,
) {
  let skip = offset;
  let done = 0;
  for (const view of views) {
    if (done === length) break;
    if (skip >= view.length) {
      skip -= view.length;
      continue;
    }
    const piece = view.subarray(skip, Math.min(view.length, skip + length - done));
    skip = 0;
    each(piece, done);
    done += piece.length;
  }
  return done;
}

/** The part of `views` from `offset` on, at most `length` bytes of it. */
export function sliceViews(views: readonly Uint8Array[], offset: number, length: number): Uint8Array[] {
  const pieces: Uint8Array[] = [];
  let skip = offset;
  let left = length;
  for (const view of views) {
    if (left === 0) break;
    if (skip >= view.length) {
      skip -= view.length;
      continue;
    }
    const piece = view.subarray(skip, Math.min(view.length, skip + left));
    skip = 0;
    left -= piece.length;
    pieces.push(piece);
  }
  return pieces;
}

/** Where a queue's parts stand in guest memory, and what was negotiated for it. */
export interface QueueLayout {
  readonly size: number;
  readonly descriptors: number;
  /** Available ring, or the driver's event suppression structure. */
  readonly driver: number;
  /** Used ring, or the device's event suppression structure. */
  readonly device: number;
  readonly indirect: boolean;
  readonly eventIndex: boolean;
  readonly inOrder: boolean;
  /** Whether the device may reach memory now. While it may not, the queue seems empty. */
  readonly reachable?: (() => boolean) | undefined;
}

/** A buffer that was taken and not given back: its pieces, as address and bytes in turn. */
export interface SavedChain {
  readonly id: number;
  readonly descriptors: number;
  readonly readable: readonly number[];
  readonly writable: readonly number[];
}

function saveChain({ id, descriptors, readable, writable, addresses }: Chain): SavedChain {
  const pieces = (views: readonly Uint8Array[], from: number) =>
    views.flatMap((view, i) => [addresses[from + i], view.length]);
  return { id, descriptors, readable: pieces(readable, 0), writable: pieces(writable, readable.length) };
}

/** Indices of a queue and what is in flight, oldest first, for a snapshot. */
export interface QueueState {
  readonly available: number;
  readonly used: number;
  readonly inFlight: readonly SavedChain[];
}

const isPieces = (value: unknown): value is number[] =>
  Array.isArray(value) &&
  value.length % 2 === 0 &&
  value.length <= 4 * MAX_INDIRECT &&
  value.every((each) => Number.isSafeInteger(each) && each >= 0);

/** Whether saved state may be a buffer; where its pieces are is seen when it is taken up again. */
export function isSavedChain(value: unknown): value is SavedChain {
  const { id, descriptors, readable, writable } = (value ?? {}) as Record<string, unknown>;
  const word = (each: unknown) => Number.isInteger(each) && (each as number) >= 0 && (each as number) <= 0xffff;
  return word(id) && word(descriptors) && isPieces(readable) && isPieces(writable);
}

/**
 * A virtqueue as the device sees it. All that stands in guest memory is the guest's to change at any time:
 * indices are read once, checked, and used from there.
 */
export abstract class VirtQueue {
  protected readonly memory: GuestMemory;
  protected readonly layout: QueueLayout;
  /** Buffers that were taken and not given back, oldest first. */
  #oldest: Chain | undefined;
  #newest: Chain | undefined;
  #count = 0;
  /** Buffers that were in flight when the queue was saved: they are taken first. */
  #resumed: SavedChain[] = [];
  /** Buffers that may be taken before others have their turn. */
  #turn = Number.POSITIVE_INFINITY;
  #popped = 0;
  #returned = 0;
  /** With in-order use: what came back before its turn. */
  readonly #early = new Map<number, { chain: Chain; written: number }>();

  constructor(memory: GuestMemory, layout: QueueLayout) {
    this.memory = memory;
    this.layout = layout;
  }

  get #reachable(): boolean {
    return this.layout.reachable?.() ?? true;
  }

  get size(): number {
    return this.layout.size;
  }

  /** Buffers that were taken and that the driver does not have back. */
  get inFlight(): number {
    return this.#count;
  }

  /**
   * Takes the next buffer.
   * @throws RingError when the driver broke the rules.
   */
  pop(): Chain | undefined {
    if (this.#turn <= 0 || !this.#reachable) return undefined;
    // Each buffer takes a descriptor: a driver that has more buffers here uses descriptors that are not its own.
    if (this.#count >= this.size && this.available) {
      throw new RingError(`more than ${this.size} buffers are in flight`);
    }
    const saved = this.#resumed.shift();
    const chain = saved ? this.#resume(saved) : this.take(this.#popped);
    if (chain) {
      this.#popped++;
      this.#turn--;
      this.#count++;
      chain.older = this.#newest;
      if (this.#newest) this.#newest.newer = chain;
      else this.#oldest = chain;
      this.#newest = chain;
    }
    return chain;
  }

  #resume({ id, descriptors, readable, writable }: SavedChain): Chain {
    const chain = new Chain(id, this.#popped);
    chain.descriptors = descriptors;
    for (let i = 0; i < readable.length; i += 2) chain.add(this.memory, readable[i], readable[i + 1], false);
    for (let i = 0; i < writable.length; i += 2) chain.add(this.memory, writable[i], writable[i + 1], true);
    return chain;
  }

  /** Gives a buffer back, of which the device wrote `written` bytes. */
  push(chain: Chain, written: number): void {
    if (!this.layout.inOrder) {
      this.#return(chain, written);
      return;
    }
    this.#early.set(chain.sequence, { chain, written });
    for (let next = this.#early.get(this.#returned); next; next = this.#early.get(this.#returned)) {
      this.#early.delete(this.#returned++);
      this.#return(next.chain, next.written);
    }
  }

  #return(chain: Chain, written: number): void {
    this.#count--;
    if (chain.older) chain.older.newer = chain.newer;
    else this.#oldest = chain.newer;
    if (chain.newer) chain.newer.older = chain.older;
    else this.#newest = chain.older;
    chain.older = undefined;
    chain.newer = undefined;
    this.give(chain, written);
  }

  protected abstract take(sequence: number): Chain | undefined;
  protected abstract give(chain: Chain, written: number): void;
  /** Whether the driver wants an interrupt for what was given back since this was last asked. */
  abstract wantsInterrupt(): boolean;
  /** Has the driver tell of new buffers. @returns true when there are some already. */
  abstract enableNotification(): boolean;
  abstract disableNotification(): void;
  /** Whether the ring has a buffer that was not taken yet. */
  protected abstract get waiting(): boolean;
  protected abstract indices(): { available: number; used: number };
  protected abstract setIndices(available: number, used: number): void;

  /** Whether a buffer waits, and it is its turn. */
  get available(): boolean {
    return this.#turn > 0 && this.#reachable && (this.#resumed.length > 0 || this.waiting);
  }

  /** From now on no more than `buffers` are taken: the queue seems empty then. */
  beginTurn(buffers: number): void {
    this.#turn = buffers;
  }

  /** @returns whether buffers wait that would have been taken but for the turn's end. */
  endTurn(): boolean {
    const over = this.#turn <= 0;
    this.#turn = Number.POSITIVE_INFINITY;
    return over && this.available;
  }

  /** Where the device goes on to read and to write: `available` and `used`, as in the state. */
  get position(): { available: number; used: number } {
    return this.indices();
  }

  save(): QueueState {
    const inFlight: SavedChain[] = [];
    // What came back before its turn is not the driver's yet: it is done once more.
    for (let chain = this.#oldest; chain; chain = chain.newer) inFlight.push(saveChain(chain));
    return { ...this.indices(), inFlight: [...inFlight, ...this.#resumed] };
  }

  restore({ available, used, inFlight }: QueueState): void {
    this.setIndices(available, used);
    this.#resumed = [...inFlight];
  }

  /** Aligned view of a part of the ring. @throws RingError when it is not wholly RAM. */
  protected words16(gpa: number, bytes: number, what: string): Uint16Array {
    const view = this.#part(gpa, bytes, 2, what);
    return new Uint16Array(view.buffer, view.byteOffset, bytes >> 1);
  }

  protected words32(gpa: number, bytes: number, what: string): Uint32Array {
    const view = this.#part(gpa, bytes, 4, what);
    return new Uint32Array(view.buffer, view.byteOffset, bytes >> 2);
  }

  #part(gpa: number, bytes: number, alignment: number, what: string): Uint8Array {
    const view = gpa % alignment === 0 ? this.memory.slice(gpa, bytes) : undefined;
    if (!view || view.byteOffset % alignment !== 0) {
      throw new RingError(`the ${what} of ${bytes} bytes at ${hex(gpa)} is not RAM aligned to ${alignment} bytes`);
    }
    return view;
  }

  /** Adds all descriptors of an indirect table (section 2.7.5.3). */
  protected addIndirect(chain: Chain, gpa: number, length: number, linked: boolean): void {
    if (!this.layout.indirect) throw new RingError('an indirect descriptor was not negotiated');
    if (length === 0 || length % DESC_SIZE !== 0) throw new RingError(`an indirect table has ${length} bytes`);
    const count = length / DESC_SIZE;
    if (count > MAX_INDIRECT) throw new RingError(`an indirect table has ${count} descriptors`);
    const view = this.memory.slice(gpa, length);
    if (!view) throw new RingError(`an indirect table at ${hex(gpa)} is not RAM`);
    const table = new DataView(view.buffer, view.byteOffset, length);
    let index = 0;
    for (let seen = 0; seen < count; seen++) {
      const at = index * DESC_SIZE;
      const address = table.getUint32(at, true) + table.getUint32(at + 4, true) * 2 ** 32;
      const flags = table.getUint16(at + (linked ? 12 : 14), true);
      if (flags & DESC_INDIRECT) throw new RingError('an indirect table leads to another');
      chain.add(this.memory, address, table.getUint32(at + 8, true), (flags & DESC_WRITE) !== 0);
      if (!linked) {
        index++;
        continue;
      }
      if (!(flags & DESC_NEXT)) return;
      index = table.getUint16(at + 14, true);
      if (index >= count) throw new RingError(`descriptor ${index} of an indirect table of ${count}`);
    }
    if (linked) throw new RingError('a chain loops');
  }
}

/**
 * Descriptors of an indirect table. A chain may be no longer than its queue (section 2.7.5.3.1); drivers in use
 * exceed that, within the pieces that one system call moves.
 */
const MAX_INDIRECT = 1024;
