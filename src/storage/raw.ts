import { EPERM } from '../ffi/libc.ts';
import type { BlockImage, Extent } from './block_image.ts';
import { StorageError } from './error.ts';
import { EOPNOTSUPP, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE } from './file_queue.ts';
import type { ImageFile } from './image_file.ts';
import { type Done, type Task, wait } from './task.ts';

const SECTOR = 512;
/** Zeros for file systems that cannot zero a range themselves. */
const ZEROS = new Uint8Array(256 * 1024);

export interface RawOptions {
  readonly readOnly: boolean;
  /**
   * Nobody said that it is raw: the guest must not write the head of another format, which would be believed
   * the next time.
   */
  readonly guessed?: boolean;
}

/** A disk whose bytes are those of a file or block device. */
export class RawImage implements BlockImage {
  readonly format = 'raw';
  readonly readOnly: boolean;
  readonly blockSize = SECTOR;
  readonly physicalBlockSize = 4096;
  readonly canDiscard: boolean;
  readonly #file: ImageFile;
  readonly #guessed: boolean;
  #size: number;
  #closed = false;

  /** @throws StorageError for an empty file. The file becomes the image's. */
  constructor(file: ImageFile, options: RawOptions) {
    this.#file = file;
    this.readOnly = options.readOnly;
    this.canDiscard = !this.readOnly;
    this.#guessed = options.guessed ?? false;
    this.#size = this.#measure();
    if (this.#size === 0) {
      throw new StorageError(`The disk image ${this.path} is empty.`, `Make it larger: truncate -s 1G ${this.path}`);
    }
  }

  /** A last sector that is not whole reads as if zeros filled it. */
  #measure(): number {
    return Math.ceil(this.#file.measure() / SECTOR) * SECTOR;
  }

  get path(): string {
    return this.#file.path;
  }

  get size(): number {
    return this.#size;
  }

  refreshSize(): boolean {
    const before = this.#size;
    this.#size = this.#measure();
    return before !== this.#size;
  }

  *resize(size: number): Task {
    if (!this.#file.growable) {
      throw new StorageError(`${this.path} is a device, whose size is its own.`);
    }
    yield* wait((done) => this.#file.truncate(size, done));
    this.#size = this.#measure();
  }

  get onBurst(): ((running: boolean) => void) | undefined {
    return this.#file.onBurst;
  }

  set onBurst(callback: ((running: boolean) => void) | undefined) {
    this.#file.onBurst = callback;
  }

  batch(action: () => void): void {
    this.#file.batch(action);
  }

  read(offset: number, into: readonly Uint8Array[], done: Done): void {
    this.#file.read(offset, into, done);
  }

  write(offset: number, from: readonly Uint8Array[], done: Done): void {
    if (this.#guessed && offset === 0 && looksLikeQcow2(from)) done(EPERM);
    else this.#file.write(offset, from, done);
  }

  flush(done: Done): void {
    this.#file.sync(done);
  }

  discard(offset: number, length: number, done: Done): void {
    this.#file.fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length, (errno) =>
      // A file system that cannot give space back keeps it: a discard is advice.
      done(errno === EOPNOTSUPP ? 0 : errno),
    );
  }

  writeZeroes(offset: number, length: number, mayUnmap: boolean, done: Done): void {
    const mode = mayUnmap ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE;
    this.#file.fallocate(mode | FALLOC_FL_KEEP_SIZE, offset, length, (errno) => {
      if (errno === EOPNOTSUPP) this.#writeZeros(offset, length, done);
      else done(errno);
    });
  }

  #writeZeros(offset: number, length: number, done: Done): void {
    const piece = Math.min(length, ZEROS.length);
    this.#file.write(offset, [ZEROS.subarray(0, piece)], (errno) => {
      if (errno || piece === length) done(errno);
      else this.#writeZeros(offset + piece, length - piece, done);
    });
  }

  // biome-ignore lint/correctness/useYield: other formats have to read for the answer
  *extent(offset: number): Task<Extent> {
    if (offset >= this.#file.length) return { length: this.#size - offset, kind: 'zero' };
    const { data, length } = this.#file.dataAt(offset);
    return data
      ? { length: Math.max(1, length), kind: 'data', fileOffset: offset }
      : { length: Math.max(1, length), kind: 'zero' };
  }

  drain(): boolean {
    return this.#file.drain();
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    while (this.#file.drain());
    this.#file.close();
  }
}

const QCOW2_MAGIC = [0x51, 0x46, 0x49, 0xfb];

function looksLikeQcow2(from: readonly Uint8Array[]): boolean {
  return QCOW2_MAGIC.every((byte, i) => from[0]?.[i] === byte);
}
