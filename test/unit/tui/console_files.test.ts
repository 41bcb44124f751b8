/** Consoles of the workstation with the times of their lines, and in files. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test, vi } from 'vitest';
import { parseCast } from '../../../src/console/asciicast.ts';
import { frameOf } from '../../../src/tui/frame.ts';
import { plainText } from '../../../src/tui/style.ts';
import { TerminalPane } from '../../../src/tui/terminal_pane.ts';
import { scriptedStation } from '../../support/scripted_station.ts';

function open() {
  const folder = mkdtempSync(join(tmpdir(), 'nemu-files-'));
  const pane = new TerminalPane({ name: 'com1', send: () => {}, changed: () => {} });
  const station = scriptedStation({ consoles: [pane], exports: folder });
  onTestFinished(() => {
    station.files.close();
    station.model.close();
    pane.close();
    rmSync(folder, { recursive: true });
  });
  const shown = () =>
    frameOf(station, 120, 40)
      .columns.flat()
      .flatMap(({ lines }) => lines.map(plainText));
  const print = async (text: string) => {
    pane.write(Buffer.from(text));
    await new Promise<void>((resolve) => pane.terminal.write('', resolve));
  };
  const file = (end: string) => {
    const name = readdirSync(folder).find((each) => each.endsWith(end));
    return readFileSync(join(folder, name as string), 'utf8');
  };
  return { station, pane, shown, print, file };
}

test('lines have the time when they were begun, and the guest a terminal without that room', async () => {
  const { station, pane, shown, print } = open();
  shown();
  const { cols } = pane.terminal;
  vi.useFakeTimers({ toFake: ['Date'] });
  onTestFinished(() => void vi.useRealTimers());
  const at = (second: number) => vi.setSystemTime(new Date(2026, 0, 2, 15, 4, second, 7));
  at(1);
  await print('one\r\n');
  at(2);
  await print('two\r\nprompt> ');
  at(3);
  await print('typed');
  at(4);
  await print('\r\nfour\r\n');
  expect(shown().join('\n')).not.toContain('15:04:');
  station.key('t', 't');
  const rows = shown()
    .map((row) => /│(15:04:\d\d\.007 \S*.*?)\s*│/.exec(row)?.[1].trimEnd())
    .filter((row) => row !== undefined);
  expect(rows).toEqual([
    ...['15:04:01.007 one', '15:04:02.007 two', '15:04:02.007 prompt> typed', '15:04:04.007 four', '15:04:04.007'],
  ]);
  expect(pane.terminal.cols).toBe(cols - 13);
  station.key('t', 't');
  shown();
  expect(pane.terminal.cols).toBe(cols);
});

test('a log has what comes from now on, a recording begins with the screen', async () => {
  const { station, print, shown, file } = open();
  await print('before\r\n');
  station.key('f', 'f');
  station.key('r', 'r');
  await vi.waitFor(() => expect(station.notice?.text).toContain('com1 goes to'));
  expect(shown().find((row) => row.includes('console com1'))).toContain('com1 · log · recording ');
  await print('after\r\n');
  station.key('f', 'f');
  station.key('r', 'r');
  await vi.waitFor(() => expect(station.notice?.text).toContain('nemu play shows it'));
  await print('later\r\n');
  expect(file('.log')).toBe('after\r\n');
  const { events } = parseCast(file('.cast'), 'it');
  const text = events.map((event) => event.text).join('');
  expect(text).toMatch(/before[\s\S]*after/);
  expect(text).not.toContain('later');
});

test('a folder that cannot be written is told', async () => {
  const { station } = open();
  const elsewhere = scriptedStation();
  onTestFinished(() => elsewhere.model.close());
  elsewhere.key('f', 'f');
  await vi.waitFor(() => expect(elsewhere.notice?.text).toContain('ENOENT'));
  expect(elsewhere.files.of(elsewhere.consoles[0])).toEqual([]);
  expect(station.notice).toBeUndefined();
});
