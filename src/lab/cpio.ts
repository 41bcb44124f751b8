/**
 * Archives in the "newc" form of cpio, which is what the kernel unpacks as initramfs: see
 * Documentation/driver-api/early-userspace/buffer-format.rst in the kernel's sources.
 */
import { NemuError } from '../client/errors.ts';

const MAGIC = '070701';
const HEADER_SIZE = 110;
const TRAILER = 'TRAILER!!!';
/** File name length that the kernel's unpacker accepts, with the NUL (PATH_MAX). */
const NAME_MAX = 4096;

const S_IFMT = 0o170000;
const S_IFDIR = 0o040000;
const S_IFCHR = 0o020000;
const S_IFREG = 0o100000;
const S_IFLNK = 0o120000;

/** One member. `path` has no leading slash; parents must come before their children. */
export type CpioEntry =
  | { type: 'file'; path: string; mode?: number; data: Uint8Array }
  | { type: 'folder'; path: string; mode?: number }
  | { type: 'link'; path: string; target: string }
  | { type: 'char'; path: string; mode?: number; major: number; minor: number };

/**
 * Writes an archive, with its trailer, padded to 4 bytes so that another one may follow. Owner is root and
 * times are zero: the same members give the same bytes. Folders that nobody listed are added.
 */
export function writeCpio(entries: Iterable<CpioEntry>): Buffer {
  const parts: Buffer[] = [];
  const folders = new Set<string>();
  let inode = 1;
  const emit = (entry: CpioEntry) => parts.push(...member(entry, inode++));
  for (const entry of entries) {
    checkPath(entry.path);
    for (let slash = entry.path.indexOf('/'); slash >= 0; slash = entry.path.indexOf('/', slash + 1)) {
      const parent = entry.path.slice(0, slash);
      if (!folders.has(parent)) emit({ type: 'folder', path: parent });
      folders.add(parent);
    }
    if (entry.type === 'folder') {
      if (folders.has(entry.path)) continue;
      folders.add(entry.path);
    }
    emit(entry);
  }
  parts.push(...record(TRAILER, { inode: 0, mode: 0, links: 1, data: Buffer.alloc(0), major: 0, minor: 0 }));
  return Buffer.concat(parts);
}

function checkPath(path: string): void {
  const bad = path === '' || path.startsWith('/') || path.includes('\0') || path.split('/').includes('..');
  if (bad || path === TRAILER || Buffer.byteLength(path) >= NAME_MAX) {
    throw new NemuError('CPIO_PATH', `The path "${path}" cannot be stored in an initramfs.`, {
      hint: 'Paths are relative to the root, without ".." and below 4096 bytes.',
    });
  }
}

function member(entry: CpioEntry, inode: number): Buffer[] {
  const none = { inode, links: 1, data: Buffer.alloc(0), major: 0, minor: 0 };
  switch (entry.type) {
    case 'file':
      return record(entry.path, { ...none, mode: S_IFREG | (entry.mode ?? 0o644), data: entry.data });
    case 'folder':
      return record(entry.path, { ...none, mode: S_IFDIR | (entry.mode ?? 0o755), links: 2 });
    case 'link':
      return record(entry.path, { ...none, mode: S_IFLNK | 0o777, data: Buffer.from(entry.target) });
    case 'char':
      return record(entry.path, {
        ...none,
        mode: S_IFCHR | (entry.mode ?? 0o600),
        major: entry.major,
        minor: entry.minor,
      });
  }
}

interface RecordFields {
  inode: number;
  mode: number;
  links: number;
  data: Uint8Array;
  major: number;
  minor: number;
}

function record(name: string, fields: RecordFields): Buffer[] {
  const nameBytes = Buffer.from(`${name}\0`);
  const { inode, mode, links, data, major, minor } = fields;
  if (data.length > 0xffff_ffff)
    throw new NemuError('CPIO_SIZE', `The file ${name} of ${data.length} bytes is too large.`);
  // Order of buffer-format.rst: ino mode uid gid nlink mtime filesize maj min rmaj rmin namesize chksum.
  const numbers = [inode, mode, 0, 0, links, 0, data.length, 0, 0, major, minor, nameBytes.length, 0];
  const header = MAGIC + numbers.map((value) => value.toString(16).padStart(8, '0')).join('');
  return [
    Buffer.from(header, 'latin1'),
    nameBytes,
    padding(HEADER_SIZE + nameBytes.length),
    Buffer.from(data.buffer, data.byteOffset, data.byteLength),
    padding(data.length),
  ];
}

function padding(length: number): Buffer {
  return Buffer.alloc(-length & 3);
}

/**
 * Reads an uncompressed archive, or several behind one another with zero bytes between, to its end.
 * Member types other than those of `CpioEntry` are refused.
 * @throws NemuError CPIO_FORMAT, naming the offset.
 */
export function readCpio(bytes: Uint8Array): CpioEntry[] {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const entries: CpioEntry[] = [];
  let at = 0;
  let open = false;
  while (at < buffer.length) {
    if (!open && buffer[at] === 0) {
      at += 1;
      continue;
    }
    if (at + HEADER_SIZE > buffer.length) throw malformed(at, 'the header is cut off');
    const header = buffer.toString('latin1', at, at + HEADER_SIZE);
    if (!header.startsWith(MAGIC)) throw malformed(at, `the magic is not ${MAGIC}`);
    if (!/^[0-9a-fA-F]{104}$/.test(header.slice(6))) throw malformed(at, 'a header field is not hexadecimal');
    const field = (index: number) => Number.parseInt(header.slice(6 + index * 8, 14 + index * 8), 16);
    const [mode, size, major, minor, nameSize] = [field(1), field(6), field(9), field(10), field(11)];
    if (nameSize < 1 || nameSize > NAME_MAX) throw malformed(at, `a name of ${nameSize} bytes is out of range`);
    const nameEnd = at + HEADER_SIZE + nameSize;
    const dataAt = nameEnd + (-(HEADER_SIZE + nameSize) & 3);
    if (dataAt + size > buffer.length) throw malformed(at, `${size} bytes of data are cut off`);
    if (buffer[nameEnd - 1] !== 0) throw malformed(at, 'the name does not end with NUL');
    const path = buffer.toString('utf8', at + HEADER_SIZE, nameEnd - 1);
    const data = buffer.subarray(dataAt, dataAt + size);
    open = path !== TRAILER;
    if (open) entries.push(toEntry(at, path, mode, data, major, minor));
    at = dataAt + size + (-size & 3);
  }
  if (open) throw malformed(buffer.length, 'the trailer is missing');
  return entries;
}

function toEntry(at: number, path: string, mode: number, data: Buffer, major: number, minor: number): CpioEntry {
  const permissions = mode & 0o7777;
  switch (mode & S_IFMT) {
    case S_IFREG:
      return { type: 'file', path, mode: permissions, data };
    case S_IFDIR:
      return { type: 'folder', path, mode: permissions };
    case S_IFLNK:
      return { type: 'link', path, target: data.toString('utf8') };
    case S_IFCHR:
      return { type: 'char', path, mode: permissions, major, minor };
    default:
      throw malformed(at, `mode 0${mode.toString(8)} of ${path} is of no known type`);
  }
}

function malformed(at: number, what: string): NemuError {
  return new NemuError('CPIO_FORMAT', `The cpio archive is malformed at offset ${at}: ${what}.`);
}
