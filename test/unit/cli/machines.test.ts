/** Names, records, logs, sockets and pseudo-terminals of machines in the background; no machine is made. */
import { spawn, spawnSync } from 'node:child_process';
import {
  chmodSync,
  closeSync,
  constants,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { completionScript } from '../../../src/cli/completion.ts';
import { ptyEnd } from '../../../src/cli/machines/background.ts';
import type { AttachedMachine } from '../../../src/cli/machines/connection.ts';
import { runtimeFolder, runtimePaths, statePaths } from '../../../src/cli/machines/folders.ts';
import { runGdb } from '../../../src/cli/machines/gdb_command.ts';
import { claimName, isClaimed } from '../../../src/cli/machines/name_lock.ts';
import {
  findMachine,
  listMachines,
  type MachineRecord,
  machineNamed,
  writeRecord,
} from '../../../src/cli/machines/records.ts';
import { servePrivately } from '../../../src/cli/private_socket.ts';
import { program } from '../../../src/cli/program.ts';
import type { ConsoleStream } from '../../../src/client/machine_client.ts';
import { CastRecorder, parseCast, playCast } from '../../../src/console/asciicast.ts';
import { ConsoleHub } from '../../../src/console/hub.ts';
import { PtyBridge } from '../../../src/console/pty_bridge.ts';
import { PseudoTerminal } from '../../../src/ffi/pty.ts';
import { runNemu } from '../../support/cli.ts';
import { random as randomOf } from '../../support/random.ts';

let folder: string;
const before = { run: process.env.XDG_RUNTIME_DIR, state: process.env.XDG_STATE_HOME };
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'nemu-names-'));
  process.env.XDG_RUNTIME_DIR = join(folder, 'run');
  process.env.XDG_STATE_HOME = join(folder, 'state');
});
afterEach(() => {
  for (const [name, value] of [
    ['XDG_RUNTIME_DIR', before.run],
    ['XDG_STATE_HOME', before.state],
  ] as const) {
    if (value === undefined) delete process.env[name];
    else process.env[name] = value;
  }
  rmSync(folder, { recursive: true, force: true });
});

const record = (name: string, more: Partial<MachineRecord> = {}): MachineRecord => ({
  ...{ name, pid: 1, startedAt: new Date().toISOString(), running: true, kernel: '/k', cpus: 1, memory: 2 ** 29 },
  consoles: ['com1'],
  ...more,
});

describe('names', () => {
  test('belong to one at a time, and leave nothing', () => {
    const release = claimName('work');
    expect(release).toBeDefined();
    expect(isClaimed('work')).toBe(true);
    expect(claimName('work')).toBeUndefined();
    release?.();
    expect(isClaimed('work')).toBe(false);
    expect(existsSync(runtimePaths('work').folder)).toBe(false);
  });

  test('of processes that were killed are free, and what they left is cleaned', () => {
    writeRecord(record('dead'));
    mkdirSync(runtimePaths('dead').folder);
    for (const path of [runtimePaths('dead').lock, runtimePaths('dead').control]) writeFileSync(path, '');
    expect(findMachine('dead')).toMatchObject({ status: 'crashed' });
    expect(listMachines().map(({ name }) => name)).toEqual(['dead']);
    expect(existsSync(runtimePaths('dead').folder)).toBe(false);
    writeRecord(record('dead', { end: { at: '', reason: 'poweroff', detail: 'x', status: 0 } }));
    expect(findMachine('dead')).toMatchObject({ status: 'ended' });
    expect(() => machineNamed('daed')).toThrow(/no machine "daed"/);
    expect(() => machineNamed(undefined)).toThrow(/No machine runs/);
  });

  test('of killed processes leave the folder of their run, which goes when nobody else takes it away', () => {
    const orphan = (path: string, supervisor: number) => {
      mkdirSync(join(folder, path), { recursive: true });
      mkdirSync(runtimePaths('dead').folder);
      writeFileSync(runtimePaths('dead').run, `${supervisor} ${join(folder, path)}`);
      listMachines();
      return existsSync(join(folder, path));
    };
    const { pid: gone } = spawnSync('true');
    expect(orphan('nemu.a1B2c3', gone)).toBe(false);
    expect(orphan('nemu.a1B2c3', 0)).toBe(false);
    expect(orphan('nemu.a1B2c3', process.pid)).toBe(true);
    expect(orphan('home', 0)).toBe(true);
  });

  test('a folder that others may change is not trusted', () => {
    mkdirSync(join(folder, 'run', 'nemu'), { recursive: true });
    chmodSync(join(folder, 'run', 'nemu'), 0o777);
    expect(runtimeFolder).toThrow(/open to others/);
  });

  test('records that are none are left out, whatever is in them', () => {
    const random = randomOf(3);
    const good = JSON.stringify(record('x'));
    for (let i = 0; i < 200; i++) {
      mkdirSync(statePaths('x').folder, { recursive: true });
      const bytes = Buffer.from(good);
      for (let n = random(8); n >= 0; n--) bytes[random(bytes.length)] = random(256);
      writeFileSync(statePaths('x').record, bytes.subarray(0, random(bytes.length + 1)));
      expect([0, 1]).toContain(listMachines().length);
    }
    expect(findMachine('../x')).toBeUndefined();
  });
});

