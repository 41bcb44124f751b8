import { StorageError } from '../error.ts';
import { ENOSPC } from '../file_queue.ts';
import type { ImageFile } from '../image_file.ts';
import { IoError, type Task, wait } from '../task.ts';
import { type Geometry, type Header, invalid, MAX_REFCOUNT_TABLE_BYTES } from './format.ts';
import { type Change, type Slice, SliceCache } from './slice_cache.ts';

const OFFSET_MASK_LOW = 0xfffffe00;
const CACHE_BYTES = 8 << 20;

/** One refcount of a piece of a refcount block; those of less than a byte begin at the lowest bits. */
export function readRefcount(view: DataView, order: number, index: number): number {
  switch (order) {
    case 3:
      return view.getUint8(index);
    case 4:
      return view.getUint16(index * 2);
    case 5:
      return view.getUint32(index * 4);
    case 6:
      return view.getUint32(index * 8) * 2 ** 32 + view.getUint32(index * 8 + 4);
    default: {
      const bits = 1 << order;
      const perByte = 8 / bits;
      return (view.getUint8(Math.floor(index / perByte)) >> ((index % perByte) * bits)) & ((1 << bits) - 1);
    }
  }
}

export function writeRefcount(view: DataView, order: number, index: number, value: number): void {
  switch (order) {
    case 3:
      view.setUint8(index, value);
      break;
    case 4:
      view.setUint16(index * 2, value);
      break;
    case 5:
      view.setUint32(index * 4, value);
      break;
    case 6:
      view.setUint32(index * 8, Math.floor(value / 2 ** 32));
      view.setUint32(index * 8 + 4, value % 2 ** 32);
      break;
    default: {
      const bits = 1 << order;
      const perByte = 8 / bits;
      const at = Math.floor(index / perByte);
      const shift = (index % perByte) * bits;
      const mask = ((1 << bits) - 1) << shift;
      view.setUint8(at, (view.getUint8(at) & ~mask) | (value << shift));
    }
  }
}

interface Place {
  readonly offset: number;
  readonly clusters: number;
}

/** What of the refcount structures is to be written, as it was at one instant. */
export interface RefcountChanges {
  readonly blocks: Change[];
  readonly table: { offset: number; bytes: Uint8Array }[];
  /** The table has moved: the header is to name it, and its old clusters are free then. */
  readonly moved: { from: readonly Place[]; to: Place } | undefined;
}

/** The image's use counts of its clusters, and where a new one can be had. */
export class Refcounts {
  readonly cache: SliceCache;
  readonly #file: ImageFile;
  readonly #geometry: Geometry;
  readonly #order: number;
  readonly #perSlice: number;
  /** Offset of each refcount block, 0 for one that is not there. */
  #table: number[] = [];
  readonly #dirtyTable = new Set<number>();
  /** Where the table is, which the header in the file may not say yet. */
  #at: Place;
  /** Where it was: the file's header still leads to the first. */
  #oldTables: Place[] = [];
  /** No cluster below is free. */
  #hint = 0;
  /** Told of each cluster that becomes or ceases to be part of these structures. */
  onMetadata: (offset: number, clusters: number, used: boolean) => void = () => {};

  constructor(file: ImageFile, header: Header, geometry: Geometry) {
    this.#file = file;
    this.#geometry = geometry;
    this.#at = { offset: header.refcountTableOffset, clusters: header.refcountTableClusters };
    this.#order = header.refcountOrder;
    this.cache = new SliceCache(file, geometry.clusterSize, CACHE_BYTES);
    this.#perSlice = (this.cache.sliceSize * 8) / geometry.refcountBits;
  }

  get table(): readonly number[] {
    return this.#table;
  }

  /** The largest count that fits. */
  get maximum(): number {
    return this.#order === 6 ? Number.MAX_SAFE_INTEGER : 2 ** this.#geometry.refcountBits - 1;
  }

