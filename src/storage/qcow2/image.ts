import type { BlockImage, Extent } from '../block_image.ts';
import { StorageError } from '../error.ts';
import type { ImageFile } from '../image_file.ts';
import { type Done, finish, IoError, start, type Task, together, wait } from '../task.ts';
import { totalLength, viewsWithin } from '../views.ts';
import { isWritable, regionEnd, regionStart, reusable, unitMask } from './allocation.ts';
import { decompress } from './compression.ts';
import { encodeHeader } from './format.ts';
import type { Entry, Run } from './mapping.ts';
import { errnoOf, type Metadata } from './metadata.ts';
import { resizeImage } from './resize.ts';
import { findSnapshot, readSnapshots, settled } from './snapshots.ts';

const SECTOR = 512;
const ZEROS = new Uint8Array(256 * 1024);
/** Clusters that one step allocates together at most. */
const MAX_TOGETHER = 256;

export interface Qcow2Options {
  readonly readOnly: boolean;
  readonly backing?: BlockImage | undefined;
  /** Told of what is wrong with the image while it is used. */
  readonly onProblem?: (problem: Error) => void;
}

/** Clusters that an allocating write or a discard is busy with: others wait for it. */
interface Busy {
  readonly first: number;
  readonly last: number;
  readonly waiting: Done[];
}

/** A disk in a QCOW2 image, over a backing image where it has one. */
export class Qcow2Image implements BlockImage {
  readonly format = 'qcow2';
  readonly blockSize = SECTOR;
  readonly physicalBlockSize = 4096;
  readonly metadata: Metadata;
  readonly backing: BlockImage | undefined;
  readonly #file: ImageFile;
  readonly #onProblem: (problem: Error) => void;
  readonly #busy = new Set<Busy>();
  /** The last compressed cluster that was read, by where it is. */
  #decompressed: { host: number; bytes: Uint8Array } | undefined;
  /** Told of guest bytes that have changed. */
  onChange: ((offset: number, length: number) => void) | undefined;
  onClose: (() => Task) | undefined;
  #closed = false;
  /** Where the last packed cluster ends. */
  #packed = 0;

  constructor(metadata: Metadata, options: Qcow2Options) {
    this.metadata = metadata;
    this.#file = metadata.file;
    this.backing = options.backing;
    this.#onProblem = options.onProblem ?? (() => {});
  }

  get path(): string {
    return this.#file.path;
  }

  get size(): number {
    return Math.floor(this.metadata.header.size / SECTOR) * SECTOR;
  }

  get readOnly(): boolean {
    return this.metadata.readOnly;
  }

  get canDiscard(): boolean {
    return !this.readOnly;
  }

  get onBurst(): ((running: boolean) => void) | undefined {
    return this.#file.onBurst;
  }

  set onBurst(callback: ((running: boolean) => void) | undefined) {
    this.#file.onBurst = callback;
  }

  refreshSize(): boolean {
    return false;
  }

  batch(action: () => void): void {
    this.#file.batch(action);
  }

  drain(): boolean {
    return this.#file.drain() || (this.backing?.drain() ?? false);
  }

