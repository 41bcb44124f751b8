import { FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE } from '../file_queue.ts';
import type { ImageFile } from '../image_file.ts';
import { type Done, Mutex, start, type Task, wait } from '../task.ts';
import { AUTOCLEAR, type Geometry, geometry, type Header, INCOMPATIBLE, invalid, patchHeader } from './format.ts';
import { Limbo, type Released } from './limbo.ts';
import { Mapping } from './mapping.ts';
import { Refcounts } from './refcounts.ts';

const L1_PIECE = 512;
const HEADER_SECTOR = 512;

/**
 * An image's tables in memory, and the order in which their changes reach the file.
 *
 * Power may fail at any instant, and until an fdatasync has ended any write since the one before may be lost or
 * come early. So a commit goes in phases with an fdatasync between them: guest data and refcounts; the refcount
 * table; L2 tables; L1 entries. What an entry leads to is on the disk before the entry is. Clusters that nobody
 * needs any more are counted down after that, and used again when no request is at them. A crash can leave
 * clusters that are counted and not used, never the other way round; version 3 images carry the dirty bit as
 * long as that may be, and are counted anew when they are opened next.
 */
export class Metadata {
  readonly file: ImageFile;
  readonly header: Header;
  readonly geometry: Geometry;
  readonly mapping: Mapping;
  readonly refcounts: Refcounts;
  readonly limbo = new Limbo();
  /** Held by whoever changes tables over several steps. */
  readonly lock = new Mutex();
  readonly readOnly: boolean;
  /** Host clusters that hold tables: no guest data is written there, whatever a table says. */
  readonly #tables = new Set<number>();
  /** Given up, but the file's tables may still lead there. */
  #released: Released[] = [];
  #marked = false;
  #headerChanged = false;
  #miscounted = false;
  #committing = false;
  readonly #waiting: Done[] = [];
  /** Extends a commit: what else has to be in the file with this state. */
  onCommit: (() => Task) | undefined;

  constructor(file: ImageFile, header: Header, readOnly: boolean) {
    this.file = file;
    this.header = header;
    this.readOnly = readOnly;
    this.geometry = geometry(header);
    this.mapping = new Mapping(file, this.geometry);
    this.refcounts = new Refcounts(file, header, this.geometry);
    this.refcounts.onMetadata = (offset, clusters, used) => this.guard(offset, clusters, used);
  }

  *open(): Task {
    this.guard(0, 1, true);
    yield* this.refcounts.open();
    yield* this.loadL1();
  }

  /** Reads the L1 table that the header names. */
  *loadL1(): Task {
    yield* this.mapping.open(this.header);
    const { l1Offset, l1Size } = this.header;
    if (l1Size > 0) this.guard(l1Offset, this.clusters(l1Size * 8), true);
    for (const offset of this.mapping.l1) if (offset > 0) this.guard(offset, 1, true);
  }

  clusters(bytes: number): number {
    return Math.ceil(bytes / this.geometry.clusterSize);
  }

  guard(offset: number, clusters: number, used: boolean): void {
    const first = Math.floor(offset / this.geometry.clusterSize);
    for (let cluster = first; cluster < first + clusters; cluster++) {
      if (used) this.#tables.add(cluster);
      else this.#tables.delete(cluster);
    }
  }

  /** @throws StorageError when guest data would be written over a table. */
  checkData(host: number, length: number): void {
    const { clusterSize } = this.geometry;
    for (let cluster = Math.floor(host / clusterSize); cluster * clusterSize < host + length; cluster++) {
      if (this.#tables.has(cluster)) {
        throw invalid(this.file.path, `a table leads to offset ${cluster * clusterSize} for data, where a table is`);
      }
    }
  }

