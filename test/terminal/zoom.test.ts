/** The whole terminal for one console of the workstation, and the workstation as it was afterwards. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { bundleProgram } from '../support/program.ts';
import { hasTmux, Terminal } from '../support/tmux.ts';

const LIMIT_MS = 120_000;
const SUPPORT = join(import.meta.dirname, '..', 'support');
const MODES = ['scroll_region_upper', 'scroll_region_lower', 'mouse_all_flag', 'mouse_button_flag'];
const CURSOR_KEYS = 'keypad_cursor_flag';
const BACK = 'zoom: done.';
/** Ctrl-t: the guest tells the size that it knows. */
const SIZE = '\x14';

describe.skipIf(!hasTmux)('a zoomed console (needs tmux)', { timeout: LIMIT_MS }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'nemu-zoom-'));
  let program: string;
  beforeAll(async () => {
    program = await bundleProgram(join(SUPPORT, 'workstation_program.ts'), folder);
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  const open = async (options = '') => {
    const terminal = new Terminal(120, 40, {
      ...{ LC_ALL: 'C.UTF-8', TERM: 'xterm-256color', TZ: 'UTC', NO_COLOR: '' },
    });
    onTestFinished(() => terminal.close());
    terminal.line(`exec ${process.execPath} ${program} ${options}`);
    await terminal.until('exits/s');
    return terminal;
  };
  const zoomed = /^\[ {4}0\.000000\] Linux version/m;

  test('what the guest did to the terminal is undone on the way back', async () => {
    const terminal = await open();
    const before = terminal.knows(...MODES, CURSOR_KEYS);
    terminal.type('5z');
    await terminal.until(zoomed);
    // The guest echoes: a scroll region, every motion of the mouse, and cursor keys in their application mode.
    terminal.type('\x1b[5;10r\x1b[?1003h\x1b[?1h\x1b[10Hheard');
    await terminal.until('heard');
    expect(terminal.knows(...MODES, CURSOR_KEYS)).toEqual(['4', '9', '1', '0', '1']);
    terminal.press('Up');
    terminal.press('C-]');
    const screen = await terminal.until(BACK);
    expect(screen.split('\n').filter((row) => row.startsWith('┌')).length).toBeGreaterThan(3);
    expect(terminal.knows(...MODES, CURSOR_KEYS)).toEqual(before);
  });

  test('the guest has the full size while it lasts, and the size of its pane afterwards', async () => {
    const terminal = await open();
    terminal.type(`5i${SIZE}`);
    const [pane] = /size \d+ \d+/.exec(await terminal.until(/size \d+ \d+/)) ?? [];
    expect(pane).not.toBe('size 40 120');
    terminal.press('C-]');
    terminal.type('z');
    await terminal.until(zoomed);
    terminal.type(SIZE);
    await terminal.until('size 40 120');
    terminal.resize(100, 30);
    // The size is on its way beside what is typed.
    await until(terminal, 'size 30 100');
    terminal.resize(120, 40);
    await until(terminal, 'size 40 120');
    terminal.press('C-]');
    await terminal.until(BACK);
    terminal.type('iagain ');
    await terminal.until('again');
    // The last that it says: what it said before may have left the pane.
    await until(terminal, new RegExp(`${pane}(?![\\s\\S]*size)`));
  });

  test('it is drawn with its colours and modes, and cursor keys are what the guest asked for', async () => {
    const terminal = await open();
    terminal.type('5i');
    await terminal.until('Ctrl-] leaves');
    terminal.type('\x1b[?1h\x1b[?1006h\x1b[?1000hmodes');
    await terminal.until('modes');
    terminal.press('C-]');
    terminal.type('z');
    await terminal.until(zoomed);
    expect(terminal.colours).toContain('\x1b[32m[  OK  ]');
    expect(terminal.colours).toContain('38;5;208morange');
    expect(terminal.visible).toContain('[nemu] com1; Ctrl-] comes back');
    expect(terminal.knows('keypad_cursor_flag', 'mouse_standard_flag', 'mouse_sgr_flag')).toEqual(['1', '1', '1']);
    terminal.type('typed');
    await terminal.until('typed');
    expect(terminal.visible).not.toContain('[nemu] com1');
  });

  test('read-only, it is there to be looked at', async () => {
    const terminal = await open('--readonly');
    terminal.type('5z');
    await terminal.until(zoomed);
    await terminal.until('Ctrl-] comes back; read-only');
    terminal.type('unheard');
    terminal.press('C-]');
    await terminal.until(BACK);
    expect(terminal.screen).not.toContain('unheard');
  });
});

/** Asks the guest for its size until it says this. */
async function until(terminal: Terminal, what: string | RegExp): Promise<void> {
  for (let look = 0; look < 50; look++) {
    terminal.type(SIZE);
    if (
      await terminal.until(what, 300).then(
        () => true,
        () => false,
      )
    )
      return;
  }
  await terminal.until(what, 100);
}