  /** Runs a task whose errors are told as numbers, and which clusters in limbo wait for. */
  #request(task: Task, done: Done): void {
    const generation = this.metadata.limbo.enter();
    start(task, (error) => {
      this.#left(generation);
      if (error === undefined) done(0);
      else {
        if (!(error instanceof IoError)) this.#onProblem(error as Error);
        done(errnoOf(error));
      }
    });
  }

  #left(generation: number): void {
    if (this.metadata.limbo.leave(generation)) this.metadata.reclaim();
  }

  read(offset: number, into: readonly Uint8Array[], done: Done): void {
    const length = totalLength(into);
    const run = this.#run(offset, length);
    if (run && run.length === length && (run.kind === 'data' || run.kind === 'shared')) {
      const generation = this.metadata.limbo.enter();
      this.#file.read(run.host, into, (errno) => {
        this.#left(generation);
        done(errno);
      });
    } else this.#request(this.#read(offset, into, length), done);
  }

  /** A run from memory; damage that it meets is left to the slow way, which can tell of it. */
  #run(offset: number, length: number): Run | undefined {
    try {
      return this.metadata.mapping.run(offset, length);
    } catch {
      return undefined;
    }
  }

  *#find(offset: number, length: number): Task<Run> {
    const {
      mapping,
      geometry: { clusterSize },
    } = this.metadata;
    for (;;) {
      const run = mapping.run(offset, length);
      if (run) return run;
      yield* mapping.load(Math.floor(offset / clusterSize));
    }
  }

  *#read(offset: number, into: readonly Uint8Array[], length: number): Task {
    const steps: ((done: Done) => void)[] = [];
    for (let at = 0; at < length; ) {
      const run = yield* this.#find(offset + at, length - at);
      const views = viewsWithin(into, at, run.length);
      const from = offset + at;
      if (run.kind === 'zero') for (const view of views) view.fill(0);
      else if (run.kind === 'hole') steps.push((done) => this.#readBacking(from, views, done));
      else if (run.kind === 'compressed') yield* this.#readCompressed(from, views);
      else steps.push((done) => this.#file.read(run.host, views, done));
      at += run.length;
    }
    yield* together(steps);
  }

  #readBacking(offset: number, views: readonly Uint8Array[], done: Done): void {
    const length = totalLength(views);
    const there = this.backing ? Math.max(0, Math.min(length, this.backing.size - offset)) : 0;
    if (there < length) for (const view of viewsWithin(views, there, length - there)) view.fill(0);
    if (there === 0 || !this.backing) done(0);
    else this.backing.read(offset, viewsWithin(views, 0, there), done);
  }

  *#readCompressed(offset: number, views: readonly Uint8Array[]): Task {
    const { clusterSize } = this.metadata.geometry;
    const { mapping } = this.metadata;
    const cluster = Math.floor(offset / clusterSize);
    yield* mapping.load(cluster);
    const bytes = yield* this.#cluster(mapping.entry(cluster));
    let at = offset % clusterSize;
    for (const view of views) {
      view.set(bytes.subarray(at, at + view.length));
      at += view.length;
    }
  }

  *#cluster(entry: Entry): Task<Uint8Array> {
    if (this.#decompressed?.host === entry.host) return this.#decompressed.bytes;
    const packed = new Uint8Array(Math.max(0, Math.min(entry.compressedLength, this.#file.length - entry.host)));
    yield* wait((done) => this.#file.read(entry.host, [packed], done));
    const { header, geometry } = this.metadata;
    let bytes: Uint8Array;
    try {
      bytes = decompress(header.compression, packed, geometry.clusterSize);
    } catch (cause) {
      throw new StorageError(
        `Compressed data at offset ${entry.host} of ${this.path} cannot be read: ${(cause as Error).message}`,
        undefined,
        cause,
      );
    }
    this.#decompressed = { host: entry.host, bytes };
    return bytes;
  }

  write(offset: number, from: readonly Uint8Array[], done: Done): void {
    const length = totalLength(from);
    const run = this.#run(offset, length);
    if (run && run.kind === 'data' && run.length === length && !this.onChange && !this.#guarded(run)) {
      const generation = this.metadata.limbo.enter();
      this.#file.write(run.host, from, (errno) => {
        this.#left(generation);
        done(errno);
      });
    } else this.#request(this.#write(offset, from, length), done);
  }

  #guarded(run: Run): boolean {
    try {
      this.metadata.checkData(run.host, run.length);
      return false;
    } catch {
      return true;
    }
  }

  *#write(offset: number, from: readonly Uint8Array[], length: number): Task {
    const { metadata } = this;
    this.onChange?.(offset, length);
    const steps: ((done: Done) => void)[] = [];
    for (let at = 0; at < length; ) {
      const run = yield* this.#find(offset + at, length - at);
      const views = viewsWithin(from, at, run.length);
      if (run.kind === 'data') {
        metadata.checkData(run.host, run.length);
        steps.push((done) => this.#file.write(run.host, views, done));
        at += run.length;
      } else at += yield* this.#writeNew(offset + at, viewsWithin(from, at, length - at), length - at);
    }
    yield* together(steps);
  }

  /** Runs a task while nobody else changes where these clusters are. */
  *#exclusive<T>(first: number, last: number, task: () => Task<T>): Task<T> {
    for (;;) {
      const other = [...this.#busy].find((busy) => busy.first <= last && first <= busy.last);
      if (!other) break;
      yield (done) => other.waiting.push(done);
    }
    const busy: Busy = { first, last, waiting: [] };
    this.#busy.add(busy);
    try {
      return yield* task();
    } finally {
      this.#busy.delete(busy);
      for (const done of busy.waiting) done(0);
    }
  }

  /** Makes room first: too many changes in memory are written before there are more. */
  *#breathe(): Task {
    if (this.metadata.crowded) yield (done) => this.metadata.commit(done);
  }

  /**
   * Writes to where nothing can be written in place: clusters are allocated, and what of them is not written is
   * copied.
   * @returns how many bytes it has written.
   */
  *#writeNew(offset: number, views: readonly Uint8Array[], length: number): Task<number> {
    const { clusterSize, refcountsPerBlock } = this.metadata.geometry;
    const { mapping } = this.metadata;
    yield* this.#breathe();
    const first = Math.floor(offset / clusterSize);
    const end = Math.floor((offset + length - 1) / clusterSize);
    const last = Math.min(end, first + Math.min(mapping.sliceRoom(first), MAX_TOGETHER, refcountsPerBlock - 1) - 1);
    return yield* this.#exclusive(first, last, () => this.#allocateAndWrite(offset, views, length, first, last));
  }

  *#allocateAndWrite(
    offset: number,
    views: readonly Uint8Array[],
    length: number,
    first: number,
    last: number,
  ): Task<number> {
    const { metadata } = this;
    const { clusterSize, subclusterSize: unit, extendedL2 } = metadata.geometry;
    const { mapping } = metadata;
    // Whoever was busy here before may have made a place already.
    const now = yield* this.#find(offset, length);
    if (now.kind === 'data') return yield* this.#writeInPlace(now, viewsWithin(views, 0, now.length));

    yield* metadata.lock.hold(() => metadata.ownTable(first));
    yield* mapping.load(first);
    const entries: Entry[] = [];
    for (let cluster = first; cluster <= last; cluster++) {
      const entry = mapping.entry(cluster);
      const inPlace = reusable(entry);
      // Clusters that are there already are taken one by one; new ones together.
      if (entries.length > 0 && (inPlace || reusable(entries[0]) || isWritable(entry, extendedL2))) break;
      entries.push(entry);
      if (inPlace) break;
    }
    const count = entries.length;
    const bytes = Math.min(length, (first + count) * clusterSize - offset);
    const reuse = reusable(entries[0]);
    let host: number;
    let fresh = false;
    if (reuse) host = entries[0].host;
    else {
      yield* metadata.beginChange();
      host = yield* metadata.lock.hold(() => metadata.refcounts.allocate(count));
      // Behind the end of the file there are zeros already.
      fresh = host >= this.#file.length;
    }
    metadata.checkData(host, count * clusterSize);
    try {
      const from = regionStart(offset, entries[0], reuse, unit, clusterSize);
      const to = regionEnd(offset + bytes, entries[count - 1], reuse, unit, clusterSize);
      const head = yield* this.#around(from, offset, fresh);
      const tail = yield* this.#around(offset + bytes, to, fresh);
      const pieces = [...(head ? [head] : []), ...viewsWithin(views, 0, bytes), ...(tail ? [tail] : [])];
      const start = host + ((head ? from : offset) - first * clusterSize);
      yield* wait((done) => this.#file.write(start, pieces, done));
      yield* mapping.load(first);
      for (let i = 0; i < count; i++) {
        const begin = (first + i) * clusterSize;
        const mask = unitMask(from - begin, to - begin, unit, clusterSize);
        const old = entries[i];
        const kept = reuse || (!old.compressed && old.host === 0) ? old : { allocated: 0, zero: old.zero };
        mapping.set(first + i, host + i * clusterSize, kept.allocated | mask, kept.zero & ~mask);
        if (!reuse) this.#releaseOld(old);
      }
    } catch (error) {
      // Nothing leads to the new clusters yet.
      if (!reuse) metadata.release(host, count);
      throw error;
    }
    return bytes;
  }

  *#writeInPlace(run: Run, views: readonly Uint8Array[]): Task<number> {
    this.metadata.checkData(run.host, run.length);
    yield* wait((done) => this.#file.write(run.host, views, done));
    return run.length;
  }

  /** What stays around a write, from `from` to `to`. @returns undefined for nothing, or zeros that are there. */
  *#around(from: number, to: number, fresh: boolean): Task<Uint8Array | undefined> {
    if (to <= from) return undefined;
    const end = Math.min(to, this.metadata.header.size);
    let zero = true;
    for (let at = from; at < end && zero; ) {
      const run = yield* this.#find(at, end - at);
      zero = run.kind === 'zero' || (run.kind === 'hole' && (!this.backing || at >= this.backing.size));
      at += run.length;
    }
    if (zero)
      return fresh ? undefined : to - from <= ZEROS.length ? ZEROS.subarray(0, to - from) : new Uint8Array(to - from);
    const bytes = new Uint8Array(to - from);
    if (end > from) yield* this.#read(from, [bytes.subarray(0, end - from)], end - from);
    return bytes;
  }

  /** The clusters of an entry that was replaced. */
  #releaseOld(entry: Entry, discard = false): void {
    const { clusterSize } = this.metadata.geometry;
    if (entry.host === 0) return;
    if (entry.compressed) {
      const first = Math.floor(entry.host / clusterSize);
      const last = Math.floor((entry.host + entry.compressedLength - 1) / clusterSize);
      this.metadata.release(first * clusterSize, last - first + 1);
      if (this.#decompressed?.host === entry.host) this.#decompressed = undefined;
    } else this.metadata.release(entry.host, 1, discard);
  }

  /**
   * Writes a guest cluster that is compressed already, behind the one before it. For making images: nobody else
   * may be at the image.
   */
  *writeCompressed(cluster: number, packed: Uint8Array): Task {
    const { metadata } = this;
    const { clusterSize } = metadata.geometry;
    const { refcounts, mapping } = metadata;
    yield* this.#breathe();
    yield* metadata.beginChange();
    const room = this.#packed === 0 ? 0 : clusterSize - (this.#packed % clusterSize || clusterSize);
    const current = Math.floor(this.#packed / clusterSize);
    const shared = room > 0 && (yield* refcounts.get(current)) < refcounts.maximum;
    if (!shared || room < packed.length) {
      const next = yield* metadata.lock.hold(() => refcounts.allocate(1));
      // What does not fit goes on in the next cluster, if that is the one behind.
      if (!shared || next !== (current + 1) * clusterSize) this.#packed = next;
      else yield* refcounts.add(current, 1, 1);
    } else yield* refcounts.add(current, 1, 1);
    const host = this.#packed;
    yield* wait((done) => this.#file.write(host, [packed], done));
    yield* metadata.lock.hold(() => metadata.ownTable(cluster));
    yield* mapping.load(cluster);
    this.#releaseOld(mapping.entry(cluster));
    mapping.setCompressed(cluster, host, packed.length);
    this.#packed = host + packed.length;
  }

  /** Has every cluster be the backing image's again. */
  *empty(): Task {
    const { mapping, header, geometry } = this.metadata;
    const end = Math.ceil(header.size / geometry.clusterSize);
    yield* this.metadata.beginChange();
    for (let cluster = 0; cluster < end; ) {
      const room = Math.min(mapping.sliceRoom(cluster), end - cluster);
      const first = cluster;
      if (mapping.l2Offset(mapping.l1Index(cluster)) !== 0) {
        yield* this.metadata.lock.hold(() => this.metadata.ownTable(first));
        yield* mapping.load(first);
        for (let i = first; i < first + room; i++) {
          this.#releaseOld(mapping.entry(i), true);
          mapping.set(i, 0, 0, 0);
        }
        yield* this.#breathe();
      }
      cluster += room;
    }
    yield* settled(this.metadata);
  }

  flush(done: Done): void {
    this.metadata.commit(done);
  }

  discard(offset: number, length: number, done: Done): void {
    const { clusterSize } = this.metadata.geometry;
    const { header } = this.metadata;
    const first = Math.ceil(offset / clusterSize);
    const end =
      offset + length >= header.size
        ? Math.ceil(header.size / clusterSize)
        : Math.floor((offset + length) / clusterSize);
    // Without zero flags the backing image would shine through: a discard is advice, and is not taken here.
    if (end <= first || (this.backing && header.version === 2)) done(0);
    else this.#request(this.#unmap(first, end, true), done);
  }

  writeZeroes(offset: number, length: number, mayUnmap: boolean, done: Done): void {
    this.#request(this.#zero(offset, length, mayUnmap), done);
  }

  *#zero(offset: number, length: number, mayUnmap: boolean): Task {
    const {
      header,
      geometry: { clusterSize },
    } = this.metadata;
    const end = offset + length;
    const first = Math.ceil(offset / clusterSize);
    const last = end >= header.size ? Math.ceil(header.size / clusterSize) : Math.floor(end / clusterSize);
    if (last <= first || (header.version === 2 && this.backing)) {
      yield* this.#writeZeros(offset, end);
      return;
    }
    yield* this.#writeZeros(offset, first * clusterSize);
    yield* this.#unmap(first, last, mayUnmap);
    yield* this.#writeZeros(Math.min(end, last * clusterSize), end);
  }

  *#writeZeros(from: number, to: number): Task {
    for (let at = from; at < to; ) {
      const run = yield* this.#find(at, to - at);
      // What reads as zeros stays as it is.
      const already = run.kind === 'zero' || (run.kind === 'hole' && !this.backing);
      const piece = already ? run.length : Math.min(run.length, ZEROS.length);
      if (!already) yield* this.#write(at, [ZEROS.subarray(0, piece)], piece);
      at += piece;
    }
  }

  /** Has clusters read as zeros; `free` gives up what they had. */
  *#unmap(first: number, end: number, free: boolean): Task {
    const { metadata } = this;
    const { mapping } = metadata;
    const { l2Entries, clusterSize, extendedL2 } = metadata.geometry;
    this.onChange?.(first * clusterSize, (end - first) * clusterSize);
    const flag = metadata.header.version === 3;
    for (let cluster = first; cluster < end; ) {
      const room = Math.min(mapping.sliceRoom(cluster), end - cluster);
      if (mapping.l2Offset(mapping.l1Index(cluster)) === 0 && !this.backing) {
        cluster = Math.min(end, (mapping.l1Index(cluster) + 1) * l2Entries);
        continue;
      }
      yield* this.#breathe();
      const from = cluster;
      yield* this.#exclusive(from, from + room - 1, () => this.#unmapPiece(from, room, flag, free, extendedL2));
      cluster += room;
    }
  }

  *#unmapPiece(first: number, count: number, flag: boolean, free: boolean, extendedL2: boolean): Task {
    const { metadata } = this;
    const { mapping } = metadata;
    const allZero = extendedL2 ? 0xffffffff : 1;
    yield* metadata.lock.hold(() => metadata.ownTable(first));
    yield* metadata.beginChange();
    yield* mapping.load(first);
    for (let cluster = first; cluster < first + count; cluster++) {
      const entry = mapping.entry(cluster);
      const keep = !free && flag && entry.copied && entry.host !== 0 && !entry.compressed;
      const zero = flag && (this.backing !== undefined || keep) ? allZero : 0;
      if (entry.host === 0 && (entry.zero | 0) === (zero | 0)) continue;
      mapping.set(cluster, keep ? entry.host : 0, 0, zero);
      if (!keep) this.#releaseOld(entry, free);
    }
  }

  *extent(offset: number): Task<Extent> {
    const { header } = this.metadata;
    const run = yield* this.#find(offset, header.size - offset);
    const { length, kind, host } = run;
    if (kind === 'hole' || kind === 'zero') return { length, kind };
    if (kind === 'compressed') return { length, kind: 'data', compressed: true };
    const stored = this.#file.dataAt(host);
    const known = Math.max(1, Math.min(length, stored.length));
    return {
      length: stored.data ? known : stored.length > 0 ? known : length,
      kind: 'data',
      fileOffset: host,
      sparse: !stored.data,
    };
  }

  /** Names another backing file, or none. What the image holds stays as it is. */
  *rename(backing: string | undefined, format: string | undefined): Task {
    const { header } = this.metadata;
    yield* settled(this.metadata);
    header.backing = backing;
    header.backingFormat = backing === undefined ? undefined : format;
    const bytes = encodeHeader(header);
    yield* wait((done) => this.#file.write(0, [bytes], done));
    yield* this.metadata.sync();
  }

  /** Shows the disk as it was at a snapshot, for an image that is only read. */
  *lookAt(wanted: string): Task {
    const { metadata } = this;
    const snapshot = findSnapshot(yield* readSnapshots(metadata), wanted, this.path);
    metadata.header.l1Offset = snapshot.l1Offset;
    metadata.header.l1Size = snapshot.l1Size;
    metadata.header.size = snapshot.diskSize;
    yield* metadata.loadL1();
  }

  /** Another size. What is new reads as zeros. The image must be at rest. */
  *resize(size: number): Task {
    const before = this.metadata.header.size;
    yield* resizeImage(this.metadata, size);
    const { clusterSize } = this.metadata.geometry;
    // The rest of what was the last cluster, and what the backing image has there, would come to light.
    const end = Math.max(Math.ceil(before / clusterSize) * clusterSize, this.backing?.size ?? 0);
    if (size > before) yield* this.#zero(before, Math.min(size, end) - before, false);
    yield (done) => this.flush(done);
  }

  /** Runs a task of several steps on the image, in place. */
  finish<T>(task: Task<T>): T {
    return finish(task, () => this.drain());
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    try {
      while (this.#file.drain());
      this.finish(this.#settle());
    } finally {
      this.#file.close();
      this.metadata.free();
      this.backing?.close();
    }
  }

  *#settle(): Task {
    if (this.readOnly) return;
    if (this.onClose) yield* this.onClose();
    yield* this.metadata.settle();
  }
}
