/** A terminal emulated for a pane: a console of the guest, or the REPL. */
import xterm from '@xterm/headless';
import type { ConsoleTap } from '../console/hub.ts';
import { ScreenCopy } from '../console/screen_copy.ts';
import { PASTE_BEGINS, PASTE_ENDS } from '../console/terminal_lexer.ts';
import { cellWidths } from './cell_widths.ts';
import type { RawKeys } from './input.ts';
import { RowTimes } from './row_times.ts';
import { PinnedCell, TerminalSelection } from './selection.ts';
import { type Selection, topRow } from './terminal_view.ts';

const SCROLLBACK = 10_000;
/** Output that waits to be parsed: about as much as there is room for above the screen. */
const MAX_PENDING = 1 << 20;
/** Bytes that are parsed in one go; in between keys are taken and frames are drawn. */
const PIECE = 16 << 10;
/** Share of the time that parsing may take while a guest prints without end. */
const PARSE_SHARE = 0.4;
/** Ends a control sequence that has lost its end, and the colours that were on (ECMA-48: CAN, SGR 0). */
const AFRESH = Buffer.from('\x18\x1b[0m');
const LINE_FEED = 0x0a;

/** Cursor keys, Home and End without modifiers: what a program that asked for application mode (DECCKM) gets as SS3. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: a control sequence
const CURSOR_KEY = /\x1b\[([ABCDHF])/g;

export interface TerminalPaneOptions {
  readonly name: string;
  /** Takes what is typed. */
  readonly send: (bytes: Uint8Array) => void;
  /** The pane has another size. */
  readonly resized?: (rows: number, columns: number) => void;
  readonly changed: () => void;
  /** A console that several look at: asks to be the one who types. */
  readonly takeOver?: () => void;
  /** What is typed reaches the guest; always without it. */
  readonly drives?: () => boolean;
}

interface Piece {
  readonly bytes: Uint8Array;
  /** Another terminal gets these too, and answers the questions in them. */
  answered: boolean;
}

export class TerminalPane implements RawKeys {
  readonly name: string;
  readonly terminal: xterm.Terminal;
  readonly send: (bytes: Uint8Array) => void;
  /** Nothing has come yet. */
  silent = true;
  /** Bytes that were not drawn, since newer ones came faster than could be. */
  skipped = 0;
  /** Rows are shown with the time when they were begun. */
  timestamps = false;
  readonly times: RowTimes;
  readonly #options: TerminalPaneOptions;
  readonly #taps = new Set<ConsoleTap>();
  /** What waits to be parsed, the oldest first. */
  #pending: Piece[] = [];
  #room = Number.POSITIVE_INFINITY;
  #held = false;
  /** The first row that is shown while older ones are looked at, or while it is held. */
  #first: PinnedCell | undefined;
  #answers = true;
  /** The same for what is being parsed. */
  #answering = true;
  #waiting = 0;
  #parsing = false;
  #timer: NodeJS.Timeout | undefined;
  readonly #copy: ScreenCopy;
  /** The paste that goes on has had its first mark. */
  #marksPaste = false;
  #found: TerminalSelection | undefined;
  /** What waits until a piece has been parsed. */
  readonly #between: (() => void)[] = [];

