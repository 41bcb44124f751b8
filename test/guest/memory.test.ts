/** Guest memory of every kind under a stock kernel, and what is said where the host cannot give it. */
import { describe, expect, test } from 'vitest';
import { runNemu } from '../support/cli.ts';

const LIMIT_MS = 300_000;
const LAB = ['run', '--on', 'lab', '--memory'];

describe('memory', () => {
  test(
    'huge pages that are preallocated, locked and bound to a node',
    async () => {
      const { status, stdout, stderr } = await runNemu([
        ...LAB,
        'size=512M,hugepages=2M,prealloc=on,prealloc-threads=2,lock=on,host-nodes=0,policy=bind',
        ...['--', 'sed -n "s/MemTotal: *//p" /proc/meminfo'],
      ]);
      expect(status, stderr).toBe(0);
      const kib = Number.parseInt(stdout.toString(), 10);
      expect(kib).toBeGreaterThan(420 * 1024);
      expect(kib).toBeLessThanOrEqual(512 * 1024);
    },
    LIMIT_MS,
  );

  const refused: [string, RegExp][] = [
    ['size=64G,prealloc=on', /64 GiB are to be held in memory, but the host has \d+ MiB available of \d+ MiB/],
    ['size=16G,hugepages=2M', /needs 8192 huge pages of 2M; the lab's memory has room for \d+\.\n.*--on kvm/],
    ['size=1G,host-nodes=5', /cannot be bound \(bind\) to host NUMA node 5\.\n.*nodes are in .*: 0/],
    ['size=513M,hugepages=2M', /not a multiple of the huge page size, 2 MiB/],
  ];
  for (const [memory, message] of refused) {
    test(`${memory} is refused with the numbers`, { timeout: LIMIT_MS }, async () => {
      const { status, stderr } = await runNemu([...LAB, memory, '--', 'true']);
      expect(stderr).toMatch(message);
      expect(status).toBe(1);
    });
  }
});
