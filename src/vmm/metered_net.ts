import { MAX_FRAME, type NetBackend } from '../net/backend.ts';
import { latencyBucket, newHistogram } from './latency.ts';
import { Buckets, bucketOf, type ThrottleClock, UNLIMITED } from './throttle.ts';

/** Packets and bytes in a second; what is not given is not limited. A `…Max` is what a burst may have at once. */
export interface NetLimits {
  readonly pps?: number | undefined;
  readonly ppsRx?: number | undefined;
  readonly ppsTx?: number | undefined;
  readonly ppsMax?: number | undefined;
  readonly bps?: number | undefined;
  readonly bpsRx?: number | undefined;
  readonly bpsTx?: number | undefined;
  readonly bpsMax?: number | undefined;
}

/** Seen from the guest: `tx` is what it sends. */
export type NetDirection = 'rx' | 'tx';

/** How long packets waited for room: at a limit, at a full back end, for a buffer of the guest. */
export class WaitMeter {
  count = 0;
  totalUs = 0;
  readonly #histogram = newHistogram();

  add(ms: number): void {
    const us = ms * 1000;
    this.count++;
    this.totalUs += us;
    this.#histogram[latencyBucket(us)]++;
  }

  /** Of so many packets in all; those that did not wait are in the first bucket. */
  histogram(packets: number): number[] {
    const all = [...this.#histogram];
    all[0] += Math.max(0, packets - this.count);
    return all;
  }
}

/**
 * The network that a card is plugged into, with limits and counters, for each pair of its queues. What stands behind
 * may be exchanged while the card is in use.
 *
 * A packet that is over the limit is not lost here: one to be sent stays in the guest's queue, one to be received
 * stays with the back end, which loses what it has no room for as any network does.
 */
export class MeteredNet {
  readonly ports: readonly Port[];
  readonly sent = { packets: 0, bytes: 0 };
  readonly #clock: ThrottleClock;
  readonly #timers: Readonly<Record<NetDirection, { armAt(at: bigint): void; cancel(): void }>>;
  readonly #closed: Record<NetDirection, boolean> = { rx: false, tx: false };
  #buckets: Readonly<Record<NetDirection, Buckets>> = { rx: UNLIMITED, tx: UNLIMITED };
  #limits: NetLimits = {};
  /** Losses of back ends that were exchanged. */
  #lostBefore = { rxDropped: 0, txErrors: 0 };

  constructor(backends: readonly NetBackend[], clock: ThrottleClock, limits: NetLimits = {}) {
    this.#clock = clock;
    this.ports = backends.map((backend) => new Port(this, backend));
    this.#timers = { rx: clock.timer(() => this.#open('rx')), tx: clock.timer(() => this.#open('tx')) };
    this.limits = limits;
  }

  get limits(): NetLimits {
    return this.#limits;
  }

