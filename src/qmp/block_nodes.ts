/** What `blockdev-add` makes: files, and images in them. A disk takes the topmost one. */
import { accessSync, constants, statSync } from 'node:fs';
import * as z from 'zod';
import { QmpError } from './errors.ts';
import { reasonOf } from './files.ts';
import { readQcow2Header } from './qcow2_header.ts';
import { bool, isId, str, withBase } from './types.ts';

const base = {
  'node-name': str.optional(),
  'read-only': bool.optional(),
  'auto-read-only': bool.optional(),
  discard: z.enum(['ignore', 'unmap']).optional(),
  cache: z.strictObject({ direct: bool.optional(), 'no-flush': bool.optional() }).optional(),
  'detect-zeroes': z.enum(['off', 'on', 'unmap']).optional(),
};
const ofFile = {
  ...{ ...base, filename: str, locking: z.enum(['auto', 'on', 'off']).optional() },
  aio: z.enum(['threads', 'native', 'io_uring']).optional(),
};
const fileNode = z.strictObject({ driver: z.literal('file'), ...ofFile });
const hostDevice = z.strictObject({ driver: z.literal('host_device'), ...ofFile });
const below = z.union([str, withBase(z.discriminatedUnion('driver', [fileNode, hostDevice]), Object.keys(base))]);
export const blockdevOptions = withBase(
  z.discriminatedUnion('driver', [
    fileNode,
    hostDevice,
    z.strictObject({ driver: z.literal('raw'), ...base, file: below }),
    z.strictObject({ driver: z.literal('qcow2'), ...base, file: below, backing: z.union([z.null(), str]).optional() }),
  ]),
  Object.keys(base),
);
type Options = z.output<typeof blockdevOptions>;

export interface BlockNode {
  readonly name: string;
  readonly driver: Options['driver'];
  readonly filename: string;
  readonly readOnly: boolean;
  readonly direct: boolean;
  /** The node that this one's bytes are in. */
  readonly child: string | undefined;
  /** It came with the node above it, and goes with it. */
  readonly implicit: boolean;
  /** The node above it. */
  parent: string | undefined;
  /** The device that it is in, by the machine's id. */
  usedBy: string | undefined;
}

/** Characters of a node's name. */
const MAX_NAME = 31;

export class BlockNodes {
  readonly #nodes = new Map<string, BlockNode>();
  #next = 1;

  get all(): BlockNode[] {
    return [...this.#nodes.values()];
  }

  get(name: string): BlockNode | undefined {
    return this.#nodes.get(name);
  }

  /** @throws QmpError */
  add(options: Options): void {
    if (options['node-name'] === undefined) throw new QmpError("'node-name' must be specified for the root node");
    this.#add(options, false);
  }

  #add(options: Options, implicit: boolean): BlockNode {
    const given = options['node-name'];
    if (given !== undefined && !isId(given)) throw new QmpError(`Invalid node-name: '${given}'`);
    const name = given ?? `#block${String(this.#next++).padStart(3, '0')}`;
    if (this.#nodes.has(name)) throw new QmpError(`Duplicate nodes with node-name='${name}'`);
    if (name.length > MAX_NAME) throw new QmpError('Node name too long');
    requireZeroes(options);
    const { driver, cache, 'read-only': readOnly } = options;
    let child: BlockNode | undefined;
    if (driver === 'raw' || driver === 'qcow2') {
      const { file } = options;
      child = typeof file === 'string' ? this.#free(file) : this.#add(file, true);
      try {
        if (driver === 'qcow2') requireQcow2(child.filename, options.backing);
      } catch (error) {
        if (child.implicit) this.#nodes.delete(child.name);
        throw error;
      }
    } else {
      requireAccess(options.filename, readOnly ?? options['auto-read-only'] ?? false);
      requireFile(options);
    }
    const node: BlockNode = {
      ...{ name, driver, implicit, child: child?.name, parent: undefined, usedBy: undefined },
      filename: child?.filename ?? ('filename' in options ? options.filename : ''),
      readOnly: readOnly ?? child?.readOnly ?? false,
      direct: cache?.direct ?? child?.direct ?? false,
    };
    if (child) child.parent = name;
    this.#nodes.set(name, node);
    return node;
  }

  /** @throws QmpError for a node that there is not, or that is taken. */
  #free(name: string): BlockNode {
    const node = this.#nodes.get(name);
    if (!node) throw new QmpError(`Cannot find device='${name}' nor node-name='${name}'`);
    const user = node.usedBy ?? node.parent;
    if (user !== undefined) throw new QmpError(`Node '${name}' is in use by ${user}`);
    return node;
  }

