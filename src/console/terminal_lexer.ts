/** What a terminal sends, taken apart: characters, control keys, sequences, and what is pasted. */

/** Bytes are characters of a string, one each (latin1). */
export type TypedPiece =
  /** Printable characters, any number of them. */
  | { readonly kind: 'text'; readonly bytes: string }
  /** One key of C0, Esc too, or DEL. */
  | { readonly kind: 'control'; readonly bytes: string }
  /** CSI, SS3 or a string (OSC, DCS) and what belongs to it, or Esc with a key; one that lost its end too. */
  | { readonly kind: 'sequence'; readonly bytes: string }
  /** What stands between the marks of bracketed paste (XTerm's ctlseqs), without them; it may come in several. */
  | { readonly kind: 'paste'; readonly bytes: string; readonly first: boolean; readonly last: boolean };

export const PASTE_BEGINS = '\x1b[200~';
export const PASTE_ENDS = '\x1b[201~';

/** What follows Esc at once belongs to it; what does not is another key. */
const ESCAPE_MS = 40;
/** A sequence that has begun goes on within this time, or has lost its end. */
const SEQUENCE_MS = 500;
/** A paste of which nothing more has come for so long has lost its end, or keys would be taken for pasted for good. */
const PASTE_MS = 10_000;

/** OSC, DCS, SOS, PM and APC: what a terminal answers in. Any other sequence ends them too, and they have no control keys. */
const STRING = '[\\]PX^_][^\\x00-\\x1f\\x7f]{0,1048576}';
/**
 * A mouse report of X10, whose coordinates are bytes; CSI (F1 to F5 of Linux' own terminal are none by the book); SS3; a
 * string; Esc with a key. A control key. Characters.
 */
const PIECE = new RegExp(
  `(\\x1b\\[M[\\s\\S]{3}|\\x1b\\[\\[[A-E]|\\x1b\\[[0-?]*[ -/]*[@-~]|\\x1bO[0-9;]*[@-~]|\\x1b${STRING}(?:[\\x07\\x18\\x1a]|\\x1b\\\\|(?=\\x1b[^\\\\]))|\\x1b[^\\x1b[O][\\x80-\\xbf]*)|([\\x00-\\x1f\\x7f])|[^\\x00-\\x1f\\x7f]+`,
  'g',
);
/** The same, cut off, or a character of UTF-8 that is. */
const BEGUN = new RegExp(
  `\\x1b(?:\\[(?:M[\\s\\S]{0,2}|\\[?[0-?]{0,64}[ -/]{0,8})|O[0-9;]{0,64}|${STRING}\\x1b?)?$|(?:[\\xc0-\\xdf]|[\\xe0-\\xef][\\x80-\\xbf]?|[\\xf0-\\xf7][\\x80-\\xbf]{0,2})$`,
);

export interface LexerOptions {
  /** Whether an Esc waits for what may belong to it; sequences that have begun do in any case. On without it. */
  readonly holdEscape?: boolean;
  /** Told when all that has come by now was delivered. */
  readonly done?: () => void;
}

export class TerminalLexer {
  readonly #deliver: (piece: TypedPiece) => void;
  readonly #options: LexerOptions;
  #held = '';
  #pasting: 'no' | 'begins' | 'goes on' = 'no';
  #timer: NodeJS.Timeout | undefined;
  #takes = 0;

  /** @param deliver told of each piece before the next is looked for. */
  constructor(deliver: (piece: TypedPiece) => void, options: LexerOptions = {}) {
    this.#deliver = deliver;
    this.#options = options;
  }

