/** How a guest's processors are arranged; each count is per the level above. */
export interface Topology {
  readonly sockets: number;
  readonly cores: number;
  readonly threads: number;
}

/** Bits that number `count` things. */
const bitsFor = (count: number) => Math.ceil(Math.log2(Math.max(1, count)));

export interface TopologyBits {
  readonly threadBits: number;
  readonly coreBits: number;
  /** Shift of the package number in an APIC id. */
  readonly packageShift: number;
}

export function topologyBits(topology: Topology): TopologyBits {
  const threadBits = bitsFor(topology.threads);
  const coreBits = bitsFor(topology.cores);
  return { threadBits, coreBits, packageShift: threadBits + coreBits };
}

/** APIC id of a vCPU by its number: package, core and thread fields, each a power of two wide. */
export function apicIdOf(index: number, topology: Topology): number {
  const { threadBits, packageShift } = topologyBits(topology);
  const thread = index % topology.threads;
  const core = Math.floor(index / topology.threads) % topology.cores;
  const socket = Math.floor(index / (topology.threads * topology.cores));
  return (socket << packageShift) | (core << threadBits) | thread;
}
