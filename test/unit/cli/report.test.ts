import { expect, test } from 'vitest';
import { describeVcpus } from '../../../src/cli/report.ts';
import type { VcpuReport } from '../../../src/client/machine_client.ts';

const vcpu = (index: number, rip: string | undefined) =>
  ({
    ...{ index, activity: 'running', exits: { hlt: 3, io: 5 } },
    ...(rip !== undefined && { registers: { rip } }),
  }) as unknown as VcpuReport;

test('where vCPUs are is told by symbols, as far as the kernel tells them', async () => {
  const asked: bigint[] = [];
  const describe = async (address: bigint | number) => {
    asked.push(BigInt(address));
    return address === 0x10n ? 'schedule+0x2' : undefined;
  };
  expect(await describeVcpus([vcpu(0, '0x10'), vcpu(1, '0x20'), vcpu(2, undefined)], { describe })).toBe(
    [
      'vCPU 0: running, rip 0x10 (schedule+0x2), exits so far: io 5, hlt 3',
      'vCPU 1: running, rip 0x20, exits so far: io 5, hlt 3',
      'vCPU 2: running, rip ?, exits so far: io 5, hlt 3',
    ].join('\n'),
  );
  expect(asked).toEqual([0x10n, 0x20n]);
});

test('a kernel that keeps silent is not waited for', async () => {
  const describe = () => new Promise<undefined>(() => {});
  expect(await describeVcpus([vcpu(0, '0x10')], { describe }, 50)).toMatch(/^vCPU 0: running, rip 0x10, exits/);
});
