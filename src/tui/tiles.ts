/** Several terminals side by side: what is where, who gets what is typed, what is selected. Knows no real terminal. */
import type { Colours } from './colours.ts';
import { TerminalSelection } from './selection.ts';
import { type Line, lineWidth, span, toWidth } from './style.ts';
import type { TerminalPane } from './terminal_pane.ts';
import { type BufferCell, scrollbackOf, terminalLines, topRow } from './terminal_view.ts';

export interface Tile {
  /** Machine and console. */
  readonly title: string;
  readonly pane: TerminalPane;
  /** Whether what is typed here reaches the guest. */
  readonly drives: () => boolean;
  /** How its machine ended, when it has. */
  readonly ended: () => string | undefined;
}

/** Cells of the screen; the first row of a tile is its title. */
export interface TileBox {
  readonly tile: number;
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
}

/** A piece of a row of the screen. */
export interface Segment {
  readonly row: number;
  readonly column: number;
  readonly line: Line;
}

export interface TileFrame {
  readonly segments: readonly Segment[];
  /** Where the real cursor goes; none while older rows are shown. */
  readonly cursor: { readonly row: number; readonly column: number } | undefined;
}

export const LEAST_WIDTH = 20;
/** Its title and two rows. */
export const LEAST_HEIGHT = 3;
/** A cell is about so much higher than wide; tiles should look like terminals of 80 by 24. */
const WANTED_RATIO = 80 / 24;

/** Columns and rows of tiles whose shape is the most like a terminal's; undefined when they would be too small. */
export function gridOf(count: number, width: number, height: number): { columns: number; rows: number } | undefined {
  let best: { columns: number; rows: number; distance: number } | undefined;
  for (let columns = 1; columns <= count; columns++) {
    const rows = Math.ceil(count / columns);
    const [tileWidth, tileHeight] = [Math.floor((width - columns + 1) / columns), Math.floor(height / rows)];
    if (tileWidth < LEAST_WIDTH || tileHeight < LEAST_HEIGHT) continue;
    const distance = Math.abs(Math.log(tileWidth / tileHeight / WANTED_RATIO));
    if (!best || distance < best.distance) best = { columns, rows, distance };
  }
  return best;
}

/** Parts of a length that differ by one at most. */
function split(length: number, parts: number): { from: number; length: number }[] {
  return Array.from({ length: parts }, (_, index) => {
    const from = Math.floor((length * index) / parts);
    return { from, length: Math.floor((length * (index + 1)) / parts) - from };
  });
}

/** Where each tile is; between those of a row is a column for a line. */
export function tileBoxes(count: number, width: number, height: number): TileBox[] | undefined {
  const grid = gridOf(count, width, height);
  if (!grid) return undefined;
  const boxes: TileBox[] = [];
  for (const [row, { from: top, length: tall }] of split(height, grid.rows).entries()) {
    // The last row may have fewer, which are wider.
    const here = Math.min(grid.columns, count - row * grid.columns);
    for (const { from, length } of split(width + 1, here)) {
      boxes.push({ tile: boxes.length, left: from, top, width: length - 1, height: tall });
    }
  }
  return boxes;
}

export type Direction = 'left' | 'right' | 'up' | 'down';

export class Tiles {
  readonly tiles: readonly Tile[];
  readonly #unicode: boolean;
  readonly #colours: Colours;
  focus = 0;
  /** What is typed goes to every tile that drives its console. */
  broadcast = false;
  /** The focus has the screen. */
  zoomed = false;
  /** Said below the tiles, in place of the keys. */
  notice: string | undefined;
  /** What the keys below do at present. */
  footer = '';
  /** Those that are shown. */
  #boxes: readonly TileBox[] = [];
  /** Where all are, or would be without zoom. */
  #grid: readonly TileBox[] = [];
  #selection: { readonly tile: number; readonly marked: TerminalSelection } | undefined;

  constructor(tiles: readonly Tile[], look: { readonly unicode: boolean; readonly colours: Colours }) {
    this.tiles = tiles;
    this.#unicode = look.unicode;
    this.#colours = look.colours;
  }

  get focused(): Tile {
    return this.tiles[this.focus];
  }

