/** What draws a terminal's screen on another terminal, and leaves that in the same state. */
import type { IBuffer, Terminal } from '@xterm/headless';
import { drawRows, sgr } from './screen_rows.ts';
import { BEFORE_DRAWING } from './terminal_modes.ts';
import { Unfinished } from './unfinished.ts';
import { type Charset, XtermCore } from './xterm_core.ts';

/**
 * Private modes (XTerm's ctlseqs, DECSET) that a program asks for and the terminal has no name for, as they are at
 * first: reverse video, the cursor, and how mouse reports are written.
 */
const MORE_MODES: ReadonlyMap<number, boolean> = new Map([
  [5, false],
  [25, true],
  [1005, false],
  [1006, false],
  [1015, false],
  [1016, false],
]);
/** DECTCEM, which DECSTR sets (VT510). */
const SHOWS_CURSOR = 25;

/** The other screen, empty, with nothing on and its first place saved. */
const INTO_ALTERNATE = '\x1b[?1049h\x1b[0m\x0f\x1b(B\x1b[H\x1b7\x1b[2J';
const MOUSE_MODES = { none: '', x10: '\x1b[?9h', vt200: '\x1b[?1000h', drag: '\x1b[?1002h', any: '\x1b[?1003h' };
/** Final byte of SCS. */
const CHARSET_FINAL: Readonly<Record<Charset, string>> = { ascii: 'B', graphics: '0', uk: 'A' };

interface Place {
  readonly row: number;
  readonly column: number;
}

const moveTo = ({ row, column }: Place) => `\x1b[${row + 1};${column + 1}H`;

/** The same on a terminal with more rows, on which the screen may be elsewhere. */
function moveFrom(from: Place, { row, column }: Place): string {
  const rows = row - from.row;
  const vertical = rows < 0 ? `\x1b[${-rows}A` : rows > 0 ? `\x1b[${rows}B` : '';
  return vertical + (column === from.column ? '' : `\x1b[${column + 1}G`);
}

/** Text that draws rows, and where it leaves the cursor, from the row where the screen begins. */
interface Drawn {
  readonly text: string;
  readonly at: Place;
  /** It was cut: where the cursor is then is not known. */
  readonly cut: boolean;
}

/** Bytes up to the end of the last UTF-8 character that is whole, or that never will be. */
function wholeLength(bytes: Uint8Array): number {
  for (let back = 1; back <= Math.min(3, bytes.length); back++) {
    const byte = bytes[bytes.length - back] ?? 0;
    if ((byte & 0xc0) === 0x80) continue;
    const length = byte < 0xc0 || byte >= 0xf8 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
    return length > back ? bytes.length - back : bytes.length;
  }
  return bytes.length;
}

const NOTHING: Uint8Array = new Uint8Array(0);

export class ScreenCopy {
  readonly #terminal: Terminal;
  readonly #core: XtermCore;
  readonly #unfinished: Unfinished;
  /** The beginning of a character, whose end is to come. */
  #begun = NOTHING;
  /** What was set last is last: of the forms of mouse reports it is the one in use. */
  readonly #modes = new Map(MORE_MODES);

  constructor(terminal: Terminal) {
    this.#terminal = terminal;
    this.#core = new XtermCore(terminal);
    this.#unfinished = new Unfinished(terminal);
    const { parser } = terminal;
    // False: the terminal does what is asked.
    for (const [final, on] of [
      ['h', true],
      ['l', false],
    ] as const) {
      parser.registerCsiHandler({ prefix: '?', final }, (parameters) => {
        for (const each of parameters.flat()) this.#set(each, on);
        return false;
      });
    }
    parser.registerCsiHandler({ intermediates: '!', final: 'p' }, () => {
      this.#set(SHOWS_CURSOR, true);
      return false;
    });
    parser.registerEscHandler({ final: 'c' }, () => {
      this.reset();
      return false;
    });
  }

