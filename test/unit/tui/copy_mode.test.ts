/** Keys that mark text, without a terminal. */
import { expect, test } from 'vitest';
import { CopyMode } from '../../../src/tui/copy_mode.ts';
import { TerminalPane } from '../../../src/tui/terminal_pane.ts';

async function open(text: string, { rows = 6, columns = 20 } = {}) {
  const pane = new TerminalPane({ name: 'com1', send: () => {}, changed: () => {} });
  pane.resize(columns, rows);
  const print = async (more: string) => {
    pane.write(Buffer.from(more));
    await new Promise<void>((resolve) => pane.terminal.write('', resolve));
    await new Promise((resolve) => setTimeout(resolve, 20));
  };
  await print(text);
  let copied: string | undefined | null = null;
  const mode = new CopyMode(pane, (what) => {
    copied = what;
  });
  const keys = (...names: string[]) => {
    for (const name of names) mode.key(name);
  };
  return { pane, mode, keys, print, copied: () => copied };
}

const lines = (count: number) => Array.from({ length: count }, (_, index) => `line ${index}`).join('\r\n');

test('a cell is copied without a mark, a word with one', async () => {
  const one = await open('hello big world');
  one.keys('home', 'w', 'y');
  expect(one.copied()).toBe('b');
  const two = await open('hello big world');
  two.keys('0', 'w', 'v', 'l', 'right', 'enter');
  expect(two.copied()).toBe('big');
  const three = await open('hello big world');
  three.keys('$', 'b', 'v', '0', 'y');
  expect(three.copied()).toBe('hello big w');
});

test('words go on over rows, and end where the text does', async () => {
  const { keys, mode } = await open('one\r\n\r\ntwo');
  keys('g', 'w');
  expect(mode.selection.from).toEqual({ row: 2, column: 0 });
  keys('w', 'w');
  expect(mode.selection.from).toEqual({ row: 2, column: 0 });
  keys('b');
  expect(mode.selection.from).toEqual({ row: 0, column: 0 });
  keys('b', 'left', 'up');
  expect(mode.selection.from).toEqual({ row: 0, column: 0 });
});

test('what is above the screen is scrolled to, and nothing is above the first row', async () => {
  const { keys, pane, mode, copied } = await open(lines(30));
  expect(pane.scrolledBack).toBe(0);
  keys('g');
  expect(pane.scrolledBack).toBe(24);
  expect(mode.selection.from).toEqual({ row: 0, column: 0 });
  keys('up', 'pageup', 'v', 'pagedown', 'end', 'y');
  expect(copied()).toBe(Array.from({ length: 6 }, (_, index) => `line ${index}`).join('\n'));
  expect(pane.held).toBe(false);
});

test('the mark stays with its text, and the window with what it shows, while the guest prints', async () => {
  const { keys, print, pane, copied } = await open(lines(12));
  keys('0', 'v', '$');
  await print(`\r\n${lines(40)}`);
  expect(pane.scrolledBack).toBe(40);
  keys('y');
  expect(copied()).toBe('line 11');
});

test('rows that are pushed out of the scrollback do not move the mark to other text', async () => {
  const { keys, print, copied } = await open('kept');
  keys('0', 'v', '$');
  const flood = Array.from({ length: 9_990 }, (_, index) => `x${index}`).join('\r\n');
  await print(`\r\n${flood}`);
  keys('y');
  expect(copied()).toBe('kept');
});

test('Esc lets go of the mark first; q leaves at once; other keys do nothing', async () => {
  const { keys, copied, mode } = await open('text');
  keys('v', 'home', 'x', 'constructor', 'esc');
  expect(copied()).toBeNull();
  expect(mode.selection.from).toEqual(mode.selection.to);
  keys('v', 'q');
  expect(copied()).toBeUndefined();
});
