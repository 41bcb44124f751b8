import { StorageError } from '../error.ts';
import { type Task, wait } from '../task.ts';
import { type Geometry, invalid, MAX_OFFSET } from './format.ts';
import { decodeEntry, decodeL1 } from './mapping.ts';
import type { Metadata } from './metadata.ts';

const FIXED_SIZE = 40;
const EXTRA_SIZE = 24;
const MAX_EXTRA = 1024;
const MAX_L1_BYTES = 32 << 20;
const COPIED_HIGH = 0x80000000;

/** A snapshot inside an image. */
export interface Snapshot {
  readonly id: string;
  readonly name: string;
  /** Milliseconds since 1970. */
  readonly date: number;
  /** Nanoseconds that the guest's clock had run. */
  readonly vmClock: bigint;
  /** Bytes of saved machine state. */
  readonly vmStateSize: number;
  /** Bytes of the disk then. */
  readonly diskSize: number;
  readonly l1Offset: number;
  readonly l1Size: number;
  /** Of extra data, what is behind the part that is known. */
  readonly icount: bigint | undefined;
}

/** Reads the snapshot table, which an enemy may have written. @throws StorageError. */
export function* readSnapshots(metadata: Metadata): Task<Snapshot[]> {
  const { header, file } = metadata;
  const { clusterSize } = metadata.geometry;
  const snapshots: Snapshot[] = [];
  let at = header.snapshotsOffset;
  for (let i = 0; i < header.snapshotCount; i++) {
    const fixed = new Uint8Array(FIXED_SIZE);
    if (at + FIXED_SIZE > file.length) throw invalid(file.path, `the table ends in snapshot ${i + 1}`);
    yield* wait((done) => file.read(at, [fixed], done));
    const view = new DataView(fixed.buffer);
    const [idSize, nameSize, extraSize] = [view.getUint16(12), view.getUint16(14), view.getUint32(36)];
    if (extraSize > MAX_EXTRA) throw invalid(file.path, `snapshot ${i + 1} has ${extraSize} bytes of extra data`);
    const rest = new Uint8Array(extraSize + idSize + nameSize);
    yield* wait((done) => file.read(at + FIXED_SIZE, [rest], done));
    const extra = new DataView(rest.buffer, 0, extraSize);
    const text = (from: number, length: number) => Buffer.from(rest.subarray(from, from + length)).toString('utf8');
    const id = text(extraSize, idSize);
    const l1Offset = Number(view.getBigUint64(0));
    const l1Size = view.getUint32(8);
    if (l1Offset % clusterSize !== 0 || l1Offset > MAX_OFFSET || l1Size * 8 > MAX_L1_BYTES) {
      throw invalid(file.path, `the L1 table of snapshot ${id} is at ${l1Offset} and has ${l1Size} entries`);
    }
    snapshots.push({
      id,
      name: text(extraSize + idSize, nameSize),
      date: view.getUint32(16) * 1000 + Math.floor(view.getUint32(20) / 1e6),
      vmClock: view.getBigUint64(24),
      vmStateSize: extraSize >= 8 ? Number(extra.getBigUint64(0)) : view.getUint32(32),
      diskSize: extraSize >= 16 ? Number(extra.getBigUint64(8)) : header.size,
      icount: extraSize >= 24 ? extra.getBigUint64(16) : undefined,
      l1Offset,
      l1Size,
    });
    at += Math.ceil((FIXED_SIZE + rest.length) / 8) * 8;
  }
  return snapshots;
}

/** Bytes of the snapshot table in the file. */
export function encodeSnapshots(snapshots: readonly Snapshot[]): Uint8Array {
  const entries = snapshots.map((snapshot) => {
    const [id, name] = [Buffer.from(snapshot.id), Buffer.from(snapshot.name)];
    const bytes = Buffer.alloc(Math.ceil((FIXED_SIZE + EXTRA_SIZE + id.length + name.length) / 8) * 8);
    bytes.writeBigUInt64BE(BigInt(snapshot.l1Offset), 0);
    bytes.writeUInt32BE(snapshot.l1Size, 8);
    bytes.writeUInt16BE(id.length, 12);
    bytes.writeUInt16BE(name.length, 14);
    bytes.writeUInt32BE(Math.floor(snapshot.date / 1000), 16);
    bytes.writeUInt32BE((snapshot.date % 1000) * 1e6, 20);
    bytes.writeBigUInt64BE(snapshot.vmClock, 24);
    bytes.writeUInt32BE(Math.min(snapshot.vmStateSize, 0xffffffff), 32);
    bytes.writeUInt32BE(EXTRA_SIZE, 36);
    bytes.writeBigUInt64BE(BigInt(snapshot.vmStateSize), 40);
    bytes.writeBigUInt64BE(BigInt(snapshot.diskSize), 48);
    // All ones: without record and replay there is no instruction count.
    bytes.writeBigUInt64BE(snapshot.icount ?? 0xffffffffffffffffn, 56);
    id.copy(bytes, FIXED_SIZE + EXTRA_SIZE);
    name.copy(bytes, FIXED_SIZE + EXTRA_SIZE + id.length);
    return bytes;
  });
  return Buffer.concat(entries);
}

