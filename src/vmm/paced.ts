import type { Clock, Timer } from '../devices/device.ts';

const INTERVAL_NS = 1_000_000_000n;

/**
 * Tells what a guest changes, which it may do without end: the first value at once, then no more than one in a second
 * of guest time, and the newest one in any case.
 */
export class Paced<T> {
  readonly #clock: Pick<Clock, 'now' | 'timer'>;
  readonly #tell: (value: T) => void;
  readonly #timer: Timer;
  #next = 0n;
  #waiting: { readonly value: T } | undefined;

  constructor(clock: Pick<Clock, 'now' | 'timer'>, tell: (value: T) => void) {
    this.#clock = clock;
    this.#tell = tell;
    this.#timer = clock.timer(() => {
      const last = this.#waiting;
      this.#waiting = undefined;
      if (last) this.#say(last.value);
    });
  }

  say(value: T): void {
    if (this.#waiting || this.#clock.now() < this.#next) {
      this.#waiting = { value };
      this.#timer.armAt(this.#next);
    } else this.#say(value);
  }

  #say(value: T): void {
    this.#next = this.#clock.now() + INTERVAL_NS;
    this.#tell(value);
  }

  /** What waits is not told any more. */
  close(): void {
    this.#waiting = undefined;
    this.#timer.cancel();
  }
}
