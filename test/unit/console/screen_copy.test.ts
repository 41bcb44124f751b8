/** A drawing of a screen, and the bytes that follow, beside the terminal that got all bytes. */
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { Screen } from '../../../src/console/screen.ts';
import { Scrollback } from '../../../src/console/scrollback.ts';
import { random as randomOf } from '../../support/random.ts';
import { stateOf, terminal, write } from '../../support/terminal_state.ts';

const ROWS = 6;
const COLUMNS = 20;
/** What an earlier program has left on the viewer's terminal. */
const DIRT =
  'old text\r\n\x1b[3;4H\x1b7\x1b[?1049h\x1b[31;44mEDITOR\x1b[2;4r\x1b[?6h\x1b[4h\x1b(0\x0e\x1b[?25l\x1b[?1;7;66;1002;1004;1006;2004h\x1b[?7l\x1b]0;half';

/** The drawing after `before`, with what comes with it. */
async function drawingOf(before: Uint8Array, pieces = 1): Promise<Buffer> {
  const kept = new Scrollback(1 << 18);
  const screen = new Screen(kept, ROWS, COLUMNS);
  const drawn = () => new Promise<Buffer>((resolve) => screen.draw(0, resolve));
  const length = Math.ceil(before.length / pieces);
  for (let at = 0; at < before.length; at += length) {
    kept.append(before.subarray(at, at + length));
    screen.feed();
    await drawn();
  }
  const drawing = await drawn();
  screen.close();
  return drawing;
}

async function seen(...pieces: (Uint8Array | string)[]) {
  const viewer = terminal(ROWS, COLUMNS);
  for (const piece of pieces) await write(viewer, piece);
  const state = stateOf(viewer);
  viewer.dispose();
  return state;
}

/** Whoever comes after `before` sees the same as who was there all the time. */
async function expectSame(before: Uint8Array, after: Uint8Array, pieces = 1): Promise<void> {
  const right = await seen(Buffer.concat([before, after]));
  const drawing = await drawingOf(before, pieces);
  const where = `${JSON.stringify(Buffer.from(before).toString('latin1'))} | ${JSON.stringify(Buffer.from(after).toString('latin1'))}`;
  expect(await seen(Buffer.concat([drawing, after])), where).toEqual(right);
  expect(await seen(DIRT, Buffer.concat([drawing, after])), `on a used terminal: ${where}`).toEqual(right);
}

