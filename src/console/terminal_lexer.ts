/** What a terminal sends, taken apart: characters, control keys, sequences, and what is pasted. */

/** Bytes are characters of a string, one each (latin1). */
export type TypedPiece =
  /** Printable characters, any number of them. */
  | { readonly kind: 'text'; readonly bytes: string }
  /** One key of C0, Esc too, or DEL. */
  | { readonly kind: 'control'; readonly bytes: string }
  /** CSI or SS3 and what belongs to it, or Esc with a key. */
  | { readonly kind: 'sequence'; readonly bytes: string }
  /** What stands between the marks of bracketed paste (XTerm's ctlseqs), without them; it may come in several. */
  | { readonly kind: 'paste'; readonly bytes: string; readonly first: boolean; readonly last: boolean };

export const PASTE_BEGINS = '\x1b[200~';
export const PASTE_ENDS = '\x1b[201~';

/** The rest of a sequence comes within this time, or there is none: it was the Esc key. */
const ESCAPE_MS = 40;
/** A paste of which nothing more has come for so long has lost its end, or keys would be taken for pasted for good. */
const PASTE_MS = 1000;

/** CSI (F1 to F5 of Linux' own terminal are none by the book), SS3, Esc with a key; a control key; characters. */
const PIECE =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control sequences
  /(\x1b\[\[[A-E]|\x1b\[[0-?]*[ -/]*[@-~]|\x1bO[0-9;]*[@-~]|\x1b[^\x1b[O][\x80-\xbf]*)|([\x00-\x1f\x7f])|[^\x00-\x1f\x7f]+/g;
/** The same, cut off, or a character of UTF-8 that is. */
const BEGUN =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control sequences
  /\x1b(?:\[\[?[0-?]{0,64}[ -/]{0,8}|O[0-9;]{0,64})?$|(?:[\xc0-\xdf]|[\xe0-\xef][\x80-\xbf]?|[\xf0-\xf7][\x80-\xbf]{0,2})$/;

export class TerminalLexer {
  readonly #deliver: (piece: TypedPiece) => void;
  readonly #hold: boolean;
  #held = '';
  #pasting: 'no' | 'begins' | 'goes on' = 'no';
  #timer: NodeJS.Timeout | undefined;

  /**
   * @param deliver told of each piece before the next is looked for.
   * @param hold keeps a sequence that has begun until the rest of it has come; without it what came is given on at once.
   */
  constructor(deliver: (piece: TypedPiece) => void, { hold = true }: { readonly hold?: boolean } = {}) {
    this.#deliver = deliver;
    this.#hold = hold;
  }

  /** Takes bytes from the terminal. */
  take(bytes: Uint8Array): void {
    clearTimeout(this.#timer);
    let text = this.#held + Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1');
    this.#held = '';
    while (text !== '') text = this.#pasting === 'no' ? this.#typed(text) : this.#pasted(text);
    if (this.#held === '' && this.#pasting === 'no') return;
    this.#timer = setTimeout(() => this.#late(), this.#pasting === 'no' ? ESCAPE_MS : PASTE_MS);
  }

  /** Forgets what has not become a piece. */
  close(): void {
    clearTimeout(this.#timer);
    this.#held = '';
    this.#pasting = 'no';
  }

  #late(): void {
    const held = this.#held;
    this.#held = '';
    if (this.#pasting === 'no') this.#pieces(held);
    else this.#paste(held, true);
  }

  /** @returns what is behind the mark of a paste. */
  #typed(text: string): string {
    const at = text.indexOf(PASTE_BEGINS);
    if (at >= 0) {
      this.#pieces(text.slice(0, at));
      this.#pasting = 'begins';
      return text.slice(at + PASTE_BEGINS.length);
    }
    this.#held = this.#hold ? (BEGUN.exec(text)?.[0] ?? '') : '';
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
      this.#deliver({ kind, bytes });
    }
  }
}

/** A key as the protocol of kitty, or XTerm's modifyOtherKeys, writes it. */
const CODED =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control sequences
  /^\x1b\[(?:(\d+)(?::[\d:]*)?(?:;(\d*)(?::(\d+))?)?(?:;[\d:]*)?u|27;(\d+);(\d+)~)$/;
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
  const [, kittyCode, kittyModifiers, event, xtermModifiers, xtermCode] =
    kind === 'sequence' ? (CODED.exec(bytes) ?? []) : [];
  const code = Number(kittyCode ?? xtermCode);
  if (Number.isNaN(code) || code > 0x10ffff) return undefined;
  const silent = Number(event) === RELEASE || code >= NO_CHARACTER;
  const modifiers = (Number((kittyCode === undefined ? xtermModifiers : kittyModifiers) || 1) - 1) & MODIFIERS;
  const character = String.fromCodePoint(code);
  if (modifiers === 0) return { character, silent };
  // Both write Ctrl with the letter that the key has by itself, or with Shift.
  if (modifiers === CTRL && /^[@-~]$/.test(character)) return { character: String.fromCharCode(code & 0x1f), silent };
  return silent ? { character: '', silent } : undefined;
}
