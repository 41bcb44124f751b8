import { fstatSync, readFileSync, statSync } from 'node:fs';
import { close, O_DIRECT, O_RDONLY, O_RDWR, open, raw, type SystemError } from '../ffi/libc.ts';
import { StorageError } from './error.ts';
import {
  type Done,
  EOPNOTSUPP,
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FALLOC_FL_ZERO_RANGE,
  type FileQueue,
  openFileQueue,
  type Poller,
} from './file_queue.ts';
import { lockImage } from './lock.ts';

const SECTOR = 512;
const SEEK_END = 2;
/** Zeros for file systems that cannot zero a range themselves. */
const ZEROS = new Uint8Array(256 * 1024);

export interface RawOptions {
  readonly path: string;
  readonly readOnly: boolean;
  /** Past the host's page cache. */
  readonly direct: boolean;
}

/** A disk whose bytes are those of a file or block device. */
export class RawImage {
  readonly path: string;
  readonly readOnly: boolean;
  readonly blockSize = SECTOR;
  readonly physicalBlockSize = 4096;
  readonly canDiscard: boolean;
  readonly #fd: number;
  readonly #queue: FileQueue;
  #size: number;

  /** @throws StorageError that names the file and what is wrong. */
  constructor(options: RawOptions, poller: Poller) {
    this.path = options.path;
    this.readOnly = options.readOnly;
    this.#fd = openImage(options);
    try {
      this.#size = this.#measure();
      if (this.#size === 0)
        throw new StorageError(`The disk image ${this.path} is empty.`, 'Make one: truncate -s 1G FILE');
      lockImage(this.#fd, this.path, !this.readOnly);
      this.canDiscard = !this.readOnly;
      this.#queue = openFileQueue(this.#fd, poller);
    } catch (error) {
      close(this.#fd);
      throw error;
    }
  }

  #measure(): number {
    const stat = fstatSync(this.#fd);
    const bytes = stat.isBlockDevice() ? raw.lseek(this.#fd, 0, SEEK_END) : stat.size;
    // A last sector that is not whole is not there.
    return Math.floor(bytes / SECTOR) * SECTOR;
  }

  get size(): number {
    return this.#size;
  }

  /** Looks at the file's size again. @returns whether it has changed. */
  refreshSize(): boolean {
    const before = this.#size;
    this.#size = this.#measure();
    return before !== this.#size;
  }

  get onBurst(): ((running: boolean) => void) | undefined {
    return this.#queue.onBurst;
  }

  set onBurst(callback: ((running: boolean) => void) | undefined) {
    this.#queue.onBurst = callback;
  }

  batch(action: () => void): void {
    this.#queue.batch(action);
  }

  read(offset: number, into: readonly Uint8Array[], done: Done): void {
    this.#queue.read(offset, into, done);
  }

  write(offset: number, from: readonly Uint8Array[], done: Done): void {
    this.#queue.write(offset, from, done);
  }

  flush(done: Done): void {
    this.#queue.sync(done);
  }

  discard(offset: number, length: number, done: Done): void {
    this.#queue.fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length, (errno) =>
      // A file system that cannot give space back keeps it: a discard is advice.
      done(errno === EOPNOTSUPP ? 0 : errno),
    );
  }

  writeZeroes(offset: number, length: number, mayUnmap: boolean, done: Done): void {
    const mode = mayUnmap ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE;
    this.#queue.fallocate(mode | FALLOC_FL_KEEP_SIZE, offset, length, (errno) => {
      if (errno === EOPNOTSUPP) this.#writeZeros(offset, length, done);
      else done(errno);
    });
  }

  #writeZeros(offset: number, length: number, done: Done): void {
    const piece = Math.min(length, ZEROS.length);
    this.#queue.write(offset, [ZEROS.subarray(0, piece)], (errno) => {
      if (errno || piece === length) done(errno);
      else this.#writeZeros(offset + piece, length - piece, done);
    });
  }

  close(): void {
    this.#queue.close();
    close(this.#fd);
  }
}

function openImage({ path, readOnly, direct }: RawOptions): number {
  try {
    if (statSync(path).isDirectory()) throw new StorageError(`The disk image ${path} is a folder.`);
    return open(path, (readOnly ? O_RDONLY : O_RDWR) | (direct ? O_DIRECT : 0));
  } catch (cause) {
    if (cause instanceof StorageError) throw cause;
    const { code } = cause as SystemError;
    const hint =
      code === 'ENOENT'
        ? `Make it: truncate -s 1G ${path}`
        : code === 'EACCES' || code === 'EROFS'
          ? 'Use readonly=on, or give this user the right to write it.'
          : code === 'EINVAL' && direct
            ? 'Its file system has no direct I/O: leave out cache=none.'
            : undefined;
    throw new StorageError(`The disk image ${path} cannot be opened (${code}).`, hint, cause);
  }
}

/** What an image seems to be, by its first bytes. */
export function probeFormat(path: string): 'qcow2' | 'raw' {
  try {
    const head = readFileSync(path, { flag: 'r' }).subarray(0, 4);
    return head.toString('latin1') === 'QFI\xfb' ? 'qcow2' : 'raw';
  } catch {
    return 'raw';
  }
}
