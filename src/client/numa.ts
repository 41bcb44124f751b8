/**
 * NUMA in the machine description: which node each processor and each piece of memory belongs to, and how far they
 * are from each other. Keys are those of QEMU's `-numa`, in this project's spelling.
 */
import * as z from 'zod';
import { byteSize, byteSizeOrNone } from './sizes.ts';

const MiB = 2 ** 20;
const PAGE = 4096;

/** ACPI specification 6.4, section 5.2.17: a node is 10 from itself, and 255 says that there is no way. */
export const LOCAL_DISTANCE = 10;
export const REMOTE_DISTANCE = 20;
export const UNREACHABLE = 255;

const NODES = 64;
const node = z
  .int()
  .min(0)
  .max(NODES - 1);

/** What an HMAT number is about (ACPI specification 6.4, table 5.147), in the order of their encoding. */
export const HMAT_HIERARCHIES = ['memory', 'first-level', 'second-level', 'third-level'] as const;
export const HMAT_DATA_TYPES = [
  'access-latency',
  'read-latency',
  'write-latency',
  'access-bandwidth',
  'read-bandwidth',
  'write-bandwidth',
] as const;
export const HMAT_ASSOCIATIVITIES = ['none', 'direct', 'complex'] as const;
export const HMAT_WRITE_POLICIES = ['none', 'write-back', 'write-through'] as const;

/** An entry is a multiple of a unit in 16 bits, whose 0 and 0xffff have meanings of their own. */
export const HMAT_ENTRY_MAX = 0xfffe;

const nodeSchema = z.strictObject({
  cpus: z.array(z.int().min(0).max(253)).default([]).describe('vCPUs of the node, by number'),
  memory: byteSizeOrNone.prefault(0).describe('bytes of RAM in the node'),
  initiator: node.optional().describe('node with processors that is nearest to this memory'),
  hostNodes: z.array(z.int().min(0).max(63)).min(1).optional().describe("host NUMA nodes for the node's memory"),
  policy: z.enum(['bind', 'preferred', 'interleave']).default('bind'),
});

const distanceSchema = z.strictObject({
  src: node,
  dst: node,
  val: z.int().min(LOCAL_DISTANCE).max(UNREACHABLE).describe('10 is local, 255 unreachable'),
});

const localitySchema = z.strictObject({
  initiator: node.describe('node that asks'),
  target: node.describe('node whose memory is asked'),
  hierarchy: z.enum(HMAT_HIERARCHIES).default('memory').describe('the memory, or a level of the cache before it'),
  dataType: z.enum(HMAT_DATA_TYPES),
  latency: z.int().min(1).max(HMAT_ENTRY_MAX).optional().describe('nanoseconds'),
  bandwidth: byteSize.optional().describe('bytes a second'),
});

const cacheSchema = z.strictObject({
  node,
  size: byteSize,
  level: z.int().min(1).max(3),
  associativity: z.enum(HMAT_ASSOCIATIVITIES).default('none'),
  policy: z.enum(HMAT_WRITE_POLICIES).default('none'),
  line: z.int().min(0).max(0xffff).default(0).describe('bytes of a line'),
});

export const numaSchema = z.strictObject({
  nodes: z.array(nodeSchema).min(1).max(NODES).describe('in the order of their numbers'),
  distances: z
    .array(distanceSchema)
    .default([])
    .describe('what is not said is the same as the way back, or else 20; 10 within a node'),
  localities: z.array(localitySchema).default([]).describe('latency and bandwidth between nodes (HMAT)'),
  caches: z.array(cacheSchema).default([]).describe('caches before the memory of a node (HMAT)'),
});

type Numa = z.output<typeof numaSchema>;
type Problem = (path: readonly (string | number)[], message: string) => void;

/** `0-3, 8`, as people list numbers. */
function ranges(numbers: readonly number[]): string {
  const sorted = [...numbers].sort((a, b) => a - b);
  const parts: [number, number][] = [];
  for (const number of sorted) {
    const last = parts.at(-1);
    if (last && number === last[1] + 1) last[1] = number;
    else parts.push([number, number]);
  }
  return parts.map(([from, to]) => (from === to ? `${from}` : `${from}-${to}`)).join(', ');
}

