import type { BlockImage } from '../block_image.ts';
import { Qcow2Image } from '../qcow2/image.ts';
import { finish, type Step, wait } from '../task.ts';

/** A run of a disk's bytes, with where in its chain of images they are. */
export interface ChainExtent {
  readonly start: number;
  readonly length: number;
  /** Images below the topmost one. */
  readonly depth: number;
  /** Is it in the image at that depth at all. */
  readonly present: boolean;
  readonly zero: boolean;
  readonly data: boolean;
  readonly compressed: boolean;
  /** In the file of the image at that depth. */
  readonly offset: number | undefined;
  readonly path: string;
}

/** Does one step of an image in place. @throws IoError. */
export const perform = (image: BlockImage, step: Step): void => finish(wait(step), () => image.drain());

/** The image below, if there is one. */
export const backingOf = (image: BlockImage): BlockImage | undefined =>
  image instanceof Qcow2Image ? image.backing : undefined;

/** What is at `offset` of the disk, for as far as it is the same. `until` is an image that is not looked into. */
export function extentAt(image: BlockImage, offset: number, until?: BlockImage): ChainExtent {
  let length = image.size - offset;
  let layer = image;
  for (let depth = 0; ; depth++) {
    const current = layer;
    const extent = finish(current.extent(offset), () => current.drain());
    length = Math.min(length, extent.length);
    const found = { start: offset, length, depth, path: current.path, compressed: extent.compressed ?? false };
    if (extent.kind === 'data') {
      return { ...found, present: true, zero: extent.sparse ?? false, data: true, offset: extent.fileOffset };
    }
    if (extent.kind === 'zero') {
      const raw = current.format === 'raw';
      return { ...found, present: true, zero: true, data: false, offset: raw ? offset : undefined };
    }
    const below = backingOf(current);
    if (!below || below === until || offset >= below.size) {
      return { ...found, present: false, zero: true, data: false, offset: undefined };
    }
    length = Math.min(length, below.size - offset);
    layer = below;
  }
}

/** All of a disk, neighbours that are alike put together. */
export function* extents(image: BlockImage): Generator<ChainExtent> {
  let last: ChainExtent | undefined;
  for (let at = 0; at < image.size; ) {
    const next = extentAt(image, at);
    at += next.length;
    const joins =
      last &&
      last.depth === next.depth &&
      last.present === next.present &&
      last.zero === next.zero &&
      last.data === next.data &&
      last.compressed === next.compressed &&
      (last.offset === undefined ? next.offset === undefined : last.offset + last.length === next.offset);
    if (last && joins) last = { ...last, length: last.length + next.length };
    else {
      if (last) yield last;
      last = next;
    }
  }
  if (last) yield last;
}

export function readBytes(image: BlockImage, offset: number, into: Uint8Array): void {
  // A shorter image reads as zeros behind its end.
  const there = Math.max(0, Math.min(into.length, image.size - offset));
  into.fill(0, there);
  if (there > 0) perform(image, (done) => image.read(offset, [into.subarray(0, there)], done));
}

const ZEROS = Buffer.alloc(1 << 16);

export function isZero(bytes: Uint8Array): boolean {
  for (let at = 0; at < bytes.length; at += ZEROS.length) {
    const piece = bytes.subarray(at, at + ZEROS.length);
    if (Buffer.compare(piece, ZEROS.subarray(0, piece.length)) !== 0) return false;
  }
  return true;
}
