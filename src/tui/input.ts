/** What comes from the terminal: mouse reports apart from keys, and keys that belong to a guest apart from ours. */
import { TerminalLexer, type TypedPiece, typedKey } from '../console/terminal_lexer.ts';
import { namedKey } from './keys.ts';

export interface MouseEvent {
  readonly kind: 'press' | 'drag' | 'release' | 'wheel-up' | 'wheel-down';
  /** From 0 on. */
  readonly column: number;
  readonly row: number;
}

/** XTerm's SGR mouse protocol (ctlseqs, "Extended coordinates"): buttons, wheel, and motion while a button is down. */
export const DRAG_ON = '\x1b[?1002h\x1b[?1006h';
export const DRAG_OFF = '\x1b[?1006l\x1b[?1002l';
/** Marks around what is pasted (DECSET 2004): it is not typed, and no key of it is to do anything. */
export const PASTE_ON = '\x1b[?2004h';
export const PASTE_OFF = '\x1b[?2004l';

// biome-ignore lint/suspicious/noControlCharactersInRegex: a control sequence
const SGR_MOUSE = /^\x1b\[<(\d+);(\d+);(\d+)([Mm])$/;
/** Of a terminal that knows the mouse, and not how it was asked to tell of it: in three bytes, or as urxvt does. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: a control sequence
const OLD_MOUSE = /^\x1b\[(?:M([\s\S])([\s\S])([\s\S])|(\d+);(\d+);(\d+)M)$/;
/** Added to a button's number in a report of motion. */
const MOTION = 0x20;
/** Added to every number of the old reports of the mouse, or to the button alone. */
const OLD_BASE = 32;
/** Ctrl-] as telnet and virsh have it. */
const LEAVE = '\x1d';
/** Of UTF-8. */
const CHARACTER = /[\xc0-\xff][\x80-\xbf]*|[\s\S]/g;

/** What goes to the guest before it is left; undefined for what is not Ctrl-]. Esc may have come right before it. */
function leavesWith(piece: TypedPiece): string | undefined {
  if (piece.bytes === `\x1b${LEAVE}`) return '\x1b';
  const key = typedKey(piece);
  return key?.character === LEAVE && !key.silent ? '' : undefined;
}

/** Takes keys as they are. */
export interface RawKeys {
  type(bytes: Buffer): void;
  /** What is pasted: the first piece of it, the last, one in between, or all. */
  paste(bytes: Buffer, first: boolean, last: boolean): void;
}

const bufferOf = (bytes: string): Buffer => Buffer.from(bytes, 'latin1');

export class TerminalInput {
  /** Told of each key by its name, with what it types (keys.ts), while nobody takes them as they are. */
  onKey: ((name: string, text: string) => void) | undefined;
  /** Told of all that was pasted, at such a time. */
  onPaste: ((text: string) => void) | undefined;
  onMouse: ((event: MouseEvent) => void) | undefined;
  /** Takes keys as they are, until Ctrl-]. */
  raw: RawKeys | undefined;
  /** Ctrl-] was pressed while keys were raw. */
  onLeave: (() => void) | undefined;
  /** Mouse reports are a guest's too, as they are: it has asked the terminal for them. */
  everything = false;
  readonly #lexer = new TerminalLexer((piece) => this.#piece(piece), { done: () => this.#send() });
  /** What was typed since bytes were given on last. */
  #typed = '';
  /** Who had the keyboard when a paste began. */
  #pasteTo: RawKeys | undefined;
  /** What was pasted so far, where nobody takes keys as they are. */
  #pasted = '';

  /** Takes bytes from the terminal. */
  take(bytes: Buffer): void {
    this.#lexer.take(bytes);
  }

  close(): void {
    this.#lexer.close();
  }

  #piece(piece: TypedPiece): void {
    if (piece.kind === 'paste') {
      this.#paste(piece);
      return;
    }
    const { kind, bytes } = piece;
    if (kind === 'sequence' && !this.everything && this.#isMouse(bytes)) return;
    const last = this.raw && leavesWith(piece);
    if (last !== undefined) {
      this.#typed += last;
      this.#send();
      this.onLeave?.();
      return;
    }
    for (const key of kind === 'text' && !this.raw ? (bytes.match(CHARACTER) ?? []) : [bytes]) {
      // A key may give the keyboard to a guest: what came with it and follows is the guest's.
      if (this.raw) this.#typed += key;
      else this.#key(key);
    }
  }

  #key(bytes: string): void {
    const key = namedKey(Buffer.from(bytes, 'latin1').toString('utf8'));
    if (key) this.onKey?.(...key);
  }

  #paste({ bytes, first, last }: Extract<TypedPiece, { kind: 'paste' }>): void {
    if (first) {
      this.#send();
      this.#pasteTo = this.raw;
      this.#pasted = '';
    }
    // The rest of what somebody was given is nobody else's.
    if (this.#pasteTo !== this.raw) return;
    if (this.raw) {
      this.raw.paste(bufferOf(bytes), first, last);
      return;
    }
    this.#pasted += bytes;
    if (last) this.onPaste?.(bufferOf(this.#pasted).toString('utf8'));
  }

  /** What was typed so far goes to whoever has the keyboard. */
  #send(): void {
    const typed = this.#typed;
    this.#typed = '';
    if (typed !== '') this.raw?.type(bufferOf(typed));
  }

  #isMouse(bytes: string): boolean {
    const report = SGR_MOUSE.exec(bytes) ?? OLD_MOUSE.exec(bytes);
    if (!report) return false;
    this.#send();
    if (report[4] === 'M' || report[4] === 'm') {
      const [button, column, row] = report.slice(1, 4).map(Number);
      this.#mouse(button, column - 1, row - 1, report[4] === 'M');
      return true;
    }
    const numbers = report[4] === undefined ? report.slice(1, 4).map((byte) => byte.charCodeAt(0)) : report.slice(4, 7);
    const [code, x, y] = numbers.map(Number);
    const button = code - OLD_BASE;
    const offset = report[4] === undefined ? OLD_BASE + 1 : 1;
    // These do not say which button was let go.
    const released = (button & 0x63) === 3;
    this.#mouse(released ? 0 : button, x - offset, y - offset, !released);
    return true;
  }

  #mouse(button: number, column: number, row: number, pressed: boolean): void {
    if (button === 64 || button === 65)
      this.onMouse?.({ kind: button === 64 ? 'wheel-up' : 'wheel-down', column, row });
    else if ((button & 0x63) === 0) this.onMouse?.({ kind: pressed ? 'press' : 'release', column, row });
    else if ((button & 0x63) === MOTION) this.onMouse?.({ kind: 'drag', column, row });
  }
}
