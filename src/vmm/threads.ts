import { SHARE_ENV, Worker } from 'node:worker_threads';
import { installKickHandler } from './kick.ts';

/** The same module from the sources and from the bundle, where it stands beside the main one. */
const ENTRY = new URL(import.meta.url.endsWith('.ts') ? './engine_thread.ts' : './engine_thread.js', import.meta.url);

/**
 * Starts worker threads for machines, and keeps some started ahead: a worker takes 30–60 ms to come up, so
 * a spare one makes a machine, or a hot-plugged vCPU, start that much sooner. One pool can serve any number
 * of machines; a thread that has played its role ends.
 */
export class ThreadPool {
  readonly #entry: URL;
  readonly #spares: Worker[] = [];
  readonly #online = new WeakMap<Worker, Promise<unknown>>();
  #closed = false;

  /** @param entry module that plays engine_thread.ts. */
  constructor(entry: URL = ENTRY) {
    this.#entry = entry;
    installKickHandler();
  }

  /** Starts threads now that `take` will hand out later. */
  prepare(count: number): void {
    while (this.#spares.length < count && !this.#closed) this.#spares.push(this.#start());
  }

  /** Resolves when every spare thread has loaded its code. */
  async ready(): Promise<void> {
    await Promise.all(this.#spares.map((worker) => this.#online.get(worker)));
  }

  /** A thread that was given its role; `error` and `exit` events are the caller's to watch. */
  take(role: object): Worker {
    const worker = this.#spares.shift() ?? this.#start();
    worker.removeAllListeners('error');
    worker.ref();
    worker.postMessage(role);
    return worker;
  }

  #start(): Worker {
    const worker = new Worker(this.#entry, {
      env: SHARE_ENV,
      stdin: false,
      stdout: false,
      stderr: false,
      trackUnmanagedFds: false,
    });
    // A spare thread must not keep the process, nor end it unheard: a failure shows when it is used.
    worker.on('error', () => {});
    this.#online.set(worker, new Promise((resolve) => worker.once('message', resolve)));
    worker.unref();
    return worker;
  }

  /** Ends the spare threads. */
  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all(this.#spares.splice(0).map((worker) => worker.terminate()));
  }
}
