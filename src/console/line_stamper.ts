/** Puts the time in front of the lines of a console. */

const LINE_FEED = 0x0a;
const CARRIAGE_RETURN = 0x0d;

export interface StampOptions {
  /** What stands in front of a line. */
  readonly stamp: () => string;
  /**
   * Cells that a stamp takes of a terminal: a guest that goes back to the beginning of its line comes to stand behind
   * it. Without, what is stamped is text for a program.
   */
  readonly cells?: number;
}

export class LineStamper {
  readonly #options: StampOptions;
  #lineStart = true;
  /** The last byte went back to the beginning of the line. */
  #returned = false;

  constructor(options: StampOptions) {
    this.#options = options;
  }

  /** The terminal was drawn afresh: what comes goes on where the cursor is. */
  restart(): void {
    this.#lineStart = false;
    this.#returned = false;
  }

  take(bytes: Uint8Array): Buffer {
    const { stamp, cells } = this.#options;
    const out: Uint8Array[] = [];
    let from = 0;
    const flush = (end: number, text: string) => {
      out.push(bytes.subarray(from, end), Buffer.from(text));
      from = end;
    };
    for (let at = 0; at < bytes.length; at++) {
      const byte = bytes[at];
      if (byte === LINE_FEED) {
        // An empty line has its time too.
        if (this.#lineStart && !this.#returned) flush(at, stamp());
        this.#lineStart = true;
        this.#returned = false;
      } else if (byte === CARRIAGE_RETURN) {
        if (this.#lineStart) flush(at, stamp());
        this.#lineStart = false;
        this.#returned = true;
      } else {
        if (this.#lineStart) flush(at, stamp());
        else if (this.#returned && cells !== undefined) flush(at, `\x1b[${cells}C`);
        this.#lineStart = false;
        this.#returned = false;
      }
    }
    out.push(bytes.subarray(from));
    return Buffer.concat(out);
  }
}