  /** Gives a node to a device. @throws QmpError */
  take(name: string, device: string): BlockNode {
    const node = this.#free(name);
    node.usedBy = device;
    return node;
  }

  release(device: string): void {
    for (const node of this.#nodes.values()) if (node.usedBy === device) node.usedBy = undefined;
  }

  /** @throws QmpError */
  delete(name: string): void {
    const node = this.#nodes.get(name);
    if (!node) throw new QmpError(`Failed to find node with node-name='${name}'`);
    if (node.usedBy !== undefined) throw new QmpError(`Node ${name} is in use`);
    if (node.implicit) throw new QmpError(`Node ${name} is not owned by the monitor`);
    if (node.parent !== undefined) throw new QmpError(`Block device ${name} is in use`);
    this.#nodes.delete(name);
    const child = node.child === undefined ? undefined : this.#nodes.get(node.child);
    if (!child) return;
    child.parent = undefined;
    if (child.implicit) this.#nodes.delete(child.name);
  }
}

/** @throws QmpError for what is done to zeros: nothing. */
function requireZeroes({ 'detect-zeroes': detect = 'off', discard }: Options): void {
  if (detect === 'unmap' && discard !== 'unmap') {
    throw new QmpError('setting detect-zeroes to unmap is not allowed without setting discard operation to unmap');
  }
  if (detect !== 'off') throw new QmpError('Zeros are written as the guest writes them: detect-zeroes must be off');
}

/** @throws QmpError for ways to use a file that there are not. */
function requireFile({ driver, filename, aio, cache, locking }: Extract<Options, { filename: string }>): void {
  const stats = statSync(filename);
  if (driver === 'file' && !stats.isFile()) {
    throw new QmpError(`'file' driver requires '${filename}' to be a regular file`);
  }
  if (driver === 'host_device' && !stats.isBlockDevice() && !stats.isCharacterDevice()) {
    throw new QmpError(`'host_device' driver requires '${filename}' to be either a character or block device`);
  }
  if (aio === 'native' && !cache?.direct) {
    throw new QmpError('aio=native was specified, but it requires cache.direct=on, which was not specified.');
  }
  if (locking === 'off')
    throw new QmpError('An image is always locked while a disk has it: locking must be auto or on');
}

/** @throws QmpError for what is no qcow2 image, or for another file behind it than its own. */
function requireQcow2(filename: string, backing: string | null | undefined): void {
  const header = readQcow2Header(filename);
  if (!header) throw new QmpError('Image is not in qcow2 format');
  if (typeof backing === 'string') {
    throw new QmpError(`Behind an image is the file that it names itself: '${backing}' cannot be put there`);
  }
  if (backing === null && header.backing !== undefined) {
    throw new QmpError(`'${filename}' has a backing file, '${header.backing}', and is nothing without it`);
  }
}

function requireAccess(filename: string, readOnly: boolean): void {
  try {
    accessSync(filename, readOnly ? constants.R_OK : constants.R_OK | constants.W_OK);
  } catch (error) {
    throw new QmpError(`Could not open '${filename}': ${reasonOf(error as NodeJS.ErrnoException)}`);
  }
}
