import type { Worker } from 'node:worker_threads';
import { NemuError } from '../client/errors.ts';
import type { CallName, FromMachine, MachineCalls, ToMachine } from './thread_messages.ts';

type Answer = Extract<FromMachine, { readonly type: 'reply' | 'error' }>;

/** Calls of the main thread that a machine thread has not answered yet. */
export class ThreadCalls {
  readonly #pending = new Map<number, { resolve: (value: never) => void; reject: (error: Error) => void }>();
  #nextId = 1;

  /** Posts a call. Its thread blocks elsewhere than in its messages: the caller wakes it. @returns the answer. */
  post<N extends CallName>(
    thread: Worker,
    call: N,
    parameter: MachineCalls[N]['parameter'],
  ): Promise<MachineCalls[N]['result']> {
    const id = this.#nextId++;
    const { promise, resolve, reject } = Promise.withResolvers<MachineCalls[N]['result']>();
    this.#pending.set(id, { resolve: resolve as (value: never) => void, reject });
    thread.postMessage({ id, call, parameter } satisfies ToMachine);
    return promise;
  }

  take(answer: Answer): void {
    const call = this.#pending.get(answer.id);
    this.#pending.delete(answer.id);
    if (answer.type === 'reply') call?.resolve(answer.result as never);
    else call?.reject(NemuError.fromJSON(answer.error));
  }

  /** The thread answers no more. */
  fail(error: NemuError): void {
    for (const { reject } of this.#pending.values()) reject(error);
    this.#pending.clear();
  }
}
