/** A machine in the background, terminals that come and go, and what is left of it. */
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { ConsoleReport } from '../../src/client/shared_console.ts';
import { nemu, runNemu } from '../support/cli.ts';
import { hasTmux, Terminal } from '../support/tmux.ts';

const LIMIT_MS = 300_000;
const LINES = 100_000;

interface Listed {
  readonly name: string;
  readonly pid: number;
  readonly state: string;
}

describe.skipIf(!hasTmux)('machines in the background (needs tmux)', () => {
  let folder: string;
  let env: Record<string, string>;
  const terminals: Terminal[] = [];
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'nemu-machines-'));
    env = { XDG_STATE_HOME: join(folder, 'state'), XDG_RUNTIME_DIR: join(folder, 'run'), USER: 'ann' };
    mkdirSync(env.XDG_RUNTIME_DIR, { mode: 0o700 });
  });
  afterAll(async () => {
    for (const terminal of terminals) terminal.close();
    for (const pid of processes(folder).map(Number.parseFloat)) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // A lab ends with its engine.
      }
    }
    rmSync(folder, { recursive: true, force: true });
  });

  const run = (...args: string[]) => runNemu(args, { env });
  /** What a command that succeeds prints. */
  const said = async (...args: string[]) => {
    const { status, stdout, stderr } = await run(...args);
    expect({ status, stderr: status === 0 ? '' : stderr }).toEqual({ status: 0, stderr: '' });
    return stdout.toString();
  };
  const listed = async (): Promise<Listed[]> => JSON.parse(await said('ps', '-a', '--json'));
  const consoles = async (): Promise<ConsoleReport[]> => JSON.parse(await said('console', 'day', '--list', '--json'));
  const open = () => {
    const terminal = new Terminal(100, 30, env);
    terminals.push(terminal);
    return terminal;
  };
  /**
   * Types a line at the guest's shell, which asks the terminal where its cursor is and loses what is typed in one piece
   * with the answer.
   */
  const guestLine = async (terminal: Terminal, text: string) => {
    await sleep(700);
    // What is lost is at most what one read of the shell takes: blanks.
    terminal.line(`${' '.repeat(16)}${text}`);
  };
  const state = (name: string) => join(env.XDG_STATE_HOME, 'nemu', 'machines', name);

  test(
    'a mixed-up day: terminals come, share, take over, are killed and come again; the guest never notices',
    async () => {
      const devices = ['--device', 'virtio-console', '--device', 'virtio-port,name=bulk'];
      expect(await said('run', '-d', '--name', 'day', ...devices)).toBe('day\n');
      expect(await listed()).toMatchObject([{ name: 'day', state: 'running' }]);
      const again = await run('run', '-d', '--name', 'day');
      expect(again).toMatchObject({ status: 1 });
      expect(again.stderr).toContain('A machine day runs already.');

      // One terminal drives; its size is the guest's.
      const ann = open();
      ann.line(`${nemu} console day`);
      await ann.until('~ # ');
      await guestLine(ann, 'x=$((6 * 7)); until [ "$(stty size)" = "30 100" ]; do sleep 0.2; done; echo "sized $x"');
      await ann.until('\nsized 42\n');

      // Another one sees the same, with what was there before, and types into nothing until it takes over.
      const bob = open();
      bob.line(`USER=bob ${nemu} console day`);
      await bob.until('\nsized 42\n');
      await bob.until('Somebody else drives this console');
      await guestLine(bob, 'echo unheard');
      await guestLine(ann, 'echo "shared $((x + 1))"');
      await bob.until('\nshared 43\n');
      expect(bob.screen).not.toContain('unheard');
      bob.press('C-a', 't');
      await ann.until(/bob on \S+ has taken the console over\. Ctrl-a t takes it back\./);
      await bob.until('You drive it now.');
      await guestLine(bob, 'echo "taken $((x + 2))"');
      await ann.until('\ntaken 44\n');
      const [com1] = await consoles();
      expect(com1.driver).toMatch(/^bob/);
      expect(com1.viewers).toEqual([expect.stringMatching(/^ann/)]);

      // What scrolled away is found again.
      bob.press('C-a', '/');
      await bob.until('search: ');
      bob.line('SHARED');
      await bob.until(/search: SHARED\n(.*\n)*shared 43\nEnter comes back\./);
      bob.press('Enter');
      await bob.until(/taken 44\n(?![\s\S]*Enter comes back)/);

      // Ctrl-] leaves; the shell has its terminal back, and the console nobody to drive it.
      bob.press('C-]');
      await bob.until('Left day; nemu console day comes back.');
      bob.line('stty -a');
      await bob.until(/ icanon .* echo /s);
      await ann.until('has left: nobody drives the console.');

      // Somebody watches, and sees when each line came.
      bob.line(`${nemu} console day --watch -t`);
      await bob.until('Ctrl-] leaves');
      await said('exec', 'day', '--', '(echo; echo "timed $((40 + 4))") >/dev/console');
      await bob.until(/\d\d:\d\d:\d\d\.\d{3} .*timed 44\n/);
      bob.press('C-]');
      await bob.until('Left day');

      // Any program may open the console's pseudo-terminal, and drives it once it writes.
      const pty = openSync(com1.pty as string, 'r+');
      writeSync(pty, 'echo "program $((x + 3))"\n');
      await ann.until('\nprogram 45\n');
      closeSync(pty);

      // A virtio console tells the guest itself what size the driver's terminal has.
      // Linux takes it for a terminal that somebody has open.
      await said('exec', 'day', '--', "setsid sh -c 'exec sleep 1000 <>/dev/hvc0' >/dev/null 2>&1 &");
      bob.line(`${nemu} console day hvc0`);
      await bob.until('[nemu] day, hvc0');
      await said('exec', 'day', '--', 'until [ "$(stty -F /dev/hvc0 size)" = "30 100" ]; do sleep 0.2; done');
      bob.press('C-]');

      // 100 000 lines, past a viewer that reads nothing of them for now.
      const slow = spawn(nemu, ['console', 'day', 'bulk', '--watch'], { env: { ...process.env, ...env } });
      await until(async () => (await consoles()).some(({ name, viewers }) => name === 'bulk' && viewers.length === 1));
      await said('exec', 'day', '--', `seq ${LINES} >/dev/virtio-ports/bulk`);
      const log = join(state('day'), 'console-bulk.log');
      await until(() => readFileSync(log, 'latin1').endsWith(`\n${LINES}\n`));
      const lines = readFileSync(log, 'latin1').split('\n');
      expect(lines.length).toBe(LINES + 1);
      expect(lines.findIndex((line, index) => line !== String(index + 1))).toBe(LINES);
      expect((await consoles()).find(({ name }) => name === 'bulk')).toMatchObject({
        ...{ lost: 0, bytes: readFileSync(log).length },
      });
      // It has all of it too, once it reads: the hub kept that for it.
      let seen = '';
      slow.stdout.on('data', (bytes) => {
        seen += bytes;
      });
      await until(() => seen.endsWith(`\n${LINES}\n`));
      expect(seen === lines.join('\n')).toBe(true);
      slow.kill();

      // The terminal dies with the viewer in it; a new one finds everything as it was.
      ann.close();
      const cid = open();
      cid.line(`${nemu} console`);
      await cid.until('\nprogram 45\n');
      await guestLine(cid, 'echo "still $((x + 4))"');
      await cid.until('\nstill 46\n');
      cid.press('C-]');
      await cid.until('Left day');

      // The workstation, and away from it.
      cid.line('clear');
      cid.line(`${nemu} attach day`);
      await cid.until(/com1/);
      await cid.until(/vCPUs/);
      await cid.until('still 46');
      cid.press('q');
      await cid.until('Left day; nemu attach day comes back.');

      // Consoles side by side, and one keyboard for both.
      await said('exec', 'day', '--', 'setsid -c sh -i <>/dev/hvc0 >&0 2>&1 &');
      cid.line('clear');
      cid.line(`${nemu} tile day day:hvc0`);
      await cid.until(/─ day com1 ─+│─ day hvc0 ─/);
      await cid.until(/still 46.*│/);
      cid.press('C-]', 'b');
      await cid.until(' to 2 of 2 ');
      await guestLine(cid, 'stty size; echo "both $((x + 5))"');
      for (const shown of [/^28 49 +│/m, /^both 47 +│/m, /│28 50 *$/m, /│both 5 *$/m]) await cid.until(shown);
      cid.press('C-]', 'z');
      await cid.until(/^─ day com1 ─+$/m);
      cid.press('C-]', 'z');
      cid.press('C-]', 'n');
      cid.press('C-]', 'q');
      await cid.until('Left day; it goes on.');
      cid.line('stty -a');
      await cid.until(/ icanon .* echo /s);

      // A terminal of its own in the guest, beside all consoles: keys, its size, Ctrl-C, the last bytes, the status.
      cid.line(`clear; ${nemu} exec day; echo "left with $?"`);
      await cid.until('day; Ctrl-] hangs up');
      await cid.until('~ # ');
      await guestLine(cid, 'tty; stty size; echo "own $((40 + 9))"; sleep 1000');
      await cid.until(/\/dev\/pts\/\d+\n30 100\nown 49\n/);
      cid.resize(90, 25);
      cid.press('C-c');
      await cid.until(/\^C\n.*~ # /s);
      await guestLine(cid, 'until [ "$(stty size)" = "25 90" ]; do sleep 0.2; done; seq 3000; exit 9');
      await cid.until(/\n2999\n3000\nleft with 9\n/);
      // Ctrl-] hangs up on what hangs, and ends it.
      cid.line(
        `${nemu} exec -t day -- 'echo "hangs $((40 + 10))"; trap "" INT; sleep 2000; sleep 2001'; echo "left with $?"`,
      );
      await cid.until('hangs 50');
      cid.press('C-]');
      await cid.until(/\[nemu\] Hung up\.\nleft with 129\n/);
      await said(
        'exec',
        'day',
        '--',
        'while pidof sleep >/dev/null && ps | grep -q "sleep 200[01]$"; do sleep 0.2; done',
      );
      cid.line('stty -a');
      await cid.until(/ icanon .* echo /s);
      cid.resize(100, 30);
      expect((await run('exec', 'day')).stderr).toContain('A terminal in the guest needs one here');

      // Programs instead of people.
      const exec = await runNemu(['exec', 'day', '--', 'cat; echo problem >&2; exit 7'], {
        env,
        input: Buffer.from('in\n'),
      });
      expect([exec.status, exec.stdout.toString(), exec.stderr]).toEqual([7, 'in\n', 'problem\n']);
      // Much of it goes through a port of the virtio console: bytes on the serial port each leave the guest.
      const accesses = async () => {
        const code = '(await vm.machine.counters()).regions.find(({ base }) => base === 0x2e8)';
        const { reads, writes } = JSON.parse(await said('repl', 'day', '--json', '-e', code));
        return reads + writes;
      };
      const [noise, before] = [randomBytes(100_000), await accesses()];
      const through = await runNemu(['exec', 'day', '--', 'cat'], { env, input: noise });
      expect([through.status, noise.equals(through.stdout)]).toEqual([0, true]);
      expect((await accesses()) - before).toBeLessThan(2000);
      expect(await consoles()).not.toContainEqual(expect.objectContaining({ name: 'nemu.agent' }));
      const killed = await run('exec', 'day', '--', 'kill -9 $$');
      expect([killed.status, killed.stderr]).toEqual([137, 'Killed\n']);
      // What a command prints comes while it runs; a signal ends it.
      const running = spawn(nemu, ['exec', 'day', '--', 'echo early; exec sleep 3000'], {
        env: { ...process.env, ...env },
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      const ended = new Promise((resolve) => running.once('exit', resolve));
      let early = '';
      running.stdout.on('data', (bytes) => {
        early += bytes;
      });
      await until(() => early === 'early\n');
      running.kill('SIGTERM');
      expect(await ended).toBe(130);
      expect(await said('qmp', 'day', 'query-status')).toContain('"running": true');
      expect(await said('repl', 'day', '-e', 'vm.state')).toContain('running');
      const yaml = join(folder, 'now.yaml');
      writeFileSync(yaml, await said('describe', 'day'));
      expect(await said('apply', '--to', 'day', '--dry-run', yaml)).toBe('The machine is as the description has it.\n');
      writeFileSync(yaml, 'rng: true\n');
      const applied = JSON.parse(await said('apply', yaml, '--json'));
      expect(applied).toMatchObject({ done: true, steps: [{ action: 'plug', subject: 'rng' }] });
      expect(await said('exec', 'day', '--', 'cat /sys/class/misc/hw_random/rng_current')).toContain('virtio_rng');
      // A console that is plugged is handed out too, and its log kept; who is attached already sees it come and go.
      const withLate = "await vm.pci.plug('virtio-console', { id: 'late' }); const { consoles } = vm.machine; consoles";
      expect(await said('repl', 'day', '-e', withLate)).toContain("'late'");
      await said('exec', 'day', '--', 'echo from the late one >/dev/hvc1');
      expect(await said('logs', 'day', 'late')).toContain('from the late one');
      // What was done to the machine is kept with it: each of these is another client.
      expect(await said('repl', 'day', '-e', 'history')).toMatch(/vm\.plug\(.*virtio-rng[\s\S]*vm\.plug\(.*late/);
      expect(await said('repl', 'day', '-e', 'undo')).toBe("vm.unplug('late')\n");
      expect(await said('repl', 'day', '-e', 'vm.machine.consoles')).not.toContain("'late'");
      expect(JSON.parse(await said('top', '--json', '--interval', '1s'))).toMatchObject([{ name: 'day', vcpus: 1 }]);
      const events = await said('events', 'day');
      expect(events).toMatch(/guest-phase name "ready"/);
      for (const what of ['came', 'drives', 'took it over from .*', 'left']) {
        expect(events).toMatch(new RegExp(`note com1: \\w+ on \\S+ ${what}$`, 'm'));
      }
      expect(await said('logs', 'day', '-t', '--grep', 'still 46')).toMatch(/^\d{4}-\d\d-\d\dT\S+Z still 46\r?$/m);
      expect((await run('logs', 'dya')).stderr).toContain('Did you mean day?');
      expect((await run('rm', 'day')).stderr).toContain('nemu stop day first');

      // The end, and nothing is left but what was written down.
      expect(await said('stop', 'day')).toBe('day\n');
      expect(await listed()).toMatchObject([{ name: 'day', state: 'ended' }]);
      expect(readdirSync(join(env.XDG_RUNTIME_DIR, 'nemu'))).toEqual([]);
      expect(await said('logs', 'day', '-n', '1')).toContain('Power down');
      expect((await run('attach', 'day')).stderr).toContain('The guest powered off.');
      await gone();
      await said('rm', 'day');
      expect(existsSync(state('day'))).toBe(false);
    },
    LIMIT_MS,
  );

  test(
    'a killed engine leaves a post-mortem, until it is removed',
    async () => {
      const cast = join(folder, 'boot.cast');
      await said('run', '-d', '--name', 'late', '--record', cast);
      await said('exec', 'late', '--', 'echo seen by nobody >/dev/console');
      const input = Buffer.from([0x00, 0xff, 0x0a, 0x0d]);
      const through = await runNemu(['exec', 'late', '--', 'cat'], { env, input });
      expect([through.status, through.stdout]).toEqual([0, input]);
      const pid = (await listed()).find(({ name }) => name === 'late')?.pid as number;
      process.kill(pid, 'SIGKILL');
      await gone();
      expect(await listed()).toMatchObject([{ name: 'late', state: 'crashed' }]);
      expect(readdirSync(join(env.XDG_RUNTIME_DIR, 'nemu'))).toEqual([]);
      const logs = await run('logs', 'late');
      expect(logs.stdout.toString()).toContain('seen by nobody');
      expect(logs.stderr).toMatch(/the machine late crashed/);
      expect(logs.stderr).toContain('the engine was killed by SIGKILL');
      const left = JSON.parse(await said('logs', 'late', '--json'));
      expect(left.postMortem).toMatchObject({ description: { name: 'late' } });
      expect(left.postMortem.console).toContain('seen by nobody');
      expect((await run('run', '-d', '--name', 'late')).stderr).toContain('nemu rm late removes it');
      expect(await said('play', cast, '--speed', '1000')).toContain('seen by nobody');
      await said('rm', 'late');
      expect(await listed()).toEqual([]);
      expect(readdirSync(join(env.XDG_STATE_HOME, 'nemu', 'machines'))).toEqual([]);
    },
    LIMIT_MS,
  );

  async function until(what: () => boolean | Promise<boolean>): Promise<void> {
    for (let i = 0; i < 300 && !(await what()); i++) await sleep(100);
    expect(await what()).toBe(true);
  }

  /** Waits until no process of this test's machines is there. */
  async function gone(): Promise<void> {
    for (let i = 0; i < 100 && processes(folder).length > 0; i++) await sleep(100);
    expect(processes(folder)).toEqual([]);
  }
});

/** Engines and labs whose environment has this folder. */
/** Processes of this test's machines: number, state and command line. */
function processes(folder: string): string[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => {
      try {
        const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
        const ours = readFileSync(`/proc/${pid}/environ`, 'latin1').includes(`XDG_RUNTIME_DIR=${folder}`);
        const state = /^State:\s*(.*)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
        return ours && /node|qemu|bin\/nemu/.test(command) ? [`${pid} ${state} ${command.slice(0, 300)}`] : [];
      } catch {
        return [];
      }
    });
}
