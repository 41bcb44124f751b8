import { type Task, wait } from '../task.ts';
import { invalid } from './format.ts';
import type { Metadata } from './metadata.ts';

const ENTRY_SIZE = 24;
const FLAG_IN_USE = 1;
const FLAG_AUTO = 2;
const DIRTY_TRACKING = 1;
const MAX_DIRECTORY = 65536 * 1064;
const OFFSET_MASK = 0x00fffffffffffe00n;
const ALL_ONES = 1n;
/** Bits that are kept in memory for one bitmap, in bytes. */
const MAX_BYTES = 256 << 20;

/** A persistent dirty bitmap: one bit says whether a piece of the disk was written since somebody looked. */
export interface Bitmap {
  readonly name: string;
  readonly granularity: number;
  /** Of its entry in the directory. */
  readonly directoryAt: number;
  readonly tableOffset: number;
  readonly tableSize: number;
  readonly flags: number;
  readonly type: number;
}

/** Reads the bitmap directory, which an enemy may have written. @throws StorageError. */
export function* readBitmaps({ header, file, geometry }: Metadata): Task<Bitmap[]> {
  const { bitmaps } = header;
  if (!bitmaps) return [];
  const { directoryOffset, directorySize } = bitmaps;
  if (directorySize > MAX_DIRECTORY || directoryOffset + directorySize > file.length) {
    throw invalid(file.path, `its bitmap directory is at ${directoryOffset} and has ${directorySize} bytes`);
  }
  const bytes = new Uint8Array(directorySize);
  yield* wait((done) => file.read(directoryOffset, [bytes], done));
  const view = new DataView(bytes.buffer);
  const found: Bitmap[] = [];
  let at = 0;
  for (let i = 0; i < bitmaps.count; i++) {
    if (at + ENTRY_SIZE > directorySize) throw invalid(file.path, `the bitmap directory ends in entry ${i}`);
    const tableOffset = Number(view.getBigUint64(at));
    const tableSize = view.getUint32(at + 8);
    const granularityBits = view.getUint8(at + 17);
    const nameSize = view.getUint16(at + 18);
    const extraSize = view.getUint32(at + 20);
    const name = Buffer.from(bytes.subarray(at + ENTRY_SIZE + extraSize).subarray(0, nameSize)).toString('utf8');
    if (granularityBits < 9 || granularityBits > 31 || tableOffset % geometry.clusterSize !== 0) {
      throw invalid(file.path, `bitmap "${name}" has granularity 2^${granularityBits} and its table at ${tableOffset}`);
    }
    if (tableOffset + tableSize * 8 > file.length) throw invalid(file.path, `bitmap "${name}" ends behind the file`);
    found.push({
      name,
      granularity: 2 ** granularityBits,
      directoryAt: at,
      tableOffset,
      tableSize,
      flags: view.getUint32(at + 12),
      type: view.getUint8(at + 16),
    });
    at += Math.ceil((ENTRY_SIZE + extraSize + nameSize) / 8) * 8;
  }
  return found;
}

function* readTable({ file }: Metadata, { tableOffset, tableSize }: Bitmap): Task<BigUint64Array> {
  const bytes = new Uint8Array(tableSize * 8);
  if (tableSize > 0) yield* wait((done) => file.read(tableOffset, [bytes], done));
  const view = new DataView(bytes.buffer);
  return BigUint64Array.from({ length: tableSize }, (_, i) => view.getBigUint64(i * 8));
}

const isInUse = ({ flags }: Bitmap): boolean => (flags & FLAG_IN_USE) !== 0;

/** What the bitmaps take of the file. */
export function* readBitmapClusters(metadata: Metadata): Task<{ offset: number; length: number }[]> {
  const { header, geometry } = metadata;
  if (!header.bitmaps) return [];
  const used = [{ offset: header.bitmaps.directoryOffset, length: header.bitmaps.directorySize }];
  for (const bitmap of yield* readBitmaps(metadata)) {
    used.push({ offset: bitmap.tableOffset, length: bitmap.tableSize * 8 });
    // What somebody left in use has no data that counts, but its clusters are its own all the same.
    for (const entry of yield* readTable(metadata, bitmap)) {
      const offset = Number(entry & OFFSET_MASK);
      if (offset !== 0) used.push({ offset, length: geometry.clusterSize });
    }
  }
  return used;
}

