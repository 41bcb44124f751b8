import { gunzipSync } from 'node:zlib';

/** What the agent packs at once, and the most that this may come to on its way; a guest may say anything. */
const MAX_PIECE = 24_000;
const MAX_PACKED = 2 * MAX_PIECE;

/** Puts packed pieces of a command's output together: lines of base64, and a dot behind the last. */
export class PackedOutput {
  #parts: Buffer[] = [];
  #length = 0;

  /** @returns the bytes of a piece that is complete; of one that is no such thing, nothing. */
  take(line: string): Buffer | undefined {
    if (line !== '.') {
      const part = Buffer.from(line, 'base64');
      this.#length += part.length;
      if (this.#length <= MAX_PACKED) this.#parts.push(part);
      return undefined;
    }
    const packed = Buffer.concat(this.#parts);
    const whole = this.#length === packed.length;
    this.#parts = [];
    this.#length = 0;
    if (!whole) return undefined;
    try {
      return gunzipSync(packed, { maxOutputLength: MAX_PIECE });
    } catch {
      return undefined;
    }
  }
}