  /**
   * Gives what was typed to whom it is for.
   * @param give it to one of them. @returns what to say when there is nobody.
   */
  typed(give: (pane: TerminalPane) => void): string | undefined {
    const to = this.broadcast ? this.tiles : [this.focused];
    const takers = to.filter((tile) => tile.drives() && tile.ended() === undefined);
    for (const { pane } of takers) {
      pane.toLive();
      give(pane);
    }
    this.clearSelection();
    if (takers.length > 0) return undefined;
    const ended = this.focused.ended();
    if (!this.broadcast && ended !== undefined) return ended;
    return 'Somebody else drives it: what you type goes nowhere. Ctrl-] t takes it over.';
  }

  /** The next tile, or the one before. */
  step(by: 1 | -1): void {
    this.focus = (this.focus + by + this.tiles.length) % this.tiles.length;
  }

  /** The tile that is nearest in a direction; none there is no change. */
  move(direction: Direction): void {
    const boxes = this.#grid;
    const from = boxes[this.focus];
    if (!from) return;
    const centre = ({ left, top, width, height }: TileBox) => [left + width / 2, top + height / 2] as const;
    const [x, y] = centre(from);
    const axis = direction === 'left' || direction === 'right' ? 0 : 1;
    const sign = direction === 'left' || direction === 'up' ? -1 : 1;
    let best: { tile: number; distance: number } | undefined;
    for (const box of boxes) {
      const away = [centre(box)[0] - x, centre(box)[1] - y];
      if (away[axis] * sign <= 0) continue;
      const beyond = axis === 0 ? box.left >= from.left + from.width || box.left + box.width <= from.left : true;
      if (!beyond) continue;
      const distance = Math.abs(away[axis]) + 4 * Math.abs(away[1 - axis]);
      if (!best || distance < best.distance) best = { tile: box.tile, distance };
    }
    if (best) this.focus = best.tile;
  }

  scroll(rows: number, tile = this.focus): void {
    this.tiles[tile].pane.scroll(rows);
  }

  /** A page of the focused tile. */
  page(direction: 1 | -1): void {
    this.scroll(direction * Math.max(1, this.focused.pane.terminal.rows - 1));
  }

