import type { ThrottleClock } from '../../src/vmm/throttle.ts';

/** A clock that goes where its next timer is. */
export class FakeClock implements ThrottleClock {
  time = 0n;
  readonly #armed = new Map<object, { at: bigint; expired: () => void }>();

  now(): bigint {
    return this.time;
  }

  timer(expired: () => void) {
    const key = {};
    return {
      armAt: (at: bigint) => void this.#armed.set(key, { at, expired }),
      cancel: () => void this.#armed.delete(key),
    };
  }

  get seconds(): number {
    return Number(this.time) / 1e9;
  }

  /** @returns false when no timer is armed. */
  next(): boolean {
    const [first] = [...this.#armed].sort((a, b) => Number(a[1].at - b[1].at));
    if (!first) return false;
    this.#armed.delete(first[0]);
    if (first[1].at > this.time) this.time = first[1].at;
    first[1].expired();
    return true;
  }
}