interface Tracked {
  readonly bitmap: Bitmap;
  readonly bits: Uint8Array;
  readonly table: BigUint64Array;
}

/** Keeps the bitmaps of an image true while it is written: those that are to be updated by whoever writes. */
export class BitmapTracker {
  readonly #metadata: Metadata;
  readonly #tracked: Tracked[];

  private constructor(metadata: Metadata, tracked: Tracked[]) {
    this.#metadata = metadata;
    this.#tracked = tracked;
  }

  /** Loads the bits, and says in the file that it is behind. @returns undefined when there is nothing to track. */
  static *open(metadata: Metadata): Task<BitmapTracker | undefined> {
    const tracked: Tracked[] = [];
    const { clusterSize } = metadata.geometry;
    for (const bitmap of yield* readBitmaps(metadata)) {
      if (!(bitmap.flags & FLAG_AUTO) || isInUse(bitmap) || bitmap.type !== DIRTY_TRACKING) continue;
      const length = Math.ceil(Math.ceil(metadata.header.size / bitmap.granularity) / 8);
      if (length > MAX_BYTES) continue;
      const table = yield* readTable(metadata, bitmap);
      const bits = new Uint8Array(Math.max(length, table.length * clusterSize));
      for (const [i, entry] of table.entries()) {
        const piece = bits.subarray(i * clusterSize, (i + 1) * clusterSize);
        const offset = Number(entry & OFFSET_MASK);
        if (offset !== 0) yield* wait((done) => metadata.file.read(offset, [piece], done));
        else if (entry & ALL_ONES) piece.fill(0xff);
      }
      tracked.push({ bitmap, bits, table });
    }
    if (tracked.length === 0) return undefined;
    const tracker = new BitmapTracker(metadata, tracked);
    yield* tracker.#setInUse(true);
    return tracker;
  }

  mark(offset: number, length: number): void {
    for (const { bitmap, bits } of this.#tracked) {
      const last = Math.floor((offset + length - 1) / bitmap.granularity);
      for (let bit = Math.floor(offset / bitmap.granularity); bit <= last; bit++) bits[bit >> 3] |= 1 << (bit & 7);
    }
  }

  *#setInUse(used: boolean): Task {
    const { file, header } = this.#metadata;
    if (!header.bitmaps) return;
    for (const { bitmap } of this.#tracked) {
      const flags = new Uint8Array(4);
      new DataView(flags.buffer).setUint32(0, used ? bitmap.flags | FLAG_IN_USE : bitmap.flags & ~FLAG_IN_USE);
      const at = header.bitmaps.directoryOffset + bitmap.directoryAt + 12;
      yield* wait((done) => file.write(at, [flags], done));
    }
    yield* this.#metadata.sync();
  }

  /** Puts the bits into the file, which is then up to date again. */
  *store(): Task {
    const metadata = this.#metadata;
    const { file, refcounts, geometry } = metadata;
    const { clusterSize } = geometry;
    for (const { bitmap, bits, table } of this.#tracked) {
      for (let i = 0; i < table.length; i++) {
        const piece = bits.subarray(i * clusterSize, (i + 1) * clusterSize);
        let offset = Number(table[i] & OFFSET_MASK);
        if (offset === 0) {
          const ones = piece.every((byte) => byte === 0xff);
          table[i] = ones ? ALL_ONES : 0n;
          if (ones || piece.every((byte) => byte === 0)) continue;
          yield* metadata.beginChange();
          offset = yield* metadata.lock.hold(() => refcounts.allocate(1));
          table[i] = BigInt(offset);
        }
        yield* wait((done) => file.write(offset, [piece], done));
      }
      // The new clusters are counted in the file before the table leads to them.
      yield (done) => metadata.commit(done);
      const bytes = new Uint8Array(bitmap.tableSize * 8);
      const view = new DataView(bytes.buffer);
      for (const [i, entry] of table.entries()) view.setBigUint64(i * 8, entry);
      yield* wait((done) => file.write(bitmap.tableOffset, [bytes], done));
    }
    yield* metadata.sync();
    yield* this.#setInUse(false);
  }
}
