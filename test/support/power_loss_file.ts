/**
 * A disk that forgets: a file in memory whose requests end late and in any order, and which, when the power
 * fails, has lost or reordered any sector written since the last fdatasync that has ended.
 */
import type { ImageFile } from '../../src/storage/image_file.ts';
import type { Done } from '../../src/storage/task.ts';

const SECTOR = 512;
type Random = (limit: number) => number;

/** The power has failed: nothing ends any more. */
export class PowerLoss extends Error {}

interface Write {
  readonly offset: number;
  readonly bytes: Uint8Array;
}

export class PowerLossFile implements ImageFile {
  readonly path: string;
  readonly growable = true;
  onBurst: ((running: boolean) => void) | undefined;
  /** Requests that have been asked for. */
  requests = 0;
  /** The power fails when this request has been asked for. */
  failAt = Number.POSITIVE_INFINITY;
  readonly #random: Random;
  /** What readers see. */
  #bytes: Uint8Array;
  #length: number;
  /** What is safe. */
  #durable: Uint8Array;
  /** Ended since the last fdatasync began, in order. */
  #volatile: Write[] = [];
  #running: (() => void)[] = [];

  constructor(path: string, content: Uint8Array, random: Random) {
    this.path = path;
    this.#random = random;
    this.#bytes = new Uint8Array(content);
    this.#length = content.length;
    this.#durable = new Uint8Array(content);
  }

  get length(): number {
    return this.#length;
  }

  measure(): number {
    return this.#length;
  }

  #begin(action: () => void): void {
    this.requests++;
    this.#running.push(action);
  }

  drain(): boolean {
    if (this.requests >= this.failAt) throw new PowerLoss();
    if (this.#running.length === 0) return false;
    const [action] = this.#running.splice(this.#random(this.#running.length), 1);
    action();
    return true;
  }

  #extend(length: number): void {
    if (length > this.#bytes.length) {
      const larger = new Uint8Array(length * 2);
      larger.set(this.#bytes);
      this.#bytes = larger;
    }
    this.#length = Math.max(this.#length, length);
  }

  read(offset: number, into: readonly Uint8Array[], done: Done): void {
    this.#begin(() => {
      let at = offset;
      for (const view of into) {
        view.fill(0);
        view.set(this.#bytes.subarray(at, Math.max(at, Math.min(at + view.length, this.#length))));
        at += view.length;
      }
      done(0);
    });
  }

  write(offset: number, from: readonly Uint8Array[], done: Done): void {
    const bytes = Buffer.concat(from);
    this.#extend(offset + bytes.length);
    // From now on it may reach the disk, though it has not ended.
    this.#volatile.push({ offset, bytes });
    this.#begin(() => {
      this.#bytes.set(bytes, offset);
      done(0);
    });
  }

  sync(done: Done): void {
    const covered = [...this.#volatile];
    this.#begin(() => {
      this.#durable = apply(this.#durable, covered);
      const safe = new Set(covered);
      this.#volatile = this.#volatile.filter((write) => !safe.has(write));
      done(0);
    });
  }

  fallocate(mode: number, offset: number, length: number, done: Done): void {
    // Only holes are asked for, and a hole reads as zeros.
    if (mode & 2) this.write(offset, [new Uint8Array(length)], done);
    else done(95);
  }

  truncate(length: number, done: Done): void {
    this.#extend(length);
    done(0);
  }

  dataAt(offset: number): { data: boolean; length: number } {
    return { data: true, length: this.#length - offset };
  }

  batch(action: () => void): void {
    action();
  }

  close(): void {}

  /** What is on the disk after the power has failed: what is safe, and any of the rest, by the sector. */
  remains(): Uint8Array {
    const pieces: Write[] = [];
    for (const { offset, bytes } of this.#volatile) {
      for (let at = 0; at < bytes.length; ) {
        const length = Math.min(bytes.length - at, SECTOR - ((offset + at) % SECTOR));
        pieces.push({ offset: offset + at, bytes: bytes.subarray(at, at + length) });
        at += length;
      }
    }
    // Sometimes nearly all, sometimes nearly nothing, and in an order of chance.
    const chance = this.#random(101);
    const kept = pieces.filter(() => this.#random(100) < chance);
    for (let i = kept.length - 1; i > 0; i--) {
      const other = this.#random(i + 1);
      [kept[i], kept[other]] = [kept[other], kept[i]];
    }
    return apply(this.#durable.slice(), kept);
  }
}

/** Does the writes on `to`, or on a longer copy of it. */
function apply(to: Uint8Array, writes: readonly Write[]): Uint8Array {
  const end = writes.reduce((most, { offset, bytes }) => Math.max(most, offset + bytes.length), to.length);
  let out = to;
  if (end > to.length) {
    out = new Uint8Array(end);
    out.set(to);
  }
  for (const { offset, bytes } of writes) out.set(bytes, offset);
  return out;
}
