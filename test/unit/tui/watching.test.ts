/** A console that somebody else drives. */
import { expect, onTestFinished, test } from 'vitest';
import { TAKE_OVER } from '../../../src/tui/actions/looking.ts';
import { frameOf } from '../../../src/tui/frame.ts';
import { plainText } from '../../../src/tui/style.ts';
import { TerminalPane } from '../../../src/tui/terminal_pane.ts';
import { scriptedStation } from '../../support/scripted_station.ts';

function open(readonly = false) {
  let drives = false;
  let typedInto: TerminalPane | undefined;
  const pane = new TerminalPane({
    ...{ name: 'com1', send: () => {}, changed: () => {} },
    drives: () => drives,
    takeOver: () => {
      drives = true;
    },
  });
  const station = scriptedStation({
    ...{ consoles: [pane], readonly },
    host: {
      typing: (into) => {
        typedInto = into;
      },
    },
  });
  onTestFinished(() => {
    station.model.close();
    pane.close();
  });
  const title = () => {
    const boxes = frameOf(station, 120, 40).columns.flat();
    return boxes.map(({ lines }) => plainText(lines[0])).find((text) => text.includes('console'));
  };
  return {
    ...{ station, pane, title },
    lose: () => {
      drives = false;
    },
    typedInto: () => typedInto,
  };
}

test('it says so, and takes no keys until it is taken over', () => {
  const { station, pane, title, typedInto } = open();
  expect(title()).toContain(' console com1 · watching · O takes over ');
  station.key('i', 'i');
  expect(typedInto()).toBeUndefined();
  expect(station.notice?.text).toContain('somebody else drives it');
  station.key('O', 'O');
  expect(title()).toContain(' console com1 ─');
  expect(station.whyNot(TAKE_OVER)).toBe('you drive it already');
  station.key('i', 'i');
  expect(typedInto()).toBe(pane);
});

test('who loses it while typing is told that keys go nowhere', () => {
  const { station, title, lose } = open();
  station.key('O', 'O');
  station.key('i', 'i');
  expect(title()).toContain('typing, Ctrl-] leaves');
  lose();
  expect(title()).toContain('watching: keys go nowhere · Ctrl-] leaves');
});

test('a read-only workstation watches, and nothing else', () => {
  const { station, title } = open(true);
  expect(title()).toContain(' console com1 · watching ─');
  expect(station.whyNot(TAKE_OVER)).toBe('the workstation is read-only');
});
