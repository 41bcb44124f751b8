/** A terminal's screen that is written in pieces: only those that are another than before. */
import { paint, type Theme } from './style.ts';
import type { TileFrame } from './tiles.ts';

const HIDE_CURSOR = '\x1b[?25l';
const SHOW_CURSOR = '\x1b[?25h';
/** Synchronized output: a terminal that knows it shows the frame at once. */
const BEGIN = '\x1b[?2026h';
const END = '\x1b[?2026l';

const to = (row: number, column: number): string => `\x1b[${row + 1};${column + 1}H`;

export class SegmentScreen {
  readonly #theme: Theme;
  /** What each piece was painted as, by its place. */
  #shown = new Map<string, string>();
  #cursor = '';

  constructor(theme: Theme) {
    this.#theme = theme;
  }

  /** Forgets what is on the screen: all is written the next time. */
  clear(): void {
    this.#shown.clear();
    this.#cursor = '';
  }

  /** @returns what has the terminal show the frame; '' when it does so already. */
  update({ segments, cursor }: TileFrame): string {
    const shown = new Map<string, string>();
    const before = this.#shown;
    // Pieces of other places than before are another layout.
    const anew = segments.some(({ row, column }) => !before.has(`${row} ${column}`)) || segments.length !== before.size;
    let out = '';
    for (const { row, column, line } of segments) {
      const place = `${row} ${column}`;
      const text = paint(line, this.#theme);
      shown.set(place, text);
      if (anew || before.get(place) !== text) out += to(row, column) + text;
    }
    this.#shown = shown;
    const place = cursor ? to(cursor.row, cursor.column) + SHOW_CURSOR : HIDE_CURSOR;
    if (out === '' && place === this.#cursor) return '';
    this.#cursor = place;
    return `${BEGIN}${HIDE_CURSOR}${anew ? '\x1b[2J' : ''}${out}${place}${END}`;
  }
}
