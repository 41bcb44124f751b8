/**
 * A console's log: every byte as it came, in one file, and beside it (`.times`) when it came, so that lines can be
 * shown with their times or without. A line of the second file is `OFFSET MILLISECONDS [LOST]`: bytes from this place
 * on came at this time of the Unix clock, after so many that found no room.
 */
import { closeSync, openSync, readFileSync, writeSync } from 'node:fs';
import type { ConsoleTap } from './hub.ts';

/** Bytes that come closer together than this have one time. */
const SAME_MS = 20;

export class ConsoleLog implements ConsoleTap {
  readonly path: string;
  readonly #file: number;
  readonly #times: number;
  readonly #failed: (error: Error) => void;
  #offset = 0;
  #stampedAt = Number.NEGATIVE_INFINITY;
  #lost = 0;
  #closed = false;

  /**
   * @param failed told when the log ends before the console does, as on a full disk.
   * @throws Error of the system, for a file that cannot be made.
   */
  constructor(path: string, failed: (error: Error) => void) {
    this.path = path;
    this.#failed = failed;
    this.#file = openSync(path, 'w', 0o600);
    this.#times = openSync(`${path}.times`, 'w', 0o600);
  }

  // Written at once: what the console said last is what counts after a crash.
  bytes(bytes: Uint8Array): void {
    if (this.#closed) return;
    try {
      const now = Date.now();
      if (now - this.#stampedAt >= SAME_MS || this.#lost > 0) {
        writeSync(this.#times, `${this.#offset} ${now}${this.#lost > 0 ? ` ${this.#lost}` : ''}\n`);
        this.#stampedAt = now;
        this.#lost = 0;
      }
      for (let at = 0; at < bytes.length; ) at += writeSync(this.#file, bytes, at);
      this.#offset += bytes.length;
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

/** When the bytes of a log came, oldest first; nothing for a log without times. */
function readStamps(path: string): Stamp[] {
  let text: string;
  try {
    text = readFileSync(`${path}.times`, 'latin1');
  } catch {
    return [];
  }
  return text
    .split('\n')
    .filter((line) => /^\d+ \d+( \d+)?$/.test(line))
    .map((line) => {
      const [offset, at, lost = 0] = line.split(' ').map(Number);
      return { offset, at, lost };
    });
}

/** Gives a log's bytes from a place on for people: what was lost is said where it was lost, and lines may have times. */
export class LogReader {
  readonly #path: string;
  readonly #timestamps: boolean;
  #stamps: Stamp[] = [];
  #next = 0;
  #time = '';
  #lineStart = true;

  constructor(path: string, timestamps: boolean) {
    this.#path = path;
    this.#timestamps = timestamps;
  }

  /** @param offset place of the first of `bytes` in the log: pieces come in order. */
  show(bytes: Buffer, offset: number): Buffer {
    this.#stamps = readStamps(this.#path);
    const out: Buffer[] = [];
    let from = 0;
    while (from < bytes.length) {
      while (this.#next < this.#stamps.length && this.#stamps[this.#next].offset <= offset + from) {
        const { at, lost } = this.#stamps[this.#next++];
        this.#time = `${new Date(at).toISOString()} `;
        if (lost > 0) {
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
