/** A guest's colours on a terminal that has sixteen. */
import { expect, onTestFinished, test } from 'vitest';
import { coloursOf, nearestOf16, rgbOfPalette } from '../../../src/tui/colours.ts';
import { TerminalPane } from '../../../src/tui/terminal_pane.ts';
import { terminalLines } from '../../../src/tui/terminal_view.ts';

async function shown(text: string, colours: 'none' | 'few' | 'all') {
  const pane = new TerminalPane({ name: 'com1', send: () => {}, changed: () => {} });
  onTestFinished(() => pane.close());
  await new Promise<void>((resolve) => pane.terminal.write(text, resolve));
  const window = { width: 40, height: 1, scrolledBack: 23, cursor: false, colours };
  const [line] = terminalLines(pane.terminal, { ...window, scrolledBack: 0, height: 24 });
  return line.filter((span) => span.text.trim() !== '').map(({ text: each, sgr }) => `${sgr}:${each}`);
}

const TEXT = '\x1b[38;5;208morange\x1b[0;38;2;120;80;255mviolet\x1b[0;48;2;10;200;20mgreen\x1b[0;1;31mred\x1b[0m';

test('are the nearest that there are; those that every terminal has stay', async () => {
  expect(await shown(TEXT, 'few')).toEqual(['33:orange', '94:violet', '42:green', '1;31:red']);
  expect(await shown(TEXT, 'all')).toEqual([
    ...['38;5;208:orange', '38;2;120;80;255:violet', '48;2;10;200;20:green', '1;31:red'],
  ]);
  expect(await shown(TEXT, 'none')).toEqual([':orangevioletgreen', '1:red']);
});

test('each of the sixteen is the nearest to itself, greys are grey', () => {
  for (let index = 0; index < 16; index++) expect(nearestOf16(rgbOfPalette(index))).toBe(index);
  expect([232, 244, 255].map((grey) => nearestOf16(rgbOfPalette(grey)))).toEqual([0, 8, 7]);
});

test('a terminal says by its environment how many it has', () => {
  const depth = (bits: number) => ({ getColorDepth: () => bits });
  expect([1, 4, 8, 24].map((bits) => coloursOf(depth(bits), {}))).toEqual(['few', 'few', 'all', 'all']);
});
