/** What the first bytes of a qcow2 image say of it (docs/interop/qcow2 of QEMU). */
import { closeSync, constants, openSync, readSync, statSync } from 'node:fs';
import { dirname, isAbsolute, join } from 'node:path';

/** "QFI\xfb" */
const MAGIC = 0x514649fb;
const HEADER_BYTES = 72;
const MAX_NAME = 1023;
/** A chain that is longer is none: it may lead back to itself. */
const MAX_DEPTH = 200;

export interface Qcow2Header {
  /** Bytes that a guest sees. */
  readonly size: number;
  /** As the image has it: relative to its own folder, or absolute. */
  readonly backing?: string;
}

/** @returns undefined for a file that is no qcow2 image. @throws what the host says of a file that cannot be read. */
export function readQcow2Header(path: string): Qcow2Header | undefined {
  // A pipe would wait for whoever writes to it.
  const file = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const header = Buffer.alloc(HEADER_BYTES);
    if (readSync(file, header, 0, HEADER_BYTES, 0) < HEADER_BYTES || header.readUInt32BE(0) !== MAGIC) return undefined;
    const size = Number(header.readBigUInt64BE(24));
    const at = Number(header.readBigUInt64BE(8));
    const length = header.readUInt32BE(16);
    if (at === 0 || length === 0 || length > MAX_NAME) return { size };
    const name = Buffer.alloc(length);
    return { size, backing: name.toString('utf8', 0, readSync(file, name, 0, length, at)) };
  } finally {
    closeSync(file);
  }
}

export interface ImageFacts {
  readonly size: number;
  /** The file right behind the image: as the image has it, and where that is. */
  readonly backing?: string;
  readonly fullBacking?: string;
  /** How many files are behind it. */
  readonly depth: number;
}

/** @returns nothing of what this side cannot see, as in the lab. */
export function imageFacts(path: string, format: string): ImageFacts {
  try {
    if (format !== 'qcow2') return { size: statSync(path).size, depth: 0 };
    const { size = 0, backing } = readQcow2Header(path) ?? {};
    if (backing === undefined) return { size, depth: 0 };
    const fullBacking = behind(path, backing);
    return { size, backing, fullBacking, depth: depthOf(path) };
  } catch {
    return { size: 0, depth: 0 };
  }
}

const behind = (path: string, backing: string) => (isAbsolute(backing) ? backing : join(dirname(path), backing));

function depthOf(path: string): number {
  let depth = 0;
  for (let at = path; depth < MAX_DEPTH; depth++) {
    let header: Qcow2Header | undefined;
    try {
      header = readQcow2Header(at);
    } catch {
      return depth;
    }
    if (header?.backing === undefined) return depth;
    at = behind(at, header.backing);
  }
  return depth;
}