  *open(): Task {
    const { offset, clusters } = this.#at;
    const bytes = new Uint8Array(clusters * this.#geometry.clusterSize);
    yield* wait((done) => this.#file.read(offset, [bytes], done));
    const view = new DataView(bytes.buffer);
    this.#table = [];
    for (let at = 0; at < bytes.length; at += 8) {
      const high = view.getUint32(at);
      const low = (view.getUint32(at + 4) & OFFSET_MASK_LOW) >>> 0;
      // An offset that no file has is found out when it is used.
      this.#table.push(high > 0x1fffff ? Number.NaN : high * 2 ** 32 + low);
    }
    this.onMetadata(offset, clusters, true);
    for (const block of this.#table) if (block > 0) this.onMetadata(block, 1, true);
  }

  #place(cluster: number): { block: number; slice: number; index: number } {
    const { refcountsPerBlock } = this.#geometry;
    const block = Math.floor(cluster / refcountsPerBlock);
    const inBlock = cluster % refcountsPerBlock;
    return { block, slice: Math.floor(inBlock / this.#perSlice), index: inBlock % this.#perSlice };
  }

  #blockOffset(block: number): number {
    const offset = this.#table[block] ?? 0;
    if (Number.isNaN(offset) || offset % this.#geometry.clusterSize !== 0) {
      throw invalid(this.#file.path, `refcount block ${block} is at ${offset}, which does not begin a cluster`);
    }
    return offset;
  }

  *#slice(block: number, slice: number): Task<Slice | undefined> {
    const offset = this.#blockOffset(block);
    return offset === 0 ? undefined : yield* this.cache.load(offset + slice * this.cache.sliceSize);
  }

  /** @param cluster index of a cluster of the file. */
  *get(cluster: number): Task<number> {
    const { block, slice, index } = this.#place(cluster);
    const piece = yield* this.#slice(block, slice);
    return piece ? readRefcount(piece.view, this.#order, index) : 0;
  }

  /** Sets a count, making the refcount block if there is none. */
  *set(cluster: number, value: number): Task {
    const { block, slice, index } = this.#place(cluster);
    for (;;) {
      const piece = yield* this.#slice(block, slice);
      if (piece) {
        writeRefcount(piece.view, this.#order, index, value);
        this.cache.dirty(piece);
        if (value === 0 && cluster < this.#hint) this.#hint = cluster;
        return;
      }
      yield* this.#makeBlock(block);
    }
  }

  /**
   * Adds to the counts of clusters.
   * @returns the last one's new count.
   * @throws StorageError when a count would leave its range.
   */
  *add(first: number, count: number, delta: number): Task<number> {
    let value = 0;
    for (let cluster = first; cluster < first + count; cluster++) {
      value = (yield* this.get(cluster)) + delta;
      if (value < 0) throw invalid(this.#file.path, `cluster ${cluster} is freed, but not in use`);
      if (value > this.maximum) {
        throw new StorageError(
          `A cluster of ${this.#file.path} would be used ${value} times; its refcounts have ${this.#geometry.refcountBits} bits.`,
          'Delete a snapshot, or convert the image to one with refcount_bits=16.',
        );
      }
      yield* this.set(cluster, value);
    }
    return value;
  }

  /**
   * Clusters next to each other that nobody used.
   * @returns the offset of the first; each is counted once.
   */
  *allocate(count: number): Task<number> {
    const { refcountsPerBlock, clusterSize } = this.#geometry;
    // Each block's first cluster may be the block itself.
    if (count >= refcountsPerBlock) return this.#allocateLarge(count);
    let run = 0;
    let cluster = this.#hint;
    let first = true;
    while (run < count) {
      const { block, slice, index } = this.#place(cluster);
      if (block >= this.#table.length || this.#blockOffset(block) === 0) {
        // It describes itself; what is next to it is free.
        yield* this.#makeBlock(block);
        run = 0;
        cluster = block * refcountsPerBlock;
        continue;
      }
      const piece = (yield* this.#slice(block, slice)) as Slice;
      for (let i = index; i < this.#perSlice && run < count; i++, cluster++) {
        const free = readRefcount(piece.view, this.#order, i) === 0;
        if (free && first) {
          this.#hint = cluster;
          first = false;
        }
        run = free ? run + 1 : 0;
      }
    }
    const from = cluster - run;
    // A device that cannot grow ends where it ends.
    if (!this.#file.growable && cluster * clusterSize > this.#file.length) throw new IoError(ENOSPC);
    for (let each = from; each < cluster; each++) yield* this.set(each, 1);
    if (this.#hint === from) this.#hint = cluster;
    return from * clusterSize;
  }

  /** Makes the refcount block at the first cluster that it describes, and a larger table if it needs one. */
  *#makeBlock(block: number): Task {
    const { clusterSize, refcountsPerBlock } = this.#geometry;
    if (block >= this.#table.length) {
      this.#grow(block);
      return;
    }
    const cluster = block * refcountsPerBlock;
    const offset = cluster * clusterSize;
    this.#createBlock(block, offset);
    yield* this.set(cluster, 1);
  }

  #createBlock(block: number, offset: number): void {
    for (let at = 0; at < this.#geometry.clusterSize; at += this.cache.sliceSize) this.cache.create(offset + at);
    this.#table[block] = offset;
    this.#dirtyTable.add(block);
    this.onMetadata(offset, 1, true);
  }

  /** More clusters than one block counts, behind all that is in use. */
  #allocateLarge(count: number): number {
    const { refcountsPerBlock, clusterSize } = this.#geometry;
    const blocks = Math.ceil(count / (refcountsPerBlock - 1));
    const behind = () => this.#table.findLastIndex((offset) => offset !== 0) + 1;
    if (behind() + blocks > this.#table.length) this.#grow(behind() + blocks);
    const block = behind();
    const end = (block * refcountsPerBlock + blocks + count) * clusterSize;
    if (!this.#file.growable && end > this.#file.length) throw new IoError(ENOSPC);
    return this.#reserve(block, count, blocks);
  }

  /** Makes new blocks at the first clusters that they count, with clusters in use behind them. @returns their offset. */
  #reserve(block: number, clusters: number, blocks: number): number {
    const { refcountsPerBlock, clusterSize } = this.#geometry;
    const first = block * refcountsPerBlock;
    for (let i = 0; i < blocks; i++) this.#createBlock(block + i, (first + i) * clusterSize);
    for (let cluster = first; cluster < first + blocks + clusters; cluster++) {
      const place = this.#place(cluster);
      const piece = this.cache.peek(this.#table[place.block] + place.slice * this.cache.sliceSize) as Slice;
      writeRefcount(piece.view, this.#order, place.index, 1);
    }
    return (first + blocks) * clusterSize;
  }

  /** A table that is half as large again, and the blocks that count its own clusters, at the first of theirs. */
  #grow(block: number): void {
    const { clusterSize, refcountsPerBlock } = this.#geometry;
    const perCluster = clusterSize / 8;
    let clusters = Math.ceil((Math.max(block + 2, this.#table.length) * 1.5) / perCluster);
    const blocks = Math.ceil((clusters + 2) / (refcountsPerBlock - 1));
    clusters = Math.max(clusters, Math.ceil((block + blocks) / perCluster));
    if (clusters * clusterSize > MAX_REFCOUNT_TABLE_BYTES) {
      throw new StorageError(
        `${this.#file.path} cannot grow: its refcount table is at its limit.`,
        'Convert it to larger clusters.',
      );
    }
    while (this.#table.length < clusters * perCluster) this.#table.push(0);
    const offset = this.#reserve(block, clusters, blocks);
    this.#oldTables.push(this.#at);
    this.#at = { offset, clusters };
    this.onMetadata(offset, clusters, true);
  }

  takeChanges(): RefcountChanges {
    const blocks = this.cache.takeChanges();
    const { clusterSize } = this.#geometry;
    const moved = this.#oldTables.length > 0 ? { from: this.#oldTables, to: this.#at } : undefined;
    const clusters = new Set<number>();
    if (moved) for (let i = 0; i < this.#at.clusters; i++) clusters.add(i);
    else for (const block of this.#dirtyTable) clusters.add(Math.floor((block * 8) / clusterSize));
    this.#dirtyTable.clear();
    this.#oldTables = [];
    const table = [...clusters].map((index) => {
      const bytes = new Uint8Array(clusterSize);
      const view = new DataView(bytes.buffer);
      for (let i = 0; i < clusterSize / 8; i++) {
        view.setBigUint64(i * 8, BigInt(this.#table[(index * clusterSize) / 8 + i] ?? 0));
      }
      return { offset: this.#at.offset + index * clusterSize, bytes };
    });
    return { blocks, table, moved };
  }

  /** Changes of the table that could not be written are to be written again. */
  giveBack(changes: RefcountChanges): void {
    this.cache.giveBack(changes.blocks);
    for (const { offset } of changes.table) {
      const index = offset - this.#at.offset;
      if (index >= 0) this.#dirtyTable.add(Math.floor(index / 8));
    }
    if (changes.moved) this.#oldTables.unshift(...changes.moved.from);
  }

  free(): void {
    this.cache.free();
  }
}
