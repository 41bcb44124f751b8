/** Text that is marked in an emulated terminal, by the mouse or by keys. */
import type { IMarker, Terminal } from '@xterm/headless';
import { type BufferCell, type Selection, selectedText } from './terminal_view.ts';

/** A cell that stays with its row's text when older rows go. */
export class PinnedCell {
  readonly column: number;
  readonly #row: number;
  readonly #marker: IMarker | undefined;

  constructor(terminal: Terminal, { row, column }: BufferCell) {
    this.column = column;
    this.#row = row;
    const { baseY, cursorY } = terminal.buffer.active;
    // A full-screen program's buffer has no scrollback, and no markers.
    this.#marker = terminal.registerMarker(row - baseY - cursorY);
  }

  get cell(): BufferCell {
    const row = this.#marker ? Math.max(0, this.#marker.line) : this.#row;
    return { row, column: this.column };
  }

  release(): void {
    this.#marker?.dispose();
  }
}

const sameCell = (one: BufferCell, other: BufferCell): boolean => one.row === other.row && one.column === other.column;

export class TerminalSelection {
  readonly #terminal: Terminal;
  readonly #anchor: PinnedCell;
  #end: PinnedCell;

  /** @param from a cell of the buffer, scrollback included. */
  constructor(terminal: Terminal, from: BufferCell) {
    this.#terminal = terminal;
    this.#anchor = new PinnedCell(terminal, from);
    this.#end = new PinnedCell(terminal, from);
  }

  /** The other end, where the user is. */
  get end(): BufferCell {
    return this.#end.cell;
  }

  to(cell: BufferCell): void {
    if (sameCell(cell, this.end)) return;
    this.#end.release();
    this.#end = new PinnedCell(this.#terminal, cell);
  }

  /** From where it begins in the text to where it ends; a single cell is one. */
  get cells(): Selection {
    const [anchor, end] = [this.#anchor.cell, this.#end.cell];
    const backwards = end.row < anchor.row || (end.row === anchor.row && end.column < anchor.column);
    return backwards ? { from: end, to: anchor } : { from: anchor, to: end };
  }

  /** It was never drawn anywhere. */
  get isOneCell(): boolean {
    return sameCell(this.#anchor.cell, this.#end.cell);
  }

  get text(): string {
    return selectedText(this.#terminal, this.cells);
  }

  release(): void {
    this.#anchor.release();
    this.#end.release();
  }
}
