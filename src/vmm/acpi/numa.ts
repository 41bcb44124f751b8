/** The tables of NUMA: SRAT says what is in a node, SLIT and HMAT how far nodes are from each other. */
import { type MachineDescription, type NumaDescription, possibleCpus } from '../../client/description.ts';
import {
  commonDivisor,
  distanceMatrix,
  HMAT_ASSOCIATIVITIES,
  HMAT_DATA_TYPES,
  HMAT_ENTRY_MAX,
  HMAT_HIERARCHIES,
  HMAT_WRITE_POLICIES,
} from '../../client/numa.ts';
import { MiB, nodeRanges, type RamRange } from '../memory_layout.ts';
import { join, littleEndian } from './aml_encoding.ts';
import type { AcpiCpu, AcpiMemoryAttributes, AcpiNuma } from './board.ts';
import { isX2apic } from './madt.ts';
import { table } from './table.ts';

const u8 = (value: number) => littleEndian(value, 1);
const u16 = (value: number) => littleEndian(value, 2);
const u32 = (value: number) => littleEndian(value, 4);
const u64 = (value: number) => littleEndian(value, 8);

const SRAT_REVISION = 3;
const AFFINITY_ENABLED = 1 << 0;
const AFFINITY_HOT_PLUGGABLE = 1 << 1;

/**
 * System Resource Affinity Table (ACPI specification 6.4, section 5.2.16).
 * A processor's entry is of the kind that its MADT entry is of.
 */
export function srat(cpus: readonly AcpiCpu[], numa: AcpiNuma): Uint8Array {
  const processors = cpus.map((cpu) => {
    const node = u32(cpu.node ?? 0);
    return isX2apic(cpu)
      ? join(2, 24, u16(0), node, u32(cpu.apicId), u32(AFFINITY_ENABLED), u32(0), u32(0))
      : join(0, 16, node[0], cpu.apicId, u32(AFFINITY_ENABLED), 0, node.subarray(1), u32(0));
  });
  const memory = numa.memory.map(({ node, base, size, hotpluggable }) => {
    const flags = AFFINITY_ENABLED | (hotpluggable ? AFFINITY_HOT_PLUGGABLE : 0);
    return join(1, 40, u32(node), u16(0), u64(base), u64(size), u32(0), u32(flags), u64(0));
  });
  // The reserved word in front is 1 for those who knew the table before it was ACPI's.
  return table('SRAT', SRAT_REVISION, join(u32(1), u64(0), ...processors, ...memory));
}

/** System Locality Distance Information Table (section 5.2.17). */
export const slit = ({ distances }: AcpiNuma): Uint8Array =>
  table('SLIT', 1, join(u64(distances.length), ...distances.flat()));

const HMAT_REVISION = 2;
const INITIATOR_VALID = 1 << 0;
/** Revision 2 counts latencies in picoseconds, and bandwidths in MB/s, which are MiB/s to those who read them. */
const PICOSECONDS_PER_NS = 1000;
const FIRST_BANDWIDTH_TYPE = HMAT_DATA_TYPES.indexOf('access-bandwidth');

/** Heterogeneous Memory Attribute Table (section 5.2.27). */
export function hmat(attributes: AcpiMemoryAttributes): Uint8Array {
  const domains = attributes.targets.map(({ node, initiator }) =>
    join(
      ...[u16(0), u16(0), u32(40)],
      ...[u16(initiator === undefined ? 0 : INITIATOR_VALID), u16(0), u32(initiator ?? 0), u32(node)],
      ...[u32(0), u64(0), u64(0)],
    ),
  );
  const kinds = new Map<string, AcpiMemoryAttributes['localities'][number][]>();
  for (const each of attributes.localities) {
    const key = `${each.hierarchy} ${each.dataType}`;
    kinds.set(key, [...(kinds.get(key) ?? []), each]);
  }
  return table(
    'HMAT',
    HMAT_REVISION,
    join(
      u32(0),
      ...domains,
      ...[...kinds.values()].map((entries) => localities(attributes, entries)),
      ...attributes.caches.map(memorySideCache),
    ),
  );
}

