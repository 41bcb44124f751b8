/** What machines do, as lines of a screen: whole columns, as many as there is room for. */
import { type Line, type Span, type Style, span, visible } from '../../tui/style.ts';
import { ascends, COLUMNS, type Column, type Load, type Order } from './loads.ts';

/** Between two columns. */
const GAP = 2;
const BY_RANK = COLUMNS.toSorted((a, b) => a.rank - b.rank);
/** Longer names are shortened before a column goes: to this, or to their share of the terminal. */
const NAME_CELLS = 20;
const NAME_SHARE = 0.4;

const STATE_STYLES: Readonly<Record<string, Style>> = {
  ...{ running: 'good', paused: 'warn', starting: 'accent' },
  ...{ crashed: 'bad', 'no answer': 'bad' },
};

interface Shown {
  readonly column: Column;
  /** In COLUMNS. */
  readonly index: number;
  readonly width: number;
}

/** The columns of a terminal, from left to right, and those that it has no room for: what matters most first. */
export interface Fit {
  readonly shown: readonly Shown[];
  readonly hidden: readonly Column[];
}

export class LoadLines {
  readonly #cells: ReadonlyMap<string, readonly string[]>;
  readonly #widths: readonly number[];
  readonly #unicode: boolean;

  constructor(loads: readonly Load[], unicode: boolean) {
    this.#unicode = unicode;
    this.#cells = new Map(
      loads.map((load) => [load.name, COLUMNS.map(({ cell }) => visible(String(cell(load))))] as const),
    );
    const rows = [...this.#cells.values()];
    this.#widths = COLUMNS.map(({ head, width }, index) =>
      rows.reduce((most, cells) => Math.max(most, cells[index].length), Math.max(width, head.length)),
    );
  }

  /** @param width of the terminal. The name is always there. */
  fit(width: number): Fit {
    const [longest] = this.#widths;
    const least = Math.min(longest, width, Math.max(NAME_CELLS, Math.floor(width * NAME_SHARE)));
    let left = width - least;
    let count = 1;
    for (const column of BY_RANK.slice(1)) {
      const cells = GAP + this.#widths[COLUMNS.indexOf(column)];
      if (cells > left) break;
      left -= cells;
      count++;
    }
    const hidden = BY_RANK.slice(count);
    const shown = COLUMNS.map((column, index) => ({
      ...{ column, index },
      width: index === 0 ? Math.min(longest, least + left) : this.#widths[index],
    })).filter(({ column }) => !hidden.includes(column));
    return { shown, hidden };
  }

  /** The heads; the one that the rows are sorted by has a mark. */
  head({ shown }: Fit, order: Order): Line {
    const [up, down] = this.#unicode ? ['▲', '▼'] : ['^', 'v'];
    return shown.map((each) => {
      const { head, text } = each.column;
      if (each.column !== order.column) return span(place(each, head), 'title');
      const mark = ascends(order) ? up : down;
      // Before the head of a number there is the gap.
      return span(place(each, text ? head + mark : mark + head), 'focus');
    });
  }

  row(name: string, { shown }: Fit, selected: boolean): Line {
    const cells = this.#cells.get(name) ?? [];
    return shown.map((each): Span => {
      const { index, width, column } = each;
      let cell = cells[index] ?? '';
      if (cell.length > width) cell = cell.slice(0, width - 1) + (this.#unicode ? '…' : '~');
      const style = column.head === 'state' ? (STATE_STYLES[cell] ?? 'text') : 'text';
      return span(place(each, cell), selected ? 'selected' : style);
    });
  }
}

/** A cell in its column, with the gap before that. */
function place({ index, width, column }: Shown, cell: string): string {
  const gap = index === 0 ? 0 : GAP;
  return column.text ? ' '.repeat(gap) + cell.padEnd(width) : cell.padStart(gap + width);
}
