/** Which bytes of its clusters an allocating write fills, where only a part of them is written. */
import { type Entry, kindOf } from './mapping.ts';

/** Is there a place of its own that can be written, though not all of it holds data? */
export const reusable = (entry: Entry): boolean => entry.host !== 0 && entry.copied && !entry.compressed;

export const isWritable = (entry: Entry, extendedL2: boolean): boolean =>
  reusable(entry) && (extendedL2 || kindOf(entry, 0) === 'data');

/** Whole clusters are copied where there was data that others keep; else only what the write begins in. */
const copiesAll = (entry: Entry, reuse: boolean): boolean => !reuse && entry.host !== 0;

export function regionStart(offset: number, entry: Entry, reuse: boolean, unit: number, clusterSize: number): number {
  const begin = Math.floor(offset / clusterSize) * clusterSize;
  if (copiesAll(entry, reuse)) return begin;
  const sub = Math.floor((offset - begin) / unit);
  // A subcluster that holds data keeps what is around the write.
  if (reuse && kindOf(entry, sub) === 'data' && unit !== clusterSize) return offset;
  return begin + sub * unit;
}

export function regionEnd(end: number, entry: Entry, reuse: boolean, unit: number, clusterSize: number): number {
  const begin = Math.floor((end - 1) / clusterSize) * clusterSize;
  if (copiesAll(entry, reuse)) return begin + clusterSize;
  const sub = Math.floor((end - 1 - begin) / unit);
  if (reuse && kindOf(entry, sub) === 'data' && unit !== clusterSize) return end;
  return begin + (sub + 1) * unit;
}

/** Bits of the subclusters that a region of a cluster fills or touches. */
export function unitMask(from: number, to: number, unit: number, clusterSize: number): number {
  const first = Math.floor(Math.max(0, from) / unit);
  const end = Math.ceil(Math.min(clusterSize, to) / unit);
  let mask = 0;
  for (let bit = first; bit < end; bit++) mask |= 1 << bit;
  return mask;
}
