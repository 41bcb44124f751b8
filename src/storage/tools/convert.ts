import { promisify } from 'node:util';
import { deflateRaw, type InputType, zstdCompress } from 'node:zlib';
import type { BlockImage } from '../block_image.ts';
import { Qcow2Image } from '../qcow2/image.ts';
import { extentAt, isZero, perform, readBytes } from './chain.ts';
import { type Progress, turn } from './progress.ts';

const deflate = promisify(deflateRaw) as (input: InputType, options: { windowBits: number }) => Promise<Buffer>;
const zstd = promisify(zstdCompress) as (input: InputType) => Promise<Buffer>;

const PIECE = 2 << 20;
/** Zeros of this length are left out of the copy. */
const SPARSE = 4096;
/** Compressed at the same time, by Node's own threads. */
const TOGETHER = 8;

export interface CopyOptions {
  /** Packs each cluster; for QCOW2. */
  readonly compress?: boolean;
  readonly progress?: Progress | undefined;
}

/**
 * Copies a disk into an image that reads as zeros, and is as large or larger.
 * @throws StorageError, IoError.
 */
export async function copyDisk(from: BlockImage, to: BlockImage, options: CopyOptions = {}): Promise<void> {
  const total = from.size;
  const packer = options.compress && to instanceof Qcow2Image ? new Packer(to) : undefined;
  const buffer = new Uint8Array(PIECE);
  for (let at = 0; at < total; ) {
    const extent = extentAt(from, at);
    // Packing goes by whole clusters, whatever they are made of.
    const whole = packer ? packer.clusterSize : 1;
    const end = Math.min(total, at + PIECE, Math.max(at + whole, Math.floor((at + extent.length) / whole) * whole));
    if (!extent.zero || end > at + extent.length) {
      const piece = buffer.subarray(0, end - at);
      readBytes(from, at, piece);
      if (packer) await packer.write(at, piece);
      else writeSparse(to, at, piece);
      at = end;
    } else at += extent.length;
    options.progress?.(at, total);
    await turn();
  }
  perform(to, (done) => to.flush(done));
}

/** Writes what is not zero, in runs that are as long as can be. */
function writeSparse(to: BlockImage, offset: number, bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length; ) {
    const begin = at;
    const zero = isZero(bytes.subarray(at, at + SPARSE));
    while (at < bytes.length && isZero(bytes.subarray(at, at + SPARSE)) === zero) at += SPARSE;
    const piece = bytes.subarray(begin, at);
    if (!zero) perform(to, (done) => to.write(offset + begin, [piece], done));
  }
}

/** Packs clusters, and writes them one behind the other. */
class Packer {
  readonly clusterSize: number;
  readonly #image: Qcow2Image;

  constructor(image: Qcow2Image) {
    this.#image = image;
    this.clusterSize = image.metadata.geometry.clusterSize;
  }

  async write(offset: number, bytes: Uint8Array): Promise<void> {
    const { compression } = this.#image.metadata.header;
    const pieces: { at: number; bytes: Uint8Array }[] = [];
    for (let at = 0; at < bytes.length; at += this.clusterSize) {
      const piece = bytes.subarray(at, at + this.clusterSize);
      if (!isZero(piece)) pieces.push({ at: offset + at, bytes: piece });
    }
    for (let i = 0; i < pieces.length; i += TOGETHER) {
      const batch = pieces.slice(i, i + TOGETHER);
      const packed = await Promise.all(
        batch.map(({ bytes: piece }) => {
          const cluster = new Uint8Array(this.clusterSize);
          cluster.set(piece);
          // The format wants a window of 4 KiB at most.
          return compression === 'zlib' ? deflate(cluster, { windowBits: 12 }) : zstd(cluster);
        }),
      );
      for (const [n, { at, bytes: piece }] of batch.entries()) {
        const small = packed[n].length < this.clusterSize;
        if (small) this.#image.finish(this.#image.writeCompressed(at / this.clusterSize, packed[n]));
        else perform(this.#image, (done) => this.#image.write(at, [piece], done));
      }
    }
  }
}
