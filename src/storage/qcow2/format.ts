/**
 * The QCOW2 image format, versions 2 and 3: header and header extensions (QEMU's docs/interop/qcow2.txt). All
 * numbers are big-endian.
 */
import { StorageError } from '../error.ts';

export const MAGIC = 0x514649fb;
export const INCOMPATIBLE = { DIRTY: 1n, CORRUPT: 2n, DATA_FILE: 4n, COMPRESSION: 8n, EXTENDED_L2: 16n } as const;
export const COMPATIBLE = { LAZY_REFCOUNTS: 1n } as const;
export const AUTOCLEAR = { BITMAPS: 1n, RAW_DATA_FILE: 2n } as const;
const KNOWN_INCOMPATIBLE = Object.values(INCOMPATIBLE).reduce((sum, bit) => sum | bit, 0n);

const EXTENSION = {
  END: 0,
  BACKING_FORMAT: 0xe2792aca,
  FEATURE_NAMES: 0x6803f857,
  BITMAPS: 0x23852875,
  ENCRYPTION: 0x0537be77,
  DATA_FILE: 0x44415441,
} as const;

const V2_LENGTH = 72;
export const V3_LENGTH = 112;
const MIN_V3_LENGTH = 104;
export const MIN_CLUSTER_BITS = 9;
export const MAX_CLUSTER_BITS = 21;
const MAX_L1_BYTES = 32 << 20;
export const MAX_REFCOUNT_TABLE_BYTES = 8 << 20;
const MAX_SNAPSHOTS = 65536;
const MAX_BACKING_NAME = 1023;
const FEATURE_NAME_SIZE = 48;
/** Offsets in the file: what a number holds exactly, and far more than a file system does. */
export const MAX_OFFSET = 2 ** 53 - 2 ** 22;

export type Compression = 'zlib' | 'zstd';

export interface BitmapsExtension {
  readonly count: number;
  readonly directorySize: number;
  readonly directoryOffset: number;
}

/** A header, with what its extensions say. Offsets and sizes are bytes. */
export interface Header {
  version: 2 | 3;
  clusterBits: number;
  size: number;
  /** Entries, of 8 bytes. */
  l1Size: number;
  l1Offset: number;
  refcountTableOffset: number;
  refcountTableClusters: number;
  snapshotCount: number;
  snapshotsOffset: number;
  incompatible: bigint;
  compatible: bigint;
  autoclear: bigint;
  /** log2 of the bits of a refcount. */
  refcountOrder: number;
  compression: Compression;
  backing: string | undefined;
  backingFormat: string | undefined;
  bitmaps: BitmapsExtension | undefined;
  /** Extensions that are not understood, kept as they are. */
  further: { type: number; data: Uint8Array }[];
}

const FEATURE_NAMES: [kind: number, bit: number, name: string][] = [
  [0, 0, 'dirty bit'],
  [0, 1, 'corrupt bit'],
  [0, 2, 'external data file'],
  [0, 3, 'compression type'],
  [0, 4, 'extended L2 entries'],
  [1, 0, 'lazy refcounts'],
  [2, 0, 'bitmaps'],
  [2, 1, 'raw external data'],
];

/** A number of 64 bits that has to be an offset or size within reach. */
function offset64(view: DataView, at: number, what: string, path: string): number {
  const value = Number(view.getBigUint64(at));
  if (value > MAX_OFFSET) throw invalid(path, `${what} is ${view.getBigUint64(at)}, which no file can have`);
  return value;
}

export function invalid(path: string, what: string): StorageError {
  return new StorageError(
    `The QCOW2 image ${path} is not valid: ${what}.`,
    `See what is left of it: nemu image check ${path}`,
  );
}

/**
 * Reads a header, which an enemy may have written.
 * @param head the image's first bytes: a cluster, or all there is.
 * @throws StorageError that names the field or feature.
 */
