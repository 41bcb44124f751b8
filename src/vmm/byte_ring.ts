/**
 * A bounded single-producer, single-consumer ring of bytes in shared memory, for streams between two
 * threads of which either may stall. Nothing is dropped here: `write` takes what fits and says how much.
 *
 * Positions are free-running 32-bit counters, so that full and empty differ. The two flags are doorbells:
 * a side sets its flag before it waits, the other side clears it and rings (how is the owner's business).
 */
const HEAD = 0;
const TAIL = 1;
/** The consumer waits for bytes. */
const WANT_DATA = 2;
/** The producer waits for room. */
const WANT_SPACE = 3;
const HEADER_WORDS = 4;

export class ByteRing {
  readonly buffer: SharedArrayBuffer;
  readonly capacity: number;
  readonly #words: Int32Array<SharedArrayBuffer>;
  readonly #bytes: Uint8Array<SharedArrayBuffer>;

  /** @param source capacity in bytes (a power of two), or the buffer of a ring made in another thread. */
  constructor(source: number | SharedArrayBuffer) {
    if (typeof source === 'number' && (source & (source - 1)) !== 0) {
      throw new RangeError(`A ring's capacity is a power of two, not ${source}.`);
    }
    this.buffer = typeof source === 'number' ? new SharedArrayBuffer(HEADER_WORDS * 4 + source) : source;
    this.#words = new Int32Array(this.buffer, 0, HEADER_WORDS);
    this.#bytes = new Uint8Array(this.buffer, HEADER_WORDS * 4);
    this.capacity = this.#bytes.length;
  }

  /** Bytes that can be read. */
  get length(): number {
    return (Atomics.load(this.#words, HEAD) - Atomics.load(this.#words, TAIL)) >>> 0;
  }

  get space(): number {
    return this.capacity - this.length;
  }

  /** Producer: copies as much of `from` as fits. @returns bytes taken. */
  write(from: Uint8Array): number {
    const head = Atomics.load(this.#words, HEAD);
    const count = Math.min(from.length, this.capacity - ((head - Atomics.load(this.#words, TAIL)) >>> 0));
    const start = (head >>> 0) % this.capacity;
    const first = Math.min(count, this.capacity - start);
    this.#bytes.set(first === from.length ? from : from.subarray(0, first), start);
    if (count > first) this.#bytes.set(from.subarray(first, count), 0);
    Atomics.store(this.#words, HEAD, (head + count) | 0);
    return count;
  }

  /** Consumer: takes up to `limit` bytes into a new array. */
  read(limit = this.capacity): Uint8Array {
    const tail = Atomics.load(this.#words, TAIL);
    const count = Math.min(limit, (Atomics.load(this.#words, HEAD) - tail) >>> 0);
    const start = (tail >>> 0) % this.capacity;
    const first = Math.min(count, this.capacity - start);
    const out = new Uint8Array(count);
    out.set(this.#bytes.subarray(start, start + first), 0);
    if (count > first) out.set(this.#bytes.subarray(0, count - first), first);
    Atomics.store(this.#words, TAIL, (tail + count) | 0);
    return out;
  }

  /** Consumer: takes one byte, or gives -1. */
  readByte(): number {
    const tail = Atomics.load(this.#words, TAIL);
    if (Atomics.load(this.#words, HEAD) === tail) return -1;
    const byte = this.#bytes[(tail >>> 0) % this.capacity];
    Atomics.store(this.#words, TAIL, (tail + 1) | 0);
    return byte;
  }

  /** Consumer: asks for a ring of the bell at the next byte. @returns false when bytes are there already. */
  wantData(): boolean {
    Atomics.store(this.#words, WANT_DATA, 1);
    if (this.length === 0) return true;
    Atomics.store(this.#words, WANT_DATA, 0);
    return false;
  }

  /** Producer: asks for a ring of the bell when there is room. @returns false when there is already. */
  wantSpace(): boolean {
    Atomics.store(this.#words, WANT_SPACE, 1);
    if (this.space === 0) return true;
    Atomics.store(this.#words, WANT_SPACE, 0);
    return false;
  }

  /** Producer, after a write: true when the consumer must be rung. */
  takeDataBell(): boolean {
    return Atomics.exchange(this.#words, WANT_DATA, 0) === 1;
  }

  /** Consumer, after a read: true when the producer must be rung. */
  takeSpaceBell(): boolean {
    return Atomics.exchange(this.#words, WANT_SPACE, 0) === 1;
  }
}
