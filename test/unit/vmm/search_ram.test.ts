import { expect, test } from 'vitest';
import { searchRam } from '../../../src/vmm/search_ram.ts';

const PIECE = 64 << 10;
const ram = Buffer.alloc(6 * PIECE);
/** RAM but for the fourth piece. */
const memory = {
  read: () => false,
  write: () => false,
  slice: (gpa: number, length: number) => {
    const hole = gpa < 4 * PIECE && gpa + length > 3 * PIECE;
    return hole || gpa + length > ram.length ? undefined : new Uint8Array(ram.buffer, ram.byteOffset + gpa, length);
  },
};

test('matches in and across pieces, up to holes and the end, and no more than asked for', () => {
  const needle = Buffer.from('needle');
  for (const at of [0, PIECE - 3, 3 * PIECE - 6, 4 * PIECE, 6 * PIECE - 6]) needle.copy(ram, at);
  const all = [0, PIECE - 3, 3 * PIECE - 6, 4 * PIECE, 6 * PIECE - 6];
  expect(searchRam(memory, 0, 8 * PIECE, needle, 100)).toEqual(all);
  expect(searchRam(memory, 0, 8 * PIECE, needle, 2)).toEqual(all.slice(0, 2));
  // Ranges that meet find each once.
  const halves = [searchRam(memory, 0, PIECE, needle, 9), searchRam(memory, PIECE, 7 * PIECE, needle, 9)];
  expect(halves.flat()).toEqual(all);
  expect(searchRam(memory, 3 * PIECE, PIECE, needle, 9)).toEqual([]);
});
