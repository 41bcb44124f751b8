/** What a benchmark found out, and how it is shown. */

export interface Figure {
  readonly suite: string;
  readonly what: string;
  readonly unit: string;
  readonly nemu: number | undefined;
  /** The same for QEMU, by machine type. */
  readonly qemu: Readonly<Record<string, number | undefined>>;
  /** What to know when reading it. */
  readonly note?: string;
}

/** The middle of several runs; an even number of them gives the lower of the two. */
export function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.ceil(values.length / 2) - 1];
}

const number = (value: number | undefined) =>
  value === undefined ? '–' : value >= 100 ? Math.round(value).toLocaleString('en') : value.toPrecision(3);

/** A Markdown table a suite: ours, QEMU's, and ours as a multiple of QEMU's. */
export function figureTable(figures: readonly Figure[]): string {
  const machines = [...new Set(figures.flatMap(({ qemu }) => Object.keys(qemu)))];
  const head = ['', 'unit', 'nemu', ...machines.flatMap((name) => [`QEMU ${name}`, `nemu / ${name}`])];
  const rows = figures.map(({ what, unit, nemu, qemu }) => [
    what,
    unit,
    number(nemu),
    ...machines.flatMap((name) => {
      const theirs = qemu[name];
      const ratio = nemu !== undefined && theirs ? (nemu / theirs).toFixed(2) : '–';
      return [number(theirs), ratio];
    }),
  ]);
  const widths = head.map((_, column) => Math.max(...[head, ...rows].map((row) => row[column].length)));
  const line = (cells: readonly string[]) =>
    `| ${cells.map((cell, column) => (column < 2 ? cell.padEnd(widths[column]) : cell.padStart(widths[column]))).join(' | ')} |`;
  const rule = `|${widths.map((width, column) => (column < 2 ? '-'.repeat(width + 2) : `${'-'.repeat(width + 1)}:`)).join('|')}|`;
  const notes = [...new Set(figures.flatMap(({ note }) => (note ? [note] : [])))];
  return [line(head), rule, ...rows.map(line), ...notes.map((note) => `\n${note}`)].join('\n');
}