/** One by its name or, failing that, its number. @throws StorageError that lists what there is. */
export function findSnapshot(snapshots: readonly Snapshot[], wanted: string, path: string): Snapshot {
  const found = snapshots.find(({ name }) => name === wanted) ?? snapshots.find(({ id }) => id === wanted);
  if (found) return found;
  const names = snapshots.map(({ name }) => name).join(', ');
  throw new StorageError(
    `${path} has no snapshot "${wanted}".`,
    names ? `It has ${names}.` : 'It has none at all: nemu image snapshot --create NAME FILE',
  );
}

/** Keeps the disk as it is now. The image must be at rest. */
export function* createSnapshot(metadata: Metadata, name: string, date = Date.now()): Task<Snapshot> {
  const snapshots = yield* readSnapshots(metadata);
  if (snapshots.some((each) => each.name === name)) {
    throw new StorageError(`${metadata.file.path} has a snapshot "${name}" already.`, 'Take another name.');
  }
  yield* atRest(metadata);
  const { mapping, header } = metadata;
  const l1 = mapping.encodeL1();
  const l1Offset = yield* writeNew(metadata, l1);
  yield* changeCounts(metadata, l1Entries(l1), 1);
  yield* updateCopied(metadata);
  const snapshot: Snapshot = {
    id: String(Math.max(0, ...snapshots.map(({ id }) => Number.parseInt(id, 10) || 0)) + 1),
    name,
    date,
    vmClock: 0n,
    vmStateSize: 0,
    diskSize: header.size,
    l1Offset,
    l1Size: mapping.l1.length,
    icount: undefined,
  };
  yield* writeTable(metadata, [...snapshots, snapshot]);
  return snapshot;
}

/** Puts the disk back to what it was; what it is now is lost. The image must be at rest. */
export function* applySnapshot(metadata: Metadata, wanted: string): Task {
  const { mapping, header, file } = metadata;
  const snapshot = findSnapshot(yield* readSnapshots(metadata), wanted, file.path);
  if (snapshot.diskSize !== header.size && header.version === 2) {
    throw new StorageError(`The disk had ${snapshot.diskSize} bytes then, and a version 2 image cannot say so.`);
  }
  yield* atRest(metadata);
  const old = mapping.encodeL1();
  const l1 = yield* readTable(metadata, snapshot);
  // What comes is counted before what goes, so that nothing is free in between.
  yield* changeCounts(metadata, l1Entries(l1), 1);
  const padded = new Uint8Array(Math.max(l1.length, 8));
  padded.set(l1);
  const offset = yield* writeNew(metadata, padded);
  yield* settled(metadata);
  const former = { offset: header.l1Offset, clusters: metadata.clusters(header.l1Size * 8) };
  header.l1Offset = offset;
  header.l1Size = snapshot.l1Size;
  header.size = snapshot.diskSize;
  yield* metadata.sync();
  yield* metadata.writeHeader();
  yield* metadata.sync();
  yield* changeCounts(metadata, l1Entries(old), -1);
  metadata.release(former.offset, former.clusters);
  yield* metadata.loadL1();
  yield* updateCopied(metadata);
  yield* settled(metadata);
}

/** Forgets a snapshot and gives up what only it has used. The image must be at rest. */
export function* deleteSnapshot(metadata: Metadata, wanted: string): Task {
  const snapshots = yield* readSnapshots(metadata);
  const snapshot = findSnapshot(snapshots, wanted, metadata.file.path);
  yield* atRest(metadata);
  const l1 = yield* readTable(metadata, snapshot);
  yield* writeTable(
    metadata,
    snapshots.filter((each) => each !== snapshot),
  );
  yield* changeCounts(metadata, l1Entries(l1), -1);
  metadata.release(snapshot.l1Offset, metadata.clusters(snapshot.l1Size * 8));
  yield* settled(metadata);
  yield* updateCopied(metadata);
  yield* settled(metadata);
}

function* atRest(metadata: Metadata): Task {
  yield* metadata.beginChange();
  yield* settled(metadata);
}

export function* settled(metadata: Metadata): Task {
  while (metadata.changed || !metadata.limbo.empty) yield (done) => metadata.commit(done);
}

function* readTable({ file }: Metadata, { l1Offset, l1Size }: Snapshot): Task<Uint8Array> {
  const bytes = new Uint8Array(l1Size * 8);
  if (bytes.length > 0) yield* wait((done) => file.read(l1Offset, [bytes], done));
  return bytes;
}

