/** Screens of terminals that show ASCII alone. */
import { expect, onTestFinished, test } from 'vitest';
import { ascii } from '../../../src/tui/ascii.ts';
import { type Frame, frameOf } from '../../../src/tui/frame.ts';
import { plainText, widthOf } from '../../../src/tui/style.ts';
import { CONSOLE_TEXT, ScriptedMachine } from '../../support/scripted_machine.ts';
import { scriptedStation } from '../../support/scripted_station.ts';

test('what is no ASCII has others of as many cells', () => {
  for (const text of [
    'PCI · 11',
    'a → b…',
    'µs each',
    '‹ a | b ›',
    '␛[31m ␀',
    '漢字 naïve e\u0301',
    '👍🏽 👨\u200d👩\u200d👧 🇩🇪',
  ]) {
    expect(ascii(text)).toMatch(/^[\x20-\x7e]*$/);
    expect(widthOf(ascii(text)), text).toBe(widthOf(text));
  }
  expect(ascii('a → b · c…')).toBe('a > b | c~');
  expect(ascii('┌─ 漢字 ─┐')).toBe('+- ???? -+');
});

const linesOf = ({ header, columns, overlay, footer, tooSmall = [] }: Frame) => [
  ...[header, footer, ...(overlay?.lines ?? []), ...columns.flat().flatMap(({ lines }) => lines)].map(plainText),
  ...tooSmall,
];

test('no frame of such a terminal has another character, whatever stands in it', async () => {
  const machine = new ScriptedMachine({ busy: true });
  const station = scriptedStation({ machine, unicode: false, glyphs: 'plain' });
  onTestFinished(() => station.model.close());
  for (let i = 0; i < 5; i++) await station.model.refresh();
  machine.tellPast();
  station.model.say('guest', 'naïve \x1b[31m 漢字', 'bad');
  // It stays under way.
  void machine.plug({ kind: 'memory', size: '256M' });
  const check = () => {
    for (const [columns, rows] of [
      [56, 14],
      [80, 24],
      [120, 40],
      [200, 60],
      [40, 10],
    ] as const) {
      for (const text of linesOf(frameOf(station, columns, rows))) expect(text).toMatch(/^[\x20-\x7e]*$/);
    }
    frameOf(station, 120, 40);
  };
  const press = (...names: string[]) => {
    for (const name of names) station.key(name, name.length === 1 ? name : '');
    check();
  };
  check();
  for (const pane of ['1', '2', '3', '4', '5', '6', '7']) press(pane);
  for (const layout of ['+', '+', '-', '-']) press(layout);
  press('?');
  press('esc', ':');
  press('esc', 'I');
  press('esc', '2', 'enter');
  await new Promise((resolve) => setImmediate(resolve));
  press('/', 'q');
  press('enter', 'esc', 'esc', 'a');
  press(...'memory', 'enter', 'down', 'down', 'down', 'down', 'down');
  press('esc', 'X');
  press('esc', '7', '/', ...'a'.repeat(200));
  press('esc', '5', 'v');
  press('esc', 'n');
  station.say('→ … ·');
  check();
});

test('what a guest printed stays as it is', async () => {
  const station = scriptedStation({ unicode: false, glyphs: 'plain' });
  onTestFinished(() => station.model.close());
  const [com1] = station.consoles;
  com1.write(Buffer.from(CONSOLE_TEXT));
  await expect.poll(() => linesOf(frameOf(station, 120, 40)).join('\n')).toContain('漢字 かな 한글');
});