  /** The tile and its buffer's cell at a place of the screen; undefined for titles, lines and the footer. */
  #cellAt(column: number, row: number, only?: number): { tile: number; cell: BufferCell } | undefined {
    const box = this.#boxes.find(
      ({ tile, left, top, width, height }) =>
        tile === only ||
        (only === undefined && column >= left && column < left + width && row >= top && row < top + height),
    );
    if (!box) return undefined;
    const { pane } = this.tiles[box.tile];
    const height = box.height - 1;
    // A drag that leaves its tile ends at the tile's edge.
    const inRow = Math.max(0, Math.min(height - 1, row - box.top - 1));
    const inColumn = Math.max(0, Math.min(box.width - 1, column - box.left));
    const top = topRow(pane.terminal, { height, scrolledBack: pane.scrolledBack });
    return { tile: box.tile, cell: { row: top + inRow, column: inColumn } };
  }

  press(column: number, row: number): void {
    this.clearSelection();
    const at = this.#cellAt(column, row);
    if (!at) return;
    this.focus = at.tile;
    this.#selection = { tile: at.tile, marked: new TerminalSelection(this.tiles[at.tile].pane.terminal, at.cell) };
  }

  drag(column: number, row: number): void {
    const at = this.#selection && this.#cellAt(column, row, this.#selection.tile);
    if (at) this.#selection?.marked.to(at.cell);
  }

  wheel(column: number, row: number, rows: number): void {
    const at = this.#cellAt(column, row);
    if (at) this.scroll(rows, at.tile);
  }

  /** The text that was selected, to be copied; a press alone selects nothing. */
  get selected(): string | undefined {
    const marked = this.#selection?.marked;
    return marked && !marked.isOneCell ? marked.text : undefined;
  }

  clearSelection(): void {
    this.#selection?.marked.release();
    this.#selection = undefined;
  }

  /** The screen as it is to be; terminals take the size of their tiles. */
  frame(columns: number, rows: number): TileFrame {
    const height = rows - 1;
    const grid = tileBoxes(this.tiles.length, columns, height);
    const boxes = this.zoomed
      ? columns >= LEAST_WIDTH && height >= LEAST_HEIGHT
        ? [{ tile: this.focus, left: 0, top: 0, width: columns, height }]
        : undefined
      : grid;
    this.#boxes = boxes ?? [];
    this.#grid = grid ?? [];
    if (!boxes) return tooSmall(this.tiles.length, columns, rows);
    const segments: Segment[] = [];
    let cursor: TileFrame['cursor'];
    for (const box of boxes) {
      const tile = this.tiles[box.tile];
      const { pane } = tile;
      const inside = { width: box.width, height: box.height - 1 };
      pane.resize(inside.width, inside.height);
      segments.push({ row: box.top, column: box.left, line: this.#title(tile, box) });
      const marked = this.#selection?.tile === box.tile ? this.#selection.marked : undefined;
      const selection = marked && !marked.isOneCell ? marked.cells : pane.found;
      const lines = terminalLines(pane.terminal, {
        ...inside,
        ...{ scrolledBack: pane.scrolledBack, cursor: false, colours: this.#colours, selection },
      });
      for (const [index, each] of lines.entries()) {
        const row = box.top + 1 + index;
        segments.push({ row, column: box.left, line: toWidth(each, box.width, '') });
      }
      if (box.left + box.width < columns) {
        for (let row = box.top; row < box.top + box.height; row++) {
          const text = this.#unicode ? '│' : '|';
          segments.push({ row, column: box.left + box.width, line: [span(text, 'border')] });
        }
      }
      if (box.tile !== this.focus || pane.scrolledBack > 0) continue;
      const buffer = pane.terminal.buffer.active;
      const row = buffer.baseY + buffer.cursorY - topRow(pane.terminal, { ...inside, scrolledBack: 0 });
      if (row < inside.height) {
        cursor = { row: box.top + 1 + row, column: box.left + Math.min(buffer.cursorX, box.width - 1) };
      }
    }
    segments.push({ row: rows - 1, column: 0, line: toWidth(this.#footer(), columns) });
    return { segments, cursor };
  }

  #title(tile: Tile, box: TileBox): Line {
    const { pane } = tile;
    const focused = box.tile === this.focus;
    const ended = tile.ended();
    const taking = this.broadcast && tile.drives() && ended === undefined;
    const notes = [
      ...(ended === undefined ? (tile.drives() ? [] : ['watching']) : [ended]),
      ...(pane.scrolledBack > 0 ? [`${pane.scrolledBack} of ${scrollbackOf(pane.terminal)} rows back`] : []),
      ...(pane.skipped > 0 ? [`${pane.skipped} bytes not drawn`] : []),
    ];
    const dash = this.#unicode ? '─' : '-';
    const style = taking ? 'warn' : focused ? 'focus' : 'border';
    const head: Line = [
      span(`${dash} `, style),
      span(tile.title, taking ? 'warn' : focused ? 'focus' : 'title'),
      span(notes.length > 0 ? ` ${notes.join(', ')} ` : ' ', 'dim'),
    ];
    const rest = box.width - lineWidth(head);
    return rest < 0 ? toWidth(head, box.width) : [...head, span(dash.repeat(rest), style)];
  }

  #footer(): Line {
    if (this.notice !== undefined) return [span(` ${this.notice}`, 'accent')];
    const takers = this.tiles.filter((tile) => tile.drives() && tile.ended() === undefined).length;
    return [
      ...(this.broadcast ? [span(` to ${takers} of ${this.tiles.length} `, 'warn')] : []),
      span(` ${this.footer}`, 'dim'),
    ];
  }
}

function tooSmall(count: number, columns: number, rows: number): TileFrame {
  const text = `${columns}x${rows} is too small for ${count} consoles. Enlarge the terminal, or Ctrl-] q.`;
  const segments: Segment[] = [];
  for (let row = 0; row < rows; row++) {
    const part = text.slice(row * columns, (row + 1) * columns);
    segments.push({ row, column: 0, line: toWidth([span(part)], columns) });
  }
  return { segments, cursor: undefined };
}