/** Puts bytes into clusters of their own. */
export function* writeNew(metadata: Metadata, bytes: Uint8Array): Task<number> {
  const { clusterSize } = metadata.geometry;
  const clusters = Math.max(1, metadata.clusters(bytes.length));
  yield* metadata.beginChange();
  const offset = yield* metadata.lock.hold(() => metadata.refcounts.allocate(clusters));
  const padded = new Uint8Array(clusters * clusterSize);
  padded.set(bytes);
  yield* wait((done) => metadata.file.write(offset, [padded], done));
  return offset;
}

function* writeTable(metadata: Metadata, snapshots: readonly Snapshot[]): Task {
  const { header } = metadata;
  const former = { offset: header.snapshotsOffset, bytes: 0 };
  for (const each of yield* readSnapshots(metadata)) former.bytes += encodeSnapshots([each]).length;
  const offset = snapshots.length === 0 ? 0 : yield* writeNew(metadata, encodeSnapshots(snapshots));
  yield* settled(metadata);
  yield* metadata.sync();
  header.snapshotsOffset = offset;
  header.snapshotCount = snapshots.length;
  yield* metadata.writeHeader();
  yield* metadata.sync();
  if (former.offset !== 0) metadata.release(former.offset, metadata.clusters(former.bytes));
  yield* settled(metadata);
}

const l1Entries = (bytes: Uint8Array): number[] => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Array.from({ length: bytes.length / 8 }, (_, i) => decodeL1(view, i * 8).offset).filter((at) => at !== 0);
};

/** Clusters that an entry uses. */
export function entryClusters(view: DataView, at: number, geometry: Geometry): { first: number; count: number } {
  const { host, compressed, compressedLength } = decodeEntry(view, at, geometry);
  const first = Math.floor(host / geometry.clusterSize);
  if (host === 0) return { first, count: 0 };
  const last = compressed ? Math.floor((host + compressedLength - 1) / geometry.clusterSize) : first;
  return { first, count: last - first + 1 };
}

/** Adds to the counts of L2 tables and all that they lead to. */
function* changeCounts(metadata: Metadata, tables: readonly number[], delta: 1 | -1): Task {
  const { mapping, refcounts, geometry } = metadata;
  const { clusterSize, entrySize } = geometry;
  const { sliceSize } = mapping.cache;
  for (const table of tables) {
    if (table % clusterSize !== 0) throw invalid(metadata.file.path, `an L2 table is at ${table}`);
    for (let at = 0; at < clusterSize; at += sliceSize) {
      const bytes = (yield* mapping.cache.load(table + at)).bytes.slice();
      const view = new DataView(bytes.buffer);
      for (let entry = 0; entry < sliceSize; entry += entrySize) {
        const { first, count } = entryClusters(view, entry, geometry);
        if (count === 0) continue;
        if (delta > 0) yield* refcounts.add(first, count, delta);
        else metadata.release(first * clusterSize, count);
      }
    }
    if (delta > 0) yield* refcounts.add(table / clusterSize, 1, delta);
    else metadata.release(table, 1);
    if (metadata.crowded) yield (done) => metadata.commit(done);
  }
}

/** Has the flags of the disk's own tables say which clusters nobody else uses. @returns how many were wrong. */
export function* updateCopied(metadata: Metadata): Task<number> {
  const { mapping, refcounts, geometry } = metadata;
  const { clusterSize, entrySize } = geometry;
  const { sliceSize } = mapping.cache;
  let wrong = 0;
  for (const [index, table] of mapping.l1.entries()) {
    if (table === 0) continue;
    const own = (yield* refcounts.get(table / clusterSize)) === 1;
    if (mapping.l1Copied[index] !== own) {
      mapping.l1Copied[index] = own;
      mapping.dirtyL1.add(index);
      wrong++;
    }
    for (let at = 0; at < clusterSize; at += sliceSize) {
      const flags: boolean[] = [];
      const bytes = (yield* mapping.cache.load(table + at)).bytes.slice();
      const view = new DataView(bytes.buffer);
      for (let entry = 0; entry < sliceSize; entry += entrySize) {
        const { host, compressed } = decodeEntry(view, entry, geometry);
        const used = host !== 0 && !compressed && (yield* refcounts.get(Math.floor(host / clusterSize))) === 1;
        flags.push(used);
      }
      const slice = yield* mapping.cache.load(table + at);
      for (const [i, used] of flags.entries()) {
        const high = slice.view.getUint32(i * entrySize);
        const wanted = (used ? high | COPIED_HIGH : high & ~COPIED_HIGH) >>> 0;
        if (wanted === high) continue;
        slice.view.setUint32(i * entrySize, wanted);
        mapping.cache.dirty(slice);
        wrong++;
      }
    }
    if (metadata.crowded) yield (done) => metadata.commit(done);
  }
  return wrong;
}
