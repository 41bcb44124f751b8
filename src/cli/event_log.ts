import { readFileSync, readlinkSync, writeSync } from 'node:fs';
import { NemuError } from '../client/errors.ts';

/** `--json`: one event a line on a file descriptor. */
export class EventLog {
  #fd: number | undefined;

  constructor(json: string | true | undefined) {
    if (json === undefined) return;
    this.#fd = json === true ? 2 : Number(json);
    if (!isWritable(this.#fd)) {
      throw new NemuError('USAGE', `--json ${json}: file descriptor ${json} is not open for writing.`, {
        hint: 'Open it in the shell, for example: nemu run --json 3 3>events.jsonl',
      });
    }
  }

  get active(): boolean {
    return this.#fd !== undefined;
  }

  /** Standard output has events, and nothing else. */
  get isStdout(): boolean {
    return this.#fd === 1;
  }

  write(event: object): void {
    if (this.#fd === undefined) return;
    const line = Buffer.from(`${JSON.stringify({ time: new Date().toISOString(), ...event })}\n`);
    try {
      for (let at = 0; at < line.length; ) at += this.#writeSome(this.#fd, line.subarray(at));
    } catch (error) {
      // A reader that has gone, or a full disk: the machine goes on without.
      this.#fd = undefined;
      process.stderr.write(`nemu: --json: no more events: ${(error as Error).message}\n`);
    }
  }

  #writeSome(fd: number, bytes: Uint8Array): number {
    try {
      return writeSync(fd, bytes);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
      // A pipe that its owner made non-blocking, and that is full.
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5);
      return 0;
    }
  }
}

/** What of `flags` in /proc is O_WRONLY or O_RDWR. */
const WRITABLE = 0o3;

/** A descriptor that the caller has given: what has no file is something of this process's own. */
function isWritable(fd: number): boolean {
  try {
    if (readlinkSync(`/proc/self/fd/${fd}`).startsWith('anon_inode:')) return false;
    const [, flags] = /^flags:\s*([0-7]+)/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8')) ?? [];
    return (Number.parseInt(flags, 8) & WRITABLE) !== 0;
  } catch {
    return false;
  }
}

/** A line for the user, where events do not say it. */
export const note = (events: EventLog, text: string) => {
  if (!events.active) process.stderr.write(`nemu: ${text}\n`);
};
