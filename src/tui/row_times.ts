/** When the rows of a terminal were begun, as far back as is remembered. */
import type { IMarker, Terminal } from '@xterm/headless';

/** Pieces of output that are remembered: each costs something whenever rows are pushed out of the scrollback. */
const MAX_KNOWN = 1000;

export class RowTimes {
  readonly #terminal: Terminal;
  /** The first row that a piece of output began, and when that was; by row. */
  #known: { readonly marker: IMarker; at: number }[] = [];

  constructor(terminal: Terminal) {
    this.#terminal = terminal;
  }

  /** Output is about to be drawn. @param at milliseconds of the Unix clock. */
  note(at: number): void {
    const buffer = this.#terminal.buffer.active;
    // A program that has the whole screen has no lines.
    if (buffer.type === 'alternate') return;
    const offset = buffer.cursorX === 0 ? 0 : 1;
    const row = buffer.baseY + buffer.cursorY + offset;
    this.#known = this.#known.filter(({ marker }) => !marker.isDisposed);
    const last = this.#known.at(-1);
    // Nothing has begun since.
    if (last && last.marker.line >= row) {
      last.at = at;
      return;
    }
    const marker = this.#terminal.registerMarker(offset);
    if (!marker) return;
    this.#known.push({ marker, at });
    if (this.#known.length > MAX_KNOWN) this.#known.shift()?.marker.dispose();
  }

  /** @param row of the buffer. @returns milliseconds of the Unix clock; undefined where it is not known. */
  of(row: number): number | undefined {
    return this.#known.findLast(({ marker }) => !marker.isDisposed && marker.line <= row)?.at;
  }
}
