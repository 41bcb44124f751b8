import { type Task, wait } from '../task.ts';
import { readBitmapClusters } from './bitmaps.ts';
import { INCOMPATIBLE } from './format.ts';
import { decodeEntry, decodeL1 } from './mapping.ts';
import type { Metadata } from './metadata.ts';
import { encodeSnapshots, readSnapshots, settled, updateCopied } from './snapshots.ts';

/** What a check has found. Counts are of clusters or table entries. */
export interface CheckReport {
  corruptions: number;
  leaks: number;
  corruptionsFixed: number;
  leaksFixed: number;
  totalClusters: number;
  allocatedClusters: number;
  compressedClusters: number;
  fragmentedClusters: number;
  /** Offset behind the last cluster in use. */
  imageEnd: number;
  /** The first problems, as sentences. */
  problems: string[];
}

export type Repair = 'none' | 'leaks' | 'all';
const MAX_PROBLEMS = 100;
/** Clusters that a check can count in memory. */
const MAX_CLUSTERS = 2 ** 28;

/**
 * Counts anew what uses each cluster, and compares with the image's refcounts and flags. A repair sets them
 * right; entries that lead nowhere are removed by `all`.
 */
export function* checkImage(
  metadata: Metadata,
  repair: Repair,
  progress?: (done: number, total: number) => void,
): Task<CheckReport> {
  return yield* new Checker(metadata, repair, progress).run();
}

class Checker {
  readonly #metadata: Metadata;
  readonly #repair: Repair;
  readonly #progress: (done: number, total: number) => void;
  readonly #uses: Uint32Array;
  readonly #report: CheckReport;