  /** New limits hold at once, for what waits too. */
  set limits(limits: NetLimits) {
    this.#limits = limits;
    const now = this.#clock.now();
    const { pps, ppsMax, bps, bpsMax } = limits;
    // The buckets for both directions together are the same two.
    const [all, allBytes] = [bucketOf(pps, ppsMax, now), bucketOf(bps, bpsMax, now)];
    const direction = (packets: number | undefined, bytes: number | undefined) =>
      new Buckets([...all, ...bucketOf(packets, ppsMax, now)], [...allBytes, ...bucketOf(bytes, bpsMax, now)]);
    this.#buckets = { rx: direction(limits.ppsRx, limits.bpsRx), tx: direction(limits.ppsTx, limits.bpsTx) };
    for (const each of ['rx', 'tx'] as const) if (this.#closed[each]) this.#open(each);
  }

  /** Whether packets of a direction wait for their turn. */
  waits(direction: NetDirection): boolean {
    return this.#closed[direction];
  }

  /** Frames that back ends have lost. */
  get lost(): { readonly rxDropped: number; readonly txErrors: number } {
    let { rxDropped, txErrors } = this.#lostBefore;
    for (const { backend } of this.ports) {
      rxDropped += backend.lost.rxDropped;
      txErrors += backend.lost.txErrors;
    }
    return { rxDropped, txErrors };
  }

  /**
   * Whether a packet may pass now. Where it may not, the cards are told when one may.
   * @param bytes of the packet; 1 where that is not known before it is taken.
   */
  mayPass(direction: NetDirection, bytes: number): boolean {
    const buckets = this.#buckets[direction];
    if (!buckets.limited) return true;
    if (this.#closed[direction]) return false;
    const now = this.#clock.now();
    const wait = buckets.wait(bytes, now);
    if (wait <= 0) return true;
    this.#closed[direction] = true;
    this.#timers[direction].armAt(now + BigInt(wait));
    return false;
  }

  passed(direction: NetDirection, bytes: number): void {
    this.#buckets[direction].take(bytes);
    if (direction === 'rx') return;
    this.sent.packets++;
    this.sent.bytes += bytes;
  }

  #open(direction: NetDirection): void {
    this.#timers[direction].cancel();
    this.#closed[direction] = false;
    for (const port of this.ports) (direction === 'rx' ? port.onReadable : port.onWritable)?.();
  }

  /** Plugs the card into another network. The former back ends are the caller's again, and are to be closed. */
  exchange(backends: readonly NetBackend[]): readonly NetBackend[] {
    // What may fail comes first, while nothing is changed.
    for (const [i, port] of this.ports.entries()) backends[i].setOffloads(port.accepted);
    this.#lostBefore = this.lost;
    const before = this.ports.map((port, i) => port.exchange(backends[i]));
    for (const port of this.ports) {
      port.onReadable?.();
      port.onWritable?.();
    }
    return before;
  }

  close(): void {
    this.#timers.rx.cancel();
    this.#timers.tx.cancel();
    for (const { backend } of this.ports) backend.close();
  }
}

/** One pair of queues: the back end that the card sees. */
export class Port implements NetBackend {
  onReadable: (() => void) | undefined;
  onWritable: (() => void) | undefined;
  readonly #net: MeteredNet;
  #backend: NetBackend;
  /** Offloads that the driver accepts. */
  accepted = 0;

  constructor(net: MeteredNet, backend: NetBackend) {
    this.#net = net;
    this.#backend = backend;
    this.#listen(backend);
  }

  get backend(): NetBackend {
    return this.#backend;
  }

  get name(): string {
    return this.#backend.name;
  }

  get headerSize(): 0 | 12 {
    return this.#backend.headerSize;
  }

  get offloads(): number {
    return this.#backend.offloads;
  }

  get lost(): NetBackend['lost'] {
    return this.#backend.lost;
  }

  #listen(backend: NetBackend): void {
    backend.onReadable = () => this.onReadable?.();
    backend.onWritable = () => this.onWritable?.();
  }

  exchange(backend: NetBackend): NetBackend {
    const before = this.#backend;
    before.onReadable = undefined;
    before.onWritable = undefined;
    this.#backend = backend;
    this.#listen(backend);
    return before;
  }

  send(frame: Uint8Array): boolean {
    const backend = this.#backend;
    const bytes = frame.length - backend.headerSize;
    if (!this.#net.mayPass('tx', bytes)) return false;
    const errors = backend.lost.txErrors;
    if (!backend.send(frame)) return false;
    if (backend.lost.txErrors === errors) this.#net.passed('tx', bytes);
    return true;
  }

  receive(into: Uint8Array): number {
    // How long it is shows when it is taken: what it has too much, the next ones wait for.
    if (!this.#net.mayPass('rx', 1)) return 0;
    const length = this.#backend.receive(into);
    if (length > 0) this.#net.passed('rx', Math.min(length, MAX_FRAME) - this.#backend.headerSize);
    return length;
  }

  setOffloads(offloads: number): void {
    this.accepted = offloads;
    this.#backend.setOffloads(offloads);
  }

  close(): void {
    this.#backend.close();
  }
}
