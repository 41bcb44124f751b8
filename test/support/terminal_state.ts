/** All that a terminal shows and remembers, to be compared with another one's. */
import xterm, { type IBuffer, type Terminal } from '@xterm/headless';
import { type Pen, XtermCore } from '../../src/console/xterm_core.ts';

export const terminal = (rows: number, cols: number): Terminal =>
  new xterm.Terminal({ rows, cols, scrollback: 100, allowProposedApi: true, logLevel: 'off' });

export const write = (to: Terminal, bytes: Uint8Array | string): Promise<void> =>
  new Promise((resolve) => to.write(bytes, resolve));

const penOf = (pen: Pen) => [
  pen.getFgColor(),
  pen.getBgColor(),
  ...[pen.isBold(), pen.isDim(), pen.isItalic(), pen.isUnderline(), pen.isInverse()].map(Boolean),
];

function rowsOf(buffer: IBuffer, rows: number) {
  return Array.from({ length: rows }, (_, row) => {
    const line = buffer.getLine(buffer.baseY + row);
    return Array.from({ length: line?.length ?? 0 }, (_, column) => {
      const cell = line?.getCell(column);
      const text = cell?.getChars() || ' ';
      // Of an empty cell its ground is seen.
      return cell && `${text}${text === ' ' ? cell.getBgColor() : penOf(cell)}`;
    }).join('|');
  });
}

export function stateOf(of: Terminal) {
  const core = new XtermCore(of);
  const { active, normal } = of.buffer;
  const saved = (buffer: IBuffer) => {
    const { pen, ...rest } = core.saved(buffer);
    return { ...rest, pen: penOf(pen) };
  };
  return {
    ...{ type: active.type, rows: rowsOf(active, of.rows), below: rowsOf(normal, of.rows) },
    ...{ cursor: [active.cursorX, active.cursorY], saved: saved(active), savedBelow: saved(normal) },
    ...{ pen: penOf(core.pen), region: core.region, charsets: core.charsets, modes: of.modes },
  };
}
