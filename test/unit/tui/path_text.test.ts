/** Where files went, as it is told. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { frameOf } from '../../../src/tui/frame.ts';
import { fromHome, withShortPath } from '../../../src/tui/path_text.ts';
import { plainText } from '../../../src/tui/style.ts';
import { scriptedStation } from '../../support/scripted_station.ts';

async function open() {
  const folder = mkdtempSync(join(tmpdir(), 'nemu-a-folder-with-a-long-name-'));
  const station = scriptedStation({ exports: folder });
  onTestFinished(() => {
    station.files.close();
    station.model.close();
    rmSync(folder, { recursive: true });
  });
  await station.model.refresh();
  const told = async (text: string) => {
    await expect.poll(() => station.notice?.text).toContain(text);
    return plainText(frameOf(station, 80, 24).footer).trim();
  };
  return { station, folder, told };
}

test('a path is cut in its middle, and keeps its name', () => {
  expect(fromHome('/home/me/a/b.log', '/home/me')).toBe('~/a/b.log');
  expect(fromHome('/home/mean/b.log', '/home/me')).toBe('/home/mean/b.log');
  expect(fromHome('/a/b.log', '/')).toBe('/a/b.log');
  expect(withShortPath('it is in /one/two/three/name.log.', 99)).toBe('it is in /one/two/three/name.log.');
  expect(withShortPath('it is in /one/two/three/name.log now', 30)).toBe('it is in /one/tw…/name.log now');
  expect(withShortPath('it is in /one/two/three/name.log now', 10)).toBe('it is in …/name.log now');
  expect(withShortPath('nothing to cut', 5)).toBe('nothing to cut');
});

test('a log and a recording tell where they are, whole in the timeline', async () => {
  const { station, folder, told } = await open();
  station.key('f', 'f');
  expect(await told('goes to')).toMatch(/^log to a file: com1 goes to .*…\/work-com1-[-\dTZ.]+\.log$/);
  expect(station.model.events.at(-1)?.text).toMatch(`log to a file: com1 goes to ${folder}/work-com1-`);
  station.key('r', 'r');
  expect(await told('record:')).toMatch(/^record: com1 goes to .*…\/work-com1-[-\dTZ.]+\.cast$/);
});

test('events are exported as the filter shows them, and so many of how many is said', async () => {
  const { station, folder, told } = await open();
  for (const text of ['one', 'two', 'another one']) station.model.say('guest', text);
  station.focusOn('events');
  for (const key of ['/', 'o', 'n', 'e', 'enter', 'e']) station.key(key, key);
  const footer = await told('of 3');
  expect(footer).toMatch(/^export the events: 2 of 3 are in .*…\/events-[-\dTZ.]+\.jsonl$/);
  const name = footer.slice(footer.lastIndexOf('/') + 1);
  const texts = readFileSync(join(folder, name), 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line).text);
  expect(texts).toEqual(['one', 'another one']);
});
