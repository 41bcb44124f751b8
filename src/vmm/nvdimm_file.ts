/** Files behind persistent memory: how large they are, how they are made, and who may have them. */
import { existsSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { NemuError } from '../client/errors.ts';
import { formatSize } from '../client/sizes.ts';
import * as libc from '../ffi/libc.ts';
import { StorageError } from '../storage/error.ts';
import { EOPNOTSUPP } from '../storage/file_queue.ts';
import { lockImage } from '../storage/lock.ts';

const SEEK_END = 2;
const PAGE = 4096;
const LEAST = 2 * 2 ** 20;

/** What of an NVDIMM, or of virtio persistent memory, is about its file. */
export interface PmemSource {
  readonly file: string;
  readonly size?: number | undefined;
  readonly labelSize: number;
  readonly readonly: boolean;
  readonly share: boolean;
}

const fault = (message: string, hint: string, cause?: unknown) =>
  new NemuError('NVDIMM_FILE', message, { hint, ...(cause !== undefined && { cause }) });

function open(file: string, flags: number): number {
  try {
    if (existsSync(file) && statSync(file).isDirectory()) throw fault(`${file} is a folder.`, 'Name a file.');
    return libc.open(file, flags, 0o600);
  } catch (cause) {
    if (cause instanceof NemuError) throw cause;
    const { code } = cause as libc.SystemError;
    throw fault(
      `The file ${file} for persistent memory cannot be opened (${code}).`,
      code === 'EACCES' || code === 'EROFS'
        ? 'Use readonly=on, or give this user the right to write it.'
        : 'Name a file in a folder that exists.',
      cause,
    );
  }
}

const lengthOf = (fd: number) => Number(libc.raw.lseek(fd, 0, SEEK_END));

/**
 * Bytes of memory that the guest gets: what is asked for, or what the file has besides its label area.
 * @throws NemuError NVDIMM_FILE when nobody says, or when the file says something else.
 */
export function pmemSize({ file, size, labelSize, readonly }: PmemSource): number {
  const labels = labelSize > 0 ? ` and a label area of ${formatSize(labelSize)}` : '';
  let length = 0;
  if (existsSync(file)) {
    const fd = open(file, libc.O_RDONLY);
    length = lengthOf(fd);
    libc.close(fd);
  }
  if (length === 0) {
    if (readonly) throw fault(`${file} is to be read, but it is empty or not there.`, 'Leave out readonly=on once.');
    if (size === undefined) throw fault(`${file} has no size yet.`, 'Say how large it is to be: size=256M.');
    return size;
  }
  if (size === undefined) {
    const found = length - labelSize;
    if (found >= LEAST && found % PAGE === 0) return found;
    throw fault(
      `${file} has ${length} bytes: with${labels || 'out labels'} that is no multiple of 4096 of 2 MiB or more.`,
      'Is label-size= as it was when the file was made?',
    );
  }
  if (length === size + labelSize) return size;
  throw fault(
    `${file} has ${length} bytes; ${formatSize(size)} of memory${labels} are ${size + labelSize}.`,
    'Leave size= out to take the file as it is, with the label-size= that it was made with.',
  );
}

/**
 * Opens a file of the right length, or makes it, and takes its lock: one machine that writes, or any number that read.
 * @returns a descriptor that the caller owns.
 * @throws NemuError NVDIMM_FILE
 */
export function openPmem(source: PmemSource & { readonly size: number }): number {
  const { file, size, labelSize, readonly, share } = source;
  pmemSize(source);
  const writes = share && !readonly;
  const made = !existsSync(file);
  const empty = made || statSync(file).size === 0;
  const fd = open(file, writes || empty ? libc.O_RDWR | libc.O_CREAT : libc.O_RDONLY);
  try {
    lockImage(fd, file, writes);
    if (lengthOf(fd) === 0) reserve(fd, file, size + labelSize);
    if (made) syncFolder(dirname(file));
    return fd;
  } catch (cause) {
    libc.close(fd);
    if (!(cause instanceof StorageError)) throw cause;
    throw fault(cause.message, cause.hint ?? '', cause);
  }
}

/** Takes all blocks at once: a guest's store for which the disk has no room would kill this process. */
function reserve(fd: number, file: string, length: number): void {
  if (libc.raw.fallocate(fd, 0, 0, length) === 0) return;
  const errno = libc.errno();
  if (errno !== EOPNOTSUPP) {
    throw fault(
      `The disk has no room for the ${formatSize(length)} of ${file} (${libc.errnoName(errno)}).`,
      'Use another file, or a smaller size=.',
    );
  }
  libc.ftruncate(fd, length);
}

/** The name of a new file lasts only when its folder is on the disk. */
function syncFolder(folder: string): void {
  const fd = libc.open(folder, libc.O_RDONLY);
  // Some file systems have nothing to do here, and say so by an error.
  libc.raw.fdatasync(fd);
  libc.close(fd);
}
