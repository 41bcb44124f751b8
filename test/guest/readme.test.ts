/** Every command that the README shows is run, in a folder that holds the files it names. */
import { execFileSync, spawn } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { fetchGuest } from '../../src/lab/guest.ts';
import { buildInitramfs } from '../../src/lab/initramfs.ts';
import { nemu } from '../support/cli.ts';

const LIMIT_MS = 300_000;
const README = readFileSync(new URL('../../README.md', import.meta.url), 'utf8');

interface Expectation {
  status?: number;
  stdout?: RegExp | string;
  /** Typed when `prompt` shows. */
  input?: string;
  prompt?: RegExp;
  /** Programs of the host without which the line cannot be run. */
  needs?: readonly string[];
  /** Not run here: the test file that does the same, or that runs it in `npm run test:long`. */
  elsewhere?: string;
  /** Runs it in a terminal. */
  terminal?: boolean;
}

/** The shell asks the terminal where its cursor is, behind its prompt. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: cursor position report (ECMA-48)
const SHELL_PROMPT = /~ # (\x1b\[6n)?$/;
/** node:repl sets the cursor behind its prompt, in the same piece or in the next. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: cursor character absolute (ECMA-48)
const REPL_PROMPT = /nemu> (\x1b\[\d+G)?$/;
const POWER_OFF = { input: 'poweroff\n', prompt: SHELL_PROMPT };

/** By the line as it is in README, its comment left out. A line that is not here fails the test. */
const EXPECTED: Record<string, Expectation> = {
  'nemu run': POWER_OFF,
  'nemu run -- uname -a': { stdout: /^Linux \S+ 6\..* x86_64/ },
  'echo hello | nemu run -- tr a-z A-Z': { stdout: 'HELLO\n' },
  "nemu run --cpus sockets=2,cores=2,threads=2 -- grep 'physical id' /proc/cpuinfo": { stdout: /: 0\n(.*\n)+.*: 1\n/ },
  'nemu run --memory size=2G,hugepages=2M,prealloc=on,lock=on': POWER_OFF,
  'nemu run ./bzImage --append nokaslr': POWER_OFF,
  "nemu run vmlinux --initrd root.cpio --append 'console=ttyS0 quiet'": POWER_OFF,
  'nemu run --disk root.img --rng -- mount /dev/vda /mnt': { needs: ['mkfs.ext4'] },
  'nemu image create disk.qcow2 20G': { stdout: /disk\.qcow2: qcow2, 20 GiB/ },
  'nemu image convert root.img root.qcow2': {},
  'nemu run --disk disk.qcow2 --disk root.qcow2,readonly=on -- cat /proc/partitions': {
    stdout: /20971520 vda\n.* 65536 vdb\n/,
  },
  'nemu run --net user,hostfwd=8080:80': POWER_OFF,
  'nemu run --device balloon --device watchdog -- ls /dev/watchdog0': { stdout: '/dev/watchdog0\n' },
  'nemu run --timeout 60 --json 3 -- make-it-crash 3>events.jsonl': { status: 127 },
  'nemu run --dry-run --cpus 4': { stdout: /"count": 4/ },
  'nemu run --config machine.yaml -- free -m': { stdout: /^Mem: +[23]\d\d /m },
  'nemu repl': { input: '.exit\n', prompt: REPL_PROMPT, terminal: true, needs: ['script'] },
  "nemu run --cpus 1,max=4 --memory 512M,max=4G -e 'cpu add 2'": { stdout: '[ vCPU 1, vCPU 2 ]\n' },
  "nemu run --memory 512M,max=4G -e 'apply machine.yaml'": {
    stdout:
      /^Done:\n {2}plug rng: virtio-rng\nOnly with a new start:\n {2}memory.size: 512 MiB → 384 MiB\n {2}cpus.count: 1 → 2\n$/,
  },
  "nemu run --cpus 2 -e 'info cpus'": { stdout: /^ +1 +1 +\d+ +(halted|running) /m },
  "echo 'await vm.dmesg(5)' | nemu repl": { stdout: /^(\[ *\d+\.\d+\] .*\n){5}/m },
  "nemu run -e 'plug virtio-blk file=root.img'": { stdout: 'vda: virtio-blk in rp0\n' },
  'nemu run --nvdimm pm.img,size=256M': { elsewhere: 'nvdimm.test.ts' },
  'nemu run --qmp qmp.sock': POWER_OFF,
  'nemu run --gdb 1234': POWER_OFF,
  ...Object.fromEntries(
    [
      ...['nemu run -d --name early --gdb unix:gdb.sock,wait', 'nemu gdb work'],
      "nemu gdb work -- -batch -ex 'info threads' -ex bt",
    ].map((line) => [line, { elsewhere: 'gdb.test.ts' }]),
  ),
  ...Object.fromEntries(
    [
      ...['nemu run -d --name work', 'nemu ps', 'nemu attach work', 'nemu console work'],
      ...['nemu console work --list', 'nemu console work -t'],
      'nemu tile',
      ...['nemu exec work -- dmesg', 'nemu exec work', "nemu repl work -e 'info cpus'", 'nemu qmp work query-status'],
      ...['nemu logs work -t -n 20', 'nemu events work', 'nemu top --once', 'nemu stop work', 'nemu rm work'],
      ...['nemu describe work', 'nemu apply --to work want.yaml'],
      ...['nemu run --record boot.cast', 'nemu play boot.cast'],
    ].map((line) => [line, { elsewhere: 'machines.test.ts' }]),
  ),
  'nemu doctor': { stdout: /KVM/ },
  'nemu guest fetch 6.12 --flavour full': { stdout: /6\.12\./ },
  'nemu guest build debian': { elsewhere: 'root_image.test.ts' },
  'nemu run --root debian': { elsewhere: 'root_image.test.ts' },
  'nemu lab shell': { input: 'exit\n', prompt: SHELL_PROMPT, terminal: true, needs: ['script', 'qemu-system-x86_64'] },
  'nemu completion bash': { stdout: /complete / },
};

