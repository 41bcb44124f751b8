/** `nemu top` in a real terminal, on machines that are scripted: the terminal is handed over, and taken back. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest';
import { writeRecord } from '../../src/cli/machines/records.ts';
import { nemu } from '../support/cli.ts';
import { hasTmux, Terminal } from '../support/tmux.ts';

const LIMIT_MS = 120_000;
const PROGRAM = fileURLToPath(new URL('../support/named_program.ts', import.meta.url));
const LIST = /name.*\n[\s\S]*q quit . \? keys/;

describe.skipIf(!hasTmux)('nemu top (needs tmux)', { timeout: LIMIT_MS }, () => {
  let folder: string;
  let env: Record<string, string>;
  beforeEach((context) => {
    folder = mkdtempSync(join(tmpdir(), 'nemu-top-'));
    env = { XDG_STATE_HOME: join(folder, 'state'), XDG_RUNTIME_DIR: join(folder, 'run') };
    mkdirSync(env.XDG_RUNTIME_DIR, { mode: 0o700 });
    // The last of what is done then: after terminals and machines.
    context.onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  });

  const machines = async (...names: string[]) => {
    const child = spawn(process.execPath, [PROGRAM, ...names], {
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    onTestFinished(() => void child.kill('SIGKILL'));
    await once(child.stdout, 'data');
    return child;
  };
  const open = (columns: number, rows: number, more: Record<string, string> = {}) => {
    const terminal = new Terminal(columns, rows, { ...env, LC_ALL: 'C.UTF-8', TERM: 'xterm-256color', ...more });
    onTestFinished(() => terminal.close());
    return terminal;
  };
  /** Waits until the list is there, and the cursor is at this machine. */
  const chosen = async (terminal: Terminal, name: string) => {
    // Inverse.
    const row = new RegExp(`\\x1b\\[(0;)?7m${name} `);
    await vi.waitFor(() => expect(terminal.colours).toMatch(row), { timeout: 20_000, interval: 50 });
    await terminal.until(LIST);
    expect(terminal.knows('alternate_on')).toEqual(['1']);
  };

  test('hands the terminal to other commands, and has it back', async () => {
    await machines('db', 'web-1', 'web-2');
    vi.stubEnv('XDG_STATE_HOME', env.XDG_STATE_HOME);
    vi.stubEnv('XDG_RUNTIME_DIR', env.XDG_RUNTIME_DIR);
    writeRecord({
      ...{ name: 'zombie', pid: 1, startedAt: new Date().toISOString(), running: true, kernel: '/k' },
      ...{ cpus: 1, memory: 2 ** 29, consoles: ['com1'] },
    });
    vi.unstubAllEnvs();
    const terminal = open(130, 20);
    terminal.line(`stty -a | md5sum; ${nemu} top --interval 300ms; echo "top $?"; stty -a | md5sum`);
    await terminal.until(/web-2 +running +\d+ s +4 +\d+\.\d +\d+ /);
    await terminal.until(/zombie +crashed /);
    await chosen(terminal, 'db');

    // Another size, at once.
    terminal.resize(60, 20);
    await terminal.until(/1\/4 · hidden: written\/s, received\/s, /);
    expect(terminal.visible).toMatch(/^name▲ +state +CPU % +exits\/s +resident +read\/s$/m);
    terminal.resize(130, 20);
    await terminal.until(/received\/s .*sent\/s/);

    terminal.press('Down', 'j', 'k');
    await chosen(terminal, 'web-1');
    terminal.press('Enter');
    await terminal.until('vCPUs 4/8');
    terminal.press('q');
    await chosen(terminal, 'web-1');

    terminal.press('c');
    await terminal.until('[nemu] web-1, com1; Ctrl-] leaves');
    terminal.type('typed into it');
    await terminal.until('typed into it');
    terminal.press('C-]');
    await chosen(terminal, 'web-1');

    terminal.press('l');
    await terminal.until(/Linux version[\s\S]*typed into it$/m);
    expect(terminal.knows('alternate_on')).toEqual(['0']);
    terminal.press('C-c');
    await chosen(terminal, 'web-1');

    // What a command says of an error is there to be read.
    terminal.press('End', 'Enter');
    await terminal.until(/The machine zombie has crashed\.\n[\s\S]*Any key comes back to nemu top\./);
    terminal.press('x');
    await chosen(terminal, 'zombie');

    terminal.press('/');
    terminal.type('web-2');
    await terminal.until(/^\/web-2/m);
    terminal.press('Enter', 's');
    await terminal.until('[y/n] Have the guest of web-2 power off?');
    terminal.press('y');
    await terminal.until('web-2 has powered off.');
    await terminal.until('No name passes the filter web-2');
    terminal.press('Escape');
    await terminal.until(/zombie +crashed /);
    expect(terminal.visible).not.toMatch(/^web-2 +running/m);

    terminal.press('Home', 'K', 'n', 'j', 'K', 'y');
    await terminal.until('web-1 has been ended.');
    expect(terminal.visible).not.toMatch(/^web-1 +running/m);
    expect(terminal.visible).toMatch(/^db +running/m);
    terminal.press('End', 's', 'y');
    await terminal.until(/The machine zombie has crashed\. nemu logs zombie shows/);

    terminal.press('q');
    const screen = await terminal.until(/top 0\n[0-9a-f]{32}/);
    // The first may stand behind the prompt: the shell may have come after the line that was typed.
    const [before, after] = screen.match(/\b[0-9a-f]{32}(?= )/g) ?? [];
    expect(after).toBe(before);
    expect(terminal.knows('alternate_on', 'cursor_flag')).toEqual(['0', '1']);
  });

  test('Ctrl-C ends the log, and a signal the list with what has the terminal', async () => {
    await machines('one');
    const terminal = open(80, 12, { NO_COLOR: '1', LC_ALL: 'C' });
    terminal.line(`${nemu} top; echo "top $?"`);
    await terminal.until(/^one +running/m);
    expect(terminal.visible).toMatch(/^name\^ +state /m);
    // biome-ignore lint/suspicious/noControlCharactersInRegex: SGR sequences
    expect(terminal.colours).not.toMatch(/\x1b\[[\d;]*(3[0-7]|9[0-7]|4[0-7]|38|48)[;\d]*m/);
    terminal.press('l');
    await terminal.until('Linux version');
    terminal.press('C-c');
    await terminal.until(/^one +running[\s\S]*q quit \| \? keys/m);
    terminal.press('l');
    await terminal.until(/root@guest:~# $/m);
    const [pid] = terminal.knows('pane_pid');
    for (const child of readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ')) {
      process.kill(Number(child), 'SIGTERM');
    }
    await terminal.until('top 0');
    // Nobody has the terminal but the shell.
    terminal.line('echo "back $((40 + 2))"');
    await terminal.until('back 42');
  });

  test('a machine that does not answer holds up neither keys nor others', async () => {
    const child = await machines('stuck');
    await machines('well');
    child.kill('SIGSTOP');
    const terminal = open(100, 12);
    terminal.line(`${nemu} top; echo "top $?"`);
    await terminal.until('Looking at the machines');
    terminal.press('q');
    await terminal.until('top 0', 2000);
    terminal.line(`clear; ${nemu} top --sort cpu; echo "top again $?"`);
    await terminal.until(/^well +running[\s\S]*^stuck +no answer/m);
    expect(terminal.visible).toMatch(/ ▼CPU % /);
    terminal.press('j', 's', 'y');
    await terminal.until('The guest of stuck is asked to power off …');
    await terminal.until(/The engine of stuck does not answer \(process \d+\)\. nemu kill stuck ends it\./);
    // What goes on is no reason to stay.
    terminal.press('s', 'y', 'q');
    await terminal.until('top again 0', 2000);
    // And it does go on.
    const gone = once(child, 'exit');
    child.kill('SIGCONT');
    await gone;
    await vi.waitFor(() => expect(isRunning('stop\0stuck')).toBe(false), { timeout: 10_000 });
  });
});

/** Does a process have these words in its command line? */
const isRunning = (words: string): boolean =>
  readdirSync('/proc').some((pid) => {
    try {
      return /^\d+$/.test(pid) && readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(words);
    } catch {
      return false;
    }
  });
