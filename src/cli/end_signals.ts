/** Signals that end a machine which others know by its name: what becomes of it is to be written down first. */

const SIGNALS = ['SIGTERM', 'SIGINT', 'SIGHUP'] as const;

/**
 * A signal that comes before there is a machine ends this process, as without this. From `hold` on each only settles
 * `came`, however often it comes: a terminal that is closed sends SIGHUP to every process in it, and the supervisor
 * passes on the one that it got itself.
 */
export class EndSignals {
  readonly #came = Promise.withResolvers<void>();
  #held = false;

  /** @param tidy takes away what there is of a machine that will not be. */
  constructor(tidy: () => void) {
    for (const signal of SIGNALS) {
      const heard = () => {
        if (this.#held) {
          this.#came.resolve();
          return;
        }
        tidy();
        process.off(signal, heard);
        process.kill(process.pid, signal);
      };
      process.on(signal, heard);
    }
  }

  get came(): Promise<void> {
    return this.#came.promise;
  }

  /** Until this process ends: there is nothing after a machine's end that a signal would have to cut short. */
  hold(): void {
    this.#held = true;
    // Of a terminal that was closed neither bytes nor modes are to be had, and nobody is there to be told.
    for (const stream of [process.stdin, process.stdout, process.stderr]) {
      stream.on('error', (error: NodeJS.ErrnoException) => {
        if (error.code !== 'EIO') throw error;
      });
    }
  }
}
