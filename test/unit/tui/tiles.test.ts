/** Tiles without a real terminal: where they are, who gets what is typed, what is drawn again. */
import { expect, test } from 'vitest';
import { SegmentScreen } from '../../../src/tui/segment_screen.ts';
import { lineWidth, plainText, themeNamed } from '../../../src/tui/style.ts';
import { TerminalPane } from '../../../src/tui/terminal_pane.ts';
import { type Tile, Tiles, tileBoxes } from '../../../src/tui/tiles.ts';

function setUp(count: number, watching: readonly number[] = []) {
  const sent = Array.from({ length: count }, () => '');
  const sizes: string[] = [];
  const ended: (string | undefined)[] = [];
  const panes = sent.map(
    (_, index) =>
      new TerminalPane({
        name: `m${index}`,
        send: (bytes) => {
          sent[index] += Buffer.from(bytes).toString('latin1');
        },
        resized: (rows, columns) => {
          sizes[index] = `${columns}x${rows}`;
        },
        changed: () => {},
      }),
  );
  const list = panes.map(
    (pane, index): Tile => ({
      ...{ title: pane.name, pane, drives: () => !watching.includes(index), ended: () => ended[index] },
    }),
  );
  const tiles = new Tiles(list, { unicode: true, colours: 'all' });
  const print = (index: number, text: string) =>
    new Promise<void>((resolve) => panes[index].terminal.write(text, () => resolve()));
  /** The screen as text, row by row. */
  const shown = (columns: number, rows: number) => {
    const screen = Array.from({ length: rows }, () => ' '.repeat(columns));
    for (const { row, column, line } of tiles.frame(columns, rows).segments) {
      const text = plainText(line);
      screen[row] = screen[row].slice(0, column) + text + screen[row].slice(column + text.length);
    }
    return screen;
  };
  return { tiles, panes, sent, sizes, ended, print, shown };
}

test.each([1, 2, 3, 4, 5, 7, 9, 12])('%i tiles fill the screen, without one over another', (count) => {
  for (const [width, height] of [
    [80, 23],
    [211, 57],
    [100, 40],
  ]) {
    const boxes = tileBoxes(count, width, height);
    if (!boxes) {
      expect(count).toBeGreaterThan(7);
      continue;
    }
    expect(boxes.map(({ tile }) => tile)).toEqual(Array.from({ length: count }, (_, index) => index));
    const cells = new Uint8Array(width * height);
    for (const box of boxes) {
      for (let row = box.top; row < box.top + box.height; row++) {
        for (let column = box.left; column < box.left + box.width; column++) cells[row * width + column]++;
      }
    }
    expect(Math.max(...cells)).toBe(1);
    // What no tile has is for the lines between: one for each tile that has another on its right.
    const lines = boxes
      .filter(({ left, width: wide }) => left + wide < width)
      .reduce((sum, box) => sum + box.height, 0);
    expect(cells.filter((cell) => cell === 0).length).toBe(lines);
  }
});

test('two on a wide screen are side by side, on a high one above each other', () => {
  expect(tileBoxes(2, 160, 24)).toEqual([
    { tile: 0, left: 0, top: 0, width: 79, height: 24 },
    { tile: 1, left: 80, top: 0, width: 80, height: 24 },
  ]);
  expect(tileBoxes(2, 80, 60)).toEqual([
    { tile: 0, left: 0, top: 0, width: 80, height: 30 },
    { tile: 1, left: 0, top: 30, width: 80, height: 30 },
  ]);
  expect(tileBoxes(9, 50, 10)).toBeUndefined();
});

test('each terminal has the size of its tile, and what it printed is there', async () => {
  const { print, shown, sizes, tiles } = setUp(2);
  shown(81, 11);
  expect(sizes).toEqual(['40x9', '40x9']);
  await print(0, 'one\r\n\x1b[31mred\x1b[0m');
  await print(1, 'two');
  const screen = shown(81, 11);
  expect(screen[0]).toMatch(/^─ m0 ─+│─ m1 ─+$/);
  expect(screen[1]).toBe(`${'one'.padEnd(40)}│${'two'.padEnd(40)}`);
  expect(screen[2].trimEnd()).toBe(`${'red'.padEnd(40)}│`);
  expect(tiles.frame(81, 11).cursor).toEqual({ row: 2, column: 3 });
  tiles.step(1);
  expect(tiles.frame(81, 11).cursor).toEqual({ row: 1, column: 44 });
});

test('what is typed goes to the focus, or to all that drive', () => {
  const { tiles, sent, ended } = setUp(3, [1]);
  expect(tiles.typed((pane) => pane.type(Buffer.from('a')))).toBeUndefined();
  tiles.step(1);
  expect(tiles.typed((pane) => pane.type(Buffer.from('b')))).toContain('Somebody else drives it');
  tiles.broadcast = true;
  expect(tiles.typed((pane) => pane.type(Buffer.from('c')))).toBeUndefined();
  expect(sent).toEqual(['ac', '', 'c']);
  ended[2] = 'The guest powered off.';
  tiles.typed((pane) => pane.type(Buffer.from('d')));
  expect(sent).toEqual(['acd', '', 'c']);
  tiles.broadcast = false;
  tiles.step(1);
  expect(tiles.typed((pane) => pane.type(Buffer.from('e')))).toBe('The guest powered off.');
});

