/** What a guest is told of the size of its console, and what is seen of one that is larger than its pane. */
import { expect, onTestFinished, test } from 'vitest';
import { frameOf, terminalCellAt } from '../../../src/tui/frame.ts';
import { PANES } from '../../../src/tui/layout.ts';
import { plainText } from '../../../src/tui/style.ts';
import { TerminalPane } from '../../../src/tui/terminal_pane.ts';
import { scriptedStation } from '../../support/scripted_station.ts';

function open(columns: number, rows: number) {
  const sizes: string[] = [];
  const resized = (height: number, width: number) => sizes.push(`${width}x${height}`);
  const pane = new TerminalPane({ name: 'com1', send: () => {}, changed: () => {}, resized });
  const station = scriptedStation({ consoles: [pane] });
  onTestFinished(() => {
    station.model.close();
    pane.close();
  });
  const draw = () => frameOf(station, columns, rows);
  const box = () => {
    const { layout, columns: boxes } = draw();
    const at = layout?.columns.flat().findIndex((each) => each.pane === 'console') ?? -1;
    const found = boxes.flat()[at];
    if (!found) throw new Error('There is no console.');
    return found;
  };
  draw();
  return { pane, station, draw, box, sizes };
}

test('to go from pane to pane gives a console no other size', () => {
  for (const [columns, rows] of [
    [56, 14],
    [80, 24],
    [120, 40],
    [201, 60],
  ] as const) {
    const { station, draw, sizes } = open(columns, rows);
    const first = sizes.splice(0);
    expect(first, `${columns}x${rows}`).toHaveLength(1);
    for (const pane of PANES) {
      station.focusOn(pane);
      draw();
    }
    expect(sizes).toEqual([]);
    station.focusOn('console');
    station.changeLayout(1);
    draw();
    expect(sizes.splice(0)).toEqual([`${Math.ceil(columns / 2) - 2}x${rows - 5}`]);
    for (const pane of PANES) {
      station.focusOn(pane);
      draw();
    }
    expect(sizes).toEqual([]);
    station.changeLayout(-1);
    draw();
    expect(sizes).toEqual(first);
  }
});

test('a console that is shown in part can be looked through up to its first row', async () => {
  const { pane, station, box } = open(120, 50);
  const print = async (text: string) => {
    pane.write(Buffer.from(text));
    await new Promise<void>((resolve) => pane.terminal.write('', resolve));
  };
  await print(Array.from({ length: 60 }, (_, index) => `line ${index}\r\n`).join(''));
  station.layout = 'half';
  station.focusOn('pci');
  const inside = () => box().lines.map((each) => plainText(each).slice(1, -1).trimEnd());
  expect([box().rect.height, pane.terminal.rows, pane.rows]).toEqual([13, 30, 11]);
  expect(inside().slice(-4, -1)).toEqual(['line 58', 'line 59', '']);
  pane.scroll(2);
  expect(inside().slice(-4, -1)).toEqual(['line 56', 'line 57', 'line 58']);
  const { rect } = box();
  expect(terminalCellAt(pane, rect, rect.left + 1, rect.top + 1, true)).toEqual({ row: 48, column: 0 });
  await print('more\r\n');
  expect(inside().at(-2)).toBe('line 58');
  pane.scroll(Number.POSITIVE_INFINITY);
  expect(inside()[1]).toBe('line 0');
  expect(pane.find('line 20', { up: false })).toBe(true);
  expect(inside()).toContain('line 20');
});