test('nemu logs asks no terminal anything, also through a pipe; --raw gives all', async () => {
  writeRecord(record('work', { end: { at: '', reason: 'poweroff', detail: '', status: 0 } }));
  writeFileSync(statePaths('work').console('com1'), '~ # \x1b[6n\nls \x1b[6n\n');
  const env = { XDG_RUNTIME_DIR: folder, XDG_STATE_HOME: join(folder, 'state') };
  const logs = async (...args: string[]) => (await runNemu(['logs', 'work', ...args], { env })).stdout.toString();
  expect(await logs()).toBe('~ # \nls \n');
  expect(await logs('--grep', 'ls')).toBe('ls \n');
  expect(await logs('--raw', '-n', '1')).toBe('ls \x1b[6n\n');
  expect(await runNemu(['logs', 'work', '--raw', '-t'], { env })).toMatchObject({ status: 2 });
});

test('nemu gdb with a vmlinux that is not there says so', async () => {
  const attached = { machine: { vmcoreinfo: async () => undefined }, known: { record: {} } };
  const gdb = (file: string) =>
    runGdb(attached as unknown as AttachedMachine, file, [], { gdb: process.execPath, symbols: true });
  await expect(gdb('/nope')).rejects.toThrow('The file /nope does not exist.');
  await expect(gdb('/etc/passwd')).rejects.toThrow('/etc/passwd is no ELF file');
});

describe('recordings', () => {
  test('recordings are played as they were, without the pauses that nobody wants', async () => {
    const path = join(folder, 'x.cast');
    // A new pseudo-terminal has no size; one with 0 columns could not be played.
    const recorder = new CastRecorder(path, { rows: 0, columns: 0 }, 'x', () => {});
    recorder.resized(0, 0);
    // A character may come in pieces.
    for (const byte of Buffer.from('größe\r\n')) recorder.bytes(Uint8Array.of(byte));
    recorder.close();
    const text = readFileSync(path, 'utf8');
    let played = '';
    await playCast(parseCast(text, path), (piece) => (played += piece), { speed: 100 });
    expect(played).toBe('größe\r\n');
    expect(parseCast(`${text}[9, "o", "ha`, path).events.length).toBe(parseCast(text, path).events.length);
    expect(() => parseCast('{"version": 1}\n', path)).toThrow(/not an asciicast v2 recording/);
  });
});

test.skipIf(process.getuid?.() !== 0)(
  'a socket that is open to all by mistake still serves this user alone (needs root)',
  async () => {
    const path = join(folder, 'socket');
    let served = 0;
    const end = await servePrivately(path, { name: 'socket', code: 'X', option: '--x' }, (socket) => {
      served++;
      socket.end('hello');
    });
    chmodSync(folder, 0o755);
    chmodSync(path, 0o777);
    const program = `const s = require('net').connect(${JSON.stringify(path)}); s.on('data', () => process.exit(7)); s.on('close', () => process.exit(8)); s.on('error', () => process.exit(9));`;
    const other = spawn(process.execPath, ['-e', program], { uid: 65534, gid: 65534 });
    const status = await new Promise((resolve) => other.once('exit', resolve).once('error', resolve));
    expect([8, 9]).toContain(status);
    expect(served).toBe(0);
    const mine = connect(path);
    expect(Buffer.concat(await mine.toArray()).toString()).toBe('hello');
    end();
  },
);

test('a program at the pseudo-terminal sees the console, drives it when it writes, and may come again', async () => {
  let typed = '';
  const source: ConsoleStream = {
    ...{ name: 'com1', onData: undefined, onLost: undefined, onWritable: undefined },
    write: (bytes) => {
      typed += Buffer.from(bytes);
      return bytes.length;
    },
  };
  const hub = new ConsoleHub(source);
  const bridge = new PtyBridge(hub, ptyEnd(new PseudoTerminal()));
  const person = hub.open({ role: 'driver', label: 'ann' });
  const path = hub.report().pty as string;
  const until = async (what: () => boolean) => {
    for (let i = 0; i < 1000 && !what(); i++) await new Promise((resolve) => setTimeout(resolve, 20));
    expect(what()).toBe(true);
  };
  source.onData?.(Buffer.from('login: '));
  await hub.drawn();
  for (const round of [1, 2]) {
    // This process is at both ends: it must not wait for itself.
    const fd = openSync(path, constants.O_RDWR | constants.O_NONBLOCK | constants.O_NOCTTY);
    await until(() => hub.report().viewers.length === 1);
    expect(hub.report().driver).toBe('ann');
    writeSync(fd, `root${round}\n`);
    await until(() => typed.endsWith(`root${round}\n`));
    expect(hub.report().driver).toContain(path);
    // No line editing, no echo.
    let seen = '';
    source.onData?.(Buffer.from(`\r\nprompt${round}`));
    await until(() => {
      const piece = Buffer.alloc(4096);
      try {
        seen += piece.toString('latin1', 0, readSync(fd, piece));
      } catch (error) {
        expect(error).toMatchObject({ code: 'EAGAIN' });
      }
      // Within the screen that it gets first, or after that.
      return seen.includes(`prompt${round}`);
    });
    // A program that takes nothing holds nobody up: the guest prints on.
    for (let i = 0; i < 2000; i++) source.onData?.(Buffer.alloc(4096, 0x78));
    expect(hub.bytes).toBeGreaterThan(8_000_000 * round);
    closeSync(fd);
    // What is not on the screen yet would come first.
    await hub.drawn();
    await until(() => hub.report().driver === undefined);
    person.takeOver();
  }
  bridge.close();
  expect(existsSync(path)).toBe(false);
  expect(hub.report().pty).toBeUndefined();
  hub.close();
});

