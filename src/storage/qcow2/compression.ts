import { inflateRawSync, zstdDecompressSync } from 'node:zlib';
import type { Compression } from './format.ts';

/** @throws Error for data that is none of this kind. */
export function decompress(kind: Compression, data: Uint8Array, clusterSize: number): Uint8Array {
  const out =
    kind === 'zlib'
      ? inflateRawSync(data, { maxOutputLength: clusterSize })
      : zstdDecompressSync(data.subarray(0, zstdFrameLength(data)), { maxOutputLength: clusterSize });
  if (out.length !== clusterSize) throw new Error(`A compressed cluster has ${out.length} bytes.`);
  return out;
}

/** Bytes of the frame at the start of `data`: what fills the last sector is not for the decoder (RFC 8878, 3.1.1). */
export function zstdFrameLength(data: Uint8Array): number {
  const view = new DataView(data.buffer, data.byteOffset, data.length);
  if (data.length < 6 || view.getUint32(0, true) !== 0xfd2fb528) throw new Error('It is no Zstandard frame.');
  const descriptor = data[4];
  const single = (descriptor & 0x20) !== 0;
  const sizes = [single ? 1 : 0, 2, 4, 8];
  let at = 5 + (single ? 0 : 1) + [0, 1, 2, 4][descriptor & 3] + sizes[descriptor >> 6];
  for (let last = false; !last; ) {
    if (at + 3 > data.length) throw new Error('A Zstandard frame is cut off.');
    const header = data[at] | (data[at + 1] << 8) | (data[at + 2] << 16);
    last = (header & 1) !== 0;
    at += 3 + (((header >> 1) & 3) === 1 ? 1 : header >> 3);
  }
  return at + (descriptor & 4 ? 4 : 0);
}
