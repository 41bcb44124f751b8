import { StorageError } from '../error.ts';
import type { ImageFile } from '../image_file.ts';
import { finish, type Task, wait } from '../task.ts';
import {
  COMPATIBLE,
  type Compression,
  encodeHeader,
  geometry,
  type Header,
  INCOMPATIBLE,
  MAX_CLUSTER_BITS,
  MIN_CLUSTER_BITS,
} from './format.ts';
import { Metadata } from './metadata.ts';
import { writeRefcount } from './refcounts.ts';
import { settled } from './snapshots.ts';

const MAX_L1_BYTES = 32 << 20;
const GROW_PIECE = 64;

export interface CreateOptions {
  /** Bytes; rounded up to sectors. */
  readonly size: number;
  readonly version?: 2 | 3;
  readonly clusterSize?: number;
  readonly refcountBits?: number;
  readonly lazyRefcounts?: boolean;
  readonly extendedL2?: boolean;
  readonly compression?: Compression;
  readonly backing?: string | undefined;
  readonly backingFormat?: string | undefined;
  readonly preallocation?: Preallocation;
}

export const PREALLOCATIONS = ['off', 'metadata', 'falloc', 'full'] as const;
export type Preallocation = (typeof PREALLOCATIONS)[number];

const isPowerOfTwo = (value: number): boolean => value > 0 && Number.isInteger(Math.log2(value));

/** @throws StorageError for options that do not go together. */
export function headerFor(options: CreateOptions, path: string): Header {
  const { version = 3, clusterSize = 65536, refcountBits = 16, compression = 'zlib' } = options;
  const refuse = (problem: string, hint?: string): never => {
    throw new StorageError(`The image ${path} cannot be made: ${problem}.`, hint);
  };
  if (!isPowerOfTwo(clusterSize) || clusterSize < 2 ** MIN_CLUSTER_BITS || clusterSize > 2 ** MAX_CLUSTER_BITS) {
    refuse(`clusters of ${clusterSize} bytes`, 'cluster_size= is a power of two from 512 to 2M.');
  }
  if (!isPowerOfTwo(refcountBits) || refcountBits > 64) {
    refuse(`refcounts of ${refcountBits} bits`, 'refcount_bits= is 1, 2, 4, 8, 16, 32 or 64.');
  }
  if (version === 2) {
    const needs = [
      options.lazyRefcounts && 'lazy_refcounts',
      options.extendedL2 && 'extended_l2',
      compression === 'zstd' && 'compression_type=zstd',
      refcountBits !== 16 && 'refcount_bits',
    ].filter(Boolean);
    if (needs.length > 0) refuse(`${needs.join(', ')} with compat=0.10`, 'Use compat=1.1.');
  }
  if (options.extendedL2 && clusterSize < 16384) {
    refuse(`extended_l2 with clusters of ${clusterSize} bytes`, 'It needs cluster_size=16k or more.');
  }
  const header: Header = {
    version,
    clusterBits: Math.log2(clusterSize),
    size: Math.ceil(options.size / 512) * 512,
    l1Size: 0,
    l1Offset: 0,
    refcountTableOffset: 0,
    refcountTableClusters: 0,
    snapshotCount: 0,
    snapshotsOffset: 0,
    incompatible:
      (compression === 'zstd' ? INCOMPATIBLE.COMPRESSION : 0n) | (options.extendedL2 ? INCOMPATIBLE.EXTENDED_L2 : 0n),
    compatible: options.lazyRefcounts ? COMPATIBLE.LAZY_REFCOUNTS : 0n,
    autoclear: 0n,
    refcountOrder: Math.log2(refcountBits),
    compression,
    backing: options.backing,
    backingFormat: options.backingFormat,
    bitmaps: undefined,
    further: [],
  };
  header.l1Size = l1SizeFor(header, header.size, path);
  return header;
}

/** Entries of the L1 table that a disk of this size needs. @throws StorageError when that is too many. */
export function l1SizeFor(header: Header, size: number, path: string): number {
  const entries = Math.ceil(size / geometry(header).l1Span);
  if (entries * 8 > MAX_L1_BYTES) {
    throw new StorageError(
      `${path} cannot have ${size} bytes with clusters of ${2 ** header.clusterBits} bytes.`,
      'Use larger clusters: cluster_size=2M is the largest.',
    );
  }
  return entries;
}

