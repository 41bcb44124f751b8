/** A console on which nothing was printed yet. */
import { expect, onTestFinished, test } from 'vitest';
import { frameOf } from '../../../src/tui/frame.ts';
import { plainText } from '../../../src/tui/style.ts';
import { TerminalPane } from '../../../src/tui/terminal_pane.ts';
import { scriptedStation } from '../../support/scripted_station.ts';

test('it says that it waits, until the first byte', () => {
  const pane = new TerminalPane({ name: 'com1', send: () => {}, changed: () => {} });
  const station = scriptedStation({ consoles: [pane] });
  onTestFinished(() => {
    station.model.close();
    pane.close();
  });
  const screen = () =>
    frameOf(station, 120, 40)
      .columns.flat()
      .flatMap(({ lines }) => lines.map(plainText))
      .join('\n');
  expect(screen()).toMatch(/│ {2}com1 has printed nothing yet \(\d+ s\)\. +│/);
  pane.write(Buffer.from('Linux'));
  expect(screen()).not.toContain('printed nothing');
});
