import { expect, test } from 'vitest';
import { type MemoryPart, piecesOf } from '../../../src/vmm/discard.ts';

const MIB = 2 ** 20;
const anonymous = { share: false, backend: 'anonymous' } as const;
const memfd = { share: true, backend: 'memfd' } as const;
const PARTS: readonly MemoryPart[] = [
  { address: 0, size: 512 * MIB, backend: anonymous },
  { address: 4096 * MIB, size: 128 * MIB, backend: memfd },
  { address: 4224 * MIB, size: 128 * MIB, backend: anonymous },
];
const pieces = (gpa: number, length: number) => [...piecesOf(gpa * MIB, length * MIB, PARTS)];

test('a range is of what is behind it', () => {
  expect(pieces(16, 4)).toEqual([{ address: 16 * MIB, size: 4 * MIB, backend: anonymous }]);
  expect(pieces(4100, 2)).toEqual([{ address: 4100 * MIB, size: 2 * MIB, backend: memfd }]);
});

test('over the border of two DIMMs each has its own', () => {
  expect(pieces(4220, 8)).toEqual([
    { address: 4220 * MIB, size: 4 * MIB, backend: memfd },
    { address: 4224 * MIB, size: 4 * MIB, backend: anonymous },
  ]);
});

test('what is no memory, or persistent memory, is left alone', () => {
  expect(pieces(600, 100)).toEqual([]);
  expect(pieces(500, 4000).map(({ address, size }) => [address / MIB, size / MIB])).toEqual([
    [500, 12],
    [4096, 128],
    [4224, 128],
  ]);
});
