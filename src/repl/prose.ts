/** Sentences on a terminal: lines end between words, and what stands in a column goes on in it. */
import stringWidth from 'string-width';
import wrapAnsi from 'wrap-ansi';

/** Between a column and the next one. */
const GAP = / {2,}(?=\S)/g;

/** The second column begins within the first half of a terminal of 80 columns: there it can go on below itself. */
const MOST_FIRST = 34;

/** Two columns, as help has them; what is too long for the first one has its text below. */
export function twoColumns(rows: readonly (readonly [first: string, second: string])[]): string[] {
  const short = rows.map(([first]) => first.length).filter((length) => length <= MOST_FIRST);
  const width = Math.max(0, ...short);
  return rows.flatMap(([first, second]) =>
    first.length <= width
      ? [`  ${first.padEnd(width)}  ${second}`]
      : [`  ${first}`, `${' '.repeat(width + 4)}${second}`],
  );
}

/** @param columns of the terminal; without them the text stays as it is. */
export const prose = (text: string, columns: number | undefined): string =>
  columns
    ? text
        .split('\n')
        .map((line) => wrapped(line, columns))
        .join('\n')
    : text;

function wrapped(line: string, columns: number): string {
  if (stringWidth(line) <= columns) return line;
  const starts = [...line.matchAll(GAP)].map(({ 0: gap, index }) => index + gap.length);
  const indent = starts.findLast((start) => start <= columns / 2) ?? 0;
  return (
    line.slice(0, indent) + wrapAnsi(line.slice(indent), columns - indent).replaceAll('\n', `\n${' '.repeat(indent)}`)
  );
}
