/** A file that somebody else writes, from its end on. */
import { closeSync, existsSync, fstatSync, openSync, readSync, statSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

const PIECE = 256 * 1024;
const LOOK_MS = 200;

export interface TailOptions {
  /** Lines before the end that come first; all without it. */
  readonly lines?: number;
  /** Waits for more until this says that nobody writes any more. */
  readonly follow?: { readonly isOver: () => boolean; readonly signal?: AbortSignal };
}

/** The place at which the last so many lines of a file begin, and how many more it would have to have. */
function placeOfLast(fd: number, lines: number): { place: number; missing: number } {
  const { size } = fstatSync(fd);
  if (lines === 0) return { place: size, missing: 0 };
  let wanted = lines;
  const piece = Buffer.alloc(PIECE);
  for (let end = size; end > 0; ) {
    const begin = Math.max(0, end - PIECE);
    const count = readSync(fd, piece, 0, end - begin, begin);
    for (let at = count - 1; at >= 0; at--) {
      if (piece[at] !== 0x0a) continue;
      // The newline that ends the file ends no line more.
      if (begin + at === size - 1) continue;
      if (--wanted === 0) return { place: begin + at + 1, missing: 0 };
    }
    end = begin;
  }
  // What is before the first newline is a line too.
  return { place: 0, missing: size > 0 ? wanted - 1 : wanted };
}

const inode = (path: string): number | undefined => statSync(path, { throwIfNoEntry: false })?.ino;

export interface TailPiece {
  readonly bytes: Buffer;
  /** Of its first byte in the file. */
  readonly place: number;
  /** Name that the file has, or had when it was opened. */
  readonly path: string;
  /** Another number for another file, whatever its name. */
  readonly file: number;
  /** There may have been files between this one and the one before, which were gone before they were read. */
  readonly gap?: true;
}

interface NextFile {
  readonly fd: number;
  /** The one that was written before it, where that is not the one that was read. */
  readonly unread: number | undefined;
}

const openIfThere = (path: string): number | undefined => {
  try {
    return openSync(path, 'r');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
};

/** The file that the writer is in now, with the one before it; nothing while the writer goes on in another one. */
function openNext(path: string, before: string | undefined, finished: number): NextFile | undefined {
  const fd = openIfThere(path);
  if (fd === undefined) return undefined;
  const old = before === undefined ? undefined : openIfThere(before);
  const { ino } = fstatSync(fd);
  if (inode(path) !== ino) {
    closeSync(fd);
    if (old !== undefined) closeSync(old);
    return undefined;
  }
  // What was read is open still: its number is no other file's.
  if (old === undefined || fstatSync(old).ino !== fstatSync(finished).ino) return { fd, unread: old };
  closeSync(old);
  return { fd, unread: undefined };
}

/**
 * Gives a file's bytes, with their places. When the writer goes on in a new file of the same name, so does this.
 * @param path what was written before may be in a file `before`, which comes first then.
 * @throws Error of the system, for a file that cannot be read.
 */
export async function* tailFile(
  path: string,
  { lines, follow }: TailOptions = {},
  before?: string,
): AsyncGenerator<TailPiece> {
  let fd = openSync(path, 'r');
  let file = 0;
  try {
    let { place, missing } = lines === undefined ? { place: 0, missing: 1 } : placeOfLast(fd, lines);
    if (before !== undefined && missing > 0 && existsSync(before)) {
      const old = openSync(before, 'r');
      try {
        // The writer may have gone on since: then this is the file that is open already.
        if (fstatSync(old).ino !== fstatSync(fd).ino) {
          const from = lines === undefined ? 0 : placeOfLast(old, missing).place;
          for (const { bytes, place: at } of pieces(old, from)) yield { bytes, place: at, path: before, file };
          file++;
        }
      } finally {
        closeSync(old);
      }
    }
    for (;;) {
      // Asked before the look: what was written before it was over is there then.
      const over = follow?.isOver() ?? true;
      const now = inode(path);
      for (const { bytes, place: at } of pieces(fd, place)) {
        yield { bytes, place: at, path, file };
        place = at + bytes.length;
        if (follow?.signal?.aborted) return;
      }
      if (now !== fstatSync(fd).ino) {
        const next = openNext(path, before, fd);
        if (next) {
          closeSync(fd);
          fd = next.fd;
          place = 0;
          file++;
          if (next.unread === undefined) continue;
          try {
            for (const { bytes, place: at } of pieces(next.unread, 0)) {
              yield { bytes, place: at, path: before as string, file, ...(at === 0 && { gap: true }) };
              if (follow?.signal?.aborted) return;
            }
          } finally {
            closeSync(next.unread);
          }
          file++;
          continue;
        }
      }
      if (over || follow?.signal?.aborted) return;
      await sleep(LOOK_MS);
    }
  } finally {
    closeSync(fd);
  }
}

function* pieces(fd: number, from: number): Generator<{ readonly bytes: Buffer; readonly place: number }> {
  for (let place = from; ; ) {
    const piece = Buffer.alloc(PIECE);
    const count = readSync(fd, piece, 0, PIECE, place);
    if (count === 0) return;
    yield { bytes: piece.subarray(0, count), place };
    place += count;
  }
}
