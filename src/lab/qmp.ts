import type { Duplex } from 'node:stream';
import { NemuError } from '../client/errors.ts';

interface Waiter {
  resolve: (value: unknown) => void;
  reject: (error: Error) => void;
}

/** A client of QEMU's machine protocol on a stream that is connected already (QMP specification). */
export class QmpClient {
  readonly #stream: Duplex;
  readonly #waiters = new Map<number, Waiter>();
  #nextId = 1;
  #rest = '';
  #closed: Error | undefined;

  constructor(stream: Duplex) {
    this.#stream = stream;
    stream.on('data', (chunk: Buffer) => this.#receive(chunk.toString('utf8')));
  }

  /** Leaves the negotiation mode; nothing else is allowed before. */
  async start(): Promise<void> {
    await this.command('qmp_capabilities');
  }

  /**
   * @returns the `return` member of the answer.
   * @throws NemuError LAB_QMP with QEMU's words.
   */
  command(execute: string, args?: object): Promise<unknown> {
    if (this.#closed) return Promise.reject(this.#closed);
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#waiters.set(id, { resolve, reject });
      this.#stream.write(`${JSON.stringify({ execute, id, ...(args && { arguments: args }) })}\n`);
    });
  }

  /** Fails everything that waits for an answer, and all that is asked from now on. */
  fail(error: Error): void {
    this.#closed ??= error;
    for (const waiter of this.#waiters.values()) waiter.reject(error);
    this.#waiters.clear();
  }

  #receive(text: string): void {
    const lines = (this.#rest + text).split('\n');
    this.#rest = lines.pop() ?? '';
    for (const line of lines) {
      if (line.trim() === '') continue;
      const message = JSON.parse(line) as { id?: number; return?: unknown; error?: { class: string; desc: string } };
      const waiter = message.id === undefined ? undefined : this.#waiters.get(message.id);
      if (!waiter) continue;
      this.#waiters.delete(message.id!);
      if (message.error) waiter.reject(new NemuError('LAB_QMP', `QEMU refused a command: ${message.error.desc}`));
      else waiter.resolve(message.return);
    }
  }
}