  constructor(metadata: Metadata, repair: Repair, progress: (done: number, total: number) => void = () => {}) {
    this.#metadata = metadata;
    this.#repair = repair;
    this.#progress = progress;
    const { clusterSize } = metadata.geometry;
    const clusters = Math.ceil(metadata.file.length / clusterSize);
    if (clusters > MAX_CLUSTERS)
      throw new RangeError(`${metadata.file.path} has ${clusters} clusters, too many to check.`);
    this.#uses = new Uint32Array(clusters);
    this.#report = {
      corruptions: 0,
      leaks: 0,
      corruptionsFixed: 0,
      leaksFixed: 0,
      totalClusters: Math.ceil(metadata.header.size / clusterSize),
      allocatedClusters: 0,
      compressedClusters: 0,
      fragmentedClusters: 0,
      imageEnd: 0,
      problems: [],
    };
  }

  #problem(text: string, kind: 'corruptions' | 'leaks'): void {
    this.#report[kind]++;
    if (this.#report.problems.length < MAX_PROBLEMS) this.#report.problems.push(text);
  }

  /** @returns false for bytes that the file does not have. */
  #use(offset: number, length: number, what: string): boolean {
    const { clusterSize } = this.#metadata.geometry;
    const first = Math.floor(offset / clusterSize);
    const last = Math.floor((offset + Math.max(1, length) - 1) / clusterSize);
    if (last >= this.#uses.length) {
      this.#problem(`ERROR: ${what} is at offset ${offset}, behind the end of the file.`, 'corruptions');
      return false;
    }
    for (let cluster = first; cluster <= last; cluster++) this.#uses[cluster]++;
    return true;
  }

  *run(): Task<CheckReport> {
    const { header, geometry, mapping, refcounts } = this.#metadata;
    const { clusterSize } = geometry;
    const tables = mapping.l1.length + 1;
    this.#use(0, clusterSize, 'the header');
    this.#use(header.refcountTableOffset, header.refcountTableClusters * clusterSize, 'the refcount table');
    for (const [i, block] of refcounts.table.entries()) {
      if (block === 0) continue;
      if (Number.isNaN(block) || block % clusterSize !== 0) {
        this.#problem(
          `ERROR: refcount block ${i} is at offset ${block}, which does not begin a cluster.`,
          'corruptions',
        );
      } else this.#use(block, clusterSize, `refcount block ${i}`);
    }
    if (mapping.l1.length > 0) this.#use(header.l1Offset, mapping.l1.length * 8, 'the L1 table');
    yield* this.#tree(mapping.l1, 'the disk', true, tables);
    yield* this.#snapshots();
    for (const { offset, length } of yield* readBitmapClusters(this.#metadata)) this.#use(offset, length, 'a bitmap');
    yield* this.#compare();
    yield* this.#flags();
    yield* this.#finish();
    return this.#report;
  }

  *#snapshots(): Task {
    const snapshots = yield* readSnapshots(this.#metadata);
    if (snapshots.length > 0) {
      this.#use(this.#metadata.header.snapshotsOffset, encodeSnapshots(snapshots).length, 'the snapshot table');
    }
    for (const { l1Offset, l1Size, id } of snapshots) {
      if (l1Size > 0 && !this.#use(l1Offset, l1Size * 8, `the L1 table of snapshot ${id}`)) continue;
      const bytes = new Uint8Array(l1Size * 8);
      if (l1Size > 0) yield* wait((done) => this.#metadata.file.read(l1Offset, [bytes], done));
      const view = new DataView(bytes.buffer);
      const l1 = Array.from({ length: l1Size }, (_, i) => decodeL1(view, i * 8).offset);
      yield* this.#tree(l1, `snapshot ${id}`, false, 0);
    }
  }

  *#tree(l1: readonly number[], owner: string, active: boolean, total: number): Task {
    const { mapping, geometry, header } = this.#metadata;
    const { clusterSize, entrySize, l2Entries } = geometry;
    const { sliceSize } = mapping.cache;
    let next = -1;
    for (const [index, table] of l1.entries()) {
      if (total > 0) this.#progress(index, total);
      if (table === 0) continue;
      const what = `L2 table ${index} of ${owner}`;
      if (table % clusterSize !== 0) {
        this.#problem(`ERROR: ${what} is at offset ${table}, which does not begin a cluster.`, 'corruptions');
        if (this.#repair === 'all' && active) this.#dropTable(index);
        continue;
      }
      if (!this.#use(table, clusterSize, what)) {
        if (this.#repair === 'all' && active) this.#dropTable(index);
        continue;
      }
      for (let at = 0; at < clusterSize; at += sliceSize) {
        const slice = yield* mapping.cache.load(table + at);
        for (let entry = 0; entry < sliceSize; entry += entrySize) {
          const decoded = decodeEntry(slice.view, entry, geometry);
          if (decoded.host === 0) continue;
          const cluster = index * l2Entries + (at + entry) / entrySize;
          const name = `guest cluster ${cluster} of ${owner}`;
          const aligned = decoded.compressed || decoded.host % clusterSize === 0;
          // The last sectors of compressed data need not be there.
          const length = decoded.compressed
            ? Math.min(decoded.compressedLength, Math.max(1, this.#metadata.file.length - decoded.host))
            : clusterSize;
          if (!aligned) this.#problem(`ERROR: ${name} is at offset ${decoded.host}, within a cluster.`, 'corruptions');
          if (!aligned || !this.#use(decoded.host, length, name)) {
            if (this.#repair !== 'all') continue;
            for (let i = 0; i < entrySize; i += 4) slice.view.setUint32(entry + i, 0);
            mapping.cache.dirty(slice);
            this.#report.corruptionsFixed++;
            continue;
          }
          if (!active || cluster * clusterSize >= header.size) continue;
          this.#report.allocatedClusters++;
          if (decoded.compressed) {
            this.#report.compressedClusters++;
            this.#report.fragmentedClusters++;
          } else {
            if (next >= 0 && decoded.host !== next) this.#report.fragmentedClusters++;
            next = decoded.host + clusterSize;
          }
        }
      }
    }
  }

  #dropTable(index: number): void {
    const { mapping } = this.#metadata;
    mapping.l1[index] = 0;
    mapping.l1Copied[index] = false;
    mapping.dirtyL1.add(index);
    this.#report.corruptionsFixed++;
  }

  *#compare(): Task {
    const { refcounts, geometry } = this.#metadata;
    const { clusterSize, refcountsPerBlock } = geometry;
    const counted = this.#uses.length;
    for (let cluster = 0; cluster < counted; cluster++) {
      const uses = this.#uses[cluster];
      if (uses > 0) this.#report.imageEnd = (cluster + 1) * clusterSize;
      const block = refcounts.table[Math.floor(cluster / refcountsPerBlock)] ?? 0;
      const count = block === 0 || block % clusterSize !== 0 ? 0 : yield* refcounts.get(cluster);
      if (count === uses) continue;
      const fix = this.#repair === 'all' || (this.#repair === 'leaks' && count > uses);
      if (count > uses) {
        this.#problem(`Leaked cluster ${cluster}: it is counted ${count} times and used ${uses}.`, 'leaks');
        if (fix) this.#report.leaksFixed++;
      } else {
        this.#problem(`ERROR: cluster ${cluster} is counted ${count} times and used ${uses}.`, 'corruptions');
        if (fix) this.#report.corruptionsFixed++;
      }
      if (fix) yield* refcounts.set(cluster, uses);
    }
  }

  /** Which entries say that nobody else uses their cluster. */
  *#flags(): Task {
    const { mapping, geometry } = this.#metadata;
    const { clusterSize, entrySize } = geometry;
    if (this.#repair === 'all') {
      const wrong = yield* updateCopied(this.#metadata);
      this.#report.corruptions += wrong;
      this.#report.corruptionsFixed += wrong;
      return;
    }
    const expected = (cluster: number) => this.#uses[cluster] === 1;
    for (const [index, table] of mapping.l1.entries()) {
      if (table === 0 || table % clusterSize !== 0 || table / clusterSize >= this.#uses.length) continue;
      if (mapping.l1Copied[index] !== expected(table / clusterSize)) {
        this.#problem(`ERROR: the flag of L2 table ${index} is wrong.`, 'corruptions');
      }
      for (let at = 0; at < clusterSize; at += mapping.cache.sliceSize) {
        const slice = yield* mapping.cache.load(table + at);
        for (let entry = 0; entry < slice.bytes.length; entry += entrySize) {
          const { host, compressed, copied } = decodeEntry(slice.view, entry, geometry);
          if (host === 0 || compressed || host % clusterSize !== 0) continue;
          if (copied !== expected(host / clusterSize)) {
            this.#problem(`ERROR: the flag of the data at offset ${host} is wrong.`, 'corruptions');
          }
        }
      }
    }
  }

  *#finish(): Task {
    const metadata = this.#metadata;
    if (this.#repair === 'none') return;
    const { header } = metadata;
    yield* settled(metadata);
    const clean = this.#report.corruptions === this.#report.corruptionsFixed;
    const bits = INCOMPATIBLE.DIRTY | INCOMPATIBLE.CORRUPT;
    if (header.version === 3 && clean && this.#repair === 'all' && header.incompatible & bits) {
      header.incompatible &= ~bits;
      metadata.headerChanged();
    }
    yield* settled(metadata);
  }
}
