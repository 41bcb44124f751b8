import { fstatSync, writeSync } from 'node:fs';
import { NemuError } from '../client/errors.ts';

/** `--json`: one event a line on a file descriptor. */
export class EventLog {
  #fd: number | undefined;

  constructor(json: string | true | undefined) {
    if (json === undefined) return;
    this.#fd = json === true ? 2 : Number(json);
    try {
      fstatSync(this.#fd);
    } catch {
      throw new NemuError('USAGE', `--json ${json}: file descriptor ${json} is not open.`, {
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

/** A line for the user, where events do not say it. */
export const note = (events: EventLog, text: string) => {
  if (!events.active) process.stderr.write(`nemu: ${text}\n`);
};