/** The rules between nodes, processors and memory. Problems are told with the path of the field. */
export function checkNuma(
  numa: Numa,
  cpus: number,
  memory: { readonly size: number; readonly hugepages?: '2M' | '1G' | undefined },
  context: z.RefinementCtx,
): void {
  const problem: Problem = (path, message) => context.addIssue({ code: 'custom', path: ['numa', ...path], message });
  checkCpus(numa, cpus, problem);
  checkMemory(numa, memory, problem);
  checkDistances(numa, problem);
  checkHmat(numa, problem);
}

function checkCpus({ nodes }: Numa, cpus: number, problem: Problem): void {
  const owner = new Map<number, number>();
  for (const [index, each] of nodes.entries()) {
    for (const cpu of each.cpus) {
      const other = owner.get(cpu);
      if (cpu >= cpus) {
        problem(['nodes', index, 'cpus'], `There is no vCPU ${cpu}: the machine has 0 to ${cpus - 1}.`);
      } else if (other !== undefined) {
        problem(
          ['nodes', index, 'cpus'],
          other === index ? `vCPU ${cpu} is named twice.` : `vCPU ${cpu} is in node ${other} too.`,
        );
      }
      owner.set(cpu, index);
    }
  }
  const homeless = Array.from({ length: cpus }, (_, cpu) => cpu).filter((cpu) => !owner.has(cpu));
  if (homeless.length > 0) problem(['nodes'], `vCPU ${ranges(homeless)} of ${cpus} is in no node's cpus.`);
}

function checkMemory({ nodes }: Numa, memory: Parameters<typeof checkNuma>[2], problem: Problem): void {
  const step = memory.hugepages === '1G' ? 1024 * MiB : memory.hugepages === '2M' ? 2 * MiB : PAGE;
  let sum = 0;
  for (const [index, each] of nodes.entries()) {
    sum += each.memory;
    if (each.memory % step !== 0) {
      problem(['nodes', index, 'memory'], `${each.memory} bytes are not a multiple of the page size, ${step}.`);
    }
    if (each.hostNodes && each.memory === 0) {
      problem(['nodes', index, 'hostNodes'], `Node ${index} has no memory that could be bound to host nodes.`);
    }
  }
  if (sum !== memory.size) {
    problem(['nodes'], `The nodes' memory is ${sum} bytes together, but the machine has ${memory.size}.`);
  }
}

function checkDistances({ nodes, distances }: Numa, problem: Problem): void {
  const seen = new Set<string>();
  for (const [index, { src, dst, val }] of distances.entries()) {
    const at = ['distances', index];
    for (const [key, each] of [['src', src] as const, ['dst', dst] as const]) {
      if (each >= nodes.length) problem([...at, key], `There is no node ${each}: nodes are 0 to ${nodes.length - 1}.`);
    }
    if (src === dst && val !== LOCAL_DISTANCE) {
      problem([...at, 'val'], `Node ${src} is ${val} from itself, which is always ${LOCAL_DISTANCE}.`);
    }
    if (src !== dst && val === LOCAL_DISTANCE) {
      problem([...at, 'val'], `Nodes ${src} and ${dst} are two: their distance is more than ${LOCAL_DISTANCE}.`);
    }
    if (seen.has(`${src} ${dst}`)) problem(at, `The distance from ${src} to ${dst} is given twice.`);
    seen.add(`${src} ${dst}`);
  }
}

