import type { StationClock } from '../../src/tui/clock.ts';

/** Time that runs as fast as it can until so many things have come due, and then stands still. */
export class HeldClock implements StationClock {
  #now = 0;
  #left: number;

  constructor(steps: number) {
    this.#left = steps;
  }

  monotonic(): number {
    return this.#now;
  }

  wall(): number {
    return Date.UTC(2026, 0, 2, 15, 4, 5) + this.#now;
  }

  after(ms: number, callback: () => void): () => void {
    if (this.#left-- <= 0) return () => {};
    const due = setImmediate(() => {
      this.#now += ms;
      callback();
    });
    return () => clearImmediate(due);
  }
}
