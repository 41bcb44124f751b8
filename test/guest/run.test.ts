/** `nemu run` with the default guest, as README and `--help` say it works. Each test boots one guest. */
import { randomBytes } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { runNemu } from '../support/cli.ts';

const LIMIT_MS = 300_000;

describe('a command in a guest', () => {
  test(
    'its output alone is on standard output, its errors on standard error, its status is ours',
    async () => {
      const { status, stdout, stderr } = await runNemu(['run', '--', 'sh', '-c', 'echo out; echo err >&2; exit 7']);
      expect(stdout.toString()).toBe('out\n');
      expect(stderr).toContain('err\n');
      expect(status).toBe(7);
    },
    LIMIT_MS,
  );

  // The lab's one emulated processor is not always enough for the ticks of 16: then nothing moves on.
  test('16 vCPUs are 16 processors', { timeout: 2 * LIMIT_MS, retry: 2 }, async () => {
    const { status, stdout, stderr } = await runNemu(['run', '--cpus', '16', '--timeout', '150', '--', 'nproc']);
    expect({ status, stdout: stdout.toString() }, stderr).toEqual({ status: 0, stdout: '16\n' });
  });

  test(
    'standard input arrives byte for byte, to its end, and so does the output',
    async () => {
      const input = randomBytes(20_000);
      const { status, stdout } = await runNemu(['run', '--', 'cat'], { input });
      expect(stdout.equals(input)).toBe(true);
      expect(status).toBe(0);
    },
    LIMIT_MS,
  );

  test(
    'a panic is 70, with its lines',
    async () => {
      const { status, stderr } = await runNemu(['run', '--', 'echo c > /proc/sysrq-trigger']);
      expect(stderr).toContain('Kernel panic - not syncing: sysrq triggered crash');
      expect(stderr).toContain('The guest kernel panicked.');
      expect(status).toBe(70);
    },
    LIMIT_MS,
  );

  test(
    'a guest that powers off first is 75',
    async () => {
      const { status, stderr } = await runNemu(['run', '--', 'poweroff -f; sleep 60']);
      expect(stderr).toContain('The guest ended before the command did');
      expect(status).toBe(75);
    },
    LIMIT_MS,
  );

  test(
    '--timeout is 71, and says what the vCPUs were doing; --json tells the events',
    async () => {
      const { status, stdout, stderr } = await runNemu(['run', '--timeout', '45', '--json', '1', '--', 'sleep 600']);
      const events = stdout
        .toString()
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line) as { type: string });
      expect(events.map(({ type }) => type)).toEqual(
        expect.arrayContaining(['state', 'guest-phase', 'inspect', 'ended']),
      );
      expect(stderr).toBe('');
      expect(status).toBe(71);
    },
    LIMIT_MS,
  );
});
