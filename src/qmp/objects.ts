/** What `object-add` makes: memory for devices, and names that devices may have. */
import { accessSync, constants, type Stats, statSync } from 'node:fs';
import { dirname } from 'node:path';
import * as z from 'zod';
import type { MemoryBackend, NamedObject, QmpObject } from './devices.ts';
import { QmpError } from './errors.ts';
import { NO_FILE, reasonOf } from './files.ts';
import { bool, int, isUint32, str, uint, withBase } from './types.ts';

export const memoryPolicy = z.enum(['default', 'preferred', 'bind', 'interleave']);
const id = str;
const backend = {
  ...{ id, size: uint, 'host-nodes': z.array(uint).optional(), policy: memoryPolicy.optional() },
  ...{ prealloc: bool.optional(), 'prealloc-threads': uint.optional(), share: bool.optional() },
  ...{ dump: bool.optional(), merge: bool.optional(), reserve: bool.optional() },
};
const limits = {
  'aio-max-batch': int.optional(),
  'thread-pool-min': int.optional(),
  'thread-pool-max': int.optional(),
};
export const objectSchema = withBase(
  z.discriminatedUnion('qom-type', [
    z.strictObject({ 'qom-type': z.literal('memory-backend-ram'), ...backend }),
    z.strictObject({
      ...{ 'qom-type': z.literal('memory-backend-file'), ...backend, 'mem-path': str, pmem: bool.optional() },
    }),
    z.strictObject({
      ...{ 'qom-type': z.literal('memory-backend-memfd'), ...backend },
      ...{ hugetlb: bool.optional(), hugetlbsize: uint.optional() },
    }),
    z.strictObject({ 'qom-type': z.literal('rng-builtin'), id }),
    z.strictObject({ 'qom-type': z.literal('rng-random'), id, filename: str.optional() }),
    z.strictObject({
      ...{ 'qom-type': z.literal('iothread'), id, ...limits },
      ...{ 'poll-max-ns': int.optional(), 'poll-grow': int.optional(), 'poll-shrink': int.optional() },
    }),
  ]),
  ['id'],
);
type ObjectInput = z.output<typeof objectSchema>;
type MemoryInput = Extract<ObjectInput, { 'qom-type': MemoryBackend['type'] }>;

/** Types that `object-add` makes, each with the parent that it has in QEMU, and its properties. */
export const OBJECT_TYPES = objectSchema.options.map(({ shape }) => {
  const { 'qom-type': type, id: _, ...properties } = shape as Record<string, z.ZodType>;
  const name = (type as z.ZodLiteral<ObjectInput['qom-type']>).value;
  return { name, parent: parentOf(name), properties };
});

/** What properties are where nothing is said of them. */
const MEMORY_DEFAULTS = {
  ...{ 'host-nodes': [], policy: 'default', prealloc: false, 'prealloc-threads': 1 },
  ...{ share: false, dump: true, merge: true, reserve: true },
};
const DEFAULTS: Readonly<Record<ObjectInput['qom-type'], Readonly<Record<string, unknown>>>> = {
  'memory-backend-ram': MEMORY_DEFAULTS,
  'memory-backend-file': { ...MEMORY_DEFAULTS, pmem: false },
  'memory-backend-memfd': { ...MEMORY_DEFAULTS, hugetlb: false, hugetlbsize: 0 },
  'rng-builtin': {},
  'rng-random': { filename: '/dev/urandom' },
  iothread: {
    ...{ 'poll-max-ns': 32_768, 'poll-grow': 0, 'poll-shrink': 0 },
    ...{ 'aio-max-batch': 0, 'thread-pool-min': 0, 'thread-pool-max': 64 },
  },
};
/** Properties of an iothread that are numbers from 0 on, and may change. */
const POLLING = ['poll-max-ns', 'poll-grow', 'poll-shrink', 'aio-max-batch'];
export const isSettable = (type: string, name: string): boolean => type === 'iothread' && POLLING.includes(name);

/** @throws QmpError with QEMU's words. */
export function requirePolling(name: string, value: number): void {
  if (value >= 0) return;
  throw new QmpError(`${name} value must be in range [0, 9223372036854775807]`);
}

const settingsOf = ({ 'qom-type': type, id: _, ...given }: ObjectInput): Record<string, unknown> => ({
  ...DEFAULTS[type],
  ...given,
});

function parentOf(type: ObjectInput['qom-type']): string {
  if (type === 'iothread') return 'event-loop-base';
  return type.startsWith('rng') ? 'rng-backend' : 'memory-backend';
}

const HUGE: Readonly<Record<number, '2M' | '1G'>> = { [2 << 20]: '2M', [1 << 30]: '1G' };

