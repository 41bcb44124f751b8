/** Back ends of virtio devices that are nothing but memory. */
import type { BlockBackend } from '../../src/devices/virtio/blk.ts';
import type { NetBackend } from '../../src/net/backend.ts';

type Done = (errno: number) => void;

/** A disk in memory. Requests complete at once, or when the test says so, in any order. */
export class MemoryDisk implements BlockBackend {
  bytes: Uint8Array;
  readonly readOnly: boolean;
  readonly blockSize = 512;
  readonly physicalBlockSize = 4096;
  readonly canDiscard: boolean;
  /** Operations that were asked for, most recent last. */
  readonly log: string[] = [];
  onBurst: ((running: boolean) => void) | undefined;
  /** Requests wait in `waiting` while it is true. */
  hold = false;
  /** Error of the next requests. */
  errno = 0;
  readonly waiting: (() => void)[] = [];

  constructor(size: number, options: { readonly readOnly?: boolean; readonly canDiscard?: boolean } = {}) {
    this.bytes = new Uint8Array(size);
    this.readOnly = options.readOnly ?? false;
    this.canDiscard = options.canDiscard ?? true;
  }

  get size(): number {
    return this.bytes.length;
  }

  #do(name: string, action: () => void, done: Done): void {
    if (this.log.push(name) > 1000) this.log.length = 0;
    const { errno } = this;
    const run = () => {
      if (!errno) action();
      done(errno);
    };
    if (this.hold) this.waiting.push(run);
    else run();
  }

  /** Completes what waits, the request at `pick` of how many there are first. */
  complete(pick: (count: number) => number = () => 0): void {
    this.onBurst?.(true);
    while (this.waiting.length > 0) this.waiting.splice(pick(this.waiting.length), 1)[0]();
    this.onBurst?.(false);
  }

  read(offset: number, into: readonly Uint8Array[], done: Done): void {
    this.#do(
      'read',
      () => {
        let at = offset;
        for (const view of into) {
          view.set(this.bytes.subarray(at, at + view.length));
          at += view.length;
        }
      },
      done,
    );
  }

  write(offset: number, from: readonly Uint8Array[], done: Done): void {
    this.#do(
      'write',
      () => {
        let at = offset;
        for (const view of from) {
          this.bytes.set(view, at);
          at += view.length;
        }
      },
      done,
    );
  }

  flush(done: Done): void {
    this.#do('flush', () => {}, done);
  }

  discard(offset: number, length: number, done: Done): void {
    this.#do('discard', () => this.bytes.fill(0, offset, offset + length), done);
  }

  writeZeroes(offset: number, length: number, mayUnmap: boolean, done: Done): void {
    this.#do(mayUnmap ? 'unmap zeroes' : 'zeroes', () => this.bytes.fill(0, offset, offset + length), done);
  }

  batch(action: () => void): void {
    action();
  }
}

/** A network that keeps what is sent and has what a test puts in. */
export class QuietNet implements NetBackend {
  readonly name = 'quiet';
  readonly headerSize: 0 | 12;
  readonly offloads: number;
  /** What the card has set, last. */
  accepted = 0;
  /** It takes no frame while this is true. */
  full = false;
  onReadable: (() => void) | undefined;
  onWritable: (() => void) | undefined;
  readonly lost = { rxDropped: 0, txErrors: 0 };
  readonly sent: Uint8Array[] = [];
  readonly frames: Uint8Array[] = [];

  constructor(options: { readonly headerSize?: 0 | 12; readonly offloads?: number } = {}) {
    this.headerSize = options.headerSize ?? 0;
    this.offloads = options.offloads ?? 0;
  }

  send(frame: Uint8Array): boolean {
    if (this.full) return false;
    this.sent.push(frame.slice());
    if (this.sent.length > 1000) this.sent.length = 0;
    return true;
  }

  receive(into: Uint8Array): number {
    const frame = this.frames.shift();
    if (!frame) return 0;
    into.set(frame.subarray(0, into.length));
    return Math.min(frame.length, into.length);
  }

  /** As the kernel's tap device does, it refuses segmentation without checksums. */
  setOffloads(offloads: number): void {
    if (!(offloads & 0x01) && offloads & 0x0e) throw new Error('TUNSETOFFLOAD: EINVAL');
    if (!(offloads & 0x06) && offloads & 0x08) throw new Error('TUNSETOFFLOAD: EINVAL');
    this.accepted = offloads;
  }

  close(): void {}
}
