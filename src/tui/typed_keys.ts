/** Keys in what a terminal sends, by the names of keys.ts: for a screen that does without Ink. */
import { StringDecoder } from 'node:string_decoder';
import { keyOf } from './keys.ts';

/** What stands behind CSI or SS3 (XTerm's ctlseqs, "PC-Style Function Keys"; VT220 and rxvt for Home and End). */
const SEQUENCES: Readonly<Record<string, string>> = {
  ...{ A: 'up', B: 'down', C: 'right', D: 'left', H: 'home', F: 'end', Z: 'shift-tab' },
  ...{ '1~': 'home', '4~': 'end', '7~': 'home', '8~': 'end', '3~': 'delete', '5~': 'pageup', '6~': 'pagedown' },
};

// biome-ignore lint/suspicious/noControlCharactersInRegex: control sequences, Esc with a key, and keys
const KEY = /\x1b[[O][\d;<?]*[A-Za-z~]|\x1b[^\x1b[O]|[\s\S]/gu;
// biome-ignore lint/suspicious/noControlCharactersInRegex: the same, cut off
const BEGUN = /\x1b(?:[[O][\d;<?]*)?$/;
const ESCAPE = '\x1b';
/** The rest of a sequence comes within this time, or there is none: it was the Esc key. */
const ESCAPE_MS = 40;

export class TypedKeys {
  readonly #pressed: (name: string, text: string) => void;
  readonly #decoder = new StringDecoder('utf8');
  #begun = '';
  #timer: NodeJS.Timeout | undefined;

  /** @param pressed told of each key, with what it types. */
  constructor(pressed: (name: string, text: string) => void) {
    this.#pressed = pressed;
  }

  /** Takes bytes from the terminal. */
  take(bytes: Buffer): void {
    clearTimeout(this.#timer);
    const text = this.#begun + this.#decoder.write(bytes);
    this.#begun = BEGUN.exec(text)?.[0] ?? '';
    this.#deliver(text.slice(0, text.length - this.#begun.length));
    if (this.#begun === '') return;
    this.#timer = setTimeout(() => {
      const begun = this.#begun;
      this.#begun = '';
      this.#deliver(begun);
    }, ESCAPE_MS);
  }

  /** Forgets what has not become a key. */
  close(): void {
    clearTimeout(this.#timer);
    this.#begun = '';
  }

  #deliver(text: string): void {
    for (const [key] of text.matchAll(KEY)) {
      if (!key.startsWith(ESCAPE)) this.#pressed(...keyOf(key));
      else if (key === ESCAPE) this.#pressed('esc', '');
      else if (/^.[[O]./s.test(key)) {
        // Those with Shift, Ctrl and Alt too, and others that nobody asked for, are no keys of ours.
        const name = SEQUENCES[key.slice(2)];
        if (name !== undefined) this.#pressed(name, '');
      } else this.#pressed(`alt-${key.slice(1)}`, '');
    }
  }
}
