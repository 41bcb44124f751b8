import { failureOf, isSettled, type LiveRequest } from '../../client/live.ts';

/** Requests that are remembered for callers who ask late. */
const REMEMBERED = 64;

/** Waits for requests to settle, by their events. */
export class RequestWatch {
  readonly #latest = new Map<number, LiveRequest>();
  readonly #waiting = new Map<number, PromiseWithResolvers<LiveRequest>>();

  /** Takes a request's new stage. */
  take(request: LiveRequest): void {
    this.#latest.delete(request.id);
    this.#latest.set(request.id, request);
    if (this.#latest.size > REMEMBERED) this.#latest.delete(this.#latest.keys().next().value as number);
    if (isSettled(request.stage)) this.#settle(request);
  }

  #settle(request: LiveRequest): void {
    const waiting = this.#waiting.get(request.id);
    this.#waiting.delete(request.id);
    const failure = failureOf(request);
    if (failure) waiting?.reject(failure);
    else waiting?.resolve(request);
  }

  /** @returns the request once it has done what was asked. @throws NemuError when it was refused or timed out. */
  settled(request: LiveRequest): Promise<LiveRequest> {
    const waiting = Promise.withResolvers<LiveRequest>();
    this.#waiting.set(request.id, waiting);
    const latest = this.#latest.get(request.id) ?? request;
    if (isSettled(latest.stage)) this.#settle(latest);
    return waiting.promise;
  }

  /** The machine is no more. */
  fail(error: Error): void {
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
  }
}
