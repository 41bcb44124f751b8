/** Cells of a terminal that was emulated here, as lines of spans. */
import type { IBufferCell, Terminal } from '@xterm/headless';
import { type Colours, nearestOf16, rgbOfPalette } from './colours.ts';
import type { Line, Span } from './style.ts';

/** What of a terminal a pane shows. */
export interface TerminalWindow {
  readonly width: number;
  readonly height: number;
  /** Rows above the live screen. */
  readonly scrolledBack: number;
  /** The cursor is drawn as an inverted cell. */
  readonly cursor: boolean;
  /** Those of the guest's that are shown. */
  readonly colours: Colours;
  /** Cells that are drawn inverted. */
  readonly selection?: Selection | undefined;
}

export interface BufferCell {
  /** Row of the terminal's buffer, scrollback included. */
  readonly row: number;
  readonly column: number;
}

/** Text as it is read, from one cell to another, both in it. */
export interface Selection {
  readonly from: BufferCell;
  readonly to: BufferCell;
}

/** Rows of scrollback above the live screen. */
export const scrollbackOf = (terminal: Terminal): number => terminal.buffer.active.baseY;

/**
 * The rows of a terminal from top to bottom; of one that is larger than the window, the left part of the rows that end
 * with the cursor's or with the last one that is written.
 */
export function terminalLines(terminal: Terminal, window: TerminalWindow): Line[] {
  const buffer = terminal.buffer.active;
  const cursorRow = buffer.baseY + buffer.cursorY;
  const top = topRow(terminal, window);
  const lines: Line[] = [];
  const reused = buffer.getNullCell();
  for (let row = top; row < top + window.height; row++) {
    const cursor = window.cursor && row === cursorRow ? buffer.cursorX : -1;
    lines.push(rowSpans(terminal, row, window, cursor, reused));
  }
  return lines;
}

/** Row of the buffer that is the first of a window. */
export function topRow(terminal: Terminal, window: Pick<TerminalWindow, 'height' | 'scrolledBack'>): number {
  const buffer = terminal.buffer.active;
  const cursorRow = buffer.baseY + buffer.cursorY;
  let last = buffer.baseY + terminal.rows - 1;
  if (terminal.rows > window.height) {
    let used = last;
    while (used > cursorRow && (buffer.getLine(used)?.translateToString(true) ?? '') === '') used--;
    last = Math.max(used, buffer.baseY + window.height - 1);
  }
  return Math.max(0, last - window.height + 1 - window.scrolledBack);
}

/** The text of a selection: rows that the terminal wrapped are one line, and lines end without spaces. */
export function selectedText(terminal: Terminal, { from, to }: Selection): string {
  const buffer = terminal.buffer.active;
  let text = '';
  for (let row = from.row; row <= to.row; row++) {
    const cells = buffer.getLine(row);
    if (!cells) continue;
    if (row > from.row && !cells.isWrapped) text += '\n';
    const goesOn = row < to.row && (buffer.getLine(row + 1)?.isWrapped ?? false);
    const [first, end] = [row === from.row ? from.column : 0, row === to.row ? to.column + 1 : undefined];
    const part = cells.translateToString(false, first, end);
    text += goesOn ? part : part.trimEnd();
  }
  return text;
}

function isSelected(selection: Selection | undefined, row: number, column: number): boolean {
  if (!selection) return false;
  const { from, to } = selection;
  if (row < from.row || row > to.row) return false;
  return (row > from.row || column >= from.column) && (row < to.row || column <= to.column);
}

/**
 * What joins characters to one picture, or gives it another width or skin: terminals do not agree on how wide it is
 * then. Without, each has the cells that it has here.
 */
const JOINERS = /[\u200d\ufe0e\ufe0f\u{1f3fb}-\u{1f3ff}]/gu;

function rowSpans(
  terminal: Terminal,
  row: number,
  window: TerminalWindow,
  cursor: number,
  reused: IBufferCell,
): Span[] {
  const cells = terminal.buffer.active.getLine(row);
  const spans: Span[] = [];
  let text = '';
  let sgr = '';
  const flush = () => {
    if (text !== '') spans.push({ text, sgr });
    text = '';
  };
  const width = Math.min(window.width, terminal.cols);
  for (let column = 0; column < width; column++) {
    const cell = cells?.getCell(column, reused);
    const cellWidth = cell?.getWidth() ?? 1;
    // The second half of a wide character.
    if (cellWidth === 0) continue;
    const inverted = column === cursor || isSelected(window.selection, row, column);
    const codes = (cell ? sgrOf(cell, window.colours) : '') + (inverted ? ';7' : '');
    const clean = codes.startsWith(';') ? codes.slice(1) : codes;
    if (clean !== sgr) {
      flush();
      sgr = clean;
    }
    text += column + cellWidth > width ? ' ' : cell?.getChars().replaceAll(JOINERS, '') || ' ';
  }
  flush();
  return spans;
}

/** SGR parameters of a cell, each behind a semicolon. */
function sgrOf(cell: IBufferCell, colours: Colours): string {
  if (cell.isAttributeDefault()) return '';
  let codes = '';
  if (cell.isBold()) codes += ';1';
  if (cell.isDim()) codes += ';2';
  if (cell.isItalic()) codes += ';3';
  if (cell.isUnderline()) codes += ';4';
  if (cell.isInverse()) codes += ';7';
  if (cell.isInvisible()) codes += ';8';
  if (cell.isStrikethrough()) codes += ';9';
  if (colours === 'none') return codes;
  const few = colours === 'few';
  const foreground = cell.getFgColor();
  if (cell.isFgRGB()) codes += few ? paletteColour(nearestOf16(foreground), 30) : `;38;2;${rgb(foreground)}`;
  else if (cell.isFgPalette()) codes += paletteColour(few ? among16(foreground) : foreground, 30);
  const background = cell.getBgColor();
  if (cell.isBgRGB()) codes += few ? paletteColour(nearestOf16(background), 40) : `;48;2;${rgb(background)}`;
  else if (cell.isBgPalette()) codes += paletteColour(few ? among16(background) : background, 40);
  return codes;
}

const among16 = (index: number): number => (index < 16 ? index : nearestOf16(rgbOfPalette(index)));

const rgb = (value: number): string => `${(value >> 16) & 0xff};${(value >> 8) & 0xff};${value & 0xff}`;

/** A colour of the palette; the first sixteen have codes that every terminal knows. @param base 30 or 40 */
function paletteColour(index: number, base: number): string {
  if (index < 8) return `;${base + index}`;
  if (index < 16) return `;${base + 60 + index - 8}`;
  return `;${base + 8};5;${index}`;
}