export function parseHeader(head: Uint8Array, path: string): Header {
  const view = new DataView(head.buffer, head.byteOffset, head.byteLength);
  if (head.length < V2_LENGTH || view.getUint32(0) !== MAGIC) {
    throw new StorageError(`${path} is not a QCOW2 image: it does not begin with "QFI\\xfb".`);
  }
  const version = view.getUint32(4);
  if (version !== 2 && version !== 3) {
    throw new StorageError(`The QCOW2 image ${path} has version ${version}; versions 2 and 3 can be read.`);
  }
  if (version === 3 && head.length < MIN_V3_LENGTH) throw invalid(path, `it ends within its header`);
  const clusterBits = view.getUint32(20);
  if (clusterBits < MIN_CLUSTER_BITS || clusterBits > MAX_CLUSTER_BITS) {
    throw invalid(path, `its clusters have 2^${clusterBits} bytes; 2^9 to 2^21 is possible`);
  }
  const clusterSize = 2 ** clusterBits;
  const crypt = view.getUint32(32);
  if (crypt !== 0) {
    const name = { 1: 'AES', 2: 'LUKS' }[crypt] ?? `method ${crypt}`;
    throw new StorageError(
      `The QCOW2 image ${path} is encrypted (${name}), which is not supported.`,
      'Convert it with a tool that has the key.',
    );
  }
  const headerLength = version === 3 ? view.getUint32(100) : V2_LENGTH;
  if (headerLength < (version === 3 ? MIN_V3_LENGTH : V2_LENGTH) || headerLength > clusterSize) {
    throw invalid(path, `its header has ${headerLength} bytes`);
  }
  const header: Header = {
    version,
    clusterBits,
    size: offset64(view, 24, 'its size', path),
    l1Size: view.getUint32(36),
    l1Offset: offset64(view, 40, 'the L1 table offset', path),
    refcountTableOffset: offset64(view, 48, 'the refcount table offset', path),
    refcountTableClusters: view.getUint32(56),
    snapshotCount: view.getUint32(60),
    snapshotsOffset: offset64(view, 64, 'the snapshot table offset', path),
    incompatible: version === 3 ? view.getBigUint64(72) : 0n,
    compatible: version === 3 ? view.getBigUint64(80) : 0n,
    autoclear: version === 3 ? view.getBigUint64(88) : 0n,
    refcountOrder: version === 3 ? view.getUint32(96) : 4,
    compression: 'zlib',
    backing: undefined,
    backingFormat: undefined,
    bitmaps: undefined,
    further: [],
  };
  const names = parseExtensions(head, view, headerLength, header, path);
  checkFeatures(header, names, path);
  if (header.incompatible & INCOMPATIBLE.COMPRESSION) {
    const type = headerLength > 104 ? view.getUint8(104) : 0;
    if (type !== 1) throw new StorageError(`The QCOW2 image ${path} has compression type ${type}, which is not known.`);
    header.compression = 'zstd';
  }
  checkTables(header, path);
  header.backing = parseBacking(head, view, path);
  return header;
}

function parseExtensions(head: Uint8Array, view: DataView, from: number, header: Header, path: string) {
  const names = new Map<string, string>();
  const text = (bytes: Uint8Array) => Buffer.from(bytes).toString('utf8').replace(/\0.*$/s, '');
  // The backing file's name stands behind the extensions, and ends them too.
  const backingOffset = Number(view.getBigUint64(8));
  const end = Math.min(head.length, 2 ** header.clusterBits, backingOffset || Number.POSITIVE_INFINITY);
  for (let at = from; at + 8 <= end; ) {
    const type = view.getUint32(at);
    const length = view.getUint32(at + 4);
    if (type === EXTENSION.END) break;
    at += 8;
    if (length > end - at) throw invalid(path, `header extension 0x${type.toString(16)} has ${length} bytes`);
    const data = head.slice(at, at + length);
    const body = new DataView(data.buffer, data.byteOffset, data.length);
    at += Math.ceil(length / 8) * 8;
    switch (type) {
      case EXTENSION.BACKING_FORMAT:
        header.backingFormat = text(data);
        break;
      case EXTENSION.FEATURE_NAMES:
        for (let i = 0; i + FEATURE_NAME_SIZE <= length; i += FEATURE_NAME_SIZE) {
          names.set(`${data[i]}.${data[i + 1]}`, text(data.subarray(i + 2, i + FEATURE_NAME_SIZE)));
        }
        break;
      case EXTENSION.BITMAPS:
        // Without its autoclear bit, somebody wrote the image who did not know of bitmaps.
        if (length >= 24 && header.autoclear & AUTOCLEAR.BITMAPS) {
          header.bitmaps = {
            count: body.getUint32(0),
            directorySize: Number(body.getBigUint64(8)),
            directoryOffset: offset64(body, 16, 'the bitmap directory offset', path),
          };
        }
        break;
      case EXTENSION.DATA_FILE:
        break;
      default:
        header.further.push({ type, data });
    }
  }
  return names;
}