  /** Before the first change: says in the file that its counts may be off, and that others' notes on it are stale. */
  *beginChange(): Task {
    if (this.#marked) return;
    const { header } = this;
    if (header.version === 3) {
      header.incompatible |= INCOMPATIBLE.DIRTY;
      header.autoclear &= AUTOCLEAR.BITMAPS;
      yield* this.writeHeader();
      yield* this.sync();
    }
    this.#marked = true;
  }

  /** Writes the header's numbers. They are in one sector, which a disk writes whole or not at all. */
  *writeHeader(): Task {
    const sector = new Uint8Array(HEADER_SECTOR);
    yield* wait((done) => this.file.read(0, [sector], done));
    patchHeader(sector, this.header);
    yield* wait((done) => this.file.write(0, [sector], done));
  }

  *sync(): Task {
    yield (done) => this.file.sync(done);
  }

  /** The header is to be written with the next commit, after the tables. */
  headerChanged(): void {
    this.#headerChanged = true;
  }

  /** Clusters that no table in memory leads to any more. */
  release(offset: number, clusters: number, discard = false): void {
    this.#released.push({ offset, clusters, discard });
  }

  /** Has a table of the file's own L2 tables for the cluster: makes one, or copies one that others use. Locked. */
  *ownTable(cluster: number): Task {
    const {
      mapping,
      geometry: { clusterSize },
    } = this;
    const index = mapping.l1Index(cluster);
    const old = mapping.l2Offset(index);
    if (old !== 0 && mapping.l1Copied[index]) return;
    yield* this.beginChange();
    const { sliceSize } = mapping.cache;
    const copies: Uint8Array[] = [];
    if (old !== 0) {
      for (let at = 0; at < clusterSize; at += sliceSize) {
        copies.push((yield* mapping.cache.load(old + at)).bytes.slice());
      }
    }
    const offset = yield* this.refcounts.allocate(1);
    for (let at = 0; at < clusterSize; at += sliceSize) {
      const slice = mapping.cache.create(offset + at);
      const copy = copies[at / sliceSize];
      if (copy) slice.bytes.set(copy);
    }
    this.guard(offset, 1, true);
    mapping.l1[index] = offset;
    mapping.l1Copied[index] = true;
    mapping.dirtyL1.add(index);
    if (old !== 0) this.release(old, 1);
  }

  /** Is there anything that a crash would lose? */
  get changed(): boolean {
    return (
      this.#committing ||
      this.#released.length > 0 ||
      this.#headerChanged ||
      this.mapping.cache.dirtyCount > 0 ||
      this.mapping.dirtyL1.size > 0 ||
      this.refcounts.cache.dirtyCount > 0
    );
  }

  /** So much has changed that whoever makes the next change should commit first. */
  get crowded(): boolean {
    return this.mapping.cache.crowded || this.refcounts.cache.crowded;
  }

  /** Puts what was written before on stable storage. Callers that come while one is under way share the next. */
  commit(done: Done): void {
    if (!this.changed) {
      this.reclaim();
      this.file.sync(done);
      return;
    }
    this.#waiting.push(done);
    if (!this.#committing) this.#next();
  }

  #next(): void {
    const waiting = this.#waiting.splice(0);
    this.#committing = true;
    start(this.#commit(), (error) => {
      this.#committing = false;
      const errno = error === undefined ? 0 : errnoOf(error);
      if (errno === 0) this.reclaim();
      for (const done of waiting) done(errno);
      if (this.#waiting.length > 0 && !this.#committing) this.#next();
    });
  }

  *#commit(): Task {
    if (this.readOnly) return;
    // All of one instant: what these L2 entries lead to is counted in these refcounts.
    const refcounts = this.refcounts.takeChanges();
    const l2 = this.mapping.cache.takeChanges();
    const l1 = this.#takeL1();
    const released = this.#released;
    const header = this.#headerChanged || refcounts.moved !== undefined;
    this.#released = [];
    this.#headerChanged = false;
    let stage = 0;
    try {
      if (refcounts.blocks.length > 0 || l2.length > 0) yield* this.beginChange();
      yield* this.refcounts.cache.write(refcounts.blocks);
      stage = 1;
      yield* this.sync();
      if (refcounts.table.length > 0) {
        for (const { offset, bytes } of refcounts.table) {
          yield* wait((done) => this.file.write(offset, [bytes], done));
        }
        yield* this.sync();
        if (refcounts.moved) {
          this.header.refcountTableOffset = refcounts.moved.to.offset;
          this.header.refcountTableClusters = refcounts.moved.to.clusters;
          yield* this.writeHeader();
          yield* this.sync();
        }
      }
      stage = 2;
      if (l2.length > 0) {
        yield* this.mapping.cache.write(l2);
        stage = 3;
        yield* this.sync();
      }
      if (l1.length > 0) {
        for (const { offset, bytes } of l1) yield* wait((done) => this.file.write(offset, [bytes], done));
        yield* this.sync();
      }
      if (header && !refcounts.moved) {
        yield* this.writeHeader();
        yield* this.sync();
      }
      if (this.onCommit) yield* this.onCommit();
    } catch (error) {
      // What may not have arrived counts as changed, so that the next commit has it again.
      if (stage < 2) this.refcounts.giveBack(refcounts);
      this.mapping.cache.giveBack(l2);
      for (const { indices } of l1) for (const index of indices) this.mapping.dirtyL1.add(index);
      this.#released.push(...released);
      this.#headerChanged ||= header;
      throw error;
    }
    if (refcounts.moved) {
      released.push(...refcounts.moved.from.map((place) => ({ ...place, discard: false })));
    }
    this.limbo.add(released);
  }