/** System Locality Latency and Bandwidth Information: a matrix for one hierarchy and data type (5.2.27.4). */
function localities(
  { initiators, targets }: AcpiMemoryAttributes,
  entries: AcpiMemoryAttributes['localities'],
): Uint8Array {
  const [{ hierarchy, dataType }] = entries;
  const values = entries.map(({ value }) => value);
  // The largest unit that leaves every value whole, if units of one do not reach far enough.
  const unit = Math.max(...values) > HMAT_ENTRY_MAX ? values.reduce(commonDivisor) : 1;
  const matrix = initiators.flatMap((initiator) =>
    targets.map((target) => {
      const entry = entries.find((each) => each.initiator === initiator && each.target === target.node);
      // 0 says that there is no information.
      return u16(entry ? entry.value / unit : 0);
    }),
  );
  return join(
    ...[u16(1), u16(0), u32(32 + 4 * (initiators.length + targets.length) + 2 * matrix.length)],
    ...[hierarchy, dataType, 0, 0],
    ...[u32(initiators.length), u32(targets.length), u32(0)],
    u64(unit * (dataType < FIRST_BANDWIDTH_TYPE ? PICOSECONDS_PER_NS : 1)),
    ...initiators.map(u32),
    ...targets.map(({ node }) => u32(node)),
    ...matrix,
  );
}

/** Memory Side Cache Information (5.2.27.5). */
function memorySideCache(cache: AcpiMemoryAttributes['caches'][number]): Uint8Array {
  const { node, size, level, levels, associativity, policy, line } = cache;
  return join(
    ...[u16(2), u16(0), u32(32), u32(node), u32(0), u64(size)],
    ...[u8(levels | (level << 4)), u8(associativity | (policy << 4)), u16(line)],
    ...[u16(0), u16(0)],
  );
}

/** Node of a vCPU. */
export const nodeOfCpu = ({ nodes }: NumaDescription, cpu: number): number =>
  nodes.findIndex(({ cpus }) => cpus.includes(cpu));

/**
 * The one node of a machine that has none but has room for memory above its RAM: Linux wants to know at its start how
 * far memory may reach one day, and SRAT alone says that.
 */
export function numaForRoom({ cpus, memory }: Pick<MachineDescription, 'cpus' | 'memory'>): NumaDescription {
  const all = Array.from({ length: possibleCpus(cpus) }, (_, cpu) => cpu);
  return {
    nodes: [{ cpus: all, memory: memory.size, policy: 'bind' }],
    ...{ distances: [], localities: [], caches: [] },
  };
}

/**
 * What the tables say of a described machine whose RAM is in `ranges`.
 * @param dimms room for DIMMs, which is said to be the last node's, as QEMU says it; a DIMM's own _PXM tells more.
 */
export function acpiNuma(numa: NumaDescription, ranges: readonly RamRange[], dimms?: RamRange): AcpiNuma {
  const sizes = numa.nodes.map(({ memory }) => memory);
  const room = dimms && {
    ...{ node: numa.nodes.length - 1, base: dimms.gpa, size: dimms.size, hotpluggable: true },
  };
  return {
    memory: [
      ...nodeRanges(sizes, ranges).map(({ node, gpa, size }) => ({ node, base: gpa, size })),
      ...(room ? [room] : []),
    ],
    distances: distanceMatrix(numa),
    attributes: memoryAttributes(numa),
  };
}

function memoryAttributes({ nodes, localities, caches }: NumaDescription): AcpiMemoryAttributes | undefined {
  const told = localities.length > 0 || caches.length > 0 || nodes.some(({ initiator }) => initiator !== undefined);
  if (!told) return undefined;
  const numbered = nodes.map((node, number) => ({ ...node, number }));
  return {
    targets: numbered
      .filter(({ memory }) => memory > 0)
      .map(({ number, cpus, initiator }) => ({ node: number, initiator: cpus.length > 0 ? number : initiator })),
    initiators: numbered.filter(({ cpus }) => cpus.length > 0).map(({ number }) => number),
    localities: localities.map(({ initiator, target, hierarchy, dataType, latency, bandwidth }) => ({
      initiator,
      target,
      hierarchy: HMAT_HIERARCHIES.indexOf(hierarchy),
      dataType: HMAT_DATA_TYPES.indexOf(dataType),
      value: latency ?? (bandwidth ?? 0) / MiB,
    })),
    caches: caches.map(({ node, size, level, associativity, policy, line }) => ({
      node,
      size,
      level,
      levels: Math.max(...caches.filter((each) => each.node === node).map((each) => each.level)),
      associativity: HMAT_ASSOCIATIVITIES.indexOf(associativity),
      policy: HMAT_WRITE_POLICIES.indexOf(policy),
      line,
    })),
  };
}
