/** What is typed where there is little room, and texts to look through. */
import { describe, expect, onTestFinished, test } from 'vitest';
import { frameOf } from '../../../src/tui/frame.ts';
import { Form } from '../../../src/tui/overlays/form.ts';
import { endOf } from '../../../src/tui/overlays/overlay.ts';
import { Viewer } from '../../../src/tui/overlays/viewer.ts';
import { clipStart, lineWidth, plainText } from '../../../src/tui/style.ts';
import { scriptedStation } from '../../support/scripted_station.ts';

const LONG = `${'x'.repeat(300)}the end`;

describe('the end of what is typed is seen', () => {
  function open() {
    const station = scriptedStation();
    onTestFinished(() => station.model.close());
    return station;
  }

  test('of any text', () => {
    expect(endOf('short', 5)).toBe('short');
    expect(endOf('longer', 5)).toBe('…nger');
    expect(endOf('漢字漢字', 6)).toBe('…漢字');
    const started = performance.now();
    endOf('y'.repeat(1_000_000), 80);
    expect(performance.now() - started).toBeLessThan(2000);
  });

  test('in a list that narrows', () => {
    const station = open();
    station.key(':', ':');
    station.paste(LONG);
    const typed = frameOf(station, 80, 24).overlay?.lines[1] ?? [];
    expect(plainText(typed)).toMatch(/^│ :…x+the end +│$/);
  });

  test('in the line of a filter, with its cursor', () => {
    const station = open();
    station.focusOn('events');
    station.key('/', '/');
    station.paste(LONG);
    const { footer } = frameOf(station, 80, 24);
    expect(plainText(footer)).toMatch(/^ \/…x+the end …$/);
    expect(footer.at(-2)).toEqual({ text: ' ', style: 'selected' });
    expect(lineWidth(footer)).toBe(80);
  });

  test('in the filter of a text', async () => {
    const viewer = new Viewer(
      'text',
      async () => LONG,
      () => {},
      () => {},
    );
    viewer.key('/', '/');
    viewer.paste(LONG);
    expect(plainText(viewer.view(40, 10).lines.at(-1) ?? [])).toMatch(/^\/…x+the end$/);
  });
});

describe('a text to look through', () => {
  async function open(text: string) {
    let closed = 0;
    const viewer = new Viewer(
      'text',
      async () => text,
      () => {},
      () => {
        closed++;
      },
    );
    await new Promise((resolve) => setImmediate(resolve));
    const keys = (...names: string[]) => {
      for (const name of names) viewer.key(name, name.length === 1 ? name : '');
    };
    const rows = (width = 40) => viewer.view(width, 10).lines.map(plainText);
    return { viewer, keys, rows, closed: () => closed };
  }

  test('moves to the right as far as there is something', async () => {
    const { keys, rows } = await open(`${'a'.repeat(50)}b\nshort`);
    keys(...Array<string>(100).fill('right'));
    expect(rows()).toEqual([`${'a'.repeat(39)}b`, '']);
    keys('left');
    expect(rows()[0]).toHaveLength(48);
    const { keys: pressed, rows: shown } = await open('short');
    pressed('right', 'right');
    expect(shown()).toEqual(['short']);
  });

  test('moves by cells, and shows control characters as pictures', async () => {
    expect(clipStart('漢字ab', 3)).toBe(' ab');
    expect(clipStart('漢字ab', 4)).toBe('ab');
    expect(clipStart('e\u0301x', 1)).toBe('x');
    expect(clipStart('ab', 5)).toBe('');
    const { keys, rows } = await open(`${'漢'.repeat(30)}\n\x1b[2J\tx\r`);
    expect(rows()[1]).toBe('␛[2J␉x␍');
    keys(...Array<string>(10).fill('right'));
    expect(rows()[0]).toBe('漢'.repeat(20));
  });

  test('takes what is pasted into its filter', async () => {
    const { viewer, keys, rows } = await open('one\ntwo\nthree');
    viewer.paste('two');
    expect(rows()).toHaveLength(3);
    keys('/');
    viewer.paste('two');
    keys('enter');
    expect(rows()).toEqual(['two']);
  });

  test('that was asked for again is the newer answer', async () => {
    const answers: ((text: string) => void)[] = [];
    const viewer = new Viewer(
      'text',
      () => new Promise((resolve) => answers.push(resolve)),
      () => {},
      () => {},
    );
    viewer.key('r', 'r');
    answers[1]('new');
    answers[0]('old');
    await new Promise((resolve) => setImmediate(resolve));
    expect(viewer.view(40, 10).lines.map(plainText)).toEqual(['new']);
  });
});

test.each([
  ['yes', true],
  ['On', true],
  ['false', false],
  ['maybe', 'maybe'],
])('%j in a field of yes and no is %j', (typed, value) => {
  const checked: unknown[] = [];
  const form = new Form({
    ...{ title: 'plug', tell: () => [], submit: async () => {}, close: () => {}, changed: () => {} },
    fields: [{ name: 'readonly', type: 'boolean', description: '', required: false }],
    check: (values) => checked.push(values.readonly),
  });
  for (const letter of typed) form.key(letter, letter);
  form.view(80, 20);
  expect(checked.at(-1)).toBe(value);
});
