/** Limits on what a disk or a network card does in a second: leaky buckets, as QEMU's throttling has them. */

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

export class Bucket {
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

/** The buckets of one direction: of requests or packets, and of bytes. Two directions may have some in common. */
export class Buckets {
  readonly #counts: readonly Bucket[];
  readonly #bytes: readonly Bucket[];

  constructor(counts: readonly Bucket[], bytes: readonly Bucket[]) {
    this.#counts = counts;
    this.#bytes = bytes;
  }

  get limited(): boolean {
    return this.#counts.length > 0 || this.#bytes.length > 0;
  }

  /** Nanoseconds until one of `bytes` may pass; 0 for now. */
  wait(bytes: number, now: bigint): number {
    let longest = 0;
    for (const bucket of this.#counts) longest = Math.max(longest, bucket.wait(1, now));
    for (const bucket of this.#bytes) longest = Math.max(longest, bucket.wait(bytes, now));
    return longest;
  }

  take(bytes: number): void {
    for (const bucket of this.#counts) bucket.take(1);
    for (const bucket of this.#bytes) bucket.take(bytes);
  }
}

/** A bucket in a list, or none where there is no rate. */
export const bucketOf = (rate: number | undefined, max: number | undefined, now: bigint): Bucket[] =>
  rate ? [new Bucket(rate, max, now)] : [];

export const UNLIMITED = new Buckets([], []);

/** Whether limits limit anything. */
export const isLimited = (limits: object): boolean => Object.values(limits).some((value) => value);

interface Waiting {
  readonly bytes: number;
  readonly run: () => void;
}

/** Lets requests through as the limits allow, each direction in its own order. */
export class Throttle {
  readonly #clock: ThrottleClock;
  readonly #timers: Record<Direction, { armAt(at: bigint): void; cancel(): void }>;
  readonly #waiting: Record<Direction, Waiting[]> = { read: [], write: [] };
  #buckets: Record<Direction, Buckets> = { read: UNLIMITED, write: UNLIMITED };
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
    const { iops, iopsRead, iopsWrite, iopsMax, bps, bpsRead, bpsWrite, bpsMax } = limits;
    // The buckets for both directions together are the same two.
    const [all, allBytes] = [bucketOf(iops, iopsMax, now), bucketOf(bps, bpsMax, now)];
    const direction = (requests: number | undefined, bytes: number | undefined) =>
      new Buckets([...all, ...bucketOf(requests, undefined, now)], [...allBytes, ...bucketOf(bytes, undefined, now)]);
    this.#buckets = { read: direction(iopsRead, bpsRead), write: direction(iopsWrite, bpsWrite) };
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
      const wait = this.#buckets[direction].wait(bytes, now);
      if (wait > 0) {
        this.#timers[direction].armAt(now + BigInt(wait));
        return;
      }
      this.#buckets[direction].take(bytes);
      waiting.shift();
      head.run();
    }
  }

  /** Lets all that waits through, for once. */
  release(): void {
    for (const direction of ['read', 'write'] as const) {
      const waiting = this.#waiting[direction];
      this.#timers[direction].cancel();
      for (let head = waiting.shift(); head; head = waiting.shift()) {
        this.#buckets[direction].take(head.bytes);
        head.run();
      }
    }
  }

  close(): void {
    this.#timers.read.cancel();
    this.#timers.write.cancel();
  }
}
