/** Pieces of output that a guest's agent has packed: whole, or nothing. */
import { gzipSync } from 'node:zlib';
import { expect, test } from 'vitest';
import { PackedOutput } from '../../../src/client/packed_output.ts';
import { random } from '../../support/random.ts';

const linesOf = (bytes: Buffer) => bytes.toString('base64').match(/.{1,3000}/g) ?? [];

test('a piece comes back when its end has come, and the next begins anew', () => {
  const below = random(7);
  const output = new PackedOutput();
  for (const length of [1, 3000, 24_000]) {
    const bytes = Buffer.from(Array.from({ length }, () => below(256)));
    for (const line of linesOf(gzipSync(bytes))) expect(output.take(line)).toBeUndefined();
    expect(output.take('.')).toEqual(bytes);
  }
});

test('what is no such piece gives nothing, and costs nothing', () => {
  const output = new PackedOutput();
  expect(output.take('.')).toBeUndefined();
  output.take('bm8gZ3ppcA==');
  expect(output.take('.')).toBeUndefined();
  // More than the agent packs at once: a bomb.
  const bomb = gzipSync(Buffer.alloc(10 << 20));
  for (const line of linesOf(bomb)) output.take(line);
  expect(output.take('.')).toBeUndefined();
  for (let i = 0; i < 10_000; i++) output.take('A'.repeat(3000));
  expect(output.take('.')).toBeUndefined();
  const half = gzipSync(Buffer.from('text'));
  output.take(half.subarray(0, 10).toString('base64'));
  expect(output.take('.')).toBeUndefined();
  for (const line of linesOf(half)) output.take(line);
  expect(output.take('.')?.toString()).toBe('text');
});
