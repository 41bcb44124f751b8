/** Sentences on a terminal: lines end between words, and what stands in a column goes on in it. */
import stringWidth from 'string-width';
import wrapAnsi from 'wrap-ansi';

/** Between a column and the next one. */
const GAP = / {2,}(?=\S)/g;

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
