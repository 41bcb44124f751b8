/** The end of a console's output that is no whole sequence yet. */
import type { Terminal } from '@xterm/headless';
import { XtermCore } from './xterm_core.ts';

const ESC = 0x1b;
/** First byte of the C1 controls in UTF-8. */
const C1 = 0xc2;
/** DCS, SOS, CSI, OSC, PM and APC (ECMA-48, 8.3), as the second byte. */
const C1_INTRODUCERS: ReadonlySet<number> = new Set([0x90, 0x98, 0x9b, 0x9d, 0x9e, 0x9f]);
const FIRST_PRINTABLE = 0x20;
/** Bytes of a string, as of a picture, that are kept. */
const MAX_KEPT = 64 * 1024;
/** A string that nobody knows, so that the rest of a longer one is read to its end and nothing is done with it. */
const UNKNOWN_OSC = Buffer.from('\x1b]9999;');
const UNKNOWN_DCS = Buffer.from('\x1bP9999|');

/** Place of the last byte that begins a sequence; every one before it is over then. */
function lastIntroducer(bytes: Uint8Array): number {
  const last = bytes.lastIndexOf(ESC);
  for (let at = bytes.lastIndexOf(C1); at > last; at = at > 0 ? bytes.lastIndexOf(C1, at - 1) : -1) {
    if (C1_INTRODUCERS.has(bytes[at + 1] ?? 0)) return at;
  }
  return last;
}

/**
 * Knows what a terminal has read of a sequence that goes on in its next bytes. A drawing of the screen says nothing of
 * it: whoever gets the drawing needs these bytes before the next ones.
 */
export class Unfinished {
  readonly #core: XtermCore;
  /** Since the last introducer, while its sequence is not over. */
  #pieces: Uint8Array[] = [];
  #length = 0;

  constructor(terminal: Terminal) {
    this.#core = new XtermCore(terminal);
  }

  /** The terminal has parsed these bytes, which are whole characters, and none after them. */
  parsed(bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    const isOver = this.#core.parser === 'ground';
    const from = lastIntroducer(bytes);
    if (isOver || from >= 0) {
      this.#pieces = [];
      this.#length = 0;
    }
    if (isOver) return;
    const piece = Buffer.from(bytes.subarray(Math.max(0, from)));
    this.#pieces.push(piece);
    this.#length += piece.length;
    if (this.#length > MAX_KEPT) this.#shorten();
  }

  #shorten(): void {
    const start = Buffer.concat(this.#pieces.slice(0, 2)).toString('latin1', 0, 2);
    const unknown = start === '\x1b]' || start === '\xc2\x9d' ? UNKNOWN_OSC : UNKNOWN_DCS;
    this.#pieces = [unknown];
    this.#length = unknown.length;
  }

  /** At most 64 KiB; nothing where the terminal is between two sequences. */
  get bytes(): Buffer {
    const bytes = Buffer.concat(this.#pieces);
    if (this.#core.parser !== 'sequence') return bytes;
    // Controls within a sequence were executed when they came (ECMA-48 leaves it open; every terminal does).
    return Buffer.from(bytes.filter((byte) => byte >= FIRST_PRINTABLE || byte === ESC));
  }
}