/** What bash offers for the last of some words. */
function completed(words: readonly string[], folders: Readonly<Record<string, string>> = {}): string {
  const line = words.map((word) => `'${word}'`).join(' ');
  const script = `${completionScript('bash', program())}\nCOMP_WORDS=(${line}); COMP_CWORD=${words.length - 1}; _nemu; echo "\${COMPREPLY[@]}"`;
  return spawnSync('bash', ['-c', script], { env: { ...process.env, ...folders }, encoding: 'utf8' }).stdout.trim();
}

test('names of machines complete', () => {
  const state = join(folder, 'state');
  mkdirSync(join(state, 'nemu', 'machines', 'alpha'), { recursive: true });
  const folders = { XDG_STATE_HOME: state, XDG_CACHE_HOME: join(folder, 'cache') };
  const ask = (...words: string[]) => completed(words, folders);
  expect(ask('nemu', 'console', 'al')).toBe('alpha');
  expect(ask('nemu', 'qmp', 'al')).toBe('alpha');
  expect(ask('nemu', 'image', 'info', 'al')).toBe('');
  // Several of them side by side, the value of an option, and the consoles that one has.
  expect(ask('nemu', 'tile', 'beta', 'al')).toBe('alpha');
  expect(ask('nemu', 'apply', '--to', 'al')).toBe('alpha');
  for (const name of ['com1', 'hvc0']) {
    for (const end of ['', '.times', '.1']) {
      writeFileSync(join(state, 'nemu', 'machines', 'alpha', `console-${name}.log${end}`), '');
    }
  }
  expect(ask('nemu', 'console', 'alpha', '')).toBe('com1 hvc0');
  expect(ask('nemu', 'logs', '-f', 'alpha', 'h')).toBe('hvc0');
  expect(ask('nemu', 'cons')).toBe('console');
  // What is to be made has a name of its own; kernels and root images are no machines.
  for (const words of [
    ['run', '--name'],
    ['serve', '--name'],
    ['guest', 'build', '--name'],
  ]) {
    expect(ask('nemu', ...words, 'al'), words.join(' ')).toBe('');
  }
  expect(ask('nemu', 'image', 'snapshot', '--create', '')).toBe('');
  expect(ask('nemu', 'image', 'convert', '-l', '')).toBe('');
  expect(ask('nemu', 'attach', '--theme', 'al')).toBe('');
  mkdirSync(join(folder, 'cache', 'nemu', 'guests', '6.12.48'), { recursive: true });
  mkdirSync(join(folder, 'cache', 'nemu', 'images'));
  writeFileSync(join(folder, 'cache', 'nemu', 'images', 'debian.qcow2'), '');
  expect(ask('nemu', 'guest', 'rm', 'al')).toBe('');
  expect(ask('nemu', 'guest', 'rm', '6')).toBe('6.12.48');
  expect(ask('nemu', 'guest', 'rm', 'd')).toBe('debian');
});

test('what an option can be completes', () => {
  const ask = (...words: string[]) => completed(words);
  for (const command of ['attach', 'tile', 'workstation']) {
    expect(ask('nemu', command, '--theme', '')).toBe('dark light contrast plain');
  }
  expect(ask('nemu', 'guest', 'fetch', '--flavour', 'f')).toBe('full');
  expect(ask('nemu', 'run', '--machine', '')).toBe('q35 pc minimal');
  const fish = completionScript('fish', program()).split('\n');
  expect(fish).toContain(
    "complete -c nemu -n '__fish_seen_subcommand_from attach' -l theme -x -a 'dark light contrast plain'",
  );
  expect(fish).toContain("complete -c nemu -n '__fish_seen_subcommand_from apply' -l to -x -a '(nemu ps -aq)'");
  expect(fish).toContain("complete -c nemu -n '__fish_seen_subcommand_from serve' -l name -x");
});
