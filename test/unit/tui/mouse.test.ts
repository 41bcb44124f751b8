/** What presses of the mouse do, by what is under it. */
import { describe, expect, onTestFinished, test } from 'vitest';
import { frameOf } from '../../../src/tui/frame.ts';
import { mouse } from '../../../src/tui/mouse.ts';
import { plainText } from '../../../src/tui/style.ts';
import { tabsWithin } from '../../../src/tui/tabs.ts';
import { TerminalPane } from '../../../src/tui/terminal_pane.ts';
import { ScriptedMachine } from '../../support/scripted_machine.ts';
import { scriptedStation } from '../../support/scripted_station.ts';

const [COLUMNS, ROWS] = [80, 24];
const consoles = (count: number) =>
  Array.from(
    { length: count },
    (_, index) => new TerminalPane({ name: `hvc${index}`, send: () => {}, changed: () => {} }),
  );

async function open(options: Parameters<typeof scriptedStation>[0] = {}) {
  let now = 0;
  const clock = { monotonic: () => now, wall: () => now, after: () => () => {} };
  const station = scriptedStation({ clock, ...options });
  onTestFinished(() => {
    station.model.close();
    for (const pane of [...station.consoles, station.repl]) pane.close();
  });
  await station.model.refresh();
  const frame = () => frameOf(station, COLUMNS, ROWS);
  const rows = () => {
    const { header, columns, footer, overlay } = frame();
    const cells = Array.from({ length: ROWS - 1 }, () => Array<string>(COLUMNS).fill(' '));
    const put = (text: string, row: number, left: number) => cells[row].splice(left, text.length, ...text);
    put(plainText(header), 0, 0);
    put(plainText(footer), ROWS - 2, 0);
    for (const { rect, lines } of [...columns.flat(), ...(overlay ? [overlay] : [])])
      for (const [index, line] of lines.entries()) put(plainText(line), rect.top + index, rect.left);
    return cells.map((row) => row.join(''));
  };
  const at = (column: number, row: number) => mouse(station, frame(), { kind: 'press', column, row });
  /** Presses the last place where a text stands. */
  const press = (text: string) => {
    const row = rows().findLastIndex((each) => each.includes(text));
    expect(row, text).toBeGreaterThanOrEqual(0);
    at(rows()[row].lastIndexOf(text), row);
  };
  return {
    ...{ station, frame, rows, at, press },
    pass: (ms: number) => {
      now += ms;
    },
  };
}

describe('in what stands in front', () => {
  test('a row of a list is chosen, and done when it is pressed again, wherever the list was', async () => {
    const { station, press } = await open();
    station.key(':', ':');
    for (let i = 0; i < 30; i++) station.key('down', '');
    press('log to a file');
    expect(station.overlay).toBeDefined();
    station.key('home', '');
    for (let i = 0; i < 50; i++) station.key('down', '');
    press('theme  ');
    expect(station.theme.name).toBe('dark');
    press('theme  ');
    expect(station).toMatchObject({ overlay: undefined, theme: { name: 'light' } });
  });

  test('a question is answered, and Esc too', async () => {
    const { station, press } = await open();
    let resets = 0;
    (station.vm as { reset: unknown }).reset = async () => void resets++;
    station.key('X', 'X');
    press('What the guest has not');
    press('not now');
    expect(station.overlay).toBeUndefined();
    expect(resets).toBe(0);
    station.key('X', 'X');
    press(' y ');
    expect(resets).toBe(1);
  });

  test('a field of a form is chosen', async () => {
    const { station, press, rows } = await open();
    station.key('a', 'a');
    for (const key of 'memory') station.key(key, key);
    station.key('enter', '');
    press('address');
    station.key('7', '7');
    expect(rows().find((row) => row.includes('address '))).toMatch(/address +7/);
  });

  test('what has not been seen yet is not pressed', async () => {
    const { station, frame, rows } = await open();
    let pauses = 0;
    (station.vm as { pause: unknown }).pause = async () => void pauses++;
    station.key(':', ':');
    const seen = frame();
    const press = { kind: 'press', column: 20, row: rows().findIndex((row) => row.includes('pause or')) } as const;
    station.key('esc', '');
    station.key('X', 'X');
    mouse(station, seen, press);
    mouse(station, seen, { ...press, row: ROWS - 2 });
    expect(station.overlay?.view(80, 20).title).toBe('Sure?');
    expect(pauses).toBe(0);
  });

  test('a press outside is Esc', async () => {
    const { station, at } = await open();
    for (const key of [':', '?', 'K', 'a']) {
      station.key(key, key);
      at(40, 10);
      expect(station.overlay, key).toBeDefined();
      at(40, ROWS - 2);
      expect(station.overlay, key).toBeUndefined();
    }
  });
});

test('a press lets what was told go, and it goes by itself', async () => {
  const { station, rows, at, press, pass } = await open();
  station.say('something has happened');
  expect(rows().at(-1)).toContain('something has happened');
  at(5, 2);
  expect(rows().at(-1)).toContain('? help');
  station.say('something has happened');
  pass(8000);
  expect(rows().at(-1)).toContain('something has happened');
  pass(1);
  expect(station.notice).toBeUndefined();
  press('? help');
  expect(station.overlay).toBeDefined();
});

test('buttons are in the row of the footer, and not below it', async () => {
  const { station, rows, at } = await open();
  const column = rows().at(-1)?.indexOf('help') ?? 0;
  at(column, ROWS - 1);
  expect(station.overlay).toBeUndefined();
  at(column, ROWS - 2);
  expect(station.overlay).toBeDefined();
});

test('a console is shown by its name, and who types into another one comes back', async () => {
  const { station, press, rows } = await open({ consoles: consoles(3), machine: new ScriptedMachine({ busy: true }) });
  station.key('enter', '');
  expect(station.typingInto?.name).toBe('hvc0');
  press('hvc2');
  expect(station).toMatchObject({ console: 2, typingInto: undefined, focus: 'console' });
  expect(rows()[1]).toContain('console hvc0 hvc1 [hvc2] ');
});

test('of many consoles those around the one that is shown have names', async () => {
  const { station, press, rows } = await open({ consoles: consoles(12) });
  station.console = 11;
  expect(rows()[1]).toMatch(/console … hvc[0-9] .*\[hvc11\] ─/);
  press('hvc9');
  expect(station.console).toBe(9);
  station.console = 5;
  expect(rows()[1]).toMatch(/console … hvc\d .*\[hvc5\] .* … ─/);
  station.key('enter', '');
  expect(rows()[1]).toMatch(/… hvc4 \[hvc5\] hvc6 .*… · typing ─/);
  expect(tabsWithin(['a', 'b', 'c'], 1, 5)).toEqual({
    text: '… [b] …',
    tabs: [{ console: 1, from: 2, to: 5 }],
  });
});

test('a press elsewhere ends the typing of a filter, and keeps it', async () => {
  const { station, at } = await open();
  station.key('/', '/');
  for (const key of 'text') station.key(key, key);
  at(5, 2);
  expect(station).toMatchObject({ filtering: undefined, focus: 'vcpus' });
  expect(station.filterOf('console')).toBe('text');
  station.key('enter', '');
  expect(station.notice).toBeUndefined();
});

test('a search is for what was typed in its pane', async () => {
  const { station } = await open();
  station.key('/', '/');
  station.key('x', 'x');
  station.focusOn('vcpus');
  station.key('enter', '');
  expect(station.notice?.text).toBe('"x" is not there.');
});
