/** What comes from the terminal: mouse reports apart from keys, and keys that belong to a guest apart from ours. */
import { PassThrough } from 'node:stream';

export interface MouseEvent {
  readonly kind: 'press' | 'drag' | 'release' | 'wheel-up' | 'wheel-down';
  /** From 0 on. */
  readonly column: number;
  readonly row: number;
}

/** XTerm's SGR mouse protocol (ctlseqs, "Extended coordinates"): buttons, wheel, and motion while a button is down. */
export const DRAG_ON = '\x1b[?1002h\x1b[?1006h';
export const DRAG_OFF = '\x1b[?1006l\x1b[?1002l';

// biome-ignore lint/suspicious/noControlCharactersInRegex: a control sequence
const MOUSE = /\x1b\[<(\d+);(\d+);(\d+)([Mm])/g;
// biome-ignore lint/suspicious/noControlCharactersInRegex: the same, cut off
const MOUSE_BEGUN = /\x1b(?:\[(?:<[\d;]*)?)?$/;
/** Added to a button's number in a report of motion. */
const MOTION = 0x20;
/** Ctrl-] as telnet and virsh have it. */
const LEAVE = 0x1d;
/** A piece of a sequence is completed within this time, or was the Esc key. */
const ESCAPE_MS = 40;

/** What Ink reads its keys from: as a terminal, whose modes are another's business. */
export class KeyStream extends PassThrough {
  readonly isTTY = true;
  setRawMode(): this {
    return this;
  }
  ref(): this {
    return this;
  }
  unref(): this {
    return this;
  }
}

export class TerminalInput {
  readonly keys = new KeyStream();
  onMouse: ((event: MouseEvent) => void) | undefined;
  /** Takes keys as they are, until Ctrl-]. */
  raw: ((bytes: Buffer) => void) | undefined;
  /** Ctrl-] was pressed while keys were raw. */
  onLeave: (() => void) | undefined;
  /** Mouse reports are a guest's too, as they are: it has asked the terminal for them. */
  everything = false;
  #begun = '';
  #timer: NodeJS.Timeout | undefined;

  /** Takes bytes from the terminal. */
  take(bytes: Buffer): void {
    clearTimeout(this.#timer);
    const text = this.#begun + bytes.toString('latin1');
    this.#begun = '';
    if (this.everything) {
      this.#deliver(text);
      return;
    }
    const rest = text.replaceAll(MOUSE, (_, button: string, column: string, row: string, end: string) => {
      this.#mouse(Number(button), Number(column) - 1, Number(row) - 1, end === 'M');
      return '';
    });
    const begun = MOUSE_BEGUN.exec(rest)?.[0] ?? '';
    this.#deliver(rest.slice(0, rest.length - begun.length));
    if (begun === '') return;
    this.#begun = begun;
    this.#timer = setTimeout(() => {
      this.#begun = '';
      this.#deliver(begun);
    }, ESCAPE_MS);
  }

  close(): void {
    clearTimeout(this.#timer);
    this.keys.end();
  }

  #mouse(button: number, column: number, row: number, pressed: boolean): void {
    if (button === 64 || button === 65)
      this.onMouse?.({ kind: button === 64 ? 'wheel-up' : 'wheel-down', column, row });
    else if ((button & 0x63) === 0) this.onMouse?.({ kind: pressed ? 'press' : 'release', column, row });
    else if ((button & 0x63) === MOTION) this.onMouse?.({ kind: 'drag', column, row });
  }

  #deliver(text: string): void {
    if (text === '') return;
    const bytes = Buffer.from(text, 'latin1');
    if (!this.raw) {
      this.keys.write(bytes);
      return;
    }
    const leave = bytes.indexOf(LEAVE);
    if (leave < 0) {
      this.raw(bytes);
      return;
    }
    if (leave > 0) this.raw(bytes.subarray(0, leave));
    this.onLeave?.();
    this.#deliver(bytes.subarray(leave + 1).toString('latin1'));
  }
}