describe('a drawing', () => {
  test.each([
    ['colours', 'hello \x1b[3', '1mred'],
    ['a title', 'hello \x1b]0;my tit', 'le\x07world'],
    ['a string of a device', 'hello \x1bP1$r', 'stuff\x1b\\world'],
    ['the end of a string', 'hello \x1b]0;title\x1b', '\\world'],
    ['a character', 'caf\xc3', '\xa9!'],
    ['a character of which xterm.js loses the rest', 'so\xe2\x80', '\xa6 on'],
    ['a control of two bytes', 'hello \xc2', '\x9b31mred'],
    ['a control within a sequence', 'hello\x1b[3\r\n', '1mred'],
    ['a sequence that is given up', 'hello\x1b[3', '\x18 1m'],
    ['a string within which another begins', 'a\x1b]0;t\x1b[3', '1mred'],
  ])('taken within %s is complete with the rest', async (_, before, after) => {
    await expectSame(Buffer.from(before, 'latin1'), Buffer.from(after, 'latin1'));
    await expectSame(Buffer.from(before, 'latin1'), Buffer.from(after, 'latin1'), before.length);
  });

  test('taken within a string longer than is kept has not its rest as text', async () => {
    for (const [start, end] of [
      ['\x1bPq', '\x1b\\'],
      ['\x1b]52;c;', '\x07'],
    ]) {
      const before = Buffer.from(`picture ${start}${'A'.repeat(100_000)}`);
      expect((await drawingOf(before, 3)).length).toBeLessThan(70_000);
      await expectSame(before, Buffer.from(`BBB${end}done`), 3);
    }
  });

  test.each([
    ['mouse, keys and cursor', '\x1b[?1049h\x1b[?1002h\x1b[?1006h\x1b[?25l\x1b[?1h\x1b=\x1b[?2004;1004hX', 'y'],
    ['the scroll region', '\x1b[2J\x1b[1;1Htop\x1b[2;5r\x1b[6;1Hstatus\x1b[5;1H', 'a\nb\nc\nd'],
    ['origin mode', '\x1b[2;5r\x1b[?6hx\x1b[2;2H', 'y\x1b[1;1Hz'],
    ['line drawing', '\x1b(0lqk', 'x'],
    ['line drawing in G1', '\x1b)0a\x0el', 'qk\x0fq'],
    ['the saved cursor', '\x1b[3;3H\x1b[1;31m\x1b(0\x1b7\x1b[m\x1b(B\x1b[1;1H', 'a\x1b8qHERE'],
    ['the saved cursor below the other screen', '\x1b[32mshell\x1b[m \x1b[?1049h\x1b[31mvi', '\x1b[?1049lback'],
    ['insert mode', 'abc\r\x1b[4h', 'X'],
    ['no autowrap', '\x1b[?7l', 'x'.repeat(30)],
    ['a full row', 'x'.repeat(COLUMNS), 'y'],
    ['a full row and a region', `\x1b[2;4r\x1b[2;1H\x1b[31m${'x'.repeat(COLUMNS - 2)}\u4e16`, 'y'],
    ['a coloured other screen', '\x1b[?1049hplain\x1b[31m', 'red'],
    ['coloured empty rows', '\x1b[44m\x1b[2Jx\x1b[m', 'B'],
    ['wide and bright colours', '\x1b[38;5;200;48;2;1;2;3mA\x1b[97;104m', 'B'],
  ])('restores %s', async (_, before, after) => {
    await expectSame(Buffer.from(before), Buffer.from(after));
  });

  test('restores the modes that no terminal of ours has', async () => {
    const modes = async (output: string) => {
      const [, ...behind] = (await drawingOf(Buffer.from(output))).toString().split('\x1b[2J');
      return [...behind.join('').matchAll(/\[\?(\d+[hl])/g)].map(([, mode]) => mode);
    };
    // The form of mouse reports that was asked for last is the one.
    expect(await modes('\x1b[?1015h\x1b[?1006h\x1b[?5;25l\x1b[?5h')).toEqual(['1015h', '1006h', '25l', '5h']);
    expect(await modes('\x1b[?1006h\x1b[?1015h')).toEqual(['1006h', '1015h']);
    expect(await modes('\x1b[?1006;1000h\x1b[?25l\x1bc')).toEqual([]);
    expect(await modes('\x1b[?1006h\x1b[?25l\x1b[!p')).toEqual(['1006h']);
  });

  test('keeps no sequence that was pushed out before it was parsed', async () => {
    const kept = new Scrollback(64);
    const screen = new Screen(kept, ROWS, COLUMNS);
    kept.append(Buffer.from('\x1b[?25l\x1b[?1006h\x1b]0;title'));
    screen.feed();
    kept.append(Buffer.from(`${'x'.repeat(64)}\r\nprompt`));
    await new Promise((resolve) => screen.draw(0, resolve));
    const drawing = await new Promise<Buffer>((resolve) => screen.draw(0, resolve));
    expect(screen.text).toMatch(/prompt$/);
    expect(drawing.toString()).not.toMatch(/\?1006h|\?25l/);
    screen.close();
  });

  test('of what is no sequence is made without a word to the user', async () => {
    const said = vi.spyOn(console, 'error').mockImplementation(() => {});
    onTestFinished(() => said.mockRestore());
    await drawingOf(Buffer.from('\x1b\u2500\x1b[\u2500\x7f'));
    expect(said).not.toHaveBeenCalled();
  });

  test('of a screen that is too long ends with a whole sequence, and has its modes', async () => {
    const rows = 200;
    const columns = 400;
    const kept = new Scrollback(4 << 20);
    const screen = new Screen(kept, rows, columns);
    const cell = (i: number) => `\x1b[38;2;${i % 256};${(i >> 8) % 256};7mx`;
    kept.append(Buffer.from(`${Array.from({ length: rows * columns }, (_, i) => cell(i)).join('')}\x1b[?2004h`));
    screen.feed();
    const drawing = await new Promise<Buffer>((resolve) => {
      const look = () => screen.draw(0, (bytes, upTo) => (upTo >= kept.end ? resolve(bytes) : setImmediate(look)));
      look();
    });
    expect(drawing.length).toBeLessThan(520 * 1024);
    const viewer = terminal(rows, columns);
    await write(viewer, drawing);
    expect(viewer.modes.bracketedPasteMode).toBe(true);
    const { active } = viewer.buffer;
    expect([active.cursorX, active.cursorY, active.baseY]).toEqual([columns, rows - 1, 0]);
    screen.close();
  });
});

/** What guests print, and what breaks it. */
const PIECES = [
  ...[
    'word ',
    'longer text than a row has',
    '\r\n',
    '\n',
    '\r',
    '\b',
    '\t',
    'é',
    '\u2500\u2502',
    '\u4e16\u754c',
    '\u{1f600}',
    '\u2026',
  ],
  ...['\x1b[31m', '\x1b[1;44m', '\x1b[m', '\x1b[38;5;9m', '\x1b[48;2;9;8;7m', '\x1b[7m'],
  ...[
    '\x1b[H',
    '\x1b[3;5H',
    '\x1b[2A',
    '\x1b[B',
    '\x1b[5C',
    '\x1b[2J',
    '\x1b[K',
    '\x1b[1K',
    '\x1b[2L',
    '\x1b[M',
    '\x1b[3P',
    '\x1b[2@',
    '\x1bM',
    '\x1b[S',
    '\x1b[T',
    '\x1b[4X',
  ],
  ...['\x1b7', '\x1b8', '\x1b[2;5r', '\x1b[r', '\x1b[?6h', '\x1b[?6l', '\x1b(0', '\x1b(B', '\x1b)0', '\x0e', '\x0f'],
  ...[
    '\x1b[?1049h',
    '\x1b[?1049l',
    '\x1b[4h',
    '\x1b[4l',
    '\x1b[?7l',
    '\x1b[?7h',
    '\x1b[?1h',
    '\x1b=',
    '\x1b>',
    '\x1b[?2004h',
    '\x1b[?1002h',
    '\x1b[?1000l',
    '\x1b[?1004h',
  ],
  ...[
    '\x1b]0;title\x07',
    '\x1b]2;title\x1b\\',
    '\x1bPq#0\x1b\\',
    '\x1b_apc\x1b\\',
    '\x1b[3',
    '\x1b',
    '\x18',
    '\x1a',
    '\x1b[!p',
    '\x1bc',

    '\x1b#8',
  ],
];

test('whatever a guest prints, and wherever somebody comes, the screen is the same', { timeout: 60_000 }, async () => {
  for (let seed = 1; seed <= 10; seed++) {
    const random = randomOf(seed);
    const output = Buffer.from(Array.from({ length: 24 }, () => PIECES[random(PIECES.length)]).join(''));
    for (let cut = 0; cut <= output.length; cut += 1 + random(4)) {
      await expectSame(output.subarray(0, cut), output.subarray(cut));
    }
  }
});
