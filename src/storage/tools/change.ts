import type { BlockImage } from '../block_image.ts';
import { StorageError } from '../error.ts';
import { type ImageFormat, openImage } from '../open.ts';
import { Qcow2Image } from '../qcow2/image.ts';
import { finish, wait } from '../task.ts';
import { extentAt, isZero, perform, readBytes } from './chain.ts';
import { type Progress, turn } from './progress.ts';

const PIECE = 2 << 20;

/** How two disks differ. */
export interface Difference {
  /** First byte that differs; undefined when only the sizes do. */
  readonly offset?: number;
  readonly sizes?: readonly [number, number];
}

/** @param strict whether sizes that differ by zeros alone are a difference. */
export async function compareDisks(
  a: BlockImage,
  b: BlockImage,
  strict: boolean,
  progress?: Progress,
): Promise<Difference | undefined> {
  if (strict && a.size !== b.size) return { sizes: [a.size, b.size] };
  const total = Math.max(a.size, b.size);
  const [left, right] = [new Uint8Array(PIECE), new Uint8Array(PIECE)];
  for (let at = 0; at < total; ) {
    const known = [a, b].map((image) =>
      at < image.size ? extentAt(image, at) : { length: total - at, zero: true as const },
    );
    const length = Math.min(...known.map((extent) => extent.length));
    if (known.every(({ zero }) => zero)) at += length;
    else {
      const piece = Math.min(length, PIECE);
      readBytes(a, at, left.subarray(0, piece));
      readBytes(b, at, right.subarray(0, piece));
      if (Buffer.compare(left.subarray(0, piece), right.subarray(0, piece)) !== 0) {
        return { offset: at + left.findIndex((byte, i) => byte !== right[i]) };
      }
      at += piece;
    }
    progress?.(at, total);
    await turn();
  }
  return undefined;
}

export interface Rebase {
  /** The new backing file as the image is to name it; none takes it away. */
  readonly backing: string | undefined;
  readonly format: ImageFormat | undefined;
  /** What the image holds with its old backing image stays; without, only the name is changed. */
  readonly below: BlockImage | undefined;
  readonly progress?: Progress | undefined;
}

/** Gives an image another backing image, and copies into it what it would lose. */
export async function rebaseImage(image: Qcow2Image, rebase: Rebase): Promise<void> {
  const { below, progress } = rebase;
  const { clusterSize } = image.metadata.geometry;
  const buffers = [new Uint8Array(clusterSize), new Uint8Array(clusterSize)];
  for (let at = 0; below !== undefined || rebase.backing === undefined ? at < image.size : false; ) {
    const extent = extentAt(image, at);
    if (extent.depth === 0 && extent.present) at += extent.length;
    else {
      const length = Math.min(image.size - at, clusterSize - (at % clusterSize));
      const [now, then] = buffers.map((buffer) => buffer.subarray(0, length));
      readBytes(image, at, now);
      if (below) readBytes(below, at, then);
      else then.fill(0);
      if (Buffer.compare(now, then) !== 0) {
        const offset = at;
        if (isZero(now)) perform(image, (done) => image.writeZeroes(offset, length, true, done));
        else perform(image, (done) => image.write(offset, [now], done));
      }
      at += length;
    }
    progress?.(at, image.size);
    await turn();
  }
  perform(image, (done) => image.flush(done));
  image.finish(image.rename(rebase.backing, rebase.format));
}

/** Writes an image's own data into the one below it. The image is empty afterwards, unless it is to be kept. */
export async function commitImage(image: Qcow2Image, keep: boolean, progress?: Progress): Promise<void> {
  const { backing } = image;
  if (!backing) throw new StorageError(`${image.path} has no backing image to commit to.`);
  const { path, format } = backing;
  backing.close();
  const below = openImage({ path, format, readOnly: false });
  try {
    if (below.size < image.size) {
      if (!(below instanceof Qcow2Image)) {
        throw new StorageError(
          `${path} has ${below.size} bytes, less than the ${image.size} of ${image.path}.`,
          `Make it larger first: nemu image resize ${path} ${image.size}`,
        );
      }
      below.finish(below.resize(image.size));
    }
    const buffer = new Uint8Array(PIECE);
    for (let at = 0; at < image.size; ) {
      const offset = at;
      const { kind, length } = image.finish(image.extent(at));
      const piece = kind === 'data' ? Math.min(length, PIECE) : length;
      if (kind === 'data') {
        const bytes = buffer.subarray(0, piece);
        finish(
          wait((done) => image.read(offset, [bytes], done)),
          () => image.drain(),
        );
        perform(below, (done) => below.write(offset, [bytes], done));
      } else if (kind === 'zero') perform(below, (done) => below.writeZeroes(offset, piece, true, done));
      at += piece;
      progress?.(at, image.size);
      await turn();
    }
    perform(below, (done) => below.flush(done));
  } finally {
    below.close();
  }
  if (!keep) image.finish(image.empty());
}
