/** A file that somebody else writes, from its end on. */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

const PIECE = 256 * 1024;
const LOOK_MS = 200;

export interface TailOptions {
  /** Lines before the end that come first; all without it. */
  readonly lines?: number;
  /** Waits for more until this says that nobody writes any more. */
  readonly follow?: { readonly isOver: () => boolean; readonly signal?: AbortSignal };
}

/** The place at which the last so many lines of a file begin. */
function placeOfLast(fd: number, size: number, lines: number): number {
  if (lines === 0) return size;
  let wanted = lines;
  const piece = Buffer.alloc(PIECE);
  for (let end = size; end > 0; ) {
    const begin = Math.max(0, end - PIECE);
    const count = readSync(fd, piece, 0, end - begin, begin);
    for (let at = count - 1; at >= 0; at--) {
      if (piece[at] !== 0x0a) continue;
      // The newline that ends the file ends no line more.
      if (begin + at === size - 1) continue;
      if (--wanted === 0) return begin + at + 1;
    }
    end = begin;
  }
  return 0;
}

/**
 * Gives a file's bytes, with their places.
 * @throws Error of the system, for a file that cannot be read.
 */
export async function* tailFile(
  path: string,
  { lines, follow }: TailOptions = {},
): AsyncGenerator<{ readonly bytes: Buffer; readonly place: number }> {
  const fd = openSync(path, 'r');
  try {
    let place = lines === undefined ? 0 : placeOfLast(fd, fstatSync(fd).size, lines);
    for (;;) {
      // Asked before the look: what was written before it was over is there then.
      const over = follow?.isOver() ?? true;
      for (;;) {
        const piece = Buffer.alloc(PIECE);
        const count = readSync(fd, piece, 0, PIECE, place);
        if (count === 0) break;
        yield { bytes: piece.subarray(0, count), place };
        place += count;
        if (follow?.signal?.aborted) return;
      }
      if (over || follow?.signal?.aborted) return;
      await sleep(LOOK_MS);
    }
  } finally {
    closeSync(fd);
  }
}
