import type { ImageFile } from '../image_file.ts';
import { type Task, wait } from '../task.ts';
import { type Geometry, type Header, invalid } from './format.ts';
import { type Slice, SliceCache } from './slice_cache.ts';

const CACHE_BYTES = 32 << 20;
/** Upper halves of table entries: the flags, and the offset's bits 32 to 55. */
const COPIED = 0x80000000;
const COMPRESSED = 0x40000000;
const OFFSET_HIGH = 0x00ffffff;
const OFFSET_LOW = 0xfffffe00;
const ZERO = 1;

/**
 * What a guest offset leads to. `shared` data is used by a snapshot too (or its own count says so), so that it
 * is copied before it is written.
 */
export type Kind = 'hole' | 'zero' | 'data' | 'shared' | 'compressed';

/** A run of guest bytes of one kind that lie together in the file. */
export interface Run {
  readonly kind: Kind;
  /** Bytes, as many as were asked for at most. */
  readonly length: number;
  /** File offset of the first byte, for `data` and `shared`. */
  readonly host: number;
}

/** An L2 entry, taken apart. */
export interface Entry {
  /** Offset of the host cluster, also of one that reads as zeros; 0 for none. For compressed data the byte. */
  readonly host: number;
  readonly copied: boolean;
  readonly compressed: boolean;
  /** Bytes of compressed data, whole sectors. */
  readonly compressedLength: number;
  /** Per subcluster: is it stored at `host`, does it read as zeros. Bit 0 alone without subclusters. */
  readonly allocated: number;
  readonly zero: number;
}

/** The tables that lead from guest offsets to host clusters: L1 in memory, L2 in a cache of pieces. */
export class Mapping {
  readonly cache: SliceCache;
  /** By L1 index: offset of the L2 table, 0 for none. */
  readonly l1: number[] = [];
  /** Nobody else uses that L2 table. */
  readonly l1Copied: boolean[] = [];
  readonly dirtyL1 = new Set<number>();
  readonly #file: ImageFile;
  readonly #geometry: Geometry;
  readonly #entriesPerSlice: number;
  readonly #entryShift: number;

  constructor(file: ImageFile, geometry: Geometry) {
    this.#file = file;
    this.#geometry = geometry;
    this.cache = new SliceCache(file, geometry.clusterSize, CACHE_BYTES);
    this.#entriesPerSlice = this.cache.sliceSize / geometry.entrySize;
    this.#entryShift = Math.log2(geometry.l2Entries);
  }

