/** Keys that mark text in a terminal's pane, as tmux and vi have them. */
import { TerminalSelection } from './selection.ts';
import type { TerminalPane } from './terminal_pane.ts';
import type { BufferCell, Selection } from './terminal_view.ts';

export const COPY_KEYS = 'arrows or hjkl, w, b, 0, $, g, G, PgUp, PgDn move · v marks · y copies · Esc leaves';

const isWord = (character: string) => /[\p{L}\p{N}_]/u.test(character);

export class CopyMode {
  readonly pane: TerminalPane;
  readonly #done: (text: string | undefined) => void;
  /** The cell with the cursor: a selection of its own, so that it stays with its text. */
  #cursor: TerminalSelection;
  #marked: TerminalSelection | undefined;

  /** @param done told what is to be copied, or nothing. */
  constructor(pane: TerminalPane, done: (text: string | undefined) => void) {
    this.pane = pane;
    this.#done = done;
    const { baseY, cursorY, cursorX } = pane.terminal.buffer.active;
    const row = Math.min(Math.max(baseY + cursorY, pane.top), pane.top + pane.rows - 1);
    this.#cursor = new TerminalSelection(pane.terminal, {
      row,
      column: Math.min(cursorX, pane.terminal.cols - 1),
    });
    pane.held = true;
  }

  get selection(): Selection {
    return (this.#marked ?? this.#cursor).cells;
  }

  key(name: string): void {
    if (name === 'esc' || name === 'q' || name === 'ctrl-c') {
      // The mark goes first.
      if (this.#marked && name === 'esc') this.#mark(false);
      else this.#leave(undefined);
    } else if (name === 'v' || name === 'space') this.#mark(!this.#marked);
    else if (name === 'y' || name === 'enter') this.#leave((this.#marked ?? this.#cursor).text);
    else this.#move(name);
  }

  #mark(on: boolean): void {
    this.#marked?.release();
    this.#marked = on ? new TerminalSelection(this.pane.terminal, this.#cursor.end) : undefined;
  }

  #leave(text: string | undefined): void {
    this.close();
    this.#done(text);
  }

  close(): void {
    this.#marked?.release();
    this.#cursor.release();
    this.pane.held = false;
  }

  #move(name: string): void {
    const { terminal } = this.pane;
    const buffer = terminal.buffer.active;
    const { row, column } = this.#cursor.end;
    const [last, page, width] = [buffer.length - 1, Math.max(1, this.pane.rows - 1), terminal.cols];
    const lineEnd = Math.max(0, (buffer.getLine(row)?.translateToString(true) ?? '').length - 1);
    const moves: Readonly<Record<string, () => BufferCell>> = {
      left: () => ({ row, column: column - 1 }),
      right: () => ({ row, column: column + 1 }),
      up: () => ({ row: row - 1, column }),
      down: () => ({ row: row + 1, column }),
      pageup: () => ({ row: row - page, column }),
      pagedown: () => ({ row: row + page, column }),
      home: () => ({ row, column: 0 }),
      end: () => ({ row, column: lineEnd }),
      g: () => ({ row: 0, column: 0 }),
      G: () => ({ row: buffer.baseY + buffer.cursorY, column: 0 }),
      w: () => this.#word(1),
      b: () => this.#word(-1),
    };
    const same: Readonly<Record<string, string>> = { h: 'left', j: 'down', k: 'up', l: 'right', '0': 'home', $: 'end' };
    const known = Object.hasOwn(same, name) ? same[name] : name;
    if (!Object.hasOwn(moves, known)) return;
    const wanted = moves[known]();
    const cell = {
      row: Math.max(0, Math.min(last, wanted.row)),
      column: Math.max(0, Math.min(width - 1, wanted.column)),
    };
    this.#cursor.release();
    this.#cursor = new TerminalSelection(terminal, cell);
    this.#marked?.to(cell);
    this.#show(cell.row);
  }

  /** The beginning of the next word, or of the one before, in its row or in one near it. */
  #word(step: 1 | -1): BufferCell {
    const { active } = this.pane.terminal.buffer;
    let { row, column } = this.#cursor.end;
    let text = active.getLine(row)?.translateToString(false) ?? '';
    const begins = () => isWord(text[column] ?? '') && !isWord(text[column - 1] ?? '');
    do {
      column += step;
      if (column >= 0 && column < text.length) continue;
      row += step;
      if (row < 0 || row >= active.length) return this.#cursor.end;
      text = active.getLine(row)?.translateToString(false) ?? '';
      column = step > 0 ? 0 : Math.max(0, text.length - 1);
    } while (!begins());
    return { row, column };
  }

  /** Scrolls as far as is needed to see a row. */
  #show(row: number): void {
    const { top, rows } = this.pane;
    if (row < top) this.pane.scroll(top - row);
    else if (row >= top + rows) this.pane.scroll(top + rows - 1 - row);
  }
}