function checkHmat({ nodes, localities, caches }: Numa, problem: Problem): void {
  const exists = (path: (string | number)[], number: number) => {
    if (number < nodes.length) return true;
    problem(path, `There is no node ${number}: nodes are 0 to ${nodes.length - 1}.`);
    return false;
  };
  for (const [index, { initiator, cpus }] of nodes.entries()) {
    const path = ['nodes', index, 'initiator'];
    if (initiator === undefined || !exists(path, initiator)) continue;
    if (nodes[initiator].cpus.length === 0) problem(path, `Node ${initiator} has no processors.`);
    else if (cpus.length > 0 && initiator !== index) problem(path, `Node ${index} has processors: it is its own.`);
  }
  const seen = new Set<string>();
  const bandwidths = new Map<string, number[]>();
  for (const [index, each] of localities.entries()) {
    const at = ['localities', index];
    const { initiator, target, hierarchy, dataType, latency, bandwidth } = each;
    if (exists([...at, 'initiator'], initiator) && nodes[initiator].cpus.length === 0) {
      problem([...at, 'initiator'], `Node ${initiator} has no processors.`);
    }
    if (exists([...at, 'target'], target) && nodes[target].memory === 0) {
      problem([...at, 'target'], `Node ${target} has no memory.`);
    }
    const [wanted, other] = dataType.endsWith('latency')
      ? (['latency', bandwidth] as const)
      : (['bandwidth', latency] as const);
    if (each[wanted] === undefined) problem(at, `${dataType} needs ${wanted}.`);
    if (other !== undefined) problem(at, `${dataType} takes ${wanted} alone.`);
    const key = `${hierarchy} ${dataType}`;
    if (seen.has(`${key} ${initiator} ${target}`)) {
      problem(at, `The ${key} from ${initiator} to ${target} is given twice.`);
    }
    seen.add(`${key} ${initiator} ${target}`);
    if (bandwidth === undefined) continue;
    if (bandwidth % MiB !== 0) problem([...at, 'bandwidth'], `${bandwidth} bytes a second are not whole MiB.`);
    const all = bandwidths.get(key) ?? [];
    bandwidths.set(key, [...all, bandwidth / MiB]);
    if (Math.max(...all, bandwidth / MiB) / [...all, bandwidth / MiB].reduce(commonDivisor) > HMAT_ENTRY_MAX) {
      problem([...at, 'bandwidth'], `The table has room for ${HMAT_ENTRY_MAX} steps between the values of ${key}.`);
    }
  }
  const levels = new Set<string>();
  for (const [index, { node: number, level }] of caches.entries()) {
    const at = ['caches', index];
    if (exists([...at, 'node'], number) && nodes[number].memory === 0) {
      problem([...at, 'node'], `Node ${number} has no memory.`);
    }
    if (levels.has(`${number} ${level}`)) problem(at, `Cache level ${level} of node ${number} is given twice.`);
    levels.add(`${number} ${level}`);
  }
}

export function commonDivisor(a: number, b: number): number {
  return b === 0 ? a : commonDivisor(b, a % b);
}

/** A machine whose memory size is not said has what its nodes have together. */
export function withMemoryOfNodes(input: unknown): unknown {
  const { numa, memory } = (input ?? {}) as {
    numa?: { nodes?: { memory?: unknown }[] };
    memory?: { size?: unknown };
  };
  if (!Array.isArray(numa?.nodes) || typeof (memory ?? {}) !== 'object' || memory?.size !== undefined) return input;
  const sizes = numa.nodes.map((each) => byteSizeOrNone.safeParse(each?.memory ?? 0));
  const sum = sizes.reduce((total, { data }) => total + (data ?? 0), 0);
  return sum > 0 ? { ...(input as object), memory: { ...memory, size: sum } } : input;
}

/**
 * Nodes have packages of their own: a cache that two nodes share is none that a kernel believes in. So it is where
 * the user says how many vCPUs there are and no more, and the nodes have equally many of them, one behind the other.
 */
export function withPackagesOfNodes(input: unknown): unknown {
  const { numa, cpus } = (input ?? {}) as { numa?: { nodes?: { cpus?: unknown }[] }; cpus?: Record<string, unknown> };
  const { count, sockets, cores, threads } = cpus ?? {};
  if (!Array.isArray(numa?.nodes) || typeof count !== 'number' || sockets || cores || threads) return input;
  const lists = numa.nodes.flatMap((each) => (Array.isArray(each?.cpus) && each.cpus.length > 0 ? [each.cpus] : []));
  const size = (typeof cpus?.max === 'number' ? cpus.max : count) / lists.length;
  const whole = lists.every((list, node) => list.length === size && list.every((cpu, i) => cpu === node * size + i));
  return whole && lists.length > 1 ? { ...(input as object), cpus: { ...cpus, sockets: lists.length } } : input;
}

/** The whole matrix of distances, by source and destination. */
export function distanceMatrix({ nodes, distances }: Pick<Numa, 'nodes' | 'distances'>): number[][] {
  const given = (src: number, dst: number) => distances.find((each) => each.src === src && each.dst === dst)?.val;
  return nodes.map((_, src) =>
    nodes.map((_, dst) => (src === dst ? LOCAL_DISTANCE : (given(src, dst) ?? given(dst, src) ?? REMOTE_DISTANCE))),
  );
}