function hugePages(object: MemoryInput): '2M' | '1G' | undefined {
  if (object['qom-type'] !== 'memory-backend-memfd' || !object.hugetlb) return undefined;
  const size = object.hugetlbsize ?? 2 << 20;
  const pages = HUGE[size];
  if (pages === undefined) throw new QmpError(`Pages of ${size} bytes cannot be had: hugetlbsize is 2 MiB or 1 GiB`);
  return pages;
}

const BACKENDS = {
  'memory-backend-ram': 'anonymous',
  'memory-backend-file': 'file',
  'memory-backend-memfd': 'memfd',
} as const;

/** @throws QmpError for values that no memory can have. */
function requireSound(object: MemoryInput): void {
  const { 'qom-type': type, size, policy = 'default', 'prealloc-threads': threads } = object;
  const nodes = object['host-nodes'] ?? [];
  if (size <= 0) throw new QmpError(`property 'size' of ${type} doesn't take value '${size}'`);
  if (threads !== undefined && !isUint32(threads)) throw new QmpError("Parameter 'prealloc-threads' expects uint32_t");
  if (nodes.some((node) => node < 0 || node > 0xffff)) throw new QmpError("Parameter 'host-nodes' expects uint16_t");
  if (threads !== undefined && threads <= 0) {
    throw new QmpError(`property 'prealloc-threads' of ${type} doesn't take value '${threads}'`);
  }
  if (policy === 'default' && nodes.length > 0) {
    throw new QmpError(
      'host-nodes must be empty for policy default, or you should explicitly specify a policy other than default',
    );
  }
  if (policy !== 'default' && nodes.length === 0) throw new QmpError(`host-nodes must be set for policy ${policy}`);
  if (type !== 'memory-backend-file') return;
  if (object.pmem) throw new QmpError('What is written to a file is not flushed by libpmem here: pmem must be off');
  requireRoom(object['mem-path'], size);
}

/** The file is made when a device has the memory: here it is seen whether it can be. @throws QmpError */
function requireRoom(path: string, size: number): void {
  const refuse = (why: string) => new QmpError(`can't open backing store ${path} for guest RAM: ${why}`);
  if (path === '') throw refuse(NO_FILE);
  let file: Stats | undefined;
  try {
    file = statSync(path, { throwIfNoEntry: false });
    accessSync(file ? path : dirname(path), constants.R_OK | constants.W_OK);
  } catch (error) {
    throw refuse(reasonOf(error as NodeJS.ErrnoException));
  }
  if (file?.isFile() && file.size > 0 && file.size < size) {
    const hex = (value: number) => `0x${value.toString(16)}`;
    throw new QmpError(`backing store size ${hex(file.size)} does not match 'size' option ${hex(size)}`);
  }
}

function memoryOf(object: MemoryInput): MemoryBackend {
  requireSound(object);
  const { 'host-nodes': hostNodes, policy: how, prealloc = false, share = false, 'qom-type': type } = object;
  const { dump = true, merge = true, reserve = true } = object;
  const hugepages = hugePages(object);
  return {
    ...{ id: object.id, type, size: object.size, dump, merge, reserve, usedBy: undefined },
    settings: settingsOf(object),
    plug: {
      ...{ backend: BACKENDS[type], share, prealloc, thp: true, lock: false },
      preallocThreads: object['prealloc-threads'] ?? 4,
      policy: how === undefined || how === 'default' ? 'bind' : how,
      ...(hostNodes && hostNodes.length > 0 && { hostNodes }),
      ...(hugepages !== undefined && { hugepages }),
      ...(object['qom-type'] === 'memory-backend-file' && { path: object['mem-path'] }),
    },
  };
}

/** Random bytes are the host's (getrandom), whatever their name. */
const SOURCES = ['/dev/urandom', '/dev/random'];

function namedOf(object: Exclude<ObjectInput, MemoryInput>): NamedObject {
  if (object['qom-type'] === 'rng-random' && object.filename !== undefined && !SOURCES.includes(object.filename)) {
    const { filename } = object;
    try {
      accessSync(filename, constants.R_OK);
    } catch (error) {
      throw new QmpError(`Could not open '${filename}': ${reasonOf(error as NodeJS.ErrnoException)}`);
    }
    throw new QmpError(`Random bytes come from the host's kernel: filename is ${SOURCES.join(' or ')}`);
  }
  const settings = settingsOf(object);
  for (const name of POLLING) if (typeof settings[name] === 'number') requirePolling(name, settings[name]);
  return { id: object.id, type: object['qom-type'], settings };
}

/** @throws QmpError */
export function makeObject(object: ObjectInput): QmpObject {
  return isMemory(object) ? memoryOf(object) : namedOf(object as Exclude<ObjectInput, MemoryInput>);
}

const isMemory = (object: ObjectInput): object is MemoryInput => parentOf(object['qom-type']) === 'memory-backend';