/** Makes an empty image in an empty file. @throws StorageError, IoError. */
export function createImage(file: ImageFile, options: CreateOptions): void {
  const header = headerFor(options, file.path);
  finish(writeEmpty(file, header), () => file.drain());
  const { preallocation = 'off' } = options;
  if (preallocation === 'off') return;
  const metadata = new Metadata(file, header, false);
  finish(preallocate(metadata, preallocation), () => file.drain());
  metadata.free();
}

/** Header, L1 table, refcount table and the refcount blocks that count these, next to each other. */
function* writeEmpty(file: ImageFile, header: Header): Task {
  const { clusterSize, refcountsPerBlock } = geometry(header);
  const l1Clusters = Math.max(1, Math.ceil((header.l1Size * 8) / clusterSize));
  let tableClusters = 1;
  let blocks = 1;
  for (;;) {
    const total = 1 + tableClusters + blocks + l1Clusters;
    const needed = Math.ceil(total / refcountsPerBlock);
    const table = Math.ceil((needed * 8) / clusterSize);
    if (needed <= blocks && table <= tableClusters) break;
    blocks = Math.max(blocks, needed);
    tableClusters = Math.max(tableClusters, table);
  }
  const total = 1 + tableClusters + blocks + l1Clusters;
  header.refcountTableOffset = clusterSize;
  header.refcountTableClusters = tableClusters;
  const firstBlock = (1 + tableClusters) * clusterSize;
  header.l1Offset = firstBlock + blocks * clusterSize;
  const table = new DataView(new ArrayBuffer(tableClusters * clusterSize));
  for (let i = 0; i < blocks; i++) table.setBigUint64(i * 8, BigInt(firstBlock + i * clusterSize));
  const write = (offset: number, bytes: Uint8Array) => wait((done) => file.write(offset, [bytes], done));
  yield* wait((done) => file.truncate(0, done));
  yield* wait((done) => file.truncate(total * clusterSize, done));
  yield* write(clusterSize, new Uint8Array(table.buffer));
  for (let block = 0; block < blocks; block++) {
    const view = new DataView(new ArrayBuffer(clusterSize));
    const first = block * refcountsPerBlock;
    for (let i = 0; i < refcountsPerBlock && first + i < total; i++) writeRefcount(view, header.refcountOrder, i, 1);
    yield* write(firstBlock + block * clusterSize, new Uint8Array(view.buffer));
  }
  yield* wait((done) => file.sync(done));
  // The header comes last: until then the file is no image.
  yield* write(0, encodeHeader(header));
  yield* wait((done) => file.sync(done));
}

/** Gives every guest cluster that has none a host cluster of its own. */
export function* preallocate(metadata: Metadata, kind: Preallocation, from = 0): Task {
  const { file, geometry, mapping, refcounts, header } = metadata;
  const { clusterSize } = geometry;
  yield* metadata.open();
  const end = Math.ceil(header.size / clusterSize);
  const all = geometry.extendedL2 ? 0xffffffff : 1;
  let last = 0;
  for (let cluster = Math.floor(from / clusterSize); cluster < end; ) {
    yield* metadata.lock.hold(() => metadata.ownTable(cluster));
    yield* mapping.load(cluster);
    const count = Math.min(mapping.sliceRoom(cluster), end - cluster, GROW_PIECE);
    const host = yield* metadata.lock.hold(() => refcounts.allocate(count));
    yield* mapping.load(cluster);
    for (let i = 0; i < count; i++) {
      if (mapping.entry(cluster + i).host !== 0) metadata.release(host + i * clusterSize, 1);
      else mapping.set(cluster + i, host + i * clusterSize, all, 0);
    }
    last = host + count * clusterSize;
    if (kind === 'falloc') yield* wait((done) => file.fallocate(0, host, count * clusterSize, done));
    else if (kind === 'full') {
      const zeros = new Uint8Array(count * clusterSize);
      yield* wait((done) => file.write(host, [zeros], done));
    }
    cluster += count;
    if (metadata.crowded) yield* settled(metadata);
  }
  if (file.growable && file.length < last) yield* wait((done) => file.truncate(last, done));
  yield* metadata.settle();
}
