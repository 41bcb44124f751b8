import { closeSync, existsSync, ftruncateSync, openSync, statSync, unlinkSync, writeSync } from 'node:fs';
import { check, raw } from '../../ffi/libc.ts';
import { StorageError } from '../error.ts';
import { openImageFile } from '../image_file.ts';
import { backingPath, IMAGE_FORMATS, type ImageFormat, openImage } from '../open.ts';
import { createImage, headerFor, type Preallocation } from '../qcow2/create.ts';
import type { Compression } from '../qcow2/format.ts';

/** Options of a format, as `-o` has them. */
export interface FormatOptions {
  version?: 2 | 3;
  clusterSize?: number;
  refcountBits?: number;
  lazyRefcounts?: boolean;
  extendedL2?: boolean;
  compression?: Compression;
  preallocation?: Preallocation;
}

export interface NewImage extends FormatOptions {
  readonly path: string;
  readonly format: ImageFormat;
  /** Bytes; the backing image's where it is left out. */
  readonly size?: number | undefined;
  readonly backing?: string | undefined;
  readonly backingFormat?: ImageFormat | undefined;
  /** Does not ask whether the backing file is there. */
  readonly unchecked?: boolean;
}

/**
 * Makes an empty image. A file that is there is replaced.
 * @returns its size in bytes.
 * @throws StorageError, SystemError. Nothing is left of a new file then.
 */
export function createEmpty(image: NewImage): number {
  const { path, format, backing } = image;
  let { size, backingFormat } = image;
  if (format === 'raw') refuseForRaw(image);
  if (backing !== undefined && !image.unchecked) {
    const below = openImage({
      path: backingPath(path, backing),
      format: backingFormat,
      readOnly: true,
      unlocked: true,
    });
    size ??= below.size;
    backingFormat ??= below.format;
    below.close();
  }
  if (size === undefined) {
    throw new StorageError(`How large ${path} is to be is not said.`, `For example: nemu image create ${path} 10G`);
  }
  if (image.preallocation && image.preallocation !== 'off' && backing !== undefined) {
    throw new StorageError(`preallocation=${image.preallocation} would hide the backing image ${backing}.`);
  }
  const options = { ...image, size, backing, backingFormat };
  // What does not go together is found before a file is touched.
  if (format === 'qcow2') headerFor(options, path);
  const existed = existsSync(path);
  if (existed && statSync(path).isFile()) refuseIfUsed(path);
  try {
    if (format === 'raw') createRaw(path, size, image.preallocation ?? 'off');
    else {
      closeSync(openSync(path, 'a', 0o644));
      const file = openImageFile({ path, readOnly: false });
      try {
        createImage(file, options);
      } finally {
        file.close();
      }
    }
  } catch (error) {
    if (!existed && existsSync(path)) unlinkSync(path);
    throw error;
  }
  return Math.ceil(size / 512) * 512;
}

function refuseForRaw(image: NewImage): void {
  const { backing, clusterSize, compression, extendedL2, lazyRefcounts, refcountBits, version } = image;
  const given = { backing, clusterSize, compression, extendedL2, lazyRefcounts, refcountBits, version };
  const [name] = Object.entries(given).find(([, value]) => value !== undefined) ?? [];
  if (name) throw new StorageError(`A raw image has no ${name}: that is for qcow2.`, 'Use --format qcow2.');
}

/** @throws StorageError when another process has the file as its disk. */
function refuseIfUsed(path: string): void {
  openImageFile({ path, readOnly: false }).close();
}

function createRaw(path: string, size: number, preallocation: Preallocation): void {
  if (preallocation === 'metadata') {
    throw new StorageError('preallocation=metadata is for qcow2.', 'A raw image can have off, falloc or full.');
  }
  const bytes = Math.ceil(size / 512) * 512;
  const fd = openSync(path, 'w', 0o644);
  try {
    ftruncateSync(fd, bytes);
    if (preallocation === 'falloc' && bytes > 0) check(raw.fallocate(fd, 0, 0, bytes), 'fallocate', path, bytes);
    const zeros = new Uint8Array(1 << 20);
    for (let at = 0; preallocation === 'full' && at < bytes; ) {
      at += writeSync(fd, zeros, 0, Math.min(zeros.length, bytes - at), at);
    }
  } finally {
    closeSync(fd);
  }
}

/** @throws StorageError for a format that is none of ours. */
export function imageFormat(text: string | undefined): ImageFormat | undefined {
  if (text === undefined || IMAGE_FORMATS.includes(text as ImageFormat)) return text as ImageFormat | undefined;
  throw new StorageError(`There is no image format "${text}".`, `It can be ${IMAGE_FORMATS.join(' or ')}.`);
}