  /** Takes bytes from the terminal. */
  take(bytes: Uint8Array): void {
    clearTimeout(this.#timer);
    this.#takes++;
    let text = this.#held + Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1');
    this.#held = '';
    while (text !== '') text = this.#pasting === 'no' ? this.#typed(text) : this.#pasted(text);
    this.#options.done?.();
    if (this.#held === '' && this.#pasting === 'no') return;
    const ms = this.#pasting !== 'no' ? PASTE_MS : this.#held.length <= 2 ? ESCAPE_MS : SEQUENCE_MS;
    this.#timer = setTimeout(() => this.#late(), ms);
  }

  /** Forgets what has not become a piece. @returns its bytes. */
  close(): string {
    clearTimeout(this.#timer);
    const held = this.#held;
    this.#takes++;
    this.#held = '';
    this.#pasting = 'no';
    return held;
  }

  #late(): void {
    const takes = this.#takes;
    // Where this thread had other things to do, the rest may have come meanwhile.
    setImmediate(() => {
      if (takes !== this.#takes) return;
      const held = this.#held;
      this.#held = '';
      if (this.#pasting !== 'no') this.#paste(held, true);
      else if (held.length > 1 && held.startsWith('\x1b')) this.#deliver({ kind: 'sequence', bytes: held });
      else this.#pieces(held);
      this.#options.done?.();
    });
  }

  /** @returns what is behind the mark of a paste. */
  #typed(text: string): string {
    const at = text.indexOf(PASTE_BEGINS);
    if (at >= 0) {
      this.#pieces(text.slice(0, at));
      this.#pasting = 'begins';
      return text.slice(at + PASTE_BEGINS.length);
    }
    const held = BEGUN.exec(text)?.[0] ?? '';
    this.#held = held === '\x1b' && this.#options.holdEscape === false ? '' : held;
    this.#pieces(text.slice(0, text.length - this.#held.length));
    return '';
  }

  /** @returns what is behind the end of the paste. */
  #pasted(text: string): string {
    const at = text.indexOf(PASTE_ENDS);
    if (at >= 0) {
      this.#paste(text.slice(0, at), true);
      return text.slice(at + PASTE_ENDS.length);
    }
    let begun = Math.min(PASTE_ENDS.length - 1, text.length);
    while (!PASTE_ENDS.startsWith(text.slice(text.length - begun))) begun--;
    this.#held = text.slice(text.length - begun);
    if (begun < text.length) this.#paste(text.slice(0, text.length - begun), false);
    return '';
  }

  #paste(bytes: string, last: boolean): void {
    const first = this.#pasting === 'begins';
    this.#pasting = last ? 'no' : 'goes on';
    this.#deliver({ kind: 'paste', bytes, first, last });
  }

  #pieces(text: string): void {
    for (const [bytes, sequence, control] of text.matchAll(PIECE)) {
      const kind = sequence !== undefined ? 'sequence' : control !== undefined ? 'control' : 'text';
      // Of a paste that was given up.
      if (bytes !== PASTE_ENDS) this.#deliver({ kind, bytes });
    }
  }
}

/** The terminal says this by itself, or in answer to a question: focus, the mouse, its state; it is no key. */
export const isReport = ({ kind, bytes }: TypedPiece): boolean =>
  kind === 'sequence' &&
  bytes.length > 2 &&
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control sequences
  /^\x1b(?:\[(?:[IO]$|M|[<>?]|[\d;]*(?:[MRcnt]|\$y)$)|[\]PX^_])/.test(bytes);

/** A key as the protocol of kitty, or XTerm's modifyOtherKeys, writes it. */
const CODED =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control sequences
  /^\x1b\[(?:(\d+)(?::\d*(?::(\d+))?)?(?:;(\d*)(?::(\d+))?)?(?:;[\d:]*)?u|27;(\d+);(\d+)~)$/;
const CTRL = 4;
/** Shift, Alt, Ctrl, Super, Hyper, Meta: the locks behind them are no part of a key. */
const MODIFIERS = 0x3f;
const RELEASE = 3;
/** Where kitty's keys that are no characters begin, in Unicode's private area: Shift and Ctrl by themselves are there. */
const NO_CHARACTER = 0xe000;

/** One key, however the terminal was asked to write it. */
export interface TypedKey {
  /** The character that it stands for: a control character with Ctrl. */
  readonly character: string;
  /** It types nothing: it was let go, or is Shift by itself. */
  readonly silent: boolean;
}

/**
 * The key of a control character or of a sequence in which a guest has asked for keys
 * (https://sw.kovidgoyal.net/kitty/keyboard-protocol/, XTerm's ctlseqs), where it is Ctrl with a character, or one alone.
 */
export function typedKey({ kind, bytes }: TypedPiece): TypedKey | undefined {
  if (kind === 'control') return { character: bytes, silent: false };
  const [, kittyCode, base, kittyModifiers, event, xtermModifiers, xtermCode] =
    kind === 'sequence' ? (CODED.exec(bytes) ?? []) : [];
  // On a keyboard of another script the key is told as a Latin one has it, too.
  const code = Number(base ?? kittyCode ?? xtermCode);
  if (Number.isNaN(code) || code > 0x10ffff) return undefined;
  const silent = Number(event) === RELEASE || code >= NO_CHARACTER;
  const modifiers = (Number((kittyCode === undefined ? xtermModifiers : kittyModifiers) || 1) - 1) & MODIFIERS;
  const character = String.fromCodePoint(code);
  if (modifiers === 0) return { character, silent };
  // Both write Ctrl with the letter that the key has by itself, or with Shift.
  if (modifiers === CTRL && /^[@-~]$/.test(character)) return { character: String.fromCharCode(code & 0x1f), silent };
  return silent ? { character: '', silent } : undefined;
}
