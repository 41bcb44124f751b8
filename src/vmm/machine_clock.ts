import type { Clock, Timer } from '../devices/device.ts';
import { clockOffset, guestNow, setClockOffset } from './clock.ts';
import type { Reactor } from './reactor.ts';
import type { SharedBlock } from './shared.ts';

interface Armed {
  deadline: bigint;
  callback: () => void;
}

/** Guest time and timers on the machine thread's reactor; both stand still while the machine is paused. */
export class MachineClock implements Clock {
  readonly #block: SharedBlock;
  readonly #reactor: Reactor;
  readonly #armed = new Set<Armed>();
  #pausedAt: bigint;
  #paused = true;

  /** Starts paused, at guest time zero. */
  constructor(block: SharedBlock, reactor: Reactor) {
    this.#block = block;
    this.#reactor = reactor;
    this.#pausedAt = process.hrtime.bigint();
    setClockOffset(block, this.#pausedAt);
    reactor.onTimer(() => this.#expire());
  }

  now(): bigint {
    return this.#paused ? this.#pausedAt - this.#offset : guestNow(this.#block);
  }

  get #offset(): bigint {
    return clockOffset(this.#block);
  }

  wallClockMs(): number {
    return Date.now();
  }

  timer(callback: () => void): Timer {
    const armed: Armed = { deadline: 0n, callback };
    return {
      armAt: (ns) => {
        armed.deadline = ns;
        this.#armed.add(armed);
        this.#program();
      },
      cancel: () => {
        if (this.#armed.delete(armed)) this.#program();
      },
    };
  }

  pause(): void {
    if (this.#paused) return;
    this.#pausedAt = process.hrtime.bigint();
    this.#paused = true;
    this.#program();
  }

  resume(): void {
    if (!this.#paused) return;
    const now = process.hrtime.bigint();
    setClockOffset(this.#block, now - (this.#pausedAt - this.#offset));
    this.#paused = false;
    this.#program();
  }

  #program(): void {
    let next: bigint | undefined;
    for (const { deadline } of this.#armed) if (next === undefined || deadline < next) next = deadline;
    // 1 ns is as soon as can be; 0 would disarm.
    const due = next === undefined || this.#paused ? 0n : next + this.#offset;
    this.#reactor.arm(due < 0n ? 1n : due);
  }

  #expire(): void {
    const now = this.now();
    for (const armed of [...this.#armed]) {
      if (armed.deadline <= now && this.#armed.delete(armed)) armed.callback();
    }
    this.#program();
  }
}
