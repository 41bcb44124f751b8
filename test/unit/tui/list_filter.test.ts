/** Filters of lists: what they look at, and what is chosen with them and afterwards. */
import { expect, onTestFinished, test } from 'vitest';
import { frameOf } from '../../../src/tui/frame.ts';
import type { PaneName } from '../../../src/tui/layout.ts';
import { scriptedStation } from '../../support/scripted_station.ts';

async function open(pane: PaneName) {
  const station = scriptedStation();
  onTestFinished(() => station.model.close());
  await station.model.refresh();
  const draw = () => frameOf(station, 80, 24);
  station.focusOn(pane);
  draw();
  const keys = (...names: string[]) => {
    for (const name of names) {
      station.key(name, name.length === 1 ? name : '');
      draw();
    }
  };
  return { station, draw, keys, list: station.lists[pane] };
}

const rowsOf = (draw: () => ReturnType<typeof frameOf>, pane: PaneName) =>
  (draw().rows[pane] ?? []).filter((key) => key !== undefined);

test('a filter looks at what the pane has no room for, too', async () => {
  const pci = await open('pci');
  pci.list.filter = 'MSI-X 3/4';
  expect(rowsOf(pci.draw, 'pci')).toEqual(['net0']);
  pci.list.filter = '0x7000004000';
  expect(rowsOf(pci.draw, 'pci')).toEqual(['balloon0']);
  const vcpus = await open('vcpus');
  vcpus.list.filter = 'tid 4202';
  expect(rowsOf(vcpus.draw, 'vcpus')).toEqual(['cpu2']);
  const memory = await open('memory');
  memory.list.filter = '17 flushes';
  expect(rowsOf(memory.draw, 'memory')).toEqual(['nvdimm0']);
});

test('a filter that is dropped while it is typed leaves chosen what was', async () => {
  const { station, keys, list } = await open('pci');
  list.choose('sw0');
  keys('/', 'z');
  expect(station.chosen).toBeUndefined();
  keys('esc');
  expect(station.chosen).toBe('sw0');
  keys('/', 'n', 'e', 't');
  expect(station.chosen).toBe('net0');
  keys('x', 'backspace', 'backspace', 'backspace', 'backspace');
  expect(station.chosen).toBe('sw0');
  keys('n', 'e', 't', 'esc');
  expect(station.chosen).toBe('sw0');
  keys('/', 'n', 'e', 't', 'enter', 'esc');
  expect(station.chosen).toBe('net0');
});

test('the event that a filter found stays chosen without it, and what comes is followed only from the end', async () => {
  const { station, draw, keys } = await open('events');
  for (const text of ['one', 'panic', 'three']) station.model.say('guest', text);
  const chosen = () => station.model.events[Number(station.chosen)]?.text;
  draw();
  expect(chosen()).toBe('three');
  keys('/', 'p', 'a', 'n', 'i', 'c', 'enter');
  expect(chosen()).toBe('panic');
  station.model.say('guest', 'panic again');
  draw();
  expect(chosen()).toBe('panic again');
  keys('up', 'esc');
  expect(chosen()).toBe('panic');
  keys('end', '/', 'p', 'a', 'n', 'i', 'c', 'enter', 'up', 'end', 'esc');
  expect(chosen()).toBe('panic again');
  keys('end', '/', 'o', 'n', 'e', 'enter', 'esc');
  expect(chosen()).toBe('one');
  station.model.say('guest', 'last');
  draw();
  expect(chosen()).toBe('one');
  keys('end', '/', 'o', 'n', 'e');
  expect(chosen()).toBe('one');
  keys('esc');
  station.model.say('guest', 'the very last');
  draw();
  expect(chosen()).toBe('the very last');
});
