/**
 * What @xterm/headless knows of its terminal and has no public name for. The fields are those of version 6: the tests
 * of drawings fail when one of them is another.
 */
import type { IBuffer, IBufferCell, Terminal } from '@xterm/headless';

/** Colours and attributes as a cell of the public API has them. */
export type Pen = Omit<IBufferCell, 'getWidth' | 'getChars' | 'getCode'>;

/** Where the parser is: between sequences, within one that executes controls (ESC, CSI), or within a string. */
export type ParserPlace = 'ground' | 'sequence' | 'string';

/** Rows and columns count from 0. */
export interface SavedCursor {
  readonly row: number;
  readonly column: number;
  readonly pen: Pen;
  readonly charset: Charset;
}

/** Character sets that programs draw with; the national ones of old terminals are taken as ASCII. */
export type Charset = 'ascii' | 'graphics' | 'uk';

interface CoreBuffer {
  readonly ybase: number;
  readonly scrollTop: number;
  readonly scrollBottom: number;
  readonly savedX: number;
  readonly savedY: number;
  readonly savedCurAttrData: Pen;
  readonly savedCharset: CoreCharset;
}

type CoreCharset = Readonly<Record<string, string>> | undefined;

interface Core {
  readonly buffers: { readonly normal: CoreBuffer; readonly alt: CoreBuffer; readonly active: CoreBuffer };
  readonly _charsetService: { readonly glevel: number; readonly _charsets: readonly CoreCharset[] };
  readonly _inputHandler: {
    readonly _curAttrData: Pen;
    readonly _parser: { readonly currentState: number };
  };
}

/** ParserState: 0 is GROUND; up to 6 are ESCAPE, ESCAPE_INTERMEDIATE and those of CSI; strings come after. */
const LAST_SEQUENCE_STATE = 6;

function charsetOf(charset: CoreCharset): Charset {
  if (charset?.q === '─') return 'graphics';
  return charset?.['#'] === '£' && Object.keys(charset).length === 1 ? 'uk' : 'ascii';
}

export class XtermCore {
  readonly #terminal: Terminal;
  readonly #core: Core;

  constructor(terminal: Terminal) {
    this.#terminal = terminal;
    this.#core = (terminal as unknown as { _core: Core })._core;
  }

  get parser(): ParserPlace {
    const state = this.#core._inputHandler._parser.currentState;
    if (state === 0) return 'ground';
    return state <= LAST_SEQUENCE_STATE ? 'sequence' : 'string';
  }

  /** Colours and attributes of what is printed next. */
  get pen(): Pen {
    return this.#core._inputHandler._curAttrData;
  }

  /** First and last row of the scroll region (DECSTBM). */
  get region(): { readonly top: number; readonly bottom: number } {
    const { scrollTop, scrollBottom } = this.#core.buffers.active;
    return { top: scrollTop, bottom: scrollBottom };
  }

  /** G0 and G1, and which of them is in use: a program of today has no others. */
  get charsets(): { readonly g0: Charset; readonly g1: Charset; readonly shifted: boolean } {
    const { _charsets: charsets, glevel } = this.#core._charsetService;
    return { g0: charsetOf(charsets[0]), g1: charsetOf(charsets[1]), shifted: glevel === 1 };
  }

  /** What DECRC would restore on one of the terminal's buffers. */
  saved(buffer: IBuffer): SavedCursor {
    const core = this.#core.buffers[buffer.type === 'alternate' ? 'alt' : 'normal'];
    const { cols, rows } = this.#terminal;
    return {
      row: Math.max(0, Math.min(rows - 1, core.savedY - core.ybase)),
      column: Math.min(cols - 1, core.savedX),
      pen: core.savedCurAttrData,
      charset: charsetOf(core.savedCharset),
    };
  }
}
