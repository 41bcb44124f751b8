/**
 * Leaves 0x8000001D and 0x8000001E for an AMD processor that ends before them (AMD APM volume 3, appendix E): a
 * kernel that is told of topology extensions, as every guest of several processors is, reads its caches and its
 * nodes there and nowhere else.
 */
import type { CpuidEntry } from './cpuid.ts';

const MAX_EXTENDED_LEAF = 0x80000000;
const L1_LEAF = 0x80000005;
const L2_L3_LEAF = 0x80000006;
const CACHE_LEAF = 0x8000001d;
const TOPOLOGY_LEAF = 0x8000001e;
const SIGNIFICANT_INDEX = 1;

const DATA = 1;
const INSTRUCTIONS = 2;
const UNIFIED = 3;
/** Associativity as leaf 0x80000006 encodes it, in ways; 15 is full. */
const WAYS: Record<number, number> = {
  1: 1,
  2: 2,
  3: 3,
  4: 4,
  5: 6,
  6: 8,
  8: 16,
  10: 32,
  11: 48,
  12: 64,
  13: 96,
  14: 128,
};
const FULL = 0xff;
const FULLY_ASSOCIATIVE = 1 << 9;
const SELF_INITIALIZING = 1 << 8;

interface Cache {
  readonly type: number;
  readonly level: number;
  readonly bytes: number;
  readonly line: number;
  readonly ways: number;
}

/** @returns the entries, with what is missing made from the older cache leaves. Sharing is the caller's to fill in. */
export function withTopologyLeaves(supported: readonly CpuidEntry[]): CpuidEntry[] {
  const leaf = (number: number) => supported.find((entry) => entry.function === number);
  const highest = leaf(MAX_EXTENDED_LEAF);
  if (!highest || highest.eax >>> 0 >= TOPOLOGY_LEAF) return [...supported];
  const made = (number: number, index: number, flags: number): CpuidEntry => ({
    ...{ function: number, index, flags, eax: 0, ebx: 0, ecx: 0, edx: 0 },
  });
  const caches = cachesOf(leaf(L1_LEAF), leaf(L2_L3_LEAF)).map((cache, index) => ({
    ...made(CACHE_LEAF, index, SIGNIFICANT_INDEX),
    ...encode(cache),
  }));
  return [
    ...supported.map((entry) => (entry === highest ? { ...entry, eax: TOPOLOGY_LEAF } : entry)),
    ...caches,
    made(CACHE_LEAF, caches.length, SIGNIFICANT_INDEX),
    made(TOPOLOGY_LEAF, 0, 0),
  ];
}

function cachesOf(l1: CpuidEntry | undefined, l23: CpuidEntry | undefined): Cache[] {
  const first = (type: number, value: number): Cache => ({
    ...{ type, level: 1, bytes: (value >>> 24) * 1024, line: value & 0xff, ways: (value >>> 16) & 0xff },
  });
  const further = (level: number, bytes: number, value: number): Cache => {
    const code = (value >>> 12) & 0xf;
    return { type: UNIFIED, level, bytes, line: value & 0xff, ways: code === 0xf ? FULL : (WAYS[code] ?? 0) };
  };
  return [
    ...(l1 ? [first(DATA, l1.ecx), first(INSTRUCTIONS, l1.edx)] : []),
    ...(l23 ? [further(2, (l23.ecx >>> 16) * 1024, l23.ecx), further(3, (l23.edx >>> 18) * 512 * 1024, l23.edx)] : []),
  ].filter(({ bytes, line, ways }) => bytes > 0 && line > 0 && ways > 0);
}

function encode({ type, level, bytes, line, ways }: Cache): Pick<CpuidEntry, 'eax' | 'ebx' | 'ecx'> {
  const full = ways === FULL;
  const lines = Math.floor(bytes / line);
  const perSet = full ? lines : ways;
  return {
    eax: type | (level << 5) | SELF_INITIALIZING | (full ? FULLY_ASSOCIATIVE : 0),
    ebx: (((perSet - 1) << 22) | (line - 1)) >>> 0,
    ecx: Math.max(1, Math.floor(lines / perSet)) - 1,
  };
}
