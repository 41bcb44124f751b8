/** Files that `--log` and `--record` write, and what is said of those that cannot be; no machine is made. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { AttachedMachine } from '../../../src/cli/machines/connection.ts';
import { runConsole } from '../../../src/cli/machines/console_command.ts';
import { checkOutputFile, openOutputFile } from '../../../src/cli/output_files.ts';
import { CastRecorder } from '../../../src/console/asciicast.ts';
import { ConsoleLog } from '../../../src/console/console_log.ts';
import { runNemu } from '../../support/cli.ts';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'nemu-output-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

const refused = { code: 'OUTPUT_FILE', message: expect.stringMatching(/ cannot be written: .*[^'.]\.$/) };

test('a check leaves what is there, and makes nothing', () => {
  const path = join(folder, 'new');
  checkOutputFile(path);
  expect(existsSync(path)).toBe(false);
  writeFileSync(path, 'kept');
  checkOutputFile(path);
  expect(readFileSync(path, 'utf8')).toBe('kept');
  for (const none of [join(folder, 'none', 'x'), folder, join(path, 'x')]) {
    expect(() => checkOutputFile(none), none).toThrow(expect.objectContaining(refused));
  }
});

describe.each([
  ['run', ['--', 'true']],
  ['run', ['-e', '1']],
  ['run', ['-d']],
  ['serve', []],
])('nemu %s %j', (command, more) => {
  test.each(['--log', '--record'])('%s that cannot be written is told before a machine is made', async (option) => {
    const path = join(folder, 'none', 'x');
    const env = { XDG_STATE_HOME: join(folder, 'state'), XDG_RUNTIME_DIR: folder };
    const { status, stderr } = await runNemu([command, option, path, ...more], { env });
    expect(stderr).toMatch(/^nemu: \S+ cannot be written: ENOENT: [^\n]*\.\nGive a file [^\n]*\n$/);
    expect(stderr).toContain(path);
    expect(status).toBe(1);
  });
});

test('nemu console --record tells it before it comes to the console', async () => {
  const attached = { share: { names: ['com1'] }, known: { record: {} }, name: 'one' } as unknown as AttachedMachine;
  await expect(
    runConsole(attached, undefined, { record: join(folder, 'none', 'x'), history: '0', prefix: '^A', again: '' }),
  ).rejects.toMatchObject(refused);
});

test('a file system that is full ends the file, and says so once', async () => {
  const said: string[] = [];
  const failed = ({ message }: Error) => void said.push(message);
  const log = openOutputFile('/dev/full', failed);
  log.write(Buffer.from('one'));
  await sleep(50);
  log.write(Buffer.from('two'));
  log.end();
  await sleep(50);
  expect(said).toEqual([expect.stringContaining('ENOSPC')]);
  const cast = new CastRecorder('/dev/full', {}, 'x', failed);
  cast.bytes(Buffer.from('one'));
  cast.close();
  expect(said).toHaveLength(2);
  for (const Made of [ConsoleLog, CastRecorder]) {
    expect(() => Reflect.construct(Made, [join(folder, 'none', 'x'), {}, '', failed])).toThrow(
      expect.objectContaining(refused),
    );
  }
});