function checkFeatures(header: Header, names: ReadonlyMap<string, string>, path: string): void {
  const unknown = header.incompatible & ~KNOWN_INCOMPATIBLE;
  const wanted: string[] = [];
  for (let bit = 0; bit < 64; bit++) {
    if (unknown & (1n << BigInt(bit))) wanted.push(names.get(`0.${bit}`) ?? `bit ${bit}`);
  }
  if (header.incompatible & INCOMPATIBLE.DATA_FILE) wanted.push('external data file');
  if (wanted.length > 0) {
    throw new StorageError(
      `The QCOW2 image ${path} uses what is not supported: ${wanted.join(', ')}.`,
      'Convert it with the tool that made it.',
    );
  }
}

function checkTables(header: Header, path: string): void {
  const cluster = 2 ** header.clusterBits;
  const aligned = (offset: number, what: string) => {
    if (offset % cluster !== 0) throw invalid(path, `${what} at ${offset} does not begin a cluster`);
  };
  aligned(header.l1Offset, 'the L1 table');
  aligned(header.refcountTableOffset, 'the refcount table');
  aligned(header.snapshotsOffset, 'the snapshot table');
  if (header.refcountOrder > 6) throw invalid(path, `refcounts have 2^${header.refcountOrder} bits; 64 is the most`);
  if (header.l1Size * 8 > MAX_L1_BYTES) throw invalid(path, `the L1 table has ${header.l1Size} entries`);
  if (header.refcountTableClusters * cluster > MAX_REFCOUNT_TABLE_BYTES || header.refcountTableClusters === 0) {
    throw invalid(path, `the refcount table has ${header.refcountTableClusters} clusters`);
  }
  if (header.refcountTableOffset === 0) throw invalid(path, 'it has no refcount table');
  if (header.snapshotCount > MAX_SNAPSHOTS) throw invalid(path, `it has ${header.snapshotCount} snapshots`);
  if (header.clusterBits < 14 && header.incompatible & INCOMPATIBLE.EXTENDED_L2) {
    throw invalid(path, 'extended L2 entries need clusters of 16 KiB or more');
  }
  const { entrySize } = geometry(header);
  const needed = Math.ceil(header.size / (cluster * (cluster / entrySize)));
  if (header.l1Size < needed) {
    throw invalid(path, `its ${header.size} bytes need ${needed} entries in the L1 table, which has ${header.l1Size}`);
  }
  if (header.l1Size > 0 && header.l1Offset === 0) throw invalid(path, 'it has no L1 table');
}

function parseBacking(head: Uint8Array, view: DataView, path: string): string | undefined {
  const offset = view.getBigUint64(8);
  const length = view.getUint32(16);
  if (offset === 0n || length === 0) return undefined;
  if (length > MAX_BACKING_NAME) throw invalid(path, `the backing file's name has ${length} bytes`);
  if (offset + BigInt(length) > BigInt(head.length)) throw invalid(path, `the backing file's name is at ${offset}`);
  return Buffer.from(head.subarray(Number(offset), Number(offset) + length)).toString('utf8');
}

/** Sets the numbers of a header, and leaves its length, extensions and names as they are. */
export function patchHeader(sector: Uint8Array, header: Header): void {
  const view = new DataView(sector.buffer, sector.byteOffset, sector.byteLength);
  view.setBigUint64(24, BigInt(header.size));
  view.setUint32(36, header.l1Size);
  view.setBigUint64(40, BigInt(header.l1Offset));
  view.setBigUint64(48, BigInt(header.refcountTableOffset));
  view.setUint32(56, header.refcountTableClusters);
  view.setUint32(60, header.snapshotCount);
  view.setBigUint64(64, BigInt(header.snapshotsOffset));
  if (header.version === 2) return;
  view.setBigUint64(72, header.incompatible);
  view.setBigUint64(80, header.compatible);
  view.setBigUint64(88, header.autoclear);
}

