import { extname } from 'node:path';
import { SHARE_ENV, Worker } from 'node:worker_threads';
import { installKickHandler } from './kick.ts';

/** What a thread is for: each role has its own module to load. */
export type ThreadRole = 'machine' | 'vcpu';

/** From the sources the modules are beside this one; from a bundle they are beside the main one, with its ending. */
const entryOf = (role: ThreadRole): URL =>
  new URL(`./${role}_entry${extname(new URL(import.meta.url).pathname)}`, import.meta.url);

/** What each thread is started with, before it has a role. */
export interface EngineThreadData {
  /** One word: LOADED when the thread has its code. */
  readonly loading: Int32Array;
}

export const LOADED = 1;

/** How long the end of the process waits for threads that are still loading. */
const LOAD_TIMEOUT_MS = 2000;

/** Threads of this process that may not have loaded their code yet. */
const loading = new Map<Worker, Int32Array>();
let exitHandlerInstalled = false;

/**
 * Node ends its threads wherever they are when the process exits. koffi aborts the process when that happens while it
 * is being loaded, so the exit handler lets threads that are about to load it do so first.
 */
function installExitHandler(): void {
  if (exitHandlerInstalled) return;
  exitHandlerInstalled = true;
  process.on('exit', () => {
    const deadline = performance.now() + LOAD_TIMEOUT_MS;
    for (const word of loading.values()) Atomics.wait(word, 0, 0, Math.max(0, deadline - performance.now()));
  });
}

/** What a thread says when it has played its role and may have another. */
export const PLAYED = 'played';

/**
 * Starts worker threads for machines, and keeps some started ahead: a worker takes 30–60 ms to come up, so
 * a spare one makes a machine, or a hot-plugged vCPU, start that much sooner. One pool can serve any number
 * of machines; a thread that has played its role ends, but in a rehearsal.
 */
export class ThreadPool {
  /** Threads that are taken now come back: what they ran is compiled when they play their next role. */
  rehearsing = false;
  readonly #spares: Record<ThreadRole, Worker[]> = { machine: [], vcpu: [] };
  readonly #online = new WeakMap<Worker, Promise<unknown>>();
  #closed = false;

  constructor() {
    installKickHandler();
    installExitHandler();
  }

  /** Starts threads now that `take` will hand out later. */
  prepare(role: ThreadRole, count: number): void {
    const spares = this.#spares[role];
    while (spares.length < count && !this.#closed) spares.push(this.#start(role));
  }

  /** Resolves when every spare thread has loaded its code. */
  async ready(): Promise<void> {
    await Promise.all(
      Object.values(this.#spares).flatMap((spares) => spares.map((worker) => this.#online.get(worker))),
    );
  }

  /**
   * A thread that was given its role. Its `error` and `exit` events are the caller's to watch, and its message that it
   * has PLAYED, when it is one that comes back.
   */
  take(data: { readonly role: ThreadRole }): Worker {
    const worker = this.#spares[data.role].shift() ?? this.#start(data.role);
    worker.removeAllListeners('error');
    worker.ref();
    worker.postMessage({ ...data, again: this.rehearsing });
    return worker;
  }

  /** Takes a thread back that has PLAYED its role. */
  giveBack(role: ThreadRole, worker: Worker): void {
    // Not all of them: Node has its own.
    for (const event of ['message', 'error', 'exit']) worker.removeAllListeners(event);
    worker.on('error', () => {});
    worker.unref();
    this.#spares[role].unshift(worker);
  }

  #start(role: ThreadRole): Worker {
    const word = new Int32Array(new SharedArrayBuffer(4));
    const worker = new Worker(entryOf(role), {
      workerData: { loading: word } satisfies EngineThreadData,
      env: SHARE_ENV,
      stdin: false,
      stdout: false,
      stderr: false,
      trackUnmanagedFds: false,
    });
    // A spare thread must not keep the process, nor end it unheard: a failure shows when it is used.
    worker.on('error', () => {});
    loading.set(worker, word);
    const loaded = new Promise<void>((resolve) => {
      const done = () => {
        loading.delete(worker);
        resolve();
      };
      worker.once('message', done).once('exit', done);
    });
    this.#online.set(worker, loaded);
    worker.unref();
    return worker;
  }

  /** Ends the spare threads. */
  async close(): Promise<void> {
    this.#closed = true;
    // Not before they are loaded: see the exit handler.
    const spares = Object.values(this.#spares).flatMap((each) => each.splice(0));
    const ended = spares.map(async (worker) => {
      await this.#online.get(worker);
      await worker.terminate();
    });
    await Promise.all(ended);
  }
}
