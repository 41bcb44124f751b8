/** What machines in the background do, in columns: what each shows, and what it is sorted by. */
import { NemuError } from '../../client/errors.ts';
import { didYouMean } from '../../client/suggest.ts';
import { table } from '../../client/text_table.ts';
import { duration } from './list_command.ts';

/** What goes on in one machine; rates are a second's. */
export interface Load {
  readonly name: string;
  readonly state: string;
  readonly age: number;
  readonly vcpus: number;
  readonly memory: number;
  readonly resident?: number;
  /** Share of one host processor: 2 is two of them. */
  readonly processors?: number;
  readonly exits?: number;
  readonly read?: number;
  readonly written?: number;
  readonly received?: number;
  readonly sent?: number;
}

/** In place of a table without rows. */
export const NOTHING = 'No machine runs in the background; nemu run -d starts one.';

export interface Column {
  readonly head: string;
  /** Where there is little room, those with a small one stay. */
  readonly rank: number;
  /** Cells that it takes at least on a screen: a number that grows pushes no other column about. */
  readonly width: number;
  /** It is written from the left on, and begins with a; others are numbers, and begin with the largest. */
  readonly text?: boolean;
  cell(load: Load): string | number;
  /** What it is sorted by; undefined where it is not known. */
  value(load: Load): string | number | undefined;
}

/** Bytes as people read them. */
function bytes(value: number | undefined): string {
  if (value === undefined) return '-';
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  const power = Math.min(units.length - 1, Math.max(0, Math.floor(Math.log2(Math.max(1, value)) / 10)));
  const scaled = value / 1024 ** power;
  return `${scaled < 10 && power > 0 ? scaled.toFixed(1) : Math.round(scaled)} ${units[power]}`;
}

type BytesKey = 'resident' | 'memory' | 'read' | 'written' | 'received' | 'sent';

const inBytes = (head: string, rank: number, key: BytesKey): Column => ({
  ...{ head, rank, width: 8 },
  cell: (load) => bytes(load[key]),
  value: (load) => load[key],
});

/** From left to right. */
export const COLUMNS: readonly Column[] = [
  { ...{ head: 'name', rank: 0, width: 5, text: true }, cell: ({ name }) => name, value: ({ name }) => name },
  { ...{ head: 'state', rank: 1, width: 9, text: true }, cell: ({ state }) => state, value: ({ state }) => state },
  { ...{ head: 'age', rank: 11, width: 11 }, cell: ({ age }) => duration(age), value: ({ age }) => age },
  { ...{ head: 'vCPUs', rank: 9, width: 5 }, cell: ({ vcpus }) => vcpus, value: ({ vcpus }) => vcpus },
  {
    ...{ head: 'CPU %', rank: 2, width: 6 },
    cell: ({ processors }) => (processors === undefined ? '-' : (processors * 100).toFixed(1)),
    value: ({ processors }) => processors,
  },
  {
    ...{ head: 'exits/s', rank: 3, width: 7 },
    cell: ({ exits }) => (exits === undefined ? '-' : Math.round(exits)),
    value: ({ exits }) => exits,
  },
  inBytes('resident', 4, 'resident'),
  inBytes('memory', 10, 'memory'),
  inBytes('read/s', 5, 'read'),
  inBytes('written/s', 6, 'written'),
  inBytes('received/s', 7, 'received'),
  inBytes('sent/s', 8, 'sent'),
];

export const NAME_COLUMN = COLUMNS[0];

/** `exits/s` is `exits`, and `CPU %` is `cpu`. */
const shortName = (head: string): string => head.toLowerCase().replaceAll(/[\s%]|\/s$/g, '');

/** The column of a name, as its head has it or short. @throws NemuError USAGE */
export function columnNamed(text: string): Column {
  const found = COLUMNS.find(({ head }) => shortName(head) === shortName(text));
  if (found) return found;
  const names = COLUMNS.map(({ head }) => shortName(head));
  const near = didYouMean(shortName(text), names);
  throw new NemuError('USAGE', `There is no column "${text}" to sort by.`, {
    hint: near ? `Did you mean ${near}?` : `There are ${names.join(', ')}.`,
  });
}

export interface Order {
  readonly column: Column;
  readonly reversed: boolean;
}

/** Is the least of the column's values the first? */
export const ascends = ({ column, reversed }: Order): boolean => (column.text ?? false) !== reversed;

/** What is not known comes last, whichever way round; what is alike is sorted by name. */
export function sortLoads(loads: readonly Load[], order: Order): Load[] {
  const { value } = order.column;
  const first = ascends(order) ? -1 : 1;
  return loads.toSorted((a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === undefined || y === undefined) {
      if (x !== y) return x === undefined ? 1 : -1;
    } else if (x !== y) {
      return x < y ? first : -first;
    }
    return a.name < b.name ? -1 : 1;
  });
}

export const loadTable = (loads: readonly Load[]): string =>
  table(
    COLUMNS.map(({ head }) => head),
    loads.map((load) => COLUMNS.map(({ cell }) => cell(load))),
  );
