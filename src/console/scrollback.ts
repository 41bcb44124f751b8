/** The last bytes of a stream, by their place in the whole of it. */
export class Scrollback {
  readonly capacity: number;
  readonly #bytes: Buffer;
  #end = 0;

  /** @param capacity bytes that are kept. */
  constructor(capacity: number) {
    this.capacity = capacity;
    this.#bytes = Buffer.alloc(capacity);
  }

  /** Bytes that ever came. */
  get end(): number {
    return this.#end;
  }

  /** Place of the oldest byte that is kept. */
  get start(): number {
    return Math.max(0, this.#end - this.capacity);
  }

  append(bytes: Uint8Array): void {
    const kept = bytes.length > this.capacity ? bytes.subarray(bytes.length - this.capacity) : bytes;
    const at = (this.#end + bytes.length - kept.length) % this.capacity;
    const first = Math.min(kept.length, this.capacity - at);
    this.#bytes.set(kept.subarray(0, first), at);
    this.#bytes.set(kept.subarray(first), 0);
    this.#end += bytes.length;
  }

  /**
   * A copy of the bytes from a place on, as far as they lie in one piece and no more than `most`.
   * @throws RangeError for a place that is not kept.
   */
  read(from: number, most: number): Buffer {
    if (from < this.start || from > this.#end) {
      throw new RangeError(`Byte ${from} is not among ${this.start} to ${this.#end}.`);
    }
    const at = from % this.capacity;
    const count = Math.min(most, this.#end - from, this.capacity - at);
    return Buffer.from(this.#bytes.subarray(at, at + count));
  }

  /** All that is kept. */
  all(): Buffer {
    const { start } = this;
    const first = this.read(start, this.capacity);
    return Buffer.concat([first, this.read(start + first.length, this.capacity)]);
  }
}