  *open(header: Header): Task {
    const bytes = new Uint8Array(header.l1Size * 8);
    if (bytes.length > 0) yield* wait((done) => this.#file.read(header.l1Offset, [bytes], done));
    const view = new DataView(bytes.buffer);
    this.l1.length = 0;
    this.l1Copied.length = 0;
    for (let at = 0; at < bytes.length; at += 8) {
      const { offset, copied } = decodeL1(view, at);
      this.l1.push(offset);
      this.l1Copied.push(copied);
    }
  }

  /** The L1 entries as they are in the file. */
  encodeL1(from = 0, count = this.l1.length): Uint8Array {
    const bytes = new Uint8Array(count * 8);
    const view = new DataView(bytes.buffer);
    for (let i = 0; i < count; i++) {
      const offset = this.l1[from + i] ?? 0;
      view.setUint32(i * 8, (Math.floor(offset / 2 ** 32) | (this.l1Copied[from + i] ? COPIED : 0)) >>> 0);
      view.setUint32(i * 8 + 4, offset % 2 ** 32);
    }
    return bytes;
  }

  /** @throws StorageError for an L2 table that does not begin a cluster. */
  l2Offset(l1Index: number): number {
    const offset = this.l1[l1Index] ?? 0;
    if (offset % this.#geometry.clusterSize !== 0) {
      throw invalid(this.#file.path, `L2 table ${l1Index} is at ${offset}, which does not begin a cluster`);
    }
    return offset;
  }

  /** Index of the guest cluster's L2 table, and the piece of it that has the entry. */
  #sliceOffset(cluster: number): number {
    const inTable = cluster % this.#geometry.l2Entries;
    const table = this.l2Offset(this.l1Index(cluster));
    return table === 0 ? 0 : table + Math.floor(inTable / this.#entriesPerSlice) * this.cache.sliceSize;
  }

  l1Index(cluster: number): number {
    return Math.floor(cluster / 2 ** this.#entryShift);
  }

  /** Clusters from this one on whose entries are in the same piece. */
  sliceRoom(cluster: number): number {
    return this.#entriesPerSlice - (cluster % this.#entriesPerSlice);
  }

  /** Has the entry's piece in memory. @returns undefined where there is no L2 table. */
  *load(cluster: number): Task<Slice | undefined> {
    const offset = this.#sliceOffset(cluster);
    return offset === 0 ? undefined : yield* this.cache.load(offset);
  }

  /** @returns the entry, from memory. The piece must be there, as after `load`. */
  entry(cluster: number): Entry {
    const offset = this.#sliceOffset(cluster);
    if (offset === 0) return NOTHING;
    const slice = this.cache.peek(offset) as Slice;
    return this.#decode(slice.view, (cluster % this.#entriesPerSlice) * this.#geometry.entrySize);
  }

  #decode(view: DataView, at: number): Entry {
    return decodeEntry(view, at, this.#geometry);
  }

  /** Sets an entry of a table that is our own, and whose piece is in memory. */
  set(cluster: number, host: number, allocated: number, zero: number): void {
    const { slice, at } = this.#writable(cluster);
    const { view } = slice;
    const flags = host === 0 ? 0 : COPIED;
    view.setUint32(at, (Math.floor(host / 2 ** 32) | flags) >>> 0);
    const low = host % 2 ** 32;
    if (this.#geometry.extendedL2) {
      view.setUint32(at + 4, low);
      view.setUint32(at + 8, zero);
      view.setUint32(at + 12, allocated);
    } else view.setUint32(at + 4, low | (zero ? ZERO : 0));
    this.cache.dirty(slice);
  }

  /** Sets an entry to compressed data at a byte of the file. */
  setCompressed(cluster: number, host: number, length: number): void {
    const { slice, at } = this.#writable(cluster);
    const shift = BigInt(62 - (this.#geometry.clusterBits - 8));
    const further = Math.floor(((host % 512) + length - 1) / 512);
    slice.view.setBigUint64(at, BigInt(host) | (BigInt(further) << shift) | (1n << 62n));
    this.cache.dirty(slice);
  }

  #writable(cluster: number): { slice: Slice; at: number } {
    const slice = this.cache.peek(this.#sliceOffset(cluster)) as Slice;
    return { slice, at: (cluster % this.#entriesPerSlice) * this.#geometry.entrySize };
  }

  /**
   * Where guest bytes are, from memory alone.
   * @returns the longest run within `length`, or undefined when the table's piece has to be read first.
   */
  run(offset: number, length: number): Run | undefined {
    const { clusterSize, l1Span, subclusterSize: unit, entrySize } = this.#geometry;
    let cluster = Math.floor(offset / clusterSize);
    const sliceOffset = this.#sliceOffset(cluster);
    if (sliceOffset === 0) {
      return { kind: 'hole', length: Math.min(length, l1Span - (offset % l1Span)), host: 0 };
    }
    const slice = this.cache.peek(sliceOffset);
    if (!slice) return undefined;
    const last = cluster + this.sliceRoom(cluster);
    let inCluster = offset % clusterSize;
    let kind: Kind | undefined;
    let host = 0;
    let found = 0;
    for (; cluster < last && found < length; cluster++, inCluster = 0) {
      const entry = this.#decode(slice.view, (cluster % this.#entriesPerSlice) * entrySize);
      if (entry.compressed) {
        if (kind === undefined)
          return { kind: 'compressed', length: Math.min(length, clusterSize - inCluster), host: 0 };
        return { kind, length: found, host };
      }
      while (inCluster < clusterSize && found < length) {
        const next = kindOf(entry, Math.floor(inCluster / unit));
        const stored = next === 'data' || next === 'shared';
        if (kind === undefined) {
          kind = next;
          host = stored ? entry.host + inCluster : 0;
        } else if (next !== kind || (stored && entry.host + inCluster !== host + found)) {
          return { kind, length: found, host };
        }
        const piece = Math.min(length - found, unit - (inCluster % unit));
        found += piece;
        inCluster += piece;
      }
    }
    return { kind: kind as Kind, length: found, host };
  }

  free(): void {
    this.cache.free();
  }
}

const NOTHING: Entry = { host: 0, copied: false, compressed: false, compressedLength: 0, allocated: 0, zero: 0 };

export function decodeL1(view: DataView, at: number): { offset: number; copied: boolean } {
  const high = view.getUint32(at);
  return {
    offset: (high & OFFSET_HIGH) * 2 ** 32 + ((view.getUint32(at + 4) & OFFSET_LOW) >>> 0),
    copied: high >= COPIED,
  };
}

/** An L2 entry as it is in a table. */
export function decodeEntry(view: DataView, at: number, geometry: Geometry): Entry {
  const high = view.getUint32(at);
  const low = view.getUint32(at + 4);
  if (high & COMPRESSED) {
    const shift = 62 - (geometry.clusterBits - 8);
    // The count of sectors stands above the offset; both together exceed what a number holds exactly.
    const further = Math.floor((high & 0x3fffffff) / 2 ** (shift - 32));
    const host = ((high & 0x3fffffff) % 2 ** (shift - 32)) * 2 ** 32 + low;
    const all = geometry.subclusters === 1 ? 1 : 0xffffffff;
    return {
      host,
      copied: false,
      compressed: true,
      compressedLength: (further + 1) * 512 - (host % 512),
      allocated: all,
      zero: 0,
    };
  }
  const host = (high & OFFSET_HIGH) * 2 ** 32 + ((low & OFFSET_LOW) >>> 0);
  const copied = high >= COPIED;
  if (geometry.extendedL2) {
    const zero = view.getUint32(at + 8);
    const allocated = host === 0 ? 0 : view.getUint32(at + 12);
    return { host, copied, compressed: false, compressedLength: 0, allocated, zero };
  }
  const zero = low & ZERO;
  return { host, copied, compressed: false, compressedLength: 0, allocated: host !== 0 && !zero ? 1 : 0, zero };
}

/** What a subcluster is; 0 without subclusters. */
export function kindOf(entry: Entry, subcluster: number): Kind {
  if (entry.compressed) return 'compressed';
  const bit = 1 << subcluster;
  if (entry.zero & bit) return 'zero';
  if (entry.allocated & bit) return entry.copied ? 'data' : 'shared';
  return 'hole';
}
