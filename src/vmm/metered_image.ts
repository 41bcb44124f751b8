import type { BlockImage } from '../storage/block_image.ts';
import type { Done } from '../storage/task.ts';
import { latencyBucket, newHistogram } from './latency.ts';
import { type Direction, isLimited, Throttle, type ThrottleClock, type ThrottleLimits } from './throttle.ts';

export type Operation = 'read' | 'write' | 'flush' | 'discard' | 'writeZeroes';

/** What one kind of request did so far. */
export interface OperationStatistics {
  readonly requests: number;
  readonly failed: number;
  readonly bytes: number;
  /** Microseconds of all requests together, from when the guest made them; time at a throttle is in it. */
  readonly totalUs: number;
  /** Requests by latency: one more than there are bounds in `LATENCY_BUCKETS`. */
  readonly latency: readonly number[];
}

class Meter {
  requests = 0;
  failed = 0;
  bytes = 0;
  totalUs = 0;
  readonly latency = newHistogram();

  add(bytes: number, us: number, errno: number): void {
    this.requests++;
    if (errno) this.failed++;
    else this.bytes += bytes;
    this.totalUs += us;
    this.latency[latencyBucket(us)]++;
  }
}

type Backend = Pick<
  BlockImage,
  | 'size'
  | 'readOnly'
  | 'blockSize'
  | 'physicalBlockSize'
  | 'canDiscard'
  | 'read'
  | 'write'
  | 'flush'
  | 'discard'
  | 'writeZeroes'
  | 'batch'
>;

/** An image with counters, and limits that may change while it is in use. */
export class MeteredImage implements Backend {
  #image: BlockImage;
  readonly #throttle: Throttle;
  #limited: boolean;
  readonly #meters: Record<Operation, Meter> = {
    read: new Meter(),
    write: new Meter(),
    flush: new Meter(),
    discard: new Meter(),
    writeZeroes: new Meter(),
  };

  constructor(image: BlockImage, clock: ThrottleClock, limits: ThrottleLimits = {}) {
    this.#image = image;
    this.#throttle = new Throttle(clock, limits);
    this.#limited = isLimited(limits);
  }

  get size(): number {
    return this.#image.size;
  }

  get format(): BlockImage['format'] {
    return this.#image.format;
  }

  get readOnly(): boolean {
    return this.#image.readOnly;
  }

  get blockSize(): number {
    return this.#image.blockSize;
  }

  get physicalBlockSize(): number {
    return this.#image.physicalBlockSize;
  }

  get canDiscard(): boolean {
    return this.#image.canDiscard;
  }

  get onBurst(): ((running: boolean) => void) | undefined {
    return this.#image.onBurst;
  }

  set onBurst(listener: ((running: boolean) => void) | undefined) {
    this.#image.onBurst = listener;
  }

  get limits(): ThrottleLimits {
    return this.#throttle.limits;
  }

  set limits(limits: ThrottleLimits) {
    this.#limited = isLimited(limits);
    this.#image.batch(() => {
      this.#throttle.limits = limits;
    });
  }

  /** Requests that wait for their turn. */
  get waiting(): number {
    return this.#throttle.waiting;
  }

  statistics(): Record<Operation, OperationStatistics> {
    const copy = ({ requests, failed, bytes, totalUs, latency }: Meter) => ({
      ...{ requests, failed, bytes, totalUs: Math.round(totalUs), latency: [...latency] },
    });
    const { read, write, flush, discard, writeZeroes } = this.#meters;
    return {
      read: copy(read),
      write: copy(write),
      flush: copy(flush),
      discard: copy(discard),
      writeZeroes: copy(writeZeroes),
    };
  }

  #metered(operation: Operation, bytes: number, done: Done): Done {
    const since = performance.now();
    return (errno) => {
      this.#meters[operation].add(bytes, (performance.now() - since) * 1000, errno);
      done(errno);
    };
  }

  #submit(direction: Direction, bytes: number, run: () => void): void {
    // What waits stays in front of what comes when limits are lifted: the queue is empty then.
    if (!this.#limited && this.#throttle.waiting === 0) run();
    else this.#throttle.submit(direction, bytes, run);
  }

  read(offset: number, into: readonly Uint8Array[], done: Done): void {
    const bytes = total(into);
    const measured = this.#metered('read', bytes, done);
    this.#submit('read', bytes, () => this.#image.read(offset, into, measured));
  }

  write(offset: number, from: readonly Uint8Array[], done: Done): void {
    const bytes = total(from);
    const measured = this.#metered('write', bytes, done);
    this.#submit('write', bytes, () => this.#image.write(offset, from, measured));
  }

  /** A flush waits behind no limit: it has no bytes. */
  flush(done: Done): void {
    this.#image.flush(this.#metered('flush', 0, done));
  }

  discard(offset: number, length: number, done: Done): void {
    const measured = this.#metered('discard', length, done);
    this.#submit('write', 0, () => this.#image.discard(offset, length, measured));
  }

  writeZeroes(offset: number, length: number, mayUnmap: boolean, done: Done): void {
    const measured = this.#metered('writeZeroes', length, done);
    this.#submit('write', 0, () => this.#image.writeZeroes(offset, length, mayUnmap, measured));
  }

  /** The image itself, while nothing of the guest is under way: `quiesce` first. */
  get image(): BlockImage {
    return this.#image;
  }

  /** Has all that the guest has asked for done, in place; what waits at a limit is let through. */
  quiesce(): void {
    this.#image.batch(() => this.#throttle.release());
    while (this.#image.drain());
  }

  /** Puts another image in the place of this one, which is the caller's again. Nothing may be under way. */
  exchange(next: BlockImage): BlockImage {
    const before = this.#image;
    next.onBurst = before.onBurst;
    before.onBurst = undefined;
    this.#image = next;
    return before;
  }

  batch(action: () => void): void {
    this.#image.batch(action);
  }

  close(): void {
    this.#throttle.close();
    this.#image.close();
  }
}

function total(views: readonly Uint8Array[]): number {
  let bytes = 0;
  for (const view of views) bytes += view.length;
  return bytes;
}