  #takeL1(): { offset: number; bytes: Uint8Array; indices: number[] }[] {
    const { mapping, header } = this;
    const perPiece = L1_PIECE / 8;
    const pieces = new Map<number, number[]>();
    for (const index of mapping.dirtyL1) {
      const piece = Math.floor(index / perPiece);
      pieces.set(piece, [...(pieces.get(piece) ?? []), index]);
    }
    mapping.dirtyL1.clear();
    return [...pieces].map(([piece, indices]) => ({
      offset: header.l1Offset + piece * L1_PIECE,
      bytes: mapping.encodeL1(piece * perPiece, perPiece),
      indices,
    }));
  }

  /** Counts down what nobody is at any more. The counts reach the file with a later commit. */
  reclaim(): void {
    const free = this.limbo.take();
    if (free.length === 0) return;
    start(
      this.lock.hold(() => this.#countDown(free)),
      (error) => {
        // Clusters stay counted that nobody uses: who opens the image next is to count them anew.
        if (error !== undefined) this.#miscounted = true;
      },
    );
  }

  *#countDown(free: readonly Released[]): Task {
    const { clusterSize } = this.geometry;
    for (const { offset, clusters, discard } of free) {
      const first = Math.floor(offset / clusterSize);
      for (let cluster = first; cluster < first + clusters; cluster++) {
        if ((yield* this.refcounts.add(cluster, 1, -1)) > 0) continue;
        const at = cluster * clusterSize;
        if (this.#tables.has(cluster)) this.mapping.cache.forget(at, clusterSize);
        this.guard(at, 1, false);
        // Advice to the host's file system; nothing hangs on it.
        if (discard && this.file.growable) {
          yield (done) =>
            this.file.fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, clusterSize, () => done(0));
        }
      }
    }
  }

  /** Commits until nothing is left, and takes the dirty bit away. */
  *settle(): Task {
    if (this.readOnly) return;
    for (let round = 0; round < 8 && (this.changed || !this.limbo.empty); round++) {
      yield (done) => this.commit(done);
    }
    if (this.#marked && !this.#miscounted && this.header.version === 3) {
      this.header.incompatible &= ~INCOMPATIBLE.DIRTY;
      yield* this.writeHeader();
      yield* this.sync();
    }
    this.#marked = false;
  }

  free(): void {
    this.mapping.free();
    this.refcounts.free();
  }
}

const EIO = 5;

/** The error number that a guest or a caller is told. */
export function errnoOf(error: unknown): number {
  if (error instanceof Error && 'errno' in error && typeof error.errno === 'number') return error.errno;
  return EIO;
}
