import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { PackedOutput } from '../../../src/client/packed_output.ts';
import { findProgram } from '../../../src/lab/command.ts';
import { findGuest, type Guest } from '../../../src/lab/guest.ts';
import {
  buildInitramfs,
  busyboxInitramfs,
  concatenateArchives,
  type GuestTask,
  taskOverlay,
} from '../../../src/lab/initramfs.ts';
import { TtyStdinEncoder } from '../../../src/lab/tty_stdin.ts';

/** The init's contract over four serial ports, with Debian's QEMU as the machine. */
let guest: Guest | undefined;
let folder: string;

beforeAll(async () => {
  guest = await findGuest(undefined).catch(() => undefined);
  folder = await mkdtemp(join(tmpdir(), 'nemu-test-'));
});

afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
});

/** How long a guest may take to say what is waited for. */
const WORDS_MS = 40_000;

/** A guest under way: what each serial port has said, and a way to wait for words. */
async function boot(task: GuestTask, archive?: string) {
  const initrd = join(folder, 'initrd');
  const base = await readFile(archive ?? (await buildInitramfs({ guest: guest! })));
  await writeFile(initrd, concatenateArchives([base, taskOverlay(task)]));
  const serials = [3, 4, 5, 6].flatMap((fd) => ['-chardev', `socket,id=c${fd},fd=${fd}`, '-serial', `chardev:c${fd}`]);
  const machine = [
    '-M',
    'q35,accel=tcg',
    '-m',
    '512',
    '-nodefaults',
    '-no-user-config',
    '-display',
    'none',
    '-no-reboot',
  ];
  const append = ['-append', 'console=ttyS0 quiet panic=-1'];
  const child = spawn(
    'setpriv',
    [
      '--pdeathsig',
      'KILL',
      'qemu-system-x86_64',
      ...machine,
      ...serials,
      '-kernel',
      guest!.kernel,
      '-initrd',
      initrd,
      ...append,
    ],
    { stdio: ['ignore', 'inherit', 'inherit', 'pipe', 'pipe', 'pipe', 'pipe'] },
  );
  const ports = [3, 4, 5, 6].map((fd) => child.stdio[fd] as unknown as Duplex);
  const said = ports.map(() => Buffer.alloc(0));
  let wake = () => {};
  for (const [index, port] of ports.entries()) {
    port.on('data', (bytes: Buffer) => {
      said[index] = Buffer.concat([said[index]!, bytes]);
      wake();
    });
    port.on('error', () => {});
  }
  const ended = new Promise<void>((resolve) => {
    child.on('close', () => resolve());
  });
  const until = async (port: number, words: string) => {
    const deadline = performance.now() + WORDS_MS;
    while (!said[port]!.includes(words)) {
      if (performance.now() > deadline) {
        const last = said.map((bytes, index) => `\nport ${index}: ${JSON.stringify(bytes.toString().slice(-300))}`);
        throw new Error(`Serial port ${port} did not say "${words}" in ${WORDS_MS} ms. What each said last:${last}`);
      }
      await Promise.race([
        new Promise<void>((resolve) => {
          wake = resolve;
        }),
        sleep(1000),
        ended.then(() => {
          throw new Error(`The guest ended before serial port ${port} said "${words}", but: ${said[port]}`);
        }),
      ]);
    }
  };
  return { ports, said, ended, until };
}

/** What a script has printed, as the channel told it, and how many characters that took. */
function outputOf(told: string, id: number): { readonly text: string; readonly packed: number } {
  const packed = new PackedOutput();
  let [text, length] = ['', 0];
  for (const [, z, bytes] of told.matchAll(new RegExp(`^(z?)out ${id} (\\S+)\\r?$`, 'gm'))) {
    length += bytes!.length;
    text += (z ? packed.take(bytes!) : Buffer.from(bytes!, 'base64'))?.toString() ?? '';
  }
  return { text, packed: length };
}

