import type { DirtyRateReport, MachineClient } from '../client/machine_client.ts';
import type { StationClock } from './clock.ts';

/** How long pages are watched, and how long they are left alone between: watching costs the guest an exit a page. */
const WATCH_MS = 500;
const REST_MS = 1500;

/** Measures how fast the guest writes to its memory, again and again, while somebody wants to know. */
export class DirtyWatch {
  /** Bytes a second, a value a second, oldest first. */
  rates: readonly number[] = [];
  last: DirtyRateReport | undefined;
  readonly #machine: MachineClient;
  readonly #clock: StationClock;
  readonly #most: number;
  readonly #changed: () => void;
  #on = false;
  /** A measurement is under way; it is not begun twice by who switches off and on. */
  #busy = false;
  #offNext: (() => void) | undefined;

  /** @param most values that are kept. */
  constructor(machine: MachineClient, clock: StationClock, most: number, changed: () => void) {
    this.#machine = machine;
    this.#clock = clock;
    this.#most = most;
    this.#changed = changed;
  }

  get on(): boolean {
    return this.#on;
  }

  start(): void {
    this.#on = true;
    if (!this.#busy) void this.#measure();
  }

  stop(): void {
    this.#on = false;
    this.#offNext?.();
    this.last = undefined;
    this.rates = [];
  }

  async #measure(): Promise<void> {
    if (!this.#on) return;
    this.#busy = true;
    let report: DirtyRateReport | undefined;
    try {
      if (this.#machine.state === 'running') report = await this.#machine.dirtyRate(WATCH_MS);
    } catch {
      // The machine has ended, or does not answer: the model's own question says so.
    }
    this.#busy = false;
    if (!this.#on) return;
    this.last = report;
    const dirty = report?.ranges.reduce((sum, range) => sum + range.dirty, 0) ?? 0;
    const rate = report ? (dirty * 1000) / report.milliseconds : 0;
    const seconds = Array<number>((WATCH_MS + REST_MS) / 1000).fill(rate);
    this.rates = [...this.rates, ...seconds].slice(-this.#most);
    this.#changed();
    this.#offNext = this.#clock.after(REST_MS, () => void this.#measure());
  }
}
