/** Limits on a disk's requests and bytes: leaky buckets, as QEMU's throttling has them. */

/** Requests and bytes in a second; what is not given is not limited. A `…Max` is what a burst may have in one second. */
export interface ThrottleLimits {
  readonly iops?: number | undefined;
  readonly iopsRead?: number | undefined;
  readonly iopsWrite?: number | undefined;
  readonly bps?: number | undefined;
  readonly bpsRead?: number | undefined;
  readonly bpsWrite?: number | undefined;
  readonly iopsMax?: number | undefined;
  readonly bpsMax?: number | undefined;
}

export type Direction = 'read' | 'write';

/** Nanoseconds now, and something that can be woken at a time. */
export interface ThrottleClock {
  now(): bigint;
  timer(expired: () => void): { armAt(at: bigint): void; cancel(): void };
}

const SECOND = 1e9;
/** Without a burst, a tenth of a second's worth may come at once. */
const BURST = 0.1;

class Bucket {
  readonly #rate: number;
  readonly #capacity: number;
  #level = 0;
  #at: bigint;

  constructor(rate: number, max: number | undefined, now: bigint) {
    this.#rate = rate;
    this.#capacity = max ?? rate * BURST;
    this.#at = now;
  }

  /** Nanoseconds until `units` may pass; 0 for now. What is larger than the bucket passes when that is empty. */
  wait(units: number, now: bigint): number {
    this.#level = Math.max(0, this.#level - (this.#rate * Number(now - this.#at)) / SECOND);
    this.#at = now;
    const above = this.#level - Math.max(0, this.#capacity - units);
    // Less than a nanosecond's worth is nothing: no timer is as fine.
    return above <= this.#rate / SECOND ? 0 : Math.ceil((above / this.#rate) * SECOND);
  }

  take(units: number): void {
    this.#level += units;
  }
}

interface Waiting {
  readonly bytes: number;
  readonly run: () => void;
}

/** Lets requests through as the limits allow, each direction in its own order. */
export class Throttle {
  readonly #clock: ThrottleClock;
  readonly #timers: Record<Direction, { armAt(at: bigint): void; cancel(): void }>;
  readonly #waiting: Record<Direction, Waiting[]> = { read: [], write: [] };
  #requests: Record<Direction, Bucket[]> = { read: [], write: [] };
  #bytes: Record<Direction, Bucket[]> = { read: [], write: [] };
  #limits: ThrottleLimits = {};

  constructor(clock: ThrottleClock, limits: ThrottleLimits = {}) {
    this.#clock = clock;
    this.#timers = { read: clock.timer(() => this.#pump('read')), write: clock.timer(() => this.#pump('write')) };
    this.limits = limits;
  }

  get limits(): ThrottleLimits {
    return this.#limits;
  }

  /** New limits hold at once, for what waits too. */
  set limits(limits: ThrottleLimits) {
    this.#limits = limits;
    const now = this.#clock.now();
    const bucket = (rate: number | undefined, max?: number) => (rate ? [new Bucket(rate, max, now)] : []);
    const { iops, iopsRead, iopsWrite, iopsMax, bps, bpsRead, bpsWrite, bpsMax } = limits;
    // The buckets for both directions together are the same two.
    const [all, allBytes] = [bucket(iops, iopsMax), bucket(bps, bpsMax)];
    this.#requests = { read: [...all, ...bucket(iopsRead)], write: [...all, ...bucket(iopsWrite)] };
    this.#bytes = { read: [...allBytes, ...bucket(bpsRead)], write: [...allBytes, ...bucket(bpsWrite)] };
    this.#pump('read');
    this.#pump('write');
  }

  /** Requests that wait. */
  get waiting(): number {
    return this.#waiting.read.length + this.#waiting.write.length;
  }

  submit(direction: Direction, bytes: number, run: () => void): void {
    this.#waiting[direction].push({ bytes, run });
    if (this.#waiting[direction].length === 1) this.#pump(direction);
  }

  #pump(direction: Direction): void {
    const waiting = this.#waiting[direction];
    this.#timers[direction].cancel();
    for (let head = waiting[0]; head; head = waiting[0]) {
      const now = this.#clock.now();
      const { bytes } = head;
      const wait = Math.max(
        0,
        ...this.#requests[direction].map((bucket) => bucket.wait(1, now)),
        ...this.#bytes[direction].map((bucket) => bucket.wait(bytes, now)),
      );
      if (wait > 0) {
        this.#timers[direction].armAt(now + BigInt(wait));
        return;
      }
      for (const bucket of this.#requests[direction]) bucket.take(1);
      for (const bucket of this.#bytes[direction]) bucket.take(bytes);
      waiting.shift();
      head.run();
    }
  }

  close(): void {
    this.#timers.read.cancel();
    this.#timers.write.cancel();
  }
}
