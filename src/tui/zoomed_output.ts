import type { Writable } from 'node:stream';

/** Bytes that a terminal may be behind its guest while it shows nothing else. */
const MAX_BEHIND = 4 << 20;

/** A console's bytes on their way to the whole terminal, which may be slower than its guest. */
export class ZoomedOutput {
  readonly #output: Pick<Writable, 'write' | 'writableLength' | 'once'>;
  readonly #caughtUp: (skipped: number) => void;
  #behind = false;
  #skipped = 0;

  /** @param caughtUp the terminal takes bytes again, and has not been given so many: it is to be drawn afresh. */
  constructor(output: Pick<Writable, 'write' | 'writableLength' | 'once'>, caughtUp: (skipped: number) => void) {
    this.#output = output;
    this.#caughtUp = caughtUp;
  }

  write(bytes: Uint8Array): void {
    if (this.#behind) {
      this.#skipped += bytes.length;
      return;
    }
    if (this.#output.write(bytes) || this.#output.writableLength < MAX_BEHIND) return;
    this.#behind = true;
    this.#output.once('drain', () => {
      const skipped = this.#skipped;
      this.#behind = false;
      this.#skipped = 0;
      if (skipped > 0) this.#caughtUp(skipped);
    });
  }
}
