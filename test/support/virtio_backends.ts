/** Back ends of virtio devices that are nothing but memory. */
import type { BlockBackend } from '../../src/devices/virtio/blk.ts';
import type { NetBackend } from '../../src/net/backend.ts';

type Done = (errno: number) => void;

/** A disk in memory. Requests complete at once, or when the test says so, in any order. */
export class MemoryDisk implements BlockBackend {
  readonly bytes: Uint8Array;
  readonly readOnly = false;
  readonly blockSize = 512;
  readonly physicalBlockSize = 4096;
  readonly canDiscard = true;
  onBurst: ((running: boolean) => void) | undefined;
  /** Requests wait in `waiting` while it is true. */
  hold = false;
  /** Error of the next requests. */
  errno = 0;
  readonly waiting: (() => void)[] = [];

  constructor(size: number) {
    this.bytes = new Uint8Array(size);
  }

  get size(): number {
    return this.bytes.length;
  }

  #do(action: () => void, done: Done): void {
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
    this.#do(() => {
      let at = offset;
      for (const view of into) {
        view.set(this.bytes.subarray(at, at + view.length));
        at += view.length;
      }
    }, done);
  }

  write(offset: number, from: readonly Uint8Array[], done: Done): void {
    this.#do(() => {
      let at = offset;
      for (const view of from) {
        this.bytes.set(view, at);
        at += view.length;
      }
    }, done);
  }

  flush(done: Done): void {
    this.#do(() => {}, done);
  }

  discard(offset: number, length: number, done: Done): void {
    this.#do(() => this.bytes.fill(0, offset, offset + length), done);
  }

  writeZeroes(offset: number, length: number, _mayUnmap: boolean, done: Done): void {
    this.discard(offset, length, done);
  }

  batch(action: () => void): void {
    action();
  }
}

/** A network that keeps what is sent and has what a test puts in. */
export class QuietNet implements NetBackend {
  readonly name = 'quiet';
  readonly headerSize = 0;
  readonly offloads = 0;
  onReadable: (() => void) | undefined;
  onWritable: (() => void) | undefined;
  readonly sent: Uint8Array[] = [];
  readonly frames: Uint8Array[] = [];

  send(frame: Uint8Array): boolean {
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

  setOffloads(): void {}
  close(): void {}
}
