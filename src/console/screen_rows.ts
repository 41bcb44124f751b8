/** Rows of a terminal as text that draws them: characters, SGR, and nothing that a terminal might not know. */
import type { IBuffer, IBufferCell, IBufferLine } from '@xterm/headless';
import type { Pen } from './xterm_core.ts';

/** SGR for colours and attributes, from whatever is on. */
export function sgr(pen: Pen): string {
  const colour = (base: number, value: number, rgb: boolean, palette: boolean) => {
    if (rgb) return [base + 8, 2, (value >> 16) & 0xff, (value >> 8) & 0xff, value & 0xff];
    if (!palette) return [];
    if (value >= 16) return [base + 8, 5, value];
    return [value < 8 ? base + value : base + 60 + value - 8];
  };
  const flags: readonly [number, number][] = [
    [1, pen.isBold()],
    [2, pen.isDim()],
    [3, pen.isItalic()],
    [4, pen.isUnderline()],
    [5, pen.isBlink()],
    [7, pen.isInverse()],
    [8, pen.isInvisible()],
    [9, pen.isStrikethrough()],
    [53, pen.isOverline()],
  ];
  const codes = [
    0,
    ...flags.flatMap(([code, on]) => (on ? [code] : [])),
    ...colour(30, pen.getFgColor(), pen.isFgRGB(), pen.isFgPalette()),
    ...colour(40, pen.getBgColor(), pen.isBgRGB(), pen.isBgPalette()),
  ];
  return `\x1b[${codes.join(';')}m`;
}

/** Numbers that are the same for the same SGR. */
class PenKey {
  #foreground = 0;
  #background = 0;
  #first = 0;
  #second = 0;

  get isPlain(): boolean {
    return this.#foreground + this.#background + this.#first + this.#second === 0;
  }

  /** @returns whether it is another one than before. */
  takes(pen: Pen): boolean {
    const plain = pen.isAttributeDefault();
    const foreground = plain ? 0 : pen.getFgColorMode() + pen.getFgColor() + 1;
    const background = plain ? 0 : pen.getBgColorMode() + pen.getBgColor() + 1;
    const first = plain
      ? 0
      : pen.isBold() | pen.isUnderline() | pen.isBlink() | pen.isInverse() | pen.isInvisible() | pen.isStrikethrough();
    const second = plain ? 0 : pen.isItalic() | pen.isDim() | pen.isOverline();
    const same =
      foreground === this.#foreground &&
      background === this.#background &&
      first === this.#first &&
      second === this.#second;
    this.#foreground = foreground;
    this.#background = background;
    this.#first = first;
    this.#second = second;
    return !same;
  }
}

/** An empty terminal has it already. */
const isEmpty = (cell: IBufferCell) =>
  cell.getChars() === '' && cell.getWidth() === 1 && cell.isBgDefault() && !cell.isInverse() && !cell.isUnderline();

/** Cells up to the last that an empty terminal does not have. */
function lengthOf(line: IBufferLine, cell: IBufferCell): number {
  let length = line.length;
  for (; length > 0; length--) {
    const last = line.getCell(length - 1, cell);
    if (last && !isEmpty(last)) break;
  }
  return length;
}

/**
 * Draws rows from where the cursor is, in the first column of an empty terminal with as many columns.
 * @param from first row, and `to` the one behind the last, from the oldest one kept.
 * @param trim empty rows at the end are left out.
 * @returns the text, how many of the rows it draws, and the column behind what is in the last of those.
 */
export function drawRows(
  buffer: IBuffer,
  from: number,
  to: number,
  trim: boolean,
): { readonly text: string; readonly count: number; readonly column: number } {
  const cell = buffer.getNullCell();
  let end = to;
  if (trim) {
    const isBlank = (row: number) => {
      const line = buffer.getLine(row);
      return !line || lengthOf(line, cell) === 0;
    };
    while (end > from + 1 && isBlank(end - 1)) end--;
  }
  const key = new PenKey();
  let text = '';
  /** The row before goes on in this one: its last column was printed. */
  let goesOn = false;
  let behind = 0;
  for (let row = from; row < end; row++) {
    const line = buffer.getLine(row);
    if (row > from && !goesOn) text += '\r\n';
    const length = line ? lengthOf(line, cell) : 0;
    behind = length;
    if (!line) continue;
    let skipped = 0;
    for (let column = 0; column < length; column++) {
      const each = line.getCell(column, cell);
      // The second half of a wide character.
      if (!each || each.getWidth() === 0) continue;
      if (isEmpty(each) && !(goesOn && column === 0)) {
        skipped++;
        continue;
      }
      if (skipped > 0) text += `\x1b[${skipped}C`;
      skipped = 0;
      if (key.takes(each)) text += sgr(each);
      text += each.getChars() || ' ';
    }
    goesOn = length === line.length && buffer.getLine(row + 1)?.isWrapped === true && row + 1 < end;
    // To go on there must be something to go on with.
    if (goesOn && lengthOf(buffer.getLine(row + 1) as IBufferLine, cell) === 0) goesOn = false;
  }
  return { text: key.isPlain ? text : `${text}\x1b[0m`, count: end - from, column: behind };
}
