/**
 * A console's log: every byte as it came, in one file, and beside it (`.times`) when it came, so that lines can be
 * shown with their times or without. A line of the second file is `OFFSET MILLISECONDS [LOST]`: bytes from this place
 * on came at this time of the Unix clock, after so many that found no room.
 *
 * A log that has a limit goes on in a new file when it has so many bytes; the last one is kept as `.1`.
 */
import { closeSync, openSync, readSync, renameSync, rmSync, writeSync } from 'node:fs';
import type { ConsoleTap } from './hub.ts';
import { openOutput } from './output_file.ts';

/** Bytes that come closer together than this have one time. */
const SAME_MS = 20;

/** The file in which the log of `path` was before it went on there. */
export const previousLog = (path: string): string => `${path}.1`;
const timesOf = (path: string): string => `${path}.times`;

export class ConsoleLog implements ConsoleTap {
  readonly path: string;
  readonly #limit: number;
  #file: number;
  #times: number;
  readonly #failed: (error: Error) => void;
  #offset = 0;
  #stampedAt = Number.NEGATIVE_INFINITY;
  #lost = 0;
  #lineEnd = true;
  #closed = false;

  /**
   * @param failed told when the log ends before the console does, as on a full disk.
   * @param limit bytes of a file, of which there are two; no limit and one file without it.
   * @throws NemuError OUTPUT_FILE for a file that cannot be made.
   */
  constructor(path: string, failed: (error: Error) => void, limit = Number.POSITIVE_INFINITY) {
    this.path = path;
    this.#limit = limit;
    this.#failed = failed;
    if (Number.isFinite(limit)) {
      for (const old of [previousLog(path), timesOf(previousLog(path))]) rmSync(old, { force: true });
    }
    this.#file = openOutput(path);
    this.#times = openOutput(timesOf(path));
  }

  /** Lines stay whole, when they are not as long as a quarter of a file. */
  #isFull(more: number): boolean {
    const size = this.#offset + more;
    return this.#offset > 0 && size > this.#limit * (this.#lineEnd ? 1 : 1.25);
  }

  #goOn(): void {
    closeSync(this.#file);
    closeSync(this.#times);
    const { path } = this;
    // Times first: who opens the bytes that were finds theirs.
    renameSync(timesOf(path), timesOf(previousLog(path)));
    renameSync(path, previousLog(path));
    this.#times = openOutput(timesOf(path));
    this.#file = openOutput(path);
    this.#offset = 0;
    this.#stampedAt = Number.NEGATIVE_INFINITY;
  }

  // Written at once: what the console said last is what counts after a crash.
  bytes(bytes: Uint8Array): void {
    if (this.#closed) return;
    try {
      if (this.#isFull(bytes.length)) this.#goOn();
      const now = Date.now();
      if (now - this.#stampedAt >= SAME_MS || this.#lost > 0) {
        writeSync(this.#times, `${this.#offset} ${now}${this.#lost > 0 ? ` ${this.#lost}` : ''}\n`);
        this.#stampedAt = now;
        this.#lost = 0;
      }
      for (let at = 0; at < bytes.length; ) at += writeSync(this.#file, bytes, at);
      this.#offset += bytes.length;
      this.#lineEnd = bytes.at(-1) === 0x0a;
    } catch (error) {
      this.close();
      this.#failed(error as Error);
    }
  }

  lost(count: number): void {
    this.#lost += count;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    closeSync(this.#file);
    closeSync(this.#times);
  }
}

interface Stamp {
  readonly offset: number;
  readonly at: number;
  readonly lost: number;
}

/** When the bytes of a log came, as far as that has been written down; nothing for a log without times. */
class StampReader {
  /** Open, so that it stays the same file when the log goes on in another one. */
  readonly #file: number | undefined;
  #partial = '';

  constructor(path: string) {
    try {
      this.#file = openSync(timesOf(path), 'r');
    } catch {
      this.#file = undefined;
    }
  }

  /** Those that were written since the last look, oldest first. */
  more(): Stamp[] {
    if (this.#file === undefined) return [];
    const piece = Buffer.alloc(64 << 10);
    let text = this.#partial;
    for (let count = readSync(this.#file, piece); count > 0; count = readSync(this.#file, piece)) {
      text += piece.toString('latin1', 0, count);
    }
    const lines = text.split('\n');
    this.#partial = lines.pop() ?? '';
    return lines
      .filter((line) => /^\d+ \d+( \d+)?$/.test(line))
      .map((line) => {
        const [offset, at, lost = 0] = line.split(' ').map(Number);
        return { offset, at, lost };
      });
  }

  close(): void {
    if (this.#file !== undefined) closeSync(this.#file);
  }
}

/** Gives a log's bytes from a place on for people: what was lost is said where it was lost, and lines may have times. */
export class LogReader {
  readonly #timestamps: boolean;
  readonly #source: StampReader;
  readonly #stamps: Stamp[] = [];
  #next = 0;
  #time = '';
  #lineStart = true;
  /** Place of the first byte that was shown: what was lost before it was lost elsewhere. */
  #first: number | undefined;

  constructor(path: string, timestamps: boolean) {
    this.#source = new StampReader(path);
    this.#timestamps = timestamps;
  }

  close(): void {
    this.#source.close();
  }

  /** What was shown last is a whole line. */
  get atLineStart(): boolean {
    return this.#lineStart;
  }

  /** @param offset place of the first of `bytes` in the log: pieces come in order. */
  show(bytes: Buffer, offset: number): Buffer {
    this.#first ??= offset;
    for (const stamp of this.#source.more()) this.#stamps.push(stamp);
    const out: Buffer[] = [];
    let from = 0;
    while (from < bytes.length) {
      while (this.#next < this.#stamps.length && this.#stamps[this.#next].offset <= offset + from) {
        const { offset: place, at, lost } = this.#stamps[this.#next++];
        this.#time = `${new Date(at).toISOString()} `;
        if (lost > 0 && place >= this.#first) {
          out.push(
            Buffer.from(
              `${this.#lineStart ? '' : '\n'}[nemu] ${lost} bytes were lost here: nobody took them in time.\n`,
            ),
          );
          this.#lineStart = true;
        }
      }
      const stampAt = (this.#stamps[this.#next]?.offset ?? Number.POSITIVE_INFINITY) - offset;
      const newline = bytes.indexOf(0x0a, from);
      const end = Math.min(stampAt, newline < 0 ? bytes.length : newline + 1, bytes.length);
      if (this.#timestamps && this.#lineStart) out.push(Buffer.from(this.#time));
      out.push(bytes.subarray(from, end));
      this.#lineStart = bytes[end - 1] === 0x0a;
      from = end;
    }
    return Buffer.concat(out);
  }
}
