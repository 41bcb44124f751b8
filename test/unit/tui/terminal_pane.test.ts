/** A pane's terminal when its guest prints more than can be drawn. */
import { expect, onTestFinished, test } from 'vitest';
import { TerminalPane } from '../../../src/tui/terminal_pane.ts';

const MIB = 1 << 20;

function open() {
  const pane = new TerminalPane({ name: 'com1', send: () => {}, changed: () => heard() });
  onTestFinished(() => pane.close());
  let heard = () => {};
  const rows = () => {
    const buffer = pane.terminal.buffer.active;
    return Array.from({ length: pane.terminal.rows }, (_, row) =>
      buffer.getLine(buffer.baseY + row)?.translateToString(true),
    );
  };
  const until = async (text: string) => {
    while (!rows().includes(text)) {
      await new Promise<void>((resolve) => {
        heard = resolve;
      });
    }
  };
  return { pane, rows, until };
}

/** As `yes` has it, each line with its number. */
const lines = (count: number) => Buffer.from(Array.from({ length: count }, (_, index) => `line ${index}\r\n`).join(''));

test('what comes last is what is seen, and what was left out is counted', async () => {
  const { pane, until } = open();
  const flood = lines(400_000);
  expect(flood.length).toBeGreaterThan(4 * MIB);
  for (let at = 0; at < flood.length; at += 50_000) pane.write(flood.subarray(at, at + 50_000));
  pane.write(Buffer.from('root@guest:~# '));
  await until('root@guest:~# ');
  expect(pane.skipped).toBeGreaterThan(flood.length - 2 * MIB);
  expect(pane.skipped).toBeLessThan(flood.length);
  // From the first line that is whole to the last, without a gap.
  const buffer = pane.terminal.buffer.active;
  const numbers = Array.from({ length: buffer.length }, (_, row) => buffer.getLine(row)?.translateToString(true) ?? '')
    .filter((text) => text.startsWith('line '))
    .map((text) => Number(text.slice('line '.length)));
  expect(numbers.at(-1)).toBe(399_999);
  const from = numbers.findIndex((number, index) => index > 0 && number !== (numbers[index - 1] ?? 0) + 1);
  expect(from < 0 ? numbers.length : numbers.length - from).toBeGreaterThan(1000);
});

test('less than it holds is drawn whole, in order', async () => {
  const { pane, until } = open();
  pane.write(lines(20_000));
  pane.write(Buffer.from('done\r\n'));
  await until('done');
  expect(pane.skipped).toBe(0);
});

test('a sequence that lost its end does not swallow what follows', async () => {
  const { pane, rows, until } = open();
  // An operating system command goes on to its terminator; its end is among what is left out.
  pane.write(Buffer.from('\x1b[31m\x1b]0;title'));
  pane.write(lines(400_000));
  pane.write(Buffer.from('seen\r\n'));
  await until('seen');
  expect(rows()).toContain('line 399999');
  const cell = pane.terminal.buffer.active.getLine(pane.terminal.buffer.active.baseY)?.getCell(0);
  expect(cell?.isFgDefault()).toBe(true);
});

test('keys are taken while a guest prints', async () => {
  const { pane, until } = open();
  pane.write(lines(60_000));
  let turns = 0;
  const ticks = setInterval(() => turns++, 1);
  pane.write(Buffer.from('done\r\n'));
  await until('done');
  clearInterval(ticks);
  // Others had their turn between the pieces.
  expect(turns).toBeGreaterThan(10);
});

test('a search begins with the last row that is shown, goes on from what it found, and marks it', async () => {
  const { pane, until } = open();
  pane.write(lines(100));
  pane.write(Buffer.from('\u4e16 line 7 again\r\nprompt'));
  await until('prompt');
  const place = () => pane.found && [pane.found.from.row, pane.found.from.column, pane.found.to.column];
  expect(pane.find('Prompt')).toBe(true);
  expect([pane.scrolledBack, place()]).toEqual([0, [101, 0, 5]]);
  expect(pane.find('line 7')).toBe(true);
  // Behind a wide character.
  expect([pane.scrolledBack, place()]).toEqual([0, [100, 3, 8]]);
  expect(pane.find('line 7', { on: true })).toBe(true);
  expect([pane.scrolledBack, place()?.[0]]).toEqual([0, 79]);
  expect(pane.find('line 69', { on: true })).toBe(true);
  expect([pane.scrolledBack, place()?.[0]]).toEqual([pane.terminal.buffer.active.baseY - 69 + 12, 69]);
  expect(pane.find('line 7', { on: true, up: false })).toBe(true);
  expect(place()?.[0]).toBe(70);
  expect(pane.find('again', { on: true, up: false })).toBe(true);
  expect(place()?.[0]).toBe(100);
  expect(pane.find('again', { on: true, up: false })).toBe(false);
  expect(pane.find('nothing')).toBe(false);
  pane.toLive();
  expect([pane.scrolledBack, pane.found]).toEqual([0, undefined]);
});

test('who looks at older rows goes on to see them when the scrollback is full, until they are gone', async () => {
  const { pane, until } = open();
  const top = () => pane.terminal.buffer.active.getLine(pane.terminal.buffer.active.baseY - pane.scrolledBack);
  const shown = () => top()?.translateToString(true);
  const print = async (count: number, last: string) => {
    pane.write(lines(count));
    pane.write(Buffer.from(`${last}\r\n`));
    await until(last);
  };
  await print(11_000, 'full');
  pane.scroll(50);
  const [before, back] = [shown(), pane.scrolledBack];
  expect([before, back]).toEqual(['line 10928', 50]);
  await print(500, 'more');
  expect([shown(), pane.scrolledBack]).toEqual([before, 551]);
  // Where copy mode holds the live screen.
  pane.toLive();
  pane.held = true;
  const held = shown();
  await print(500, 'still more');
  expect([shown(), pane.scrolledBack]).toEqual([held, 501]);
  pane.held = false;
  expect(shown()).toBe(held);
  await print(12_000, 'all gone');
  expect(pane.scrolledBack).toBe(10_000);
  pane.toLive();
  await print(10, 'live');
  expect(pane.scrolledBack).toBe(0);
});

test('a program that takes the whole screen, and one that clears what is above it, is seen at once', async () => {
  const { pane, until } = open();
  pane.write(lines(100));
  for (const clear of ['\x1b[?1049h\x1b[H', '\x1b[?1049l\x1b[3J', '\x1bc']) {
    pane.write(lines(100));
    pane.write(Buffer.from('above\r\n'));
    await until('above');
    pane.scroll(20);
    pane.write(Buffer.from(`${clear}afresh\r\n`));
    await until('afresh');
    pane.write(lines(60));
    pane.write(Buffer.from('end\r\n'));
    await until('end');
    expect(pane.scrolledBack, JSON.stringify(clear)).toBe(0);
  }
});
