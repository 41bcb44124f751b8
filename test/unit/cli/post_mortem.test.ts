/** `nemu post-mortem`, by hand and as the supervisor runs it; no machine is made. */
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { PostMortem } from '../../../src/vmm/post_mortem.ts';
import { runNemu } from '../../support/cli.ts';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'nemu-post-mortem-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

const show = (...args: string[]) =>
  runNemu(['post-mortem', ...args], { env: { XDG_STATE_HOME: join(folder, 'state') } });

test('what is none is status 1 and a sentence', async () => {
  expect(await show('/nope')).toMatchObject({ status: 1, stderr: 'nemu: There is no post-mortem /nope.\n' });
  const other = await show('/etc/passwd');
  expect(other).toMatchObject({ status: 1, stderr: 'nemu: /etc/passwd is not a post-mortem file.\n' });
  expect(await show(folder)).toMatchObject({ status: 1, stderr: expect.stringContaining('cannot be read: EISDIR') });
  expect(await show('--signal', '9', '/nope')).toMatchObject({
    ...{ status: 0, stderr: 'nemu: the engine was killed by SIGKILL.\n' },
  });
});

test('one is kept where it is told of a crash, and shown again without a signal and without another copy', async () => {
  const path = join(folder, 'left');
  PostMortem.create(path).appendConsole(Buffer.from('the last line\n'));
  const first = await show('--signal', '11', path);
  expect(first.stderr).toMatch(/killed by SIGSEGV[\s\S]*the last line[\s\S]*The post-mortem is in /);
  const kept = readdirSync(join(folder, 'state', 'nemu'));
  expect(kept).toHaveLength(1);
  const again = await show(join(folder, 'state', 'nemu', kept[0]));
  expect(again).toMatchObject({ status: 0, stderr: "The guest's console ended with:\n  the last line\n" });
  expect(readdirSync(join(folder, 'state', 'nemu'))).toEqual(kept);
});