  constructor(options: TerminalPaneOptions) {
    this.#options = options;
    this.name = options.name;
    this.send = options.send;
    this.terminal = new xterm.Terminal({
      cols: 80,
      rows: 24,
      scrollback: SCROLLBACK,
      allowProposedApi: true,
      logLevel: 'off',
    });
    this.terminal.unicode.register(cellWidths);
    this.terminal.unicode.activeVersion = cellWidths.version;
    this.#copy = new ScreenCopy(this.terminal);
    this.times = new RowTimes(this.terminal);
    // A program that has the whole screen has rows of its own.
    this.terminal.buffer.onBufferChange(() => this.toLive());
    this.terminal.onData((answer) => this.#answering && this.send(Buffer.from(answer, 'latin1')));
  }

  write(bytes: Uint8Array): void {
    this.silent &&= bytes.length === 0;
    for (const tap of this.#taps) tap.bytes(bytes);
    for (let at = 0; at < bytes.length; at += PIECE)
      this.#pending.push({ bytes: bytes.subarray(at, at + PIECE), answered: !this.#answers });
    this.#waiting += bytes.length;
    if (this.#waiting > MAX_PENDING) this.#skip();
    this.#parse();
  }

  /**
   * It answers a guest's questions about its terminal, as nobody else does while it is in a pane. Where that changes,
   * whoever answers from now on gets what waits to be parsed as well, and answers that.
   */
  set answers(on: boolean) {
    this.#answers = on;
    if (!on) for (const piece of this.#pending) piece.answered = true;
  }

  /** Lets go of the oldest that waits, up to the end of a line: what comes last is what a person wants to see. */
  #skip(): void {
    const before = this.#waiting;
    while (this.#waiting > MAX_PENDING / 2) this.#waiting -= (this.#pending.shift() as Piece).bytes.length;
    const [first] = this.#pending;
    const end = first ? first.bytes.indexOf(LINE_FEED) + 1 : 0;
    if (first && end > 0) {
      this.#waiting -= end;
      this.#pending[0] = { ...first, bytes: first.bytes.subarray(end) };
    }
    this.skipped += before - this.#waiting;
    this.#pending.unshift({ bytes: AFRESH, answered: true });
    this.#waiting += AFRESH.length;
  }

  #parse(): void {
    if (this.#parsing || this.#timer) return;
    const piece = this.#pending.shift();
    if (!piece) return;
    const { bytes } = piece;
    this.#answering = !piece.answered;
    this.#parsing = true;
    this.#waiting -= bytes.length;
    const began = performance.now();
    this.times.note(Date.now());
    this.#copy.write(bytes, () => {
      this.#parsing = false;
      for (const next of this.#between.splice(0)) next();
      // There is nothing above any more: who looked at it looks at the live screen from now on.
      if (this.scrolledBack === 0) this.#look(0);
      this.#options.changed();
      if (this.#pending.length === 0) return;
      const pause = (performance.now() - began) * (1 / PARSE_SHARE - 1);
      this.#timer = setTimeout(() => {
        this.#timer = undefined;
        this.#parse();
      }, pause);
    });
  }

  /**
   * What draws the screen on any terminal of the same size, with its colours and modes, and what comes after it, from
   * the beginning of a sequence of which the pane has got a part.
   * @param ready told now, or when what is being parsed has been.
   */
  copy(ready: (screen: string, rest: readonly Uint8Array[]) => void): void {
    const give = () =>
      ready(
        this.#copy.drawing(),
        [this.#copy.rest, ...this.#pending.map(({ bytes }) => bytes)].filter(({ length }) => length > 0),
      );
    if (this.#parsing) this.#between.push(give);
    else give();
  }

  /** Gives every byte to somebody else too. @returns what ends that. */
  tap(tap: ConsoleTap): () => void {
    this.#taps.add(tap);
    return () => this.#taps.delete(tap);
  }

  /** So many bytes were lost before they came here. */
  lost(count: number): void {
    for (const tap of this.#taps) tap.lost?.(count);
  }

  /** Sends what was typed on a terminal whose cursor keys are in their normal mode. */
  type(bytes: Uint8Array): void {
    // Who types wants to see it.
    this.toLive();
    if (!this.terminal.modes.applicationCursorKeysMode) this.send(bytes);
    else this.send(Buffer.from(Buffer.from(bytes).toString('latin1').replaceAll(CURSOR_KEY, '\x1bO$1'), 'latin1'));
  }

  /** Sends what is pasted, with marks around it where the guest has asked for them (DECSET 2004). */
  paste(bytes: Uint8Array, first: boolean, last: boolean): void {
    this.toLive();
    if (first) this.#marksPaste = this.terminal.modes.bracketedPasteMode;
    if (first && this.#marksPaste) this.send(Buffer.from(PASTE_BEGINS));
    if (bytes.length > 0) this.send(bytes);
    if (last && this.#marksPaste) this.send(Buffer.from(PASTE_ENDS));
  }

  resize(columns: number, rows: number): void {
    if (columns === this.terminal.cols && rows === this.terminal.rows) return;
    const back = this.scrolledBack;
    this.terminal.resize(columns, rows);
    // Rows that were wrapped may be others now.
    this.#look(back);
    this.#options.resized?.(rows, columns);
    for (const tap of this.#taps) tap.resized?.(rows, columns);
  }

  /** Rows that are shown. */
  get rows(): number {
    return Math.min(this.#room, this.terminal.rows);
  }

  /** Rows that there is room for: a terminal with more is shown in part. */
  set room(rows: number) {
    if (rows === this.#room) return;
    const back = this.scrolledBack;
    this.#room = rows;
    this.#look(back);
  }

  /** The first row that is shown of the live screen. */
  get #live(): number {
    return topRow(this.terminal, { height: this.rows, scrolledBack: 0 });
  }

  /** The first row that is shown. */
  get top(): number {
    return this.#live - this.scrolledBack;
  }

  /** Rows above the live screen that are shown: who looks at older rows goes on to look at them, whatever is printed. */
  get scrolledBack(): number {
    return this.#first ? Math.max(0, this.#live - this.#first.cell.row) : 0;
  }

  get held(): boolean {
    return this.#held;
  }

  /** What is shown stays where it is, also where that is the live screen. */
  set held(on: boolean) {
    const back = this.scrolledBack;
    this.#held = on;
    this.#look(back);
  }

  /** Shows rows above the live screen, as far as there are any. */
  #look(back: number): void {
    const live = this.#live;
    const row = Math.max(0, live - Math.max(0, back));
    this.#first?.release();
    this.#first = row < live || this.#held ? new PinnedCell(this.terminal, { row, column: 0 }) : undefined;
  }

  /** @param rows back in time, when positive. */
  scroll(rows: number): void {
    if (rows === -Infinity) this.#forgetFound();
    this.#look(this.scrolledBack + rows);
  }

  /** Shows the live screen. */
  toLive(): void {
    this.#look(0);
    this.#forgetFound();
  }

  /** What was found last, to be shown as marked. */
  get found(): Selection | undefined {
    return this.#found?.cells;
  }

  /**
   * Looks for a text, in rows from the last one that is shown upwards, or with `on` from where it was found last. The
   * row is scrolled to where it is not shown.
   * @returns whether there is one.
   */
  find(text: string, { up = true, on = false } = {}): boolean {
    const buffer = this.terminal.buffer.active;
    const { rows, top } = this;
    const wanted = text.toLowerCase();
    const from = (on ? this.found?.from.row : undefined) ?? (up ? top + rows : top - 1);
    const step = up ? -1 : 1;
    for (let row = from + step; row >= 0 && row < buffer.length; row += step) {
      const at = buffer.getLine(row)?.translateToString(true).toLowerCase().indexOf(wanted) ?? -1;
      if (at < 0) continue;
      this.#mark(row, at, text.length);
      if (row < top || row >= top + rows) {
        this.#look(this.#live - row + Math.floor(rows / 2));
      }
      return true;
    }
    return false;
  }

  /** @param at place of the text in its row's string, in which a wide character is one. */
  #mark(row: number, at: number, length: number): void {
    const line = this.terminal.buffer.active.getLine(row);
    const columns: number[] = [];
    for (let column = 0; line && column < line.length; column++) {
      const cell = line.getCell(column);
      // The second half of a wide character.
      if (cell?.getWidth() === 0) continue;
      for (let n = Math.max(1, cell?.getChars().length ?? 1); n > 0; n--) columns.push(column);
    }
    this.#forgetFound();
    this.#found = new TerminalSelection(this.terminal, { row, column: columns[at] ?? 0 });
    this.#found.to({ row, column: columns[at + length - 1] ?? columns[at] ?? 0 });
  }

  #forgetFound(): void {
    this.#found?.release();
    this.#found = undefined;
  }

  get takeOver(): (() => void) | undefined {
    return this.#options.takeOver;
  }

  /** Somebody else types: what is typed here goes nowhere. */
  get watching(): boolean {
    return this.#options.drives?.() === false;
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#pending = [];
    this.terminal.dispose();
  }
}