const onPath = (program: string) =>
  [...(process.env.PATH ?? '').split(':'), '/usr/sbin', '/sbin'].some((folder) => existsSync(join(folder, program)));

describe('README', () => {
  let folder: string;
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'nemu-readme-'));
    const guest = await fetchGuest();
    for (const name of ['bzImage', 'vmlinux']) symlinkSync(guest.kernel, join(folder, name));
    copyFileSync(await buildInitramfs({ guest }), join(folder, 'root.cpio'));
    writeFileSync(join(folder, 'machine.yaml'), 'cpus: 2\nmemory: 384M\nrng: true\n');
    writeFileSync(join(folder, 'root.img'), '');
    truncateSync(join(folder, 'root.img'), 64 << 20);
    if (onPath('mkfs.ext4')) {
      execFileSync('mkfs.ext4', ['-q', 'root.img'], {
        cwd: folder,
        env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` },
      });
    }
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  const lines = README.split('\n')
    .filter((line) => /^(echo .* \| )?nemu /.test(line))
    .map((line) => line.replace(/ +# .*/, ''));
  test('shows what is tested here, and nothing else', () => expect(lines.sort()).toEqual(Object.keys(EXPECTED).sort()));

  for (const [line, expected] of Object.entries(EXPECTED)) {
    test(line, { timeout: LIMIT_MS }, async ({ skip }) => {
      const missing = expected.needs?.find((program) => !onPath(program));
      if (missing) return skip(`It needs ${missing}.`);
      if (expected.elsewhere) return skip(`${expected.elsewhere} does it.`);
      const result = await shell(line, folder, expected);
      expect(result, JSON.stringify(result)).toMatchObject({ status: expected.status ?? 0 });
      if (expected.stdout) expect(result.stdout).toMatch(expected.stdout);
    });
  }

  test(
    'the picture at its top',
    async () => {
      const [, line, output] = /\$ (nemu run .*)\n([^`]*)```/.exec(README) as RegExpExecArray;
      expect((await shell(line, folder, {})).stdout.replace(/6\.\S+/, '6.')).toBe(output.replace(/6\.\S+/, '6.'));
    },
    LIMIT_MS,
  );
});

function shell(line: string, cwd: string, { input, prompt, terminal }: Expectation) {
  return new Promise<{ status: number | null; stdout: string; stderr: string }>((resolve, reject) => {
    const [program, args] = terminal ? ['script', ['-qec', line, '/dev/null']] : ['sh', ['-c', line]];
    const child = spawn(program, args, {
      cwd,
      detached: true,
      env: { ...process.env, PATH: `${dirname(nemu)}:${process.env.PATH}` },
    });
    const said = { stdout: '', stderr: '' };
    let typed = false;
    // A prompt that never shows must not leave a guest behind.
    const limit = setTimeout(() => {
      process.kill(-(child.pid as number));
      reject(new Error(`${line} did not end. It has said:\n${said.stdout}${said.stderr}`));
    }, LIMIT_MS - 10_000);
    child.on('error', reject);
    child.stdin.on('error', () => {});
    child.stderr.on('data', (bytes) => {
      said.stderr += bytes;
    });
    child.stdout.on('data', (bytes) => {
      said.stdout += bytes;
      if (typed || !prompt?.test(said.stdout)) return;
      typed = true;
      child.stdin[terminal ? 'write' : 'end'](input as string);
    });
    child.on('close', (status) => {
      clearTimeout(limit);
      resolve({ status, ...said });
    });
    if (!prompt) child.stdin.end();
  });
}
