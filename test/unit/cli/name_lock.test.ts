/** A name that is taken again while its last owner gives it back. */
import * as fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { runtimePaths } from '../../../src/cli/machines/folders.ts';
import { claimName, isClaimed } from '../../../src/cli/machines/name_lock.ts';

vi.mock('node:fs', async (original) => {
  const real = await original<typeof import('node:fs')>();
  return { ...real, rmSync: vi.fn(real.rmSync) };
});

let folder: string;
const before = process.env.XDG_RUNTIME_DIR;
beforeEach(() => {
  folder = fs.mkdtempSync(join(tmpdir(), 'nemu-lock-'));
  process.env.XDG_RUNTIME_DIR = folder;
});
afterEach(() => {
  if (before === undefined) delete process.env.XDG_RUNTIME_DIR;
  else process.env.XDG_RUNTIME_DIR = before;
  fs.rmSync(folder, { recursive: true, force: true });
});

test('is the next one’s, whose folder stays', () => {
  const paths = runtimePaths('work');
  const release = claimName('work');
  let next: (() => void) | undefined;
  vi.mocked(fs.rmSync).mockImplementationOnce((path) => {
    // What a removal does, with somebody who comes in the middle of it.
    fs.unlinkSync(paths.lock);
    next = claimName('work');
    fs.rmdirSync(path);
  });
  release?.();
  expect(next).toBeDefined();
  expect(isClaimed('work')).toBe(true);
  next?.();
  expect(fs.existsSync(paths.folder)).toBe(false);
});
