/** The end of vCPU threads, whatever they and the machine thread are at: no wake-up comes too early to be heard. */
import { expect, test } from 'vitest';
import { raise, stopVcpus } from '../../../src/vmm/kick.ts';
import { allocateShared, H, RUN_PAUSED, S, slotWord } from '../../../src/vmm/shared.ts';

/** A machine whose vCPUs are paused or wait for what the machine thread has not given them yet. */
function waiting(vcpus: number) {
  const block = allocateShared(vcpus);
  const { words } = block;
  raise(block, H.PAUSE);
  for (let vcpu = 0; vcpu < vcpus; vcpu++) {
    raise(block, slotWord(vcpu) + S.HELD);
    Atomics.store(words, slotWord(vcpu) + S.RUN_STATE, RUN_PAUSED);
  }
  return block;
}

test('a loop that has looked at STOP before and waits afterwards is not left waiting', () => {
  const block = waiting(2);
  const { words } = block;
  expect(Atomics.load(words, H.PAUSE)).toBe(1);
  expect(stopVcpus(block, 100)).toBe(true);
  // What src/vmm/vcpu_thread.ts waits on, and with which value.
  const waits = [
    [H.PAUSE, 1],
    ...[0, 1].flatMap((vcpu) =>
      [
        [S.GO, 0],
        [S.HELD, 1],
      ].map(([word, value]) => [slotWord(vcpu) + word, value]),
    ),
  ];
  for (const [word, value] of waits) expect(Atomics.wait(words, word, value, 0), `word ${word}`).toBe('not-equal');
});

test('nobody is paused or held once the machine stops', () => {
  const block = waiting(1);
  const { words } = block;
  stopVcpus(block, 100);
  for (const word of [H.PAUSE, slotWord(0) + S.HELD]) {
    raise(block, word);
    expect(Atomics.wait(words, word, 1, 0)).toBe('not-equal');
  }
});
