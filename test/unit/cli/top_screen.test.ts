/** The list of `nemu top`: what is on its screen, and what keys do. */
import { describe, expect, test } from 'vitest';
import { columnNamed, type Load, loadTable, sortLoads } from '../../../src/cli/machines/loads.ts';
import { TopScreen } from '../../../src/cli/machines/top_screen.ts';
import { lineWidth, paint, plainText, themeNamed } from '../../../src/tui/style.ts';

const load = (name: string, more: Partial<Load> = {}): Load => ({
  ...{ name, state: 'running', age: 3 * 3600e3, vcpus: 2, memory: 2 ** 30, resident: 300 * 2 ** 20 },
  ...{ processors: 0.5, exits: 1000, read: 0, written: 4096, received: 0, sent: 0 },
  ...more,
});
const unknown = { resident: undefined, processors: undefined, exits: undefined } as unknown as Partial<Load>;
const many = (count: number) =>
  Array.from({ length: count }, (_, index) => load(`vm${String(index + 1).padStart(2, '0')}`));

interface Looked {
  readonly columns?: number;
  readonly rows?: number;
  readonly unicode?: boolean;
}

/** A screen of this size, whose lines are looked at as text. */
function screenOf(loads: readonly Load[], { columns = 120, rows = 24, unicode = true }: Looked = {}) {
  const screen = new TopScreen({ unicode });
  const lines = (width = columns, height = rows) =>
    screen.frame(width, height).map((each) => plainText(each).trimEnd());
  lines();
  screen.take(loads);
  return {
    screen,
    lines,
    names: () =>
      lines()
        .slice(1, -2)
        .flatMap((each) => each.split(' ')[0] || []),
    press: (...keys: string[]) => keys.map((key) => screen.key(key, key.length === 1 ? key : '')).at(-1),
  };
}
const typed = (text: string) => ['/', ...text];

describe('columns', () => {
  const ALL = 'name state age vCPUs CPU% exits/s resident memory read/s written/s received/s sent/s';
  const heads = (text: string) => text.replace('CPU %', 'CPU%').replace(/[▲▼^]/, '').trim().split(/\s+/).join(' ');

  test.each([
    [200, ALL, ''],
    [120, 'name state vCPUs CPU% exits/s resident memory read/s written/s received/s sent/s', 'age'],
    [80, 'name state CPU% exits/s resident read/s written/s', 'received/s, sent/s, vCPUs, memory, age'],
    [40, 'name state CPU%', 'exits/s, resident, …'],
    [20, 'name', '…'],
  ])('%d cells have whole columns, and the footer names the others', (columns, shown, hidden) => {
    const { lines } = screenOf([load('web-server-01'), load('db')], { columns });
    expect(heads(lines()[0])).toBe(shown);
    const status = lines().at(-2) as string;
    if (hidden === '') expect(status).toBe('1/2');
    else expect(status).toBe(`1/2 · hidden: ${hidden}`);
  });

  test('every frame has the size of the terminal', () => {
    const loads = [load('web'), load(`long-${'x'.repeat(58)}`, { state: 'no answer', ...unknown })];
    const { screen, press } = screenOf(loads);
    for (const keys of [[], ['?'], ['x', '/', 'w', '('], ['esc', 'K'], ['n', 's']]) {
      press(...keys);
      for (let columns = 1; columns < 160; columns += 13) {
        for (let rows = 1; rows < 30; rows += 4) {
          const frame = screen.frame(columns, rows);
          expect(frame).toHaveLength(rows);
          for (const each of frame) expect(lineWidth(each)).toBe(columns);
        }
      }
    }
  });

  test('a name that is too long is shortened, and has what room there is', () => {
    const name = `long-${'x'.repeat(50)}`;
    const { lines } = screenOf([load(name), load('a')]);
    expect(lines(80)[2]).toMatch(/^long-x{26}… {2}running /);
    expect(lines(200)[2]).toMatch(new RegExp(`^${name}  running `));
    expect(lines(32)[2]).toMatch(/^long-x{15}… {2}running$/);
    expect(lines(30)[2]).toMatch(/^long-x{24}…$/);
    expect(screenOf([load(name)], { columns: 30, unicode: false }).lines()[1]).toMatch(/^long-x{24}~$/);
  });

  test('a number that changes moves no column', () => {
    const [few, more] = [load('a', { exits: 1, read: 1 }), load('a', { exits: 99999, read: 1000 * 2 ** 20 })];
    const [one, other] = [few, more].map((each) => screenOf([each]).lines()[0]);
    expect(other).toBe(one);
  });

  test('what is too small says so, and has no key but that which leaves', () => {
    const { lines, press } = screenOf([load('web')]);
    expect(lines(80, 2)).toEqual(['Too small; q leaves.', '']);
    expect(lines(12, 24)[0]).toBe('Too small; …');
    expect(press('K', 'y')).toBeUndefined();
    expect(press('q')).toEqual({ kind: 'leave' });
    expect(lines(20, 3)).toEqual(['name▲  state', 'web    running', '1/1 · hidden: …']);
  });
});

