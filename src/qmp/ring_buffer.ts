/** The newest bytes of what was written, until they are read. */
export class RingBuffer {
  readonly #bytes: Uint8Array;
  /** Bytes that were written and read, ever. */
  #written = 0;
  #read = 0;

  /** @param size a power of two. */
  constructor(size: number) {
    this.#bytes = new Uint8Array(size);
  }

  /** What is not read in time is lost. */
  write(bytes: Uint8Array): void {
    const { length } = this.#bytes;
    const kept = bytes.subarray(Math.max(0, bytes.length - length));
    const at = (this.#written + bytes.length - kept.length) % length;
    const first = kept.subarray(0, length - at);
    this.#bytes.set(first, at);
    this.#bytes.set(kept.subarray(first.length));
    this.#written += bytes.length;
    this.#read = Math.max(this.#read, this.#written - length);
  }

  /** @returns the oldest bytes, `most` of them at most: they are gone from here. */
  read(most: number): Buffer {
    const { length } = this.#bytes;
    const count = Math.min(most, this.#written - this.#read);
    const from = this.#read % length;
    this.#read += count;
    const first = this.#bytes.subarray(from, Math.min(length, from + count));
    return Buffer.concat([first, this.#bytes.subarray(0, count - first.length)]);
  }
}
