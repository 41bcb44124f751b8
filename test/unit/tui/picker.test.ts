/** What help and palette show of a choice, whatever the screen's size. */
import { expect, onTestFinished, test } from 'vitest';
import { formsOf } from '../../../src/tui/actions/action.ts';
import { ACTIONS } from '../../../src/tui/actions.ts';
import { frameOf } from '../../../src/tui/frame.ts';
import { Picker } from '../../../src/tui/overlays/picker.ts';
import { wrap } from '../../../src/tui/overlays/question.ts';
import { plainText } from '../../../src/tui/style.ts';
import { scriptedStation } from '../../support/scripted_station.ts';

test.each([
  [80, 24],
  [120, 40],
])('every action shows its whole forms on a screen of %i×%i, and the list stays where it is', async (columns, rows) => {
  const station = scriptedStation();
  onTestFinished(() => station.model.close());
  await station.model.refresh();
  frameOf(station, columns, rows);
  station.key(':', ':');
  const heights = new Set<number>();
  for (const action of ACTIONS) {
    const lines = frameOf(station, columns, rows).overlay?.lines ?? [];
    heights.add(lines.length);
    const text = lines.map((each) => plainText(each).slice(2, -1).trimEnd()).join('\n');
    for (const form of formsOf(action, station)) expect(text).toContain(wrap(form, columns - 6).join('\n'));
    station.key('down', '');
  }
  expect(heights.size).toBe(1);
});

test('help gives way to the forms where there is little room', () => {
  const choices = [
    { label: 'one', detail: 'word '.repeat(40).trim(), forms: ['REPL: await vm.one()'], run: () => {} },
    { label: 'two', disabled: 'there is none', run: () => {} },
  ];
  const picker = new Picker({ title: '', prompt: '', choices: () => choices, close: () => {} });
  const below = () => picker.view(40, 9).lines.slice(-3).map(plainText);
  expect(below()[1]).toMatch(/…$/);
  expect(below()[2]).toBe('REPL: await vm.one()');
  picker.key('down', '');
  expect(below()).toEqual(['not now: there is none', '', '']);
});

test('a word that is longer than a line goes on in the next', () => {
  expect(wrap(`a ${'b'.repeat(7)} c`, 5)).toEqual(['a', 'bbbbb', 'bb c']);
  expect(wrap('漢字漢', 5)).toEqual(['漢字', '漢']);
});

test('the cursor is one cell', () => {
  const station = scriptedStation();
  onTestFinished(() => station.model.close());
  station.key(':', ':');
  for (const key of ['1', '2', '0']) station.key(key, key);
  const typed = frameOf(station, 120, 40).overlay?.lines[1] ?? [];
  expect(plainText(typed.filter(({ style }) => style === 'selected'))).toBe(' ');
});
