/** The interactive console in a real terminal. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { nemu, runNemu } from '../support/cli.ts';
import { hasTmux, Terminal } from '../support/tmux.ts';

const LIMIT_MS = 300_000;

describe.skipIf(!hasTmux)('in a terminal (needs tmux)', () => {
  let folder: string;
  let terminal: Terminal;
  let env: Record<string, string>;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'nemu-console-'));
    env = { XDG_STATE_HOME: join(folder, 'state'), XDG_RUNTIME_DIR: folder };
  });
  afterAll(() => rmSync(folder, { recursive: true }));
  beforeEach(() => {
    terminal = new Terminal(100, 30, env);
  });
  afterEach(() => terminal.close());

  /** What a command that succeeds prints. */
  const said = async (...args: string[]) => {
    const { status, stdout, stderr } = await runNemu(args, { env });
    expect(status, stderr).toBe(0);
    return stdout.toString();
  };

  /** No run folder may be left of a run that has ended. */
  const runFolders = () => readdirSync(folder).filter((name) => name.startsWith('nemu.'));

  test(
    'a shell that echoes, edits, resizes, pauses and powers off',
    async () => {
      terminal.line(`${nemu} run; echo "status $?"`);
      await terminal.until('~ # ');
      terminal.line('echo $((6 * 7))');
      // What is typed before the prompt is echoed into the line above.
      await terminal.until(/\n42\n~ #/);

      // Editing: a typo is taken back, a word is put in before another.
      terminal.type('echo onee');
      terminal.press('BSpace', 'Home', 'Right', 'Right', 'Right', 'Right', 'Right');
      terminal.line('two');
      await terminal.until(/\ntwoone\n~ #/);

      terminal.line('stty size');
      await terminal.until('\n30 100\n');
      terminal.resize(120, 40);
      // The new size arrives over the control channel, beside what is typed.
      terminal.line('until [ "$(stty size)" = "40 120" ]; do sleep 0.2; done; echo resized');
      await terminal.until('\nresized\n');

      // Ctrl-C is the guest's.
      terminal.line('sh -c "echo \\$((40 + 3)); exec sleep 1000"');
      await terminal.until('\n43\n');
      terminal.press('C-c');
      terminal.line('echo "after $?"');
      await terminal.until('after 130');

      terminal.press('C-a', 'h');
      await terminal.until('send Ctrl-a to the guest');
      // A REPL in between: what the guest prints meanwhile is there afterwards.
      terminal.line('(sleep 2; echo said "$((50 + 5))" meanwhile) &');
      terminal.press('C-a', 'c');
      await terminal.until('nemu> ');
      terminal.line('info cpus');
      await terminal.until(/^ +0 +0 +\d+ +\w+ .*\nnemu> $/m);
      terminal.type('vm.memory.si');
      terminal.press('Tab');
      await terminal.until('vm.memory.size');
      terminal.press('Enter');
      await terminal.until('536870912');
      terminal.line("(await vm.sh('sleep 3; echo $((60 + 6))')).output");
      await terminal.until("'66\\n'");
      terminal.line('sh sleep 1000');
      await terminal.until("await vm.sh('sleep 1000')");
      terminal.press('C-c');
      await terminal.until(/^Interrupted\. The guest is told to end the command\.\nnemu> $/m);
      terminal.line('sh until [ -z "$(pidof sleep)" ]; do usleep 100000; done; echo ended "$((70 + 7))"');
      await terminal.until('ended 77');
      terminal.press('C-d');
      await terminal.until('said 55 meanwhile');

      terminal.press('C-a', 'p');
      await terminal.until('Paused; Ctrl-a p resumes.');
      terminal.type('echo unheard');
      terminal.press('C-a', 'p');
      await terminal.until('Running.');
      terminal.press('Enter');
      await terminal.until('\nunheard\n');
      terminal.press('C-a', 'i');
      // Where it is in the kernel has a name; it may be in a program.
      await terminal.until(/vCPU 0: .*rip 0x([0-9a-f]+ \(\w+(\+0x[0-9a-f]+)?( \[\w+\])?\)|[0-9a-f]{1,12}), exits/);
      terminal.press('C-a', 's');
      const [, saved] = /Saved \d+ bytes to (\S+)\.\n/.exec(await terminal.until(/Saved \d+ bytes to/)) ?? [];
      expect(readFileSync(saved, 'utf8')).toContain('\r\n42\r\n');

      terminal.line('poweroff');
      await terminal.until('status 0');
      terminal.line('stty -a');
      await terminal.until(/ icanon .* echo /s);
      expect(runFolders()).toEqual([]);
    },
    LIMIT_MS,
  );

  test(
    'with a name others join it; Ctrl-a x ends it at once, and the terminal is as before',
    async () => {
      terminal.line(`${nemu} run --name fore --prefix ^B --record ${folder}/fore.cast; echo "status $?"`);
      await terminal.until('~ # ');
      expect(await said('ps', '--json')).toMatch(/"name": ?"fore"/);
      expect(await said('exec', 'fore', '--', 'echo $((40 + 4)) >/dev/console; nproc')).toBe('1\n');
      await terminal.until('# 44\n');
      // It drives its console until somebody takes that over, and takes it back.
      const other = new Terminal(90, 25, env);
      try {
        other.line(`USER=bob ${nemu} console fore --take`);
        await terminal.until(/bob on \S+ has taken the console over\. Ctrl-b t takes it back\./);
        await other.until('~ # ');
        terminal.line('echo unheard');
        other.line('until [ "$(stty size)" = "25 90" ]; do sleep 0.2; done; echo "bob $((40 + 5))"');
        await terminal.until('\nbob 45\n');
        terminal.press('C-b', 't');
        await terminal.until('You drive it now.');
        terminal.line('until [ "$(stty size)" = "30 100" ]; do sleep 0.2; done; echo "mine $((40 + 6))"');
        await other.until('\nmine 46\n');
        expect(other.screen).not.toContain('unheard');
      } finally {
        other.close();
      }
      terminal.press('C-b', 'x');
      await terminal.until('status 0', 5000);
      terminal.line('echo back');
      await terminal.until('\nback\n');
      expect(runFolders()).toEqual([]);
      expect(await said('logs', 'fore')).toContain('mine 46');
      expect(await said('play', join(folder, 'fore.cast'), '--speed', '1000')).toContain('mine 46');
      expect(await said('rm', 'fore')).toBe('fore\n');
    },
    LIMIT_MS,
  );

  test(
    'Ctrl-C before the guest is there is no crash, in the foreground and for the background',
    async () => {
      const listed = async () => (await said('ps', '-aq')).trim();
      for (const name of ['early', 'back -d']) {
        terminal.line(`clear; ${nemu} run --on lab --name ${name}`);
        while (!name.startsWith((await listed()) || 'none yet')) await sleep(50);
        terminal.press('C-c');
        await terminal.until(/\^C[\s\S]*# /);
        terminal.line('echo "status $((100 + $?))"');
        expect(await terminal.until('status 230', 10_000)).not.toContain('killed by');
      }
      expect(terminal.screen).toContain('the machine was not started');
      expect(runFolders()).toEqual([]);
      expect(processes(folder)).toEqual([]);
      expect(await listed()).toBe('');
    },
    LIMIT_MS,
  );

  test(
    'a killed engine leaves a sane terminal, a post-mortem, and nothing else',
    async () => {
      terminal.line(`${nemu} run; echo "status $?"`);
      await terminal.until('~ # ');
      const engine = execFileSync('pgrep', ['-f', `dist/nemu.js run$`], { encoding: 'utf8' })
        .trim()
        .split('\n')
        .map(Number)
        .find((pid) => readFileSync(`/proc/${pid}/environ`, 'latin1').includes(`XDG_RUNTIME_DIR=${folder}`));
      process.kill(engine as number, 'SIGKILL');
      const screen = await terminal.until('status 74', 10_000);
      expect(screen).toContain('the engine was killed by SIGKILL');
      const [, kept] = /The post-mortem is in (\S+);/.exec(screen.replaceAll('\n', '')) ?? [];
      expect(existsSync(kept)).toBe(true);
      terminal.line('stty -a');
      await terminal.until(/ icanon .* echo /s);
      expect(runFolders()).toEqual([]);
      expect(processes(folder)).toEqual([]);
    },
    LIMIT_MS,
  );
});

/** Processes other than shells whose environment has this folder: nothing of an ended run may be there. */
function processes(folder: string): string[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8');
        return (
          /node|qemu/.test(command) &&
          readFileSync(`/proc/${pid}/environ`, 'latin1').includes(`XDG_RUNTIME_DIR=${folder}`)
        );
      } catch {
        return false;
      }
    });
}
