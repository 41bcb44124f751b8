import type { GuestMemory } from '../devices/device.ts';

/** RAM begins and ends on such a boundary, so that a piece of it is RAM as a whole or not at all. */
const PIECE = 64 << 10;

/**
 * Where bytes begin in a range of guest-physical memory, also those that end behind it; what is no RAM holds nothing.
 * @returns at most `most` addresses, in order.
 */
export function searchRam(
  memory: GuestMemory,
  from: number,
  length: number,
  bytes: Uint8Array,
  most: number,
): number[] {
  const found: number[] = [];
  const end = from + length;
  for (let at = from; at < end && found.length < most; ) {
    let run = 0;
    // As much as is RAM in one piece, with what a match at its end needs.
    while (at + run < end && memory.slice(at + run, 1)) run += PIECE - ((at + run) % PIECE);
    if (run === 0) {
      at += PIECE - (at % PIECE);
      continue;
    }
    const starts = Math.min(run, end - at);
    const view = memory.slice(at, starts + bytes.length - 1) ?? memory.slice(at, starts);
    if (view) {
      const buffer = Buffer.from(view.buffer, view.byteOffset, view.length);
      for (
        let i = buffer.indexOf(bytes);
        i >= 0 && i < starts && found.length < most;
        i = buffer.indexOf(bytes, i + 1)
      ) {
        found.push(at + i);
      }
    }
    at += run;
  }
  return found;
}
