/** The screen that a console's output draws, for those who come later. */
import xterm from '@xterm/headless';
import { ScreenCopy } from './screen_copy.ts';
import type { Scrollback } from './scrollback.ts';

const ROWS_ABOVE = 2000;
/** Bytes that are parsed in one go: all that ever waits in the terminal. */
const PIECE = 64 * 1024;
/** The longest text of a screen that is given out: what is above the screen is left out of a longer one. */
const MAX_REPLAY = 512 * 1024;
/** ECMA-48: what comes next is no part of a sequence whose end was not seen. */
const CAN = Buffer.from('\x18');

export class Screen {
  readonly #terminal: xterm.Terminal;
  readonly #copy: ScreenCopy;
  readonly #source: Scrollback;
  readonly #idle: ((parsed: number) => void)[] = [];
  #parsed = 0;
  #busy = false;
  #closed = false;
  /** The terminal's answers to the guest's questions. */
  onAnswer: ((bytes: Buffer) => void) | undefined;

  constructor(source: Scrollback, rows = 24, columns = 80) {
    this.#source = source;
    this.#terminal = new xterm.Terminal({
      rows,
      cols: columns,
      scrollback: ROWS_ABOVE,
      allowProposedApi: true,
      logLevel: 'off',
    });
    this.#copy = new ScreenCopy(this.#terminal);
    this.#terminal.onData((answer) => this.onAnswer?.(Buffer.from(answer, 'latin1')));
  }

  get rows(): number {
    return this.#terminal.rows;
  }

  get columns(): number {
    return this.#terminal.cols;
  }

  /** More is in the source. */
  feed(): void {
    if (this.#busy || this.#closed) return;
    // A guest that prints faster than is parsed: what was pushed out meanwhile scrolled away anyway.
    if (this.#parsed < this.#source.start) {
      this.#terminal.reset();
      this.#terminal.write(CAN);
      this.#copy.reset();
      this.#parsed = this.#source.start;
    }
    for (const idle of this.#idle.splice(0)) idle(this.#parsed);
    const bytes = this.#source.read(this.#parsed, PIECE);
    if (bytes.length === 0) return;
    this.#busy = true;
    this.#copy.write(bytes, () => {
      this.#busy = false;
      this.#parsed += bytes.length;
      this.feed();
    });
  }

  resize(rows: number, columns: number): void {
    if (rows !== this.rows || columns !== this.columns) this.#terminal.resize(columns, rows);
  }

  /**
   * What draws the screen on any terminal of the same size, and what has come of a sequence that is not over.
   * @param ready told of it, and of the place in the source up to which it goes: now, or when what is being parsed has
   * been.
   */
  draw(rowsAbove: number, ready: (screen: Buffer, upTo: number) => void): void {
    const give = (parsed: number) => ready(this.#serialized(rowsAbove), parsed);
    if (this.#busy) this.#idle.push(give);
    else give(this.#parsed);
  }

  #serialized(rowsAbove: number): Buffer {
    const whole = this.#copy.drawing(Math.min(rowsAbove, ROWS_ABOVE));
    const drawing = Buffer.byteLength(whole) > MAX_REPLAY ? this.#copy.drawing(0, MAX_REPLAY) : whole;
    return Buffer.concat([Buffer.from(drawing), this.#copy.rest]);
  }

  /** The screen as text, a line a row; for tests and reports. */
  get text(): string {
    const buffer = this.#terminal.buffer.active;
    return Array.from(
      { length: this.rows },
      (_, row) => buffer.getLine(buffer.baseY + row)?.translateToString(true) ?? '',
    )
      .join('\n')
      .trimEnd();
  }

  close(): void {
    this.#closed = true;
    this.#idle.length = 0;
    this.#terminal.dispose();
  }
}