/** The header's cluster. @throws StorageError when the names in it do not fit. */
export function encodeHeader(header: Header): Uint8Array {
  const out = new Uint8Array(2 ** header.clusterBits);
  const view = new DataView(out.buffer);
  view.setUint32(0, MAGIC);
  view.setUint32(4, header.version);
  view.setUint32(20, header.clusterBits);
  patchHeader(out, header);
  let at = V2_LENGTH;
  if (header.version === 3) {
    view.setUint32(96, header.refcountOrder);
    view.setUint32(100, V3_LENGTH);
    view.setUint8(104, header.compression === 'zstd' ? 1 : 0);
    at = V3_LENGTH;
  }
  const need = (bytes: number) => {
    if (at + bytes > out.length) {
      throw new StorageError(
        `The header does not fit into a cluster of ${out.length} bytes.`,
        'Use larger clusters, or a shorter name for the backing file.',
      );
    }
  };
  const extension = (type: number, data: Uint8Array) => {
    const padded = Math.ceil(data.length / 8) * 8;
    need(8 + padded);
    view.setUint32(at, type);
    view.setUint32(at + 4, data.length);
    out.set(data, at + 8);
    at += 8 + padded;
  };
  if (header.backingFormat !== undefined) extension(EXTENSION.BACKING_FORMAT, Buffer.from(header.backingFormat));
  for (const { type, data } of header.further) extension(type, data);
  if (header.bitmaps) {
    const data = new DataView(new ArrayBuffer(24));
    data.setUint32(0, header.bitmaps.count);
    data.setBigUint64(8, BigInt(header.bitmaps.directorySize));
    data.setBigUint64(16, BigInt(header.bitmaps.directoryOffset));
    extension(EXTENSION.BITMAPS, new Uint8Array(data.buffer));
  }
  // Names for those who do not know a feature; small clusters have no room for them.
  const names = Buffer.alloc(FEATURE_NAMES.length * FEATURE_NAME_SIZE);
  for (const [i, [kind, bit, name]] of FEATURE_NAMES.entries()) {
    names[i * FEATURE_NAME_SIZE] = kind;
    names[i * FEATURE_NAME_SIZE + 1] = bit;
    names.write(name, i * FEATURE_NAME_SIZE + 2, 'latin1');
  }
  const backing = Buffer.from(header.backing ?? '');
  if (backing.length > MAX_BACKING_NAME) {
    throw new StorageError(`The backing file's name has ${backing.length} bytes; ${MAX_BACKING_NAME} is the most.`);
  }
  if (header.version === 3 && at + 8 + names.length + 8 + backing.length <= out.length) {
    extension(EXTENSION.FEATURE_NAMES, names);
  }
  extension(EXTENSION.END, new Uint8Array(0));
  if (backing.length > 0) {
    need(backing.length);
    out.set(backing, at);
    view.setBigUint64(8, BigInt(at));
    view.setUint32(16, backing.length);
  }
  return out;
}

/** Sizes that follow from a header. */
export interface Geometry {
  readonly clusterBits: number;
  readonly clusterSize: number;
  /** Bytes of an L2 entry. */
  readonly entrySize: 8 | 16;
  readonly extendedL2: boolean;
  /** Entries of an L2 table. */
  readonly l2Entries: number;
  /** Guest bytes that an L1 entry stands for. */
  readonly l1Span: number;
  readonly subclusters: number;
  readonly subclusterSize: number;
  readonly refcountBits: number;
  /** Entries of a refcount block. */
  readonly refcountsPerBlock: number;
}

export function geometry(header: Header): Geometry {
  const { clusterBits } = header;
  const clusterSize = 2 ** clusterBits;
  const extendedL2 = (header.incompatible & INCOMPATIBLE.EXTENDED_L2) !== 0n;
  const entrySize = extendedL2 ? 16 : 8;
  const l2Entries = clusterSize / entrySize;
  const subclusters = extendedL2 ? 32 : 1;
  const refcountBits = 2 ** header.refcountOrder;
  return {
    clusterBits,
    clusterSize,
    entrySize,
    extendedL2,
    l2Entries,
    l1Span: clusterSize * l2Entries,
    subclusters,
    subclusterSize: clusterSize / subclusters,
    refcountBits,
    refcountsPerBlock: (clusterSize * 8) / refcountBits,
  };
}
