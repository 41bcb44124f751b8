/** Text of a console that is marked by keys and by the mouse, and ends in the clipboard of the user's terminal. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { bundleProgram } from '../support/program.ts';
import { hasTmux, Terminal } from '../support/tmux.ts';

/** Text in inverted cells. */
const inverse = (text: string) => new RegExp(`\\x1b\\[(?:\\d+;)*7m(?:\\x1b\\[[34]9m)*${text}`);

const SUPPORT = join(import.meta.dirname, '..', 'support');

describe.skipIf(!hasTmux)('copying from a console (needs tmux)', { timeout: 120_000 }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'nemu-copy-'));
  let program: string;
  beforeAll(async () => {
    program = await bundleProgram(join(SUPPORT, 'workstation_program.ts'), folder);
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  const open = async () => {
    const terminal = new Terminal(120, 40, { LC_ALL: 'C.UTF-8', TERM: 'xterm-256color', TZ: 'UTC', NO_COLOR: '' });
    onTestFinished(() => terminal.close());
    terminal.line(`exec ${process.execPath} ${program}`);
    await terminal.until('exits/s');
    terminal.type('5i');
    await terminal.until('Ctrl-] leaves');
    terminal.type('\r\nfirst line\r\nsecond line\r\nthird');
    await terminal.until('third');
    terminal.press('C-]');
    await terminal.until(/^(?![\s\S]*Ctrl-\] leaves)/);
    return terminal;
  };

  test('by keys: the mark follows the cursor, and is what is copied', async () => {
    const terminal = await open();
    terminal.type('v');
    await terminal.until('· copying');
    // From the beginning of the first line to the end of the second.
    terminal.type('kk0vj$');
    await expect.poll(() => terminal.colours).toMatch(inverse('first line'));
    terminal.type('y');
    await terminal.until('Copied 22 characters.');
    expect(terminal.clipboard).toBe('first line\nsecond line');
    expect(terminal.visible).not.toContain('· copying');
    // Esc lets go of the mark, then of the mode; nothing is copied.
    terminal.type('vv');
    terminal.press('Escape');
    await terminal.until('· copying');
    terminal.press('Escape');
    await terminal.until(/^(?![\s\S]*· copying)/);
    expect(terminal.clipboard).toBe('first line\nsecond line');
  });

  test('by the mouse: from where it goes down to where it goes up, at most to the edge of the pane', async () => {
    const terminal = await open();
    const rows = terminal.visible.split('\n');
    const row = rows.findIndex((each) => each.includes('second line')) + 1;
    const column = rows[row - 1].indexOf('second line') + 1;
    const report = (button: number, x: number, y: number, end: 'M' | 'm') => `\x1b[<${button};${x};${y}${end}`;
    terminal.type(
      report(0, column + 7, row, 'M') + report(32, column + 8, row, 'M') + report(0, column + 10, row, 'm'),
    );
    await terminal.until('Copied 4 characters.');
    expect(terminal.clipboard).toBe('line');
    terminal.type(report(0, column, row, 'M') + report(32, 1, row + 1, 'M') + report(0, 1, row + 1, 'm'));
    await terminal.until('Copied 13 characters.');
    expect(terminal.clipboard).toBe('second line\nt');
    expect(terminal.colours).toMatch(inverse('second line'));
    // A click alone copies nothing.
    terminal.type(report(0, column, row, 'M') + report(0, column, row, 'm'));
    await expect.poll(() => terminal.colours).not.toMatch(inverse('second line'));
    expect(terminal.clipboard).toBe('second line\nt');
  });
});