describe('the init of a guest', () => {
  it('runs a command with binary input, output, errors and status', { timeout: 60_000 }, async ({ skip }) => {
    if (!guest || !findProgram('qemu-system-x86_64')) return skip('It needs QEMU and a fetched guest kernel.');
    const input = Buffer.from(Array.from({ length: 30_000 }, (_, index) => (index * index + (index >> 8)) & 0xff));
    const { ports, said, ended, until } = await boot({
      command: 'md5sum; printf "\\001\\r\\n\\377"; echo "$WHO" >&2; hostname >&2; exit 7',
      env: { WHO: "it's me" },
    });
    await until(3, 'phase ready');
    const encoder = new TtyStdinEncoder();
    ports[1]!.write(encoder.encode(input));
    ports[1]!.write(encoder.end());
    await ended;
    const sum = createHash('md5').update(input).digest('hex');
    expect(said[1]!.toString('latin1')).toBe(`${sum}  -\n\x01\r\n\xff`);
    expect(said[2]!.toString()).toBe("it's me\nnemu\n");
    expect(said[0]!.toString()).toBe('');
    expect(
      said[3]!
        .toString()
        .replaceAll('\r', '')
        .replace(/phase settled .*\n/, ''),
    ).toMatch(/^phase init \d+\.\d+\nphase ready \d+\.\d+\nexit 7\n$/);
  });

  it('gives a shell with job control and a size, tells signals on, and stops what it was asked to run', {
    timeout: 60_000,
  }, async ({ skip }) => {
    if (!guest || !findProgram('qemu-system-x86_64')) return skip('It needs QEMU and a fetched guest kernel.');
    const { ports, said, ended, until } = await boot({ terminal: { rows: 24, columns: 80 } });
    // The channel never echoes, however early a request comes: an echo would be a part of the line that is on its way.
    await until(3, 'phase init');
    ports[3]!.write(`run 9 ${Buffer.from(`: ${'x'.repeat(1500)}; echo early`).toString('base64')}\n`);
    await until(3, 'ran 9 0');
    expect(outputOf(said[3]!.toString(), 9).text).toBe('early\n');
    expect(said[3]!.toString()).not.toContain('run 9');
    await until(0, '\x1b[6n');
    // Nothing but the prompt, which ends with the shell's question for the cursor's position.
    // QEMU's own timer may look broken to the kernel on a machine that has much else to do.
    const console = said[0]!.toString().replace(/^\[.*MP-BIOS bug.*\r?\n/m, '');
    expect(console).toBe('~ # \x1b[6n');
    ports[3]!.write('size 43 121\n');
    // What init does late does not take the size back.
    await until(3, 'phase settled');
    ports[0]!.write('until [ "$(stty size)" = "43 121" ]; do sleep 0.1; done; sh -c "tty; exec sleep 1000"\r');
    await until(0, '/dev/ttyS0\r\n');
    ports[0]!.write('\x03');
    await until(0, '^C');
    ports[0]!.write('echo "status=$?"\r');
    await until(0, 'status=130');
    // What the host has run is stopped, were it only about to start.
    const script = Buffer.from('exec sleep 1000').toString('base64');
    ports[3]!.write(`run 1 ${script}\nstop 1\nexec 2 ${script}\nstop 2\nrun 3 ${script}\n`);
    await until(3, 'ran 1 143');
    await until(3, 'ran 2 143');
    ports[3]!.write('stop 3\n');
    await until(3, 'ran 3 143');
    // Much output is packed; of two that print at the same time each has its own.
    const lines = (word: string) => Array.from({ length: 2000 }, (_, index) => `${word} ${index}\n`).join('');
    const printing = (word: string) =>
      Buffer.from(`i=0; while [ $i -lt 2000 ]; do echo "${word} $i"; i=$((i+1)); done`).toString('base64');
    ports[3]!.write(`run 4 ${printing('these')}\nrun 5 ${printing('those')}\nexec 6 ${printing('others')}\n`);
    for (const id of [4, 5, 6]) await until(3, `ran ${id} 0`);
    const told = said[3]!.toString();
    const [these, those, others] = [outputOf(told, 4), outputOf(told, 5), outputOf(told, 6)];
    expect(these.text).toBe(lines('these'));
    expect(those.text).toBe(lines('those'));
    expect(others.text).toBe(lines('others'));
    expect(these.packed).toBeLessThan(lines('these').length / 2);
    // Input, packed and not, in its order.
    ports[3]!.write(`exec 7 ${Buffer.from('cat').toString('base64')}\n`);
    await until(3, 'took 7 z');
    const input = [lines('packed'), 'plain\n', lines('again')];
    const [first, second, third] = input.map((text) => Buffer.from(text));
    const packed = (bytes: Buffer) => `=${gzipSync(bytes.subarray(0, 4000)).toString('base64')}`;
    ports[3]!.write(`in 7 ${packed(first!)}\nin 7 ${second!.toString('base64')}\nin 7 ${packed(third!)}\nin 7 .\n`);
    await until(3, 'ran 7 0');
    const echoed = `${input[0]!.slice(0, 4000)}${input[1]}${input[2]!.slice(0, 4000)}`;
    expect(outputOf(said[3]!.toString(), 7).text).toBe(echoed);
    ports[0]!.write('exit 3\r');
    await ended;
    expect(said[3]!.toString()).toMatch(/exit 3\r?\n/);
  });

  it('passes a signal to a command', { timeout: 60_000 }, async ({ skip }) => {
    if (!guest || !findProgram('qemu-system-x86_64')) return skip('It needs QEMU and a fetched guest kernel.');
    const { ports, said, ended, until } = await boot(
      { command: 'echo started; exec sleep 1000' },
      await busyboxInitramfs(guest.arch),
    );
    await until(1, 'started');
    ports[3]!.write('signal INT\n');
    await ended;
    expect(said[3]!.toString()).toMatch(/exit 130\r?\n/);
  });
});