test('a guest that asked for application cursor keys gets them', async () => {
  const { tiles, sent, print } = setUp(1);
  tiles.typed((pane) => pane.type(Buffer.from('\x1b[A')));
  await print(0, '\x1b[?1h');
  tiles.typed((pane) => pane.type(Buffer.from('\x1b[A\x1b[Hx\x1b[1;5C')));
  expect(sent[0]).toBe('\x1b[A\x1bOA\x1bOHx\x1b[1;5C');
});

test('the focus moves to what is there', () => {
  const { tiles, shown } = setUp(5);
  // 3 above, 2 below.
  shown(240, 49);
  const went = (direction: 'left' | 'right' | 'up' | 'down') => {
    tiles.move(direction);
    return tiles.focus;
  };
  expect([went('left'), went('right'), went('right'), went('right')]).toEqual([0, 1, 2, 2]);
  expect([went('down'), went('down'), went('left'), went('up')]).toEqual([4, 4, 3, 0]);
});

test('zoom gives one the screen, and the others keep theirs', () => {
  const { tiles, shown, sizes } = setUp(2);
  shown(161, 25);
  tiles.step(1);
  tiles.zoomed = true;
  const screen = shown(161, 25);
  expect(screen[0]).toMatch(/^─ m1 ─+$/);
  expect(sizes).toEqual(['80x23', '161x23']);
  tiles.move('left');
  expect(shown(161, 25)[0]).toMatch(/^─ m0 ─+$/);
});

test('what is dragged over is selected: in its tile, wrapped rows as one line, older rows too', async () => {
  const { tiles, print, shown } = setUp(2);
  shown(81, 11);
  await print(0, `${'abcdefghij'.repeat(5)}\r\nsecond   \r\nthird`);
  tiles.press(30, 1);
  expect(tiles.selected).toBeUndefined();
  // Into the other tile: it ends at the edge.
  tiles.drag(70, 3);
  expect(tiles.selected).toBe(`${'abcdefghij'.repeat(2)}\nsecond`);
  expect(tiles.frame(81, 11).segments.some(({ line }) => line.some(({ sgr }) => sgr === '7'))).toBe(true);
  // Backwards is the same.
  tiles.press(38, 3);
  tiles.drag(0, 3);
  expect(tiles.selected).toBe('second');
  await print(0, `\r\n${Array.from({ length: 30 }, (_, row) => `row ${row}`).join('\r\n')}`);
  tiles.scroll(1000);
  tiles.press(0, 1);
  tiles.drag(9, 1);
  expect(tiles.selected).toBe('abcdefghij');
  expect(shown(81, 11)[0]).toMatch(/^─ m0 \d+ of \d+ rows back ─/);
  expect(tiles.frame(81, 11).cursor).toBeUndefined();
  tiles.typed((pane) => pane.type(Buffer.from('x')));
  expect(tiles.selected).toBeUndefined();
  expect(tiles.frame(81, 11).cursor).toBeDefined();
});

test('wide characters stay in their tile', async () => {
  const { print, shown, tiles } = setUp(2);
  shown(80, 11);
  // The last one does not fit in a tile of 39.
  await print(0, '漢'.repeat(20));
  const row = tiles.frame(80, 11).segments.filter((each) => each.row === 1);
  expect(row.map(({ column, line }) => [column, lineWidth(line)])).toEqual([
    [0, 39],
    [39, 1],
    [40, 40],
  ]);
  expect(plainText(row[0].line)).toBe(`${'漢'.repeat(19)} `);
});

test('a screen that is too small says so, and comes back', () => {
  const { shown } = setUp(4);
  expect(shown(19, 6).join('')).toMatch(/19x6 is too small for 4 consoles/);
  expect(shown(80, 24)[0]).toMatch(/m0/);
});

test('only what changed is written again', async () => {
  const { tiles, print } = setUp(2);
  const screen = new SegmentScreen(themeNamed('plain'));
  expect(screen.update(tiles.frame(81, 11))).toContain('\x1b[2J');
  expect(screen.update(tiles.frame(81, 11))).toBe('');
  await print(1, 'hello');
  const update = screen.update(tiles.frame(81, 11));
  expect(update).toContain('\x1b[2;42Hhello');
  expect(update).not.toContain('\x1b[2J');
  expect(update.length).toBeLessThan(100);
  screen.clear();
  expect(screen.update(tiles.frame(81, 11)).length).toBeGreaterThan(500);
  // Another layout is another screen.
  expect(screen.update(tiles.frame(60, 30))).toContain('\x1b[2J');
});
