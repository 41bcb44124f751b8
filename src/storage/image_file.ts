import { fstatSync, statSync } from 'node:fs';
import { close, ftruncate, O_DIRECT, O_RDONLY, O_RDWR, open, raw, type SystemError } from '../ffi/libc.ts';
import { StorageError } from './error.ts';
import { type FileQueue, openFileQueue, type Poller, SyncFileQueue } from './file_queue.ts';
import { lockImage, unlockImage } from './lock.ts';
import type { Done } from './task.ts';

const SEEK_END = 2;
const SEEK_DATA = 3;
const SEEK_HOLE = 4;
/** What direct input and output wants of offsets, lengths and addresses; more than any device needs. */
const DIRECT_ALIGNMENT = 4096;

/** The file below an image format: the one place through which its bytes pass, so that a test can stand in for it. */
export interface ImageFile extends Omit<FileQueue, 'close'> {
  readonly path: string;
  /** Bytes: as it was opened, and what was written behind that since. */
  readonly length: number;
  /** A file that can grow, in place of a device that cannot. */
  readonly growable: boolean;
  truncate(length: number, done: Done): void;
  /** Whether there is data at `offset`, and for how many bytes on that is so. */
  dataAt(offset: number): { data: boolean; length: number };
  /** Looks at the length again. */
  measure(): number;
  close(): void;
}

export interface OpenFileOptions {
  readonly path: string;
  readonly readOnly: boolean;
  /** Past the host's page cache, where alignment allows. */
  readonly direct?: boolean;
  /** The loop of a thread; without one every operation is done at once. */
  readonly poller?: Poller;
  /** Leaves the image's locks alone, for looking at what another process may be writing. */
  readonly unlocked?: boolean;
}

/** @throws StorageError that names the file and what is wrong. */
export function openImageFile(options: OpenFileOptions): ImageFile {
  const fd = openDescriptor(options, false);
  let direct: number | undefined;
  try {
    if (!options.unlocked) lockImage(fd, options.path, !options.readOnly);
    if (options.direct) direct = openDescriptor(options, true);
    return new HostFile(options.path, fd, direct, options.poller);
  } catch (error) {
    close(fd);
    if (direct !== undefined) close(direct);
    throw error;
  }
}

function openDescriptor({ path, readOnly }: OpenFileOptions, direct: boolean): number {
  try {
    if (statSync(path).isDirectory()) throw new StorageError(`The disk image ${path} is a folder.`);
    return open(path, (readOnly ? O_RDONLY : O_RDWR) | (direct ? O_DIRECT : 0));
  } catch (cause) {
    if (cause instanceof StorageError) throw cause;
    const { code } = cause as SystemError;
    const hint =
      code === 'ENOENT'
        ? `Make it: nemu image create ${path} 10G`
        : code === 'EACCES' || code === 'EROFS'
          ? 'Use readonly=on, or give this user the right to write it.'
          : code === 'EINVAL' && direct
            ? 'Its file system has no direct I/O: leave out cache=none.'
            : undefined;
    throw new StorageError(`The disk image ${path} cannot be opened (${code}).`, hint, cause);
  }
}

class HostFile implements ImageFile {
  readonly path: string;
  readonly growable: boolean;
  readonly #fd: number;
  readonly #directFd: number | undefined;
  readonly #queue: FileQueue;
  readonly #direct: FileQueue | undefined;
  #length: number;

  constructor(path: string, fd: number, directFd: number | undefined, poller: Poller | undefined) {
    this.path = path;
    this.#fd = fd;
    this.#directFd = directFd;
    this.growable = !fstatSync(fd).isBlockDevice();
    this.#length = this.measure();
    const queue = (descriptor: number) => (poller ? openFileQueue(descriptor, poller) : new SyncFileQueue(descriptor));
    this.#queue = queue(fd);
    this.#direct = directFd === undefined ? undefined : queue(directFd);
  }

  get length(): number {
    return this.#length;
  }

  measure(): number {
    const bytes = this.growable ? fstatSync(this.#fd).size : Number(raw.lseek(this.#fd, 0, SEEK_END));
    this.#length = bytes;
    return bytes;
  }

  get onBurst(): ((running: boolean) => void) | undefined {
    return this.#queue.onBurst;
  }

  set onBurst(callback: ((running: boolean) => void) | undefined) {
    this.#queue.onBurst = callback;
    if (this.#direct) this.#direct.onBurst = callback;
  }

  #queueFor(offset: number, views: readonly Uint8Array[]): FileQueue {
    // The two views of the file agree: the kernel drops cached pages that direct writes pass by.
    if (!this.#direct || offset % DIRECT_ALIGNMENT !== 0) return this.#queue;
    for (const view of views) {
      if (view.length % DIRECT_ALIGNMENT !== 0 || view.byteOffset % DIRECT_ALIGNMENT !== 0) return this.#queue;
    }
    return this.#direct;
  }

  read(offset: number, into: readonly Uint8Array[], done: Done): void {
    this.#queueFor(offset, into).read(offset, into, done);
  }

  write(offset: number, from: readonly Uint8Array[], done: Done): void {
    let end = offset;
    for (const view of from) end += view.length;
    if (end > this.#length) this.#length = end;
    this.#queueFor(offset, from).write(offset, from, done);
  }

  sync(done: Done): void {
    this.#queue.sync(done);
  }

  fallocate(mode: number, offset: number, length: number, done: Done): void {
    this.#queue.fallocate(mode, offset, length, (errno) => {
      if (!errno && this.growable) this.#length = Math.max(this.#length, fstatSync(this.#fd).size);
      done(errno);
    });
  }

  truncate(length: number, done: Done): void {
    try {
      ftruncate(this.#fd, length);
      this.#length = length;
    } catch (error) {
      done((error as SystemError).errno);
      return;
    }
    done(0);
  }

  dataAt(offset: number): { data: boolean; length: number } {
    const data = Number(raw.lseek(this.#fd, offset, SEEK_DATA));
    const end = this.#length;
    // ENXIO: a hole to the end. A file system that cannot tell says that all is data.
    if (data < 0) return { data: false, length: Math.max(0, end - offset) };
    if (data > offset) return { data: false, length: data - offset };
    const hole = Number(raw.lseek(this.#fd, offset, SEEK_HOLE));
    return { data: true, length: (hole < 0 ? end : hole) - offset };
  }

  batch(action: () => void): void {
    if (this.#direct) this.#direct.batch(() => this.#queue.batch(action));
    else this.#queue.batch(action);
  }

  drain(): boolean {
    return (this.#direct?.drain() ?? false) || this.#queue.drain();
  }

  close(): void {
    this.#queue.close();
    this.#direct?.close();
    unlockImage(this.#fd);
    close(this.#fd);
    if (this.#directFd !== undefined) close(this.#directFd);
  }
}