  #set(mode: number, on: boolean): void {
    if (!MORE_MODES.has(mode)) return;
    this.#modes.delete(mode);
    this.#modes.set(mode, on);
  }

  /** The terminal was reset, and not by its output. */
  reset(): void {
    for (const [mode, on] of MORE_MODES) this.#modes.set(mode, on);
    this.#begun = NOTHING;
  }

  /**
   * Gives the terminal its output, of which all comes this way, the next piece when this one has been parsed. It gets
   * whole characters: @xterm/headless 6.0 loses one that is cut behind a byte of 80h, as that of an ellipsis.
   * @param parsed told when the terminal has it.
   */
  write(bytes: Uint8Array, parsed: () => void): void {
    const all = this.#begun.length > 0 ? Buffer.concat([this.#begun, bytes]) : bytes;
    const whole = all.subarray(0, wholeLength(all));
    this.#begun = Uint8Array.from(all.subarray(whole.length));
    this.#terminal.write(whole, () => {
      this.#unfinished.parsed(whole);
      parsed();
    });
  }

  /** What has come of a sequence or a character that is not over: it is between the drawing and the next bytes. */
  get rest(): Buffer {
    return Buffer.concat([this.#unfinished.bytes, this.#begun]);
  }

  /**
   * For any terminal of the same size, whatever is on it.
   * @param rowsAbove rows of what scrolled away, which come first.
   * @param most bytes of the screen's text; the end of a longer one is not drawn.
   */
  drawing(rowsAbove = 0, most = Number.POSITIVE_INFINITY): string {
    const { normal, active } = this.#terminal.buffer;
    if (active.type === 'normal') return BEFORE_DRAWING + this.#end(this.#rows(normal, rowsAbove, most));
    const above = this.#rows(active, 0, most);
    // What the program leaves behind when it goes is worth less than what it shows.
    const below = this.#rows(normal, rowsAbove, most - Buffer.byteLength(above.text));
    const behind = below.cut ? '' : below.text + this.#saved(normal, below.at);
    return `${BEFORE_DRAWING}${behind}${INTO_ALTERNATE}${this.#end(above)}`;
  }

  #rows(buffer: IBuffer, rowsAbove: number, most: number): Drawn {
    const { rows } = this.#terminal;
    const above = Math.min(rowsAbove, buffer.baseY);
    const { text, count, column } = drawRows(buffer, buffer.baseY - above, buffer.baseY + rows, above === 0);
    const at = { row: count - above - 1, column };
    const bytes = Buffer.from(text);
    if (bytes.length <= most) return { text, at, cut: false };
    // All sequences begin with ESC: before it none is cut.
    return { text: bytes.toString('utf8', 0, Math.max(0, bytes.lastIndexOf(0x1b, most))), at, cut: true };
  }

  /** Goes to the place of the saved cursor, and makes colours and characters those that were saved (DECSC). */
  #saved(buffer: IBuffer, from: Place): string {
    const { row, column, pen, charset } = this.#core.saved(buffer);
    return `${moveFrom(from, { row, column })}${sgr(pen)}\x1b(${CHARSET_FINAL[charset]}`;
  }

  /** The rows, and then what no cell shows. */
  #end({ text, at, cut }: Drawn): string {
    const { rows, cols, buffer, modes } = this.#terminal;
    const { active } = buffer;
    const { top, bottom } = this.#core.region;
    const saved = this.#core.saved(active);
    const parts = [text];
    let from = at;
    if (cut) {
      from = { row: active.cursorY, column: 0 };
      parts.push(moveTo(from));
    }
    // It is the first place already.
    if (saved.row > 0 || saved.column > 0 || saved.charset !== 'ascii' || !saved.pen.isAttributeDefault()) {
      parts.push(this.#saved(active, from), '\x1b7\x1b(B\x1b[0m');
      from = saved;
    }
    // Behind the last column the next character begins a row: what is there is printed again.
    const last = active.cursorX < cols ? undefined : this.#lastCell(active);
    const cursor = { row: active.cursorY, column: last?.column ?? active.cursorX };
    if (top > 0 || bottom < rows - 1 || modes.originMode) {
      // Both go home.
      parts.push(`\x1b[${top + 1};${bottom + 1}r`, modes.originMode ? '\x1b[?6h' : '');
      parts.push(moveTo({ row: cursor.row - (modes.originMode ? top : 0), column: cursor.column }), last?.text ?? '');
    } else if (!last) parts.push(moveFrom(from, cursor));
    else if (from.row !== cursor.row || from.column !== cols) parts.push(moveFrom(from, cursor), last.text);
    const { pen } = this.#core;
    parts.push(pen.isAttributeDefault() ? '' : sgr(pen), this.#charsets(), this.#modesSet());
    return parts.join('');
  }

  /** The last character of the cursor's row. */
  #lastCell(buffer: IBuffer): { readonly column: number; readonly text: string } | undefined {
    const { cols } = this.#terminal;
    const line = buffer.getLine(buffer.baseY + buffer.cursorY);
    // The second half of a wide character.
    const column = line?.getCell(cols - 1)?.getWidth() === 0 ? cols - 2 : cols - 1;
    const cell = line?.getCell(column);
    return cell && { column, text: `${sgr(cell)}${cell.getChars() || ' '}\x1b[0m` };
  }

  #charsets(): string {
    const { g0, g1, shifted } = this.#core.charsets;
    const g0Set = g0 === 'ascii' ? '' : `\x1b(${CHARSET_FINAL[g0]}`;
    const g1Set = g1 === 'ascii' ? '' : `\x1b)${CHARSET_FINAL[g1]}`;
    return `${g0Set}${g1Set}${shifted ? '\x0e' : ''}`;
  }

  #modesSet(): string {
    const { modes, options } = this.#terminal;
    const set = [
      modes.applicationCursorKeysMode ? '\x1b[?1h' : '',
      modes.applicationKeypadMode ? '\x1b=' : '',
      modes.bracketedPasteMode ? '\x1b[?2004h' : '',
      modes.insertMode ? '\x1b[4h' : '',
      options.convertEol ? '\x1b[20h' : '',
      modes.reverseWraparoundMode ? '\x1b[?45h' : '',
      modes.sendFocusMode ? '\x1b[?1004h' : '',
      modes.wraparoundMode ? '' : '\x1b[?7l',
      MOUSE_MODES[modes.mouseTrackingMode],
    ];
    const more = [...this.#modes].filter(([mode, on]) => MORE_MODES.get(mode) !== on);
    return set.join('') + more.map(([mode, on]) => `\x1b[?${mode}${on ? 'h' : 'l'}`).join('');
  }
}
