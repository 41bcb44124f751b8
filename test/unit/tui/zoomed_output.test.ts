import { PassThrough } from 'node:stream';
import { expect, test } from 'vitest';
import { ZoomedOutput } from '../../../src/tui/zoomed_output.ts';

test('a terminal that falls behind is told how much it was not given, and gets what comes then', async () => {
  const terminal = new PassThrough({ highWaterMark: 1 << 16 });
  const told: number[] = [];
  const zoomed = new ZoomedOutput(terminal, (skipped) => told.push(skipped));
  const piece = Buffer.alloc(1 << 20, 'x');
  for (let i = 0; i < 10; i++) zoomed.write(piece);
  expect(told).toEqual([]);
  let taken = 0;
  terminal.on('data', (bytes: Buffer) => {
    taken += bytes.length;
  });
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(told).toEqual([10 * piece.length - taken]);
  expect(taken).toBeLessThan(10 * piece.length);
  zoomed.write(Buffer.from('after'));
  await new Promise((resolve) => setTimeout(resolve, 10));
  expect(told).toHaveLength(1);
  expect(taken).toBe(10 * piece.length - told[0] + 5);
});
