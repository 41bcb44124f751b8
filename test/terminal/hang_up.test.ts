/** Terminals that are closed, and machines that are left: what becomes of a machine that was started in one. */
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { nemu, runNemu } from '../support/cli.ts';
import { hasTmux, Terminal } from '../support/tmux.ts';

const LIMIT_MS = 300_000;
const BOOT_MS = 120_000;

describe.skipIf(!hasTmux)('a terminal that goes (needs tmux)', { timeout: LIMIT_MS }, () => {
  let folder: string;
  let env: Record<string, string>;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'nemu-hang-up-'));
    env = { XDG_STATE_HOME: join(folder, 'state'), XDG_RUNTIME_DIR: join(folder, 'run') };
    mkdirSync(env.XDG_RUNTIME_DIR, { mode: 0o700 });
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  const open = () => {
    const terminal = new Terminal(120, 40, { ...env, LC_ALL: 'C.UTF-8', TERM: 'xterm-256color' });
    onTestFinished(() => terminal.close());
    return terminal;
  };
  const said = async (...args: string[]) => {
    const { status, stdout, stderr } = await runNemu(args, { env });
    expect(status, stderr).toBe(0);
    return stdout.toString();
  };
  const stateOf = async (name: string): Promise<string | undefined> =>
    JSON.parse(await said('ps', '-a', '--json')).find((each: { name: string }) => each.name === name)?.state;
  const gone = async () => {
    for (let look = 0; look < 200 && processes(folder).length > 0; look++) await sleep(100);
    expect(processes(folder)).toEqual([]);
    // Neither run folders nor sockets.
    expect(readdirSync(env.XDG_RUNTIME_DIR).filter((name) => name.startsWith('nemu.'))).toEqual([]);
    expect(readdirSync(join(env.XDG_RUNTIME_DIR, 'nemu'))).toEqual([]);
  };

  test('the workstation ends its machine when its terminal is closed, and the name is free', async () => {
    const terminal = open();
    const [log, cast] = [join(folder, 'hung.log'), join(folder, 'hung.cast')];
    terminal.line(`${nemu} workstation --name hung --log ${log} --record ${cast}`);
    await terminal.until('guest settled', BOOT_MS);
    terminal.close();
    await gone();
    expect(await stateOf('hung')).toBe('ended');
    expect(await said('logs', 'hung', '--json')).not.toContain('killed by');
    expect(readFileSync(log, 'utf8')).toContain('~ # ');
    expect(await said('play', cast, '--speed', '10000')).toContain('~ # ');
  });

  test('a machine that is left runs on in the background, and is stopped by its name', async () => {
    const terminal = open();
    terminal.line(`stty -a | md5sum; ${nemu} workstation --name left; echo "status $?"`);
    await terminal.until('guest settled', BOOT_MS);
    terminal.press('q');
    await terminal.until('leave it running in the background');
    terminal.press('b');
    await terminal.until(/left runs in the background: nemu attach left[\s\S]*status 0/);
    terminal.line('stty -a | md5sum; echo "again $((40 + 2))"');
    const screen = await terminal.until('again 42');
    // The first may stand behind the prompt: the shell may have come after the line that was typed.
    const [before, after] = screen.match(/\b[0-9a-f]{32}(?= )/g) ?? [];
    expect(after).toBe(before);
    // Nothing of it has the terminal any more.
    terminal.line(`${nemu} console left -t`);
    await terminal.until('~ # ');
    await sleep(700);
    terminal.line('                echo "stamped $((40 + 5))"; stty size');
    await terminal.until(/\n\d\d:\d\d:\d\d\.\d{3} stamped 45\n/);
    await terminal.until(/ 40 107\n/);
    terminal.press('C-]');
    terminal.line('echo "back $((40 + 3))"');
    await terminal.until('back 43');

    // Of two workstations on it one drives, and the other one knows that it does not.
    terminal.line(`clear; ${nemu} attach left`);
    await terminal.until('vCPUs');
    const other = open();
    other.line(`${nemu} attach left`);
    await other.until('com1 · watching · O takes over');
    expect(terminal.visible).not.toContain('watching');
    other.type('5i');
    await other.until('somebody else drives it; O takes it over');
    other.type('O');
    await terminal.until('com1 · watching · O takes over');
    await other.until(/^(?![\s\S]*watching · O takes over)/);
    other.type('iecho "driven $((40 + 4))"\r');
    await terminal.until('driven 44');
    other.press('C-]');
    for (const each of [other, terminal]) {
      each.press('q');
      await each.until('Left left; nemu attach left comes back.');
    }

    // An engine that hangs holds nobody up who looks at it.
    const engine = JSON.parse(await said('ps', '--json')).find((each: { name: string }) => each.name === 'left').pid;
    process.kill(engine, 'SIGSTOP');
    try {
      terminal.line(`clear; ${nemu} top; echo "top $?"`);
      await terminal.until(/left +no answer/);
      terminal.press('q');
      await terminal.until('top 0', 2000);
      const { status, stderr } = await runNemu(['qmp', 'left', 'query-status'], { env });
      expect(status).toBe(1);
      expect(stderr).toContain('does not answer');
    } finally {
      process.kill(engine, 'SIGCONT');
    }
    terminal.line('echo "back $((40 + 4))"');
    await terminal.until('back 44');
    terminal.close();
    await sleep(500);
    expect(await stateOf('left')).toBe('running');
    expect(await said('exec', 'left', '--', 'echo $((6 * 7))')).toBe('42\n');
    expect(await said('stop', 'left')).toBe('left\n');
    expect(await stateOf('left')).toBe('ended');
    await gone();
  });

  test.each([
    ['run', 'SIGHUP'],
    ['serve', 'SIGTERM'],
  ] as const)('nemu %s with a name that gets %s twice writes down that it has ended', async (command, signal) => {
    const name = `twice-${command}`;
    const child = spawn(nemu, [command, '--name', name], { env: { ...process.env, ...env }, stdio: 'ignore' });
    const exited = new Promise((resolve) => child.once('exit', resolve));
    while ((await stateOf(name)) !== 'running') await sleep(200);
    const engine = JSON.parse(await said('ps', '--json')).find((each: { name: string }) => each.name === name).pid;
    process.kill(engine, signal);
    child.kill(signal);
    await sleep(5);
    process.kill(engine, signal);
    await exited;
    expect(await stateOf(name)).toBe('ended');
    await gone();
  });
});

/** Engines, labs and supervisors whose environment has this folder. */
function processes(folder: string): string[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => {
      try {
        const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
        const ours = readFileSync(`/proc/${pid}/environ`, 'latin1').includes(`XDG_RUNTIME_DIR=${folder}`);
        return ours && /node|qemu|bin\/nemu/.test(command) ? [`${pid} ${command.slice(0, 300)}`] : [];
      } catch {
        return [];
      }
    });
}
