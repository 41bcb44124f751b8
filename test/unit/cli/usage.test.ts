/** What a user sees who gets the command line wrong: no machine is made in any of these. */
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { silenceHint } from '../../../src/cli/run.ts';
import { runNemu } from '../../support/cli.ts';
import { hostHasKvm } from '../../support/micro.ts';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'nemu-usage-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

describe('wrong usage is status 2 and a sentence', () => {
  test.each([
    [['rnu'], "unknown command 'rnu'", 'Did you mean run?'],
    [['run', '--memroy', '1G'], "unknown option '--memroy'", 'Did you mean --memory?'],
    [['run', '--memory', '1Q'], '"1Q" is not a size', 'for example 512M or 2G'],
    [['run', '--memory', '3000'], 'Memory of 3000 bytes is not a multiple of the page size', ''],
    [['run', '--cpus', '0'], 'cpus.count', ''],
    [['run', '--cpus', '300'], 'cpus.count', ''],
    [['run', '--cpus', 'sokets=2'], '--cpus: there is no "sokets"', 'Did you mean sockets=?'],
    [['run', '--on', 'moon'], "argument 'moon' is invalid", 'auto, kvm, lab'],
    [['run', '--machine', 'pentium'], "argument 'pentium' is invalid", 'minimal'],
    [['run', '--prefix', 'q'], '--prefix q is not a control key', '^A or Ctrl-b'],
    [['run', '--timeout', 'soon'], '"soon" is not a time', ''],
    [['run', 'a', 'b'], 'There is more than one kernel: a b.', 'stands after --'],
    [['run', '--json', '77', '--', 'true'], 'file descriptor 77 is not open for writing', '3>events.jsonl'],
    [['run', '-d', '--json'], '--json writes to a descriptor of this process', 'nemu events NAME --json'],
    [['run', '-d', '-e', '1'], '--eval and --script need the machine in this process', 'nemu repl NAME -e CODE'],
    [['run', '--name', '-x'], 'A name starts with a letter or digit', ''],
    [['run', '--name', '..'], 'A name starts with a letter or digit', ''],
    [['run', '--json', 'x', '--', 'true'], 'file descriptor x is not open for writing', '3>events.jsonl'],
    // The supervisor has something there, which is none of the caller's.
    [['run', '--json', '9', '--', 'true'], 'file descriptor 9 is not open for writing', ''],
    [['exec', 'one', 'ls', '--nope'], "unknown option '--nope'", 'stand after --: nemu exec NAME -- ls -l'],
    [['top', '--interval', '0', '--once'], '--interval 0 is too short', '100 ms is the least'],
    [['top', '--sort', 'exit', '--once'], 'There is no column "exit" to sort by', 'Did you mean exits?'],
    [['top', '--sort', 'colour', '--json'], 'There is no column "colour" to sort by', 'name, state, age, vcpus, cpu'],
    [['completion', 'tcsh'], 'There is no completion for "tcsh"', 'bash, zsh, fish'],
  ])('%j', async (args, message, hint) => {
    const { status, stdout, stderr } = await runNemu(args);
    expect(stderr).toContain(message);
    expect(stderr).toContain(hint);
    expect(stdout.toString()).toBe('');
    expect(status).toBe(2);
  });
});

test('a kernel that is not there is status 1 and says where kernels are', async () => {
  const { status, stderr } = await runNemu(['run', join(folder, 'none')]);
  expect(stderr).toContain(`The kernel ${join(folder, 'none')} does not exist.`);
  expect(stderr).toContain('nemu guest list');
  expect(status).toBe(1);
});

test.skipIf(!hostHasKvm)('a garbage file as kernel is status 1 and says what was expected', async () => {
  const garbage = join(folder, 'garbage');
  writeFileSync(garbage, Buffer.alloc(5000, 'garbage '));
  const { status, stderr } = await runNemu(['run', '--on', 'kvm', garbage]);
  expect(stderr).toContain(garbage);
  expect(stderr).toMatch(/bzImage/);
  expect(status).toBe(1);
});

test('--dry-run prints the whole description, and runs nothing', async () => {
  const { status, stdout } = await runNemu(['run', '--dry-run', '--cpus', '4', '--memory', '1G', '--', 'true']);
  expect(JSON.parse(stdout.toString())).toMatchObject({
    machine: 'q35',
    cpus: { count: 4, sockets: 1, cores: 4, threads: 1 },
    memory: { size: 2 ** 30, backend: 'anonymous' },
    kernel: { cmdline: 'console=ttyS0 quiet panic=-1' },
    onReset: 'stop',
  });
  expect(status).toBe(0);
});

test('--help and --version are status 0, on standard output', async () => {
  const help = await runNemu(['run', '--help']);
  expect(help.stdout.toString()).toContain('Examples:');
  expect(help.stdout.toString()).not.toContain('(default: [])');
  expect(help.status).toBe(0);
  expect((await runNemu(['--version'])).stdout.toString()).toMatch(/^\d+\.\d+\.\d+\n$/);
  expect((await runNemu(['--help'])).stdout.toString()).toContain('Exit status:');
});

test.each(['bash', 'zsh', 'fish'])('completion for %s names every command', async (shell) => {
  const { status, stdout } = await runNemu(['completion', shell]);
  for (const word of ['run', 'doctor', 'guest', 'fetch', '--memory']) {
    expect(stdout.toString()).toContain(word.replace(/^--/, ''));
  }
  expect(status).toBe(0);
});

test('doctor tells what it found, also as JSON', async () => {
  const { stdout } = await runNemu(['doctor', '--json']);
  const report = JSON.parse(stdout.toString()) as { place: string; findings: { name: string }[] };
  expect(['kvm', 'lab', 'none']).toContain(report.place);
  expect(report.findings.map(({ name }) => name)).toEqual(expect.arrayContaining(['/dev/kvm', 'probe guest']));
});

test('a guest that is silent is told of by what its kernel was told', () => {
  expect(silenceHint('console=ttyS0 quiet panic=-1', true)).toMatch(/was told to be quiet: --append loglevel=7 shows/);
  expect(silenceHint('console=ttyS0 quiet panic=-1', false)).toMatch(/--append loglevel=7 and -v show/);
  for (const cmdline of ['console=ttyS0', 'quiet loglevel=7', 'noquiet']) {
    expect(silenceHint(cmdline, true)).toContain('earlyprintk=ttyS0');
  }
});

test('image create replaces no file without --force', async () => {
  const disk = join(folder, 'small.img');
  writeFileSync(disk, 'precious');
  const refused = await runNemu(['image', 'create', disk, '1M']);
  expect(refused.stderr).toMatch(/small\.img is there already, with 8 B\.\n--force replaces it\.\n$/);
  expect(refused.status).toBe(1);
  expect(readFileSync(disk, 'utf8')).toBe('precious');
  expect(await runNemu(['image', 'create', '--force', disk, '1M'])).toMatchObject({ status: 0, stderr: '' });
  expect(statSync(disk).size).toBe(2 ** 20);
});
