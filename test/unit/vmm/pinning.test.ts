import { expect, test } from 'vitest';
import { Machine } from '../../../src/vmm/machine.ts';
import { checkPinning } from '../../../src/vmm/pinning.ts';

test('vCPUs are pinned to what the host has', () => {
  checkPinning(undefined, '0-1');
  checkPinning([[0], [1], [3, 99]], '0-1,3');
  checkPinning([[99]], '');
  expect(() => checkPinning([[0], [99]], '0-1')).toThrow(
    expect.objectContaining({
      ...{ code: 'CPU_PIN', hint: 'Those are 0-1.' },
      message: "vCPU 1 cannot be pinned to the host's CPU 99: it is not online.",
    }),
  );
  expect(() => checkPinning([[2, 4]], '0-1,3')).toThrow("the host's CPUs 2, 4: none of them is online.");
});

test('a machine that names another processor is refused before there is one', async () => {
  const input = { kernel: { image: '/nope' }, cpus: { count: 1, pin: [[1023]] } };
  await expect(Machine.create(input)).rejects.toMatchObject({ code: 'CPU_PIN' });
});
