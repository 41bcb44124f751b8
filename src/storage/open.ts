import { existsSync, realpathSync } from 'node:fs';
import { dirname, isAbsolute, join } from 'node:path';
import type { BlockImage } from './block_image.ts';
import { StorageError } from './error.ts';
import type { Poller } from './file_queue.ts';
import { type ImageFile, type OpenFileOptions, openImageFile } from './image_file.ts';
import { BitmapTracker } from './qcow2/bitmaps.ts';
import { checkImage } from './qcow2/check.ts';
import { MAGIC } from './qcow2/format.ts';
import { Qcow2Image } from './qcow2/image.ts';
import type { Metadata } from './qcow2/metadata.ts';
import { isCorrupt, isDirty, openMetadata } from './qcow2/open.ts';
import { RawImage } from './raw.ts';
import { finish, wait } from './task.ts';

export const IMAGE_FORMATS = ['raw', 'qcow2'] as const;
export type ImageFormat = (typeof IMAGE_FORMATS)[number];

/** Images below each other that are believed to be meant. */
const MAX_CHAIN = 200;

export interface OpenImageOptions {
  readonly path: string;
  /** Found out by the first bytes where it is not said. */
  readonly format?: ImageFormat | undefined;
  readonly readOnly: boolean;
  /** Past the host's page cache. */
  readonly direct?: boolean;
  /** The loop of a thread; without one every operation is done at once. */
  readonly poller?: Poller | undefined;
  /** Leaves locks alone, for looking at what another process may be writing. */
  readonly unlocked?: boolean;
  /** Without the backing image: what is not in the image itself reads as zeros. */
  readonly alone?: boolean;
  /** Told of damage that is met while the image is used. */
  readonly onProblem?: (problem: Error) => void;
  /** What opens files; a test has its own. */
  readonly openFile?: (options: OpenFileOptions) => ImageFile;
}

/** Opens an image with all that is below it. @throws StorageError, SystemError. */
export function openImage(options: OpenImageOptions): BlockImage {
  return openChain(options, []);
}

/** A file's format by its first bytes. */
export function probeFormat(file: ImageFile): ImageFormat {
  const head = new Uint8Array(4);
  if (file.length >= 4)
    finish(
      wait((done) => file.read(0, [head], done)),
      () => file.drain(),
    );
  return new DataView(head.buffer).getUint32(0) === MAGIC ? 'qcow2' : 'raw';
}

function openChain(options: OpenImageOptions, above: readonly string[]): BlockImage {
  const { path, readOnly, poller } = options;
  const file = (options.openFile ?? openImageFile)({
    path,
    readOnly,
    ...(options.direct && { direct: true }),
    ...(poller && { poller }),
    ...(options.unlocked && { unlocked: true }),
  });
  let image: BlockImage | undefined;
  try {
    const format = options.format ?? probeFormat(file);
    image =
      format === 'raw'
        ? new RawImage(file, { readOnly, guessed: options.format === undefined && !readOnly })
        : openQcow2(file, options, above);
    return image;
  } finally {
    if (!image) file.close();
  }
}

function openQcow2(file: ImageFile, options: OpenImageOptions, above: readonly string[]): Qcow2Image {
  const { path, readOnly } = options;
  const run = <T>(task: Parameters<typeof finish<T>>[0]) => finish(task, () => file.drain());
  let metadata = run(openMetadata(file, readOnly));
  let backing: BlockImage | undefined;
  try {
    if (!readOnly) metadata = repaired(metadata, file, run);
    if (metadata.header.backing !== undefined && !options.alone) backing = openBacking(metadata, options, above);
    const image = new Qcow2Image(metadata, {
      readOnly,
      backing,
      ...(options.onProblem && { onProblem: options.onProblem }),
    });
    const tracker = readOnly ? undefined : run(BitmapTracker.open(metadata));
    if (tracker) {
      image.onChange = (offset, length) => tracker.mark(offset, length);
      image.onClose = () => tracker.store();
    }
    return image;
  } catch (error) {
    backing?.close();
    metadata.free();
    if (error instanceof RangeError) throw new StorageError(`${path}: ${error.message}`, undefined, error);
    throw error;
  }
}

/** An image that was not closed is counted anew before it is written. */
function repaired(metadata: Metadata, file: ImageFile, run: <T>(task: Parameters<typeof finish<T>>[0]) => T): Metadata {
  const { path } = file;
  if (isCorrupt(metadata.header)) {
    throw new StorageError(
      `The QCOW2 image ${path} is marked as damaged.`,
      `Repair it first: nemu image check --repair all ${path}; or open it with readonly=on.`,
    );
  }
  if (!isDirty(metadata.header)) return metadata;
  const report = run(checkImage(metadata, 'all'));
  if (report.corruptions > report.corruptionsFixed) {
    throw new StorageError(
      `The QCOW2 image ${path} was not closed, and cannot be repaired: ${report.problems[0] ?? 'its tables are damaged'}`,
      `See all of it: nemu image check ${path}`,
    );
  }
  run(metadata.settle());
  return metadata;
}

/** Where an image's backing file is: relative to the image's folder. @throws StorageError for what is no file. */
export function backingPath(path: string, backing: string): string {
  const name = backing.startsWith('file:') ? backing.slice('file:'.length) : backing;
  const found = isAbsolute(name) ? name : join(dirname(path), name);
  if (/^[A-Za-z][A-Za-z0-9+.-]*:/.test(name) && !existsSync(found)) {
    throw new StorageError(
      `The backing file of ${path} is "${backing}", which is no file of this host.`,
      'Copy it to a file, and name that: nemu image rebase --unsafe --backing FILE IMAGE',
    );
  }
  return found;
}

function openBacking(metadata: Metadata, options: OpenImageOptions, above: readonly string[]): BlockImage {
  const { backing = '', backingFormat } = metadata.header;
  const chain = [...above, realpathSync(options.path)];
  const path = backingPath(options.path, backing);
  if (backingFormat !== undefined && !IMAGE_FORMATS.includes(backingFormat as ImageFormat)) {
    throw new StorageError(
      `The backing file of ${options.path} has format "${backingFormat}", which is not supported.`,
    );
  }
  if (!existsSync(path)) {
    throw new StorageError(
      `The backing file of ${options.path} is not there: ${path}.`,
      `Put it there, or name another: nemu image rebase --unsafe --backing FILE ${options.path}`,
    );
  }
  if (chain.includes(realpathSync(path)) || chain.length >= MAX_CHAIN) {
    throw new StorageError(
      `The images below ${chain[0]} go in a circle: ${[...chain, realpathSync(path)].join(' → ')}.`,
    );
  }
  return openChain({ ...options, path, format: backingFormat as ImageFormat | undefined, readOnly: true }, chain);
}
