import { expect, test } from 'vitest';
import { NemuError } from '../../../src/client/errors.ts';
import { planBoot } from '../../../src/vmm/boot/plan.ts';
import {
  bootRequest,
  buildBzImage,
  buildElf,
  buildMultiboot,
  buildMultibootElf,
  buildPvhElf,
  GiB,
  MiB,
  pcMemory,
  planFaults,
} from './images.ts';

/** mulberry32: small, seeded, good enough to pick bytes. */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

const SCALE = Number(process.env.NEMU_FUZZ_SCALE ?? 1);
const INTERESTING = [0, 1, 0x7f, 0x80, 0xff, 0x7fffffff, 0x80000000, 0xfffffff0, 0xffffffff, 0x100000, 0x9000, 0x20000];

const images: [string, Buffer][] = [
  ['bzImage', buildBzImage({ code: new Uint8Array(600).fill(0x90) })],
  ['ELF64', buildElf({ segments: [{ memorySize: 0x4000n }, { paddr: 0x200000n, bytes: new Uint8Array(64) }] })],
  ['PVH', buildPvhElf()],
  ['PVH in ELF32', buildPvhElf(undefined, undefined, 32)],
  ['Multiboot', buildMultiboot({ bss: 0x1000 })],
  ['Multiboot in ELF32', buildMultibootElf(32)],
  ['Multiboot in ELF64', buildMultibootElf(64)],
];

/** Plans or refuses, and anything else is a fault. */
function check(kernel: Buffer, next: () => number): 'planned' | 'refused' {
  const request = bootRequest(kernel, {
    memoryMap: pcMemory(next() < 0.5 ? 64 * MiB : 3 * GiB, next() < 0.5 ? 0 : 64 * GiB),
    ...(next() < 0.5 && { initrd: new Uint8Array(70_000) }),
  });
  let plan: ReturnType<typeof planBoot>;
  try {
    plan = planBoot(request);
  } catch (error) {
    if (error instanceof NemuError && error.message.length < 1000) return 'refused';
    throw error;
  }
  const faults = planFaults(plan, request);
  const written = plan.writes.reduce((sum, { bytes }) => sum + bytes.length, 0);
  if (written > kernel.length * 2 + 70_000 + 0x20000) faults.push(`${written} bytes written`);
  if (faults.length > 0) throw new Error(`${faults.join('; ')} for ${kernel.toString('hex').slice(0, 400)}`);
  return 'planned';
}

test.each(images)('%s cut off anywhere', (_, image) => {
  const next = random(1);
  const step = image.length > 1000 ? 7 : 1;
  for (let length = 0; length < image.length; length += step) check(image.subarray(0, length), next);
  expect(check(image, next)).toBe('planned');
});

test.each(images)('%s with wrong bytes and fields', (_, image) => {
  const next = random(2);
  const pick = (limit: number) => Math.floor(next() * limit);
  const outcomes = { planned: 0, refused: 0 };
  for (let round = 0; round < 4000 * SCALE; round++) {
    const kernel = Buffer.from(image);
    // Headers are where decisions are made: most changes go there.
    const start = image.length > 1000 && next() < 0.9 ? 0x1f1 : 0;
    const span = start ? 0x80 : Math.min(image.length, 220);
    for (let change = pick(4); change >= 0; change--) {
      const at = start + pick(span);
      if (next() < 0.5) kernel[at] = pick(256);
      else if (at + 4 <= kernel.length) kernel.writeUInt32LE(INTERESTING[pick(INTERESTING.length)], at);
    }
    outcomes[check(kernel, next)]++;
  }
  expect(outcomes.planned).toBeGreaterThan(0);
  expect(outcomes.refused).toBeGreaterThan(0);
});

test('noise', () => {
  const next = random(3);
  for (let round = 0; round < 2000 * SCALE; round++) {
    const kernel = Buffer.from(Array.from({ length: Math.floor(next() * 700) }, () => Math.floor(next() * 256)));
    expect(check(kernel, next)).toBe('refused');
  }
});
