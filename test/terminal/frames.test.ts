/**
 * What the workstation looks like: screens of a scripted machine, at several sizes, with and without colours and
 * Unicode, against those that are stored in frames/ (`cat` one in a terminal to see it). After a change of what is
 * shown, `NEMU_FRAMES=write npm test -- test/terminal/frames.test.ts` stores them anew.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import stringWidth from 'string-width';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { expectFrame } from '../support/frames.ts';
import { bundleProgram } from '../support/program.ts';
import { hasTmux, Terminal } from '../support/tmux.ts';

const LIMIT_MS = 300_000;
/** How long a workstation on a busy machine may take to read a key. */
const ESCAPE_MS = 1000;
const SUPPORT = join(import.meta.dirname, '..', 'support');

/** tmux' name of a key, a text to type, a size, or what is waited for. */
type Deed = string | { readonly type: string } | readonly [number, number] | RegExp;
/** What is done, and the name of the screen that it leads to. */
type Step = readonly [frame: string, ...actions: Deed[]];
const typed = (type: string) => ({ type });

const PANES: readonly Step[] = [
  ['vcpus', typed('1')],
  ['pci', typed('2')],
  ['memory', typed('3')],
  ['activity', typed('4')],
  ['repl', typed('6')],
  ['events', typed('7')],
];
const DIALOGS: readonly Step[] = [
  ['events-filter', typed('7/guest|machine')],
  ['help', 'Escape', typed('2?')],
  ['help-filter', typed('unplug')],
  ['palette', 'Escape', 'Escape', typed(':')],
  ['palette-filter', typed('pause')],
  ['vcpu-inside', 'Escape', 'Escape', typed('1'), 'Enter'],
  ['pci-config', 'Escape', typed('2j'), 'Enter'],
  ['tables', 'Escape', typed('I')],
  ['plug-kinds', 'Escape', typed('a')],
  ['plug-memory', typed('memory'), 'Enter'],
  ['plug-problem', typed('100M'), 'Enter'],
  ['plug-cost', 'C-u', typed('256M')],
  ['plug-running', 'Enter'],
  ['question', typed('X')],
  ['reset-done', typed('y')],
  ['unplug-question', typed('3jd')],
  ['unplug-refused', typed('y')],
  ['typing', typed('5'), 'Enter', typed('uname')],
  ['leave', 'C-]', typed('q')],
];
const LAYOUTS: readonly Step[] = [
  ['half-pci', 'Escape', typed('2+')],
  ['full-pci', typed('+')],
  ['full-console', typed('5')],
  ['full-activity', typed('4')],
  ['full-memory', typed('3')],
];
const START: Step = ['start'];
const ALL = [START, ...PANES, ...DIALOGS, ...LAYOUTS];
const SOME = ALL.filter(([name]) =>
  ['start', 'pci', 'help-filter', 'plug-problem', 'plug-running', 'full-memory'].includes(name),
);
/** Those steps lead from one to the other only when what is between them is undone. */
const some = SOME.map(
  ([name, ...actions]): Step =>
    name === 'help-filter'
      ? [name, typed('?unplug')]
      : name === 'plug-problem'
        ? [name, 'Escape', 'Escape', typed('a'), typed('memory'), 'Enter', typed('100M'), 'Enter']
        : name === 'plug-running'
          ? [name, 'C-u', typed('256M'), 'Enter']
          : name === 'full-memory'
            ? [name, typed('3++')]
            : [name, ...actions],
);

interface Run {
  readonly name: string;
  readonly size: readonly [columns: number, rows: number];
  readonly steps: readonly Step[];
  readonly options?: string;
  readonly environment?: Record<string, string>;
}

const RUNS: readonly Run[] = [
  { name: '80x24', size: [80, 24], steps: ALL },
  { name: '120x40', size: [120, 40], steps: ALL },
  { name: '200x60', size: [200, 60], steps: ALL },
  ...(
    [
      [80, 24],
      [120, 40],
      [200, 60],
    ] as const
  ).flatMap((size): Run[] => [
    { name: `${size.join('x')}-no-color`, size, steps: some, environment: { NO_COLOR: '1' } },
    { name: `${size.join('x')}-plain`, size, steps: some, environment: { NO_COLOR: '1', LC_ALL: 'C' } },
  ]),
  { name: '80x24-block', size: [80, 24], steps: [START], options: '--graphs block' },
  {
    ...{ name: 'readonly', size: [80, 24], options: '--readonly' },
    steps: [START, ['pause', typed('p')], ['help', typed('?plug')]],
  },
  {
    ...{ name: 'resized', size: [120, 40] },
    steps: [
      START,
      ['80x24', [80, 24]],
      ['200x60', [200, 60]],
      ['too-small', [50, 12]],
      ['tiny', [12, 3]],
      // Keys do nothing while it is too small.
      ['help', [80, 24], /exits\/s/, typed('?')],
      ['help-larger', [120, 40]],
    ],
  },
];

describe.skipIf(!hasTmux)('screens of the workstation (needs tmux)', () => {
  const folder = mkdtempSync(join(tmpdir(), 'nemu-frames-'));
  let program: string;
  beforeAll(async () => {
    program = await bundleProgram(join(SUPPORT, 'workstation_program.ts'), folder);
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  test.each(RUNS)('$name', { timeout: LIMIT_MS }, async ({ name, size, steps, options = '', environment = {} }) => {
    const terminal = new Terminal(...size, {
      ...{ LC_ALL: 'C.UTF-8', TERM: 'xterm-256color', TZ: 'UTC', NO_COLOR: '', ...environment },
    });
    onTestFinished(() => terminal.close());
    // The cursor is anywhere when it starts.
    terminal.line(`printf '>>'; exec ${process.execPath} ${program} ${options}`);
    await terminal.until('exits/s');
    for (const [frame, ...actions] of steps) {
      for (const action of actions) {
        const before = terminal.visible;
        if (typeof action === 'string') terminal.press(action);
        else if (action instanceof RegExp) await terminal.until(action);
        else if ('type' in action) terminal.type(action.type);
        else terminal.resize(...action);
        // Esc is a key of its own only when nothing follows it at once.
        if (action === 'Escape') await changed(terminal, before);
      }
      const file = join(import.meta.dirname, 'frames', name, `${frame}.txt`);
      await expectFrame(terminal, file, environment.NO_COLOR === undefined);
      widths(terminal);
    }
  });
});

/** What Esc does is on the screen; where it does nothing, it has been read by now. */
async function changed(terminal: Terminal, before: string): Promise<void> {
  const deadline = performance.now() + ESCAPE_MS;
  do await new Promise((resolve) => setTimeout(resolve, 100));
  while (terminal.visible === before && performance.now() < deadline);
}

/** Rows of panes are as wide as the terminal, whatever stands in them. */
function widths(terminal: Terminal): void {
  const rows = terminal.visible.split('\n').filter((row) => /^[┌│└+|]/.test(row));
  const found = new Set(rows.map((row) => stringWidth(row)));
  expect(found.size, `widths of rows: ${[...found].join(', ')}\n${rows.join('\n')}`).toBeLessThanOrEqual(1);
}
