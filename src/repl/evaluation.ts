/** Which line of code something is done for, so that interrupting the line reaches it. */
import { AsyncLocalStorage } from 'node:async_hooks';
import { NemuError } from '../client/errors.ts';

const current = new AsyncLocalStorage<Evaluation>();

/** One evaluation of the REPL. Whatever the code calls, now or after it has waited, finds it as `Evaluation.current`. */
export class Evaluation {
  readonly #stop = new AbortController();
  #commands = 0;

  /** The one that the caller belongs to; undefined in a script. */
  static get current(): Evaluation | undefined {
    return current.getStore();
  }

  run<T>(code: () => T): T {
    return current.run(this, code);
  }

  get interrupted(): boolean {
    return this.#stop.signal.aborted;
  }

  /** Commands in the guest are told to end, and the code begins nothing more. @returns how many commands there are. */
  interrupt(): number {
    this.#stop.abort();
    return this.#commands;
  }

  /** @throws NemuError INTERRUPTED */
  requireWanted(): void {
    if (this.interrupted) throw new NemuError('INTERRUPTED', 'This was interrupted.');
  }

  /** Runs a command of the guest, which ends when this is interrupted. @throws NemuError INTERRUPTED; what it throws. */
  async command<T>(run: (signal: AbortSignal) => Promise<T>): Promise<T> {
    this.requireWanted();
    this.#commands++;
    try {
      return await run(this.#stop.signal);
    } finally {
      this.#commands--;
      this.requireWanted();
    }
  }
}