describe('the cursor', () => {
  test('moves, and the list with it', () => {
    const { screen, lines, names, press } = screenOf(many(30), { rows: 13 });
    expect(names()).toEqual(many(10).map(({ name }) => name));
    press('down', 'j');
    expect(screen.selected).toBe('vm03');
    press('up', 'k', 'k');
    expect(screen.selected).toBe('vm01');
    press('pagedown');
    expect(screen.selected).toBe('vm11');
    expect(names()[0]).toBe('vm02');
    expect(lines().at(-2)).toMatch(/^11\/30/);
    press('end');
    expect(screen.selected).toBe('vm30');
    expect(names()).toHaveLength(10);
    press('pageup');
    expect(screen.selected).toBe('vm20');
    press('g', 'G', 'home');
    expect(screen.selected).toBe('vm01');
    expect(names()[0]).toBe('vm01');
    press('G');
    // A terminal that becomes smaller keeps it in sight.
    expect(lines(120, 6).some((each) => each.startsWith('vm30'))).toBe(true);
  });

  test('is drawn on its row, and on no other', () => {
    const { screen, press } = screenOf(many(3));
    press('down');
    const painted = screen.frame(120, 24).map((each) => paint(each, themeNamed('plain')));
    expect(painted.map((each) => each.includes('\x1b[7m')).indexOf(true)).toBe(2);
    expect(painted.filter((each) => each.includes('\x1b[7m'))).toHaveLength(1);
    // Not a colour, as NO_COLOR asks.
    // biome-ignore lint/suspicious/noControlCharactersInRegex: SGR sequences
    for (const each of painted) expect(each).not.toMatch(/\x1b\[[\d;]*[349]\d/);
  });

  test('stays with its machine when the order changes, and others come and go', () => {
    const { screen, press } = screenOf([load('b'), load('d'), load('f')]);
    press('down');
    expect(screen.selected).toBe('d');
    screen.take([load('a'), load('b'), load('c'), load('d', { processors: 4 }), load('f')]);
    expect(screen.selected).toBe('d');
    press('>', '>', 'r');
    expect(screen.selected).toBe('d');
    screen.take([load('d')]);
    expect(screen.selected).toBe('d');
  });

  test('goes to the machine behind one that has gone, or to the one before', () => {
    const { screen, press } = screenOf([load('a'), load('b'), load('c')]);
    press('down');
    screen.take([load('a'), load('c')]);
    expect(screen.selected).toBe('c');
    screen.take([load('a')]);
    expect(screen.selected).toBe('a');
    screen.take([]);
    expect(screen.selected).toBeUndefined();
    expect(press('enter')).toBeUndefined();
    screen.take([load('z')]);
    expect(screen.selected).toBe('z');
  });
});

describe('sorting', () => {
  const loads = [
    load('a', { processors: 0.5, exits: 5 }),
    load('b', { state: 'no answer', ...unknown }),
    load('c', { processors: 2, exits: 5 }),
  ];

  test('is by name at first; < and > go through the columns that are shown', () => {
    const { lines, names, press } = screenOf(loads, { columns: 80 });
    expect(lines()[0]).toMatch(/^name▲ /);
    press('>', '>');
    expect(lines()[0]).toMatch(/ ▼CPU % /);
    // What is not known is last, whichever way round.
    expect(names()).toEqual(['c', 'a', 'b']);
    press('r');
    expect(lines()[0]).toMatch(/ ▲CPU % /);
    expect(names()).toEqual(['a', 'c', 'b']);
    press('right');
    expect(lines()[0]).toMatch(/ ▼exits\/s /);
    expect(names()).toEqual(['a', 'c', 'b']);
    press('<', 'left', 'left', 'left');
    expect(lines()[0]).toMatch(/▼received\/s$/);
    press('>');
    expect(lines()[0]).toMatch(/^name▲ /);
    press('r');
    expect(names()).toEqual(['c', 'b', 'a']);
  });

  test('a terminal without Unicode has other marks', () => {
    const { lines, press } = screenOf(loads, { unicode: false, columns: 40 });
    expect(lines()[0]).toMatch(/^name\^ /);
    press('>', '>');
    expect(lines()[0]).toMatch(/ vCPU %/);
    // biome-ignore lint/suspicious/noControlCharactersInRegex: ASCII
    const ascii = /^[\x00-\x7f]*$/;
    expect(lines().join('\n')).toMatch(ascii);
    press('?');
    expect(lines().join('\n')).toMatch(ascii);
  });

  test('by a column that is hidden is told', () => {
    const screen = new TopScreen({ unicode: true, order: { column: columnNamed('sent'), reversed: false } });
    screen.take(loads);
    expect(plainText(screen.frame(60, 10).at(-2) ?? [])).toMatch(/^1\/3 · by sent\/s · hidden: /);
    screen.key('>');
    expect(plainText(screen.frame(60, 10)[0])).toMatch(/^name▲/);
  });

  test('columns are known by their heads, and short', () => {
    for (const [given, head] of [
      ['cpu', 'CPU %'],
      ['CPU %', 'CPU %'],
      ['vcpus', 'vCPUs'],
      ['exits/s', 'exits/s'],
      ['Read', 'read/s'],
      ['age', 'age'],
    ]) {
      expect(columnNamed(given).head).toBe(head);
    }
    expect(() => columnNamed('recieved')).toThrow(expect.objectContaining({ hint: 'Did you mean received?' }));
    expect(sortLoads(loads, { column: columnNamed('cpu'), reversed: false }).map(({ name }) => name)).toEqual([
      ...['c', 'a', 'b'],
    ]);
    expect(loadTable(loads).split('\n')[2]).toMatch(/^b +no answer +3 h +2 +- +- +- /);
  });
});

describe('the filter', () => {
  const loads = [load('web-1'), load('db'), load('web-2')];

  test('is typed, and chooses names', () => {
    const { screen, lines, names, press } = screenOf(loads);
    press('down', ...typed('web'));
    expect(lines().at(-1)).toBe('/web');
    expect(names()).toEqual(['web-1', 'web-2']);
    press('down', 'enter');
    expect(screen.selected).toBe('web-2');
    expect(lines().at(-2)).toBe('2/2 · filter web: 2 of 3');
    // Keys mean what they did before.
    expect(press('c')).toEqual({ kind: 'console', name: 'web-2' });
    press('esc');
    expect(names()).toHaveLength(3);
    expect(screen.selected).toBe('web-2');
  });

  test('is a regular expression, or a text; behind ! it is the others', () => {
    const { names, press } = screenOf([...loads, load('x.y')]);
    press(...typed('^(db|x)'), 'enter');
    expect(names()).toEqual(['db', 'x.y']);
    press('esc', ...typed('!web'), 'enter');
    expect(names()).toEqual(['db', 'x.y']);
    press('esc', ...typed('(web'));
    expect(names()).toEqual(['No']);
    press('backspace', 'backspace', 'backspace', 'backspace', 'backspace');
    expect(names()).toHaveLength(4);
    // It was empty: the keys are the list's again.
    expect(press('q')).toEqual({ kind: 'leave' });
  });

  test('that nothing passes says so, and no key is for a machine', () => {
    const { lines, press } = screenOf(loads);
    press(...typed('nope'), 'enter');
    expect(lines()[1]).toBe('No name passes the filter nope; Esc shows all.');
    expect(press('enter')).toBeUndefined();
    expect(press('K', 'y')).toBeUndefined();
  });

  test('letters that are typed are no keys', () => {
    const { names, press } = screenOf(loads);
    expect(press('/', 'q')).toBeUndefined();
    expect(press('K', 's', 'r')).toBeUndefined();
    expect(names()).toEqual(['No']);
    expect(press('ctrl-c')).toEqual({ kind: 'leave' });
  });
});

describe('what keys do', () => {
  test('commands are for the machine with the cursor', () => {
    const { press } = screenOf(many(3));
    press('down');
    expect(press('enter')).toEqual({ kind: 'attach', name: 'vm02' });
    expect(press('c')).toEqual({ kind: 'console', name: 'vm02' });
    expect(press('l')).toEqual({ kind: 'logs', name: 'vm02' });
    for (const key of ['q', 'ctrl-c', 'ctrl-]']) expect(press(key)).toEqual({ kind: 'leave' });
    expect(press('ctrl-l')).toEqual({ kind: 'redraw' });
    expect(press('x')).toBeUndefined();
  });

  test('ending a machine is asked first', () => {
    const { lines, press } = screenOf([load('web')]);
    expect(press('s')).toBeUndefined();
    expect(lines().at(-1)).toBe('[y/n] Have the guest of web power off?');
    expect(press('n')).toBeUndefined();
    expect(lines().at(-1)).toMatch(/^q quit/);
    press('K');
    expect(lines().at(-1)).toBe('[y/n] End web at once? What its guest has not written is lost.');
    // Any other key is no yes.
    expect(press('enter')).toBeUndefined();
    expect(press('y')).toBeUndefined();
    expect(press('s', 'y')).toEqual({ kind: 'stop', name: 'web' });
    expect(press('K', 'Y')).toEqual({ kind: 'kill', name: 'web' });
    press('K');
    // All of it on a small terminal, and what it asks for on the smallest.
    expect(lines(40).slice(-2).join(' ')).toBe('[y/n] End web at once? What its guest has not written is lost.');
    expect(lines(20, 3).at(-1)).toBe('[y/n] End web at on…');
  });

  test('the machine that was asked about is meant, wherever the cursor is', () => {
    const { screen, press } = screenOf([load('a'), load('b')]);
    press('K');
    screen.take([load('b')]);
    expect(press('y')).toEqual({ kind: 'kill', name: 'a' });
  });

  test('what came of it is told until there is something else', () => {
    const { screen, lines, press } = screenOf([load('web')], { columns: 60 });
    screen.say('The guest of web has not powered off within 30s. nemu kill web ends it at once.', 'bad');
    expect(lines().slice(-2).join(' ')).toMatch(/^The guest of web .* ends it at once\.$/);
    expect(lines(60, 4).at(-1)).toMatch(/^The guest of web has not .*…$/);
    press('j');
    expect(lines().at(-1)).toContain('at once.');
    press('esc');
    expect(lines().at(-1)).toMatch(/^q quit/);
    screen.say('web has powered off.');
    expect(lines().slice(-2)).toEqual([expect.stringMatching(/^1\/1/), 'web has powered off.']);
    screen.hush();
    expect(lines().at(-1)).toMatch(/^q quit/);
  });

  test('help has every key, and any key closes it', () => {
    const { screen, lines, names, press } = screenOf(many(2));
    for (const key of ['?', 'h']) {
      press(key);
      const text = lines().join('\n');
      for (const word of ['↑ ↓ k j', 'PgUp PgDn', 'Home End g G', 'Enter', '< > ← →', 'nemu logs -f', 'Ctrl-]']) {
        expect(text).toContain(word);
      }
      expect(lines().at(-1)).toBe('any key comes back');
      expect(press('q')).toBeUndefined();
      expect(names()).toEqual(['vm01', 'vm02']);
    }
    press('?');
    expect(screen.frame(40, 24).map(plainText).join('\n')).toContain('Ctrl-C comes back');
  });

  test('before the first look and without machines there is a sentence', () => {
    const screen = new TopScreen({ unicode: true });
    const second = () => plainText(screen.frame(80, 24)[1]).trim();
    expect(second()).toBe('Looking at the machines …');
    expect(screen.key('enter')).toBeUndefined();
    screen.take([]);
    expect(second()).toBe('No machine runs in the background; nemu run -d starts one.');
  });
});
