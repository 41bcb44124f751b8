/** A signal ends a command whenever it comes: before its engine runs, while that starts, and afterwards. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { nemu } from '../../support/cli.ts';

test.each([
  // A terminal's Ctrl-C and hang-up go to all of the process group, what a program sends to the supervisor alone.
  ['SIGINT', -1],
  ['SIGHUP', -1],
  ['SIGTERM', 1],
] as const)('%s is never lost, and leaves nothing', { timeout: 60_000 }, async (name, whom) => {
  const folder = mkdtempSync(join(tmpdir(), 'nemu-interrupt-'));
  try {
    const cast = join(folder, 'long.cast');
    writeFileSync(cast, '{"version":2,"width":80,"height":24}\n[1000,"o","late"]\n');
    const run = mkdtempSync(join(folder, 'run-'));
    for (const delay of [0, 1, 2, 3, 5, 8, 12, 16, 20, 25, 30, 40, 60, 100, 200, 400]) {
      // In a process group of its own, as a shell makes one.
      const env = { ...process.env, XDG_RUNTIME_DIR: run };
      const child = spawn(nemu, ['play', cast], { detached: true, stdio: 'ignore', env });
      const exited = once(child, 'exit');
      await sleep(delay);
      process.kill(whom * (child.pid as number), name);
      const late = sleep(10_000, 'it went on', { ref: false });
      const end = await Promise.race([exited, late]);
      if (end === 'it went on') process.kill(-(child.pid as number), 'SIGKILL');
      expect(end, `after ${delay} ms`).not.toBe('it went on');
      const [status, signal] = end as [number | null, string | null];
      // The command's own answer to it, once it runs, is a shell's status for the same.
      expect([name, 128 + constants.signals[name]], `after ${delay} ms`).toContain(signal ?? status);
      expect(readdirSync(run), `after ${delay} ms`).toEqual([]);
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
