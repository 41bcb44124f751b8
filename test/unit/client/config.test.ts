/** `--config`: what a file says, what an option says over it, and where a mistake stands. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { readConfig } from '../../../src/client/config.ts';
import { runNemu } from '../../support/cli.ts';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'nemu-config-'));
  mkdirSync(join(folder, 'sub'));
  for (const name of ['vmlinuz', 'root.cpio', 'a.img', 'b.img', 'sub/c.img']) writeFileSync(join(folder, name), '');
});
afterAll(() => rmSync(folder, { recursive: true }));

const write = (text: string, name = 'machine.yaml') => {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
};

const dryRun = async (args: string[], cwd = folder) => {
  return JSON.parse(await dryRunText(args, cwd));
};

const dryRunText = async (args: string[], cwd: string) => {
  const { status, stdout, stderr } = await runNemu(['run', '--dry-run', ...args], { cwd });
  expect(status, stderr).toBe(0);
  return stdout.toString();
};

const KERNEL = ['vmlinuz', '--initrd', 'root.cpio'];
const ALL = [
  ...['--append', 'console=ttyS0 x=1', '--cpus', 'sockets=2,cores=2', '--memory', 'size=1G,hugepages=2M'],
  ...[
    '--numa',
    'node,cpus=0-1,memory=512M',
    '--numa',
    'node,cpus=2-3,memory=512M',
    '--numa',
    'dist,src=0,dst=1,val=25',
  ],
  ...['--disk', 'a.img,readonly=on', '--net', 'user,hostfwd=2222:22', '--rng', '--serial', 'com2,flow=wait'],
  ...['--fw-cfg', 'name=opt/org.example/x,string=y', '--no-rtc', '--no-reboot', '--name', 'first', '--i8042'],
];

describe('a file of --dry-run', () => {
  test('gives the same description, from any folder', async () => {
    const first = await dryRunText([...KERNEL, ...ALL], folder);
    const path = write(first, 'sub/first.json');
    expect(await dryRunText(['--config', path], tmpdir())).toBe(first);
    expect(JSON.parse(first).disks[0].file).toBe(join(folder, 'a.img'));
  });

  test('gives way to options; lists are added to', async () => {
    const path = write(JSON.stringify(await dryRun([...KERNEL, ...ALL])), 'second.json');
    const over = await dryRun([
      ...['--config', path, '--cpus', '2', '--memory', '256M', '--append', 'x=2', '--name', 'other'],
      ...['--numa', 'node,cpus=0-1,memory=256M', '--disk', 'b.img', '--net', 'tap,ifname=t0', '--pin', '0,1'],
    ]);
    expect(over).toMatchObject({
      name: 'other',
      cpus: { count: 2, sockets: 1, cores: 2, threads: 1, pin: [[0], [1]] },
      memory: { size: 256 << 20, hugepages: '2M' },
      numa: { nodes: [{ cpus: [0, 1], memory: 256 << 20 }], distances: [] },
      kernel: { image: join(folder, 'vmlinuz'), cmdline: 'console=ttyS0 x=1 x=2' },
      disks: [{ file: join(folder, 'a.img'), readonly: true }, { file: join(folder, 'b.img') }],
      nets: [{ type: 'user' }, { type: 'tap' }],
      rtc: false,
      onReset: 'stop',
    });
    expect((await dryRun(['--config', path, '--net', 'none'])).nets).toEqual([]);
  });
});

test('people write it in YAML, short, with paths from where the file is', async () => {
  const path = write(
    `# A machine for the tests.
cpus: 4
memory: 1G
kernel: {image: ../vmlinuz, initrd: [../root.cpio], cmdline: console=ttyS0}
disks:
  - c.img
  - file: ../a.img
    readonly: true
nets: [tap]
pcie: {rootPorts: 0}
`,
    'sub/short.yaml',
  );
  expect(await dryRun(['--config', path])).toMatchObject({
    cpus: { count: 4 },
    memory: { size: 2 ** 30 },
    kernel: { image: join(folder, 'vmlinuz'), initrd: [join(folder, 'root.cpio')] },
    disks: [{ file: join(folder, 'sub/c.img') }, { file: join(folder, 'a.img'), readonly: true }],
    nets: [{ type: 'tap' }],
    pcie: { rootPorts: 0 },
  });
});

describe('a mistake is told with its place and field', () => {
  test.each([
    ['memory:\n  sise: 1G\n', '2:3: memory.sise: There is no such field. Did you mean size?'],
    [
      'cpus: {count: 2}\ndisks:\n  - file: a\n  - file: b\n    cahce: none\n',
      '5:5: disks.1.cahce: There is no such field. Did you mean cache?',
    ],
    ['colour: red\n', '1:1: colour: There is no such field. There is name, machine,'],
    ['memory:\n  size: 1Q\n', '2:3: memory.size: "1Q" is not a size.'],
    ['cpus: four\n', '1:1: cpus: --cpus: count=four is not a whole number.'],
    ['disks: [a.img, "b.img,readonyl=on"]\n', '1:16: disks.1: --disk: there is no "readonyl". Did you mean readonly=?'],
    ['name: [1\n', '2:1: Flow sequence'],
    ['a: 1\na: 2\n', '2:1: Map keys must be unique.'],
    ['- q35\n', '1:1: Invalid input: expected object, received array'],
    ['numa:\n  nodes:\n    - cpus: [0]\n      distance: 3\n', '4:7: numa.nodes.0.distance: There is no such field.'],
  ])('%j', async (text, message) => {
    const path = write(text, 'wrong.yaml');
    await expect(readConfig(path)).rejects.toThrow(`${path}:${message}`);
  });

  test('all of them, each on its line, and status 2', async () => {
    const path = write('rng: 3\nrtc: on\n');
    const { status, stderr, stdout } = await runNemu(['run', '--config', path, '--dry-run']);
    expect(stdout.toString()).toBe('');
    expect(stderr).toContain(`${path}:1:1: rng: Invalid input: expected boolean`);
    expect(stderr).toContain(`${path}:2:1: rtc: Invalid input: expected boolean`);
    expect(status).toBe(2);
  });

  test('between fields, too; and a file that is not there', async () => {
    const path = write(
      'cpus: 1\nkernel: {image: vmlinuz, initrd: []}\nmemory: 64M\nnuma:\n  nodes:\n    - {cpus: [0, 1], memory: 64M}\n',
    );
    const { status, stderr } = await runNemu(['run', '--config', path, '--dry-run']);
    expect(stderr).toContain(`${path}:6:8: numa.nodes.0.cpus: There is no vCPU 1`);
    expect(status).toBe(2);
    await expect(readConfig(join(folder, 'none.yaml'))).rejects.toThrow('none.yaml cannot be read (ENOENT)');
  });

  test.each(['', '\n# to be written\n'])('one that says nothing: %j', async (text) => {
    await expect(readConfig(write(text))).rejects.toThrow(/machine description .* is empty/);
    expect((await readConfig(write('{}\n'))).input).toEqual({});
  });

  test('a command needs our initramfs', async () => {
    const path = write('kernel: {image: vmlinuz, initrd: [root.cpio]}\n');
    const { status, stderr } = await runNemu(['run', '--config', path, '--', 'true']);
    expect(stderr).toContain('the machine description has an initrd');
    expect(stderr).toContain(`Leave kernel.initrd out of ${path}`);
    expect(status).toBe(2);
  });
});
