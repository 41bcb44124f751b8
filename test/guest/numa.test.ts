/** NUMA as a stock kernel sees it. */
import { expect, test } from 'vitest';
import { runNemu } from '../support/cli.ts';
import { expectNoWarnings, PRINT_WARNINGS } from '../support/dmesg.ts';

const LIMIT_MS = 300_000;

test('two nodes of 8 vCPUs each, with their memory, distances and latencies, bound to the host', {
  // The lab's one emulated processor is not always enough for the ticks of 16: then nothing moves on.
  timeout: 2 * LIMIT_MS,
  retry: 2,
}, async () => {
  const nodes = ['node,cpus=0-7,memory=640M,host-nodes=0', 'node,cpus=8-15,memory=384M'];
  const more = [
    'dist,src=0,dst=1,val=31',
    'hmat-lb,initiator=0,target=0,data-type=access-latency,latency=80',
    'hmat-lb,initiator=1,target=1,data-type=access-bandwidth,bandwidth=20G',
  ];
  const script = [
    PRINT_WARNINGS,
    'cd /sys/devices/system/node',
    'for n in node*; do',
    '  echo $n $(cat $n/cpulist) $(cat $n/distance) $(sed -n "s/.*MemTotal: *//p" $n/meminfo)',
    'done',
    'cat node0/access0/initiators/read_latency node1/access0/initiators/read_bandwidth',
  ].join('\n');
  const { status, stdout, stderr } = await runNemu([
    ...['run', '--cpus', '16', ...[...nodes, ...more].flatMap((option) => ['--numa', option])],
    ...['--timeout', '150', '--', script],
  ]);
  expect(status, stderr).toBe(0);
  expectNoWarnings(stderr);
  const lines = stdout.toString().trim().split('\n');
  const [, first] = /^node0 0-7 10 31 (\d+) kB$/.exec(lines[0]) ?? [];
  const [, second] = /^node1 8-15 31 10 (\d+) kB$/.exec(lines[1]) ?? [];
  // What the kernel itself takes is not in the totals.
  expect(Number(first) / 1024).toBeGreaterThan(560);
  expect(Number(first) / 1024).toBeLessThanOrEqual(640);
  expect(Number(second) / 1024).toBeGreaterThan(320);
  expect(Number(second) / 1024).toBeLessThanOrEqual(384);
  expect(lines.slice(2)).toEqual(['80', '20480']);
});
