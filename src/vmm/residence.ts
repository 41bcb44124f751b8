/** What of a guest's RAM is in the host's memory. */
import { readFileSync } from 'node:fs';

/** Sizes in bytes; the address is the guest's. */
export interface Residence {
  readonly address: number;
  readonly size: number;
  readonly resident: number;
  readonly huge: number;
}

/** Fields of /proc/PID/smaps (proc_pid_smaps(5)) that count resident bytes, and those of huge pages among them. */
const RESIDENT = new Set(['Rss', 'Shared_Hugetlb', 'Private_Hugetlb']);
const HUGE = new Set(['AnonHugePages', 'ShmemPmdMapped', 'FilePmdMapped', 'Shared_Hugetlb', 'Private_Hugetlb']);

/**
 * Adds up what this process's mappings of each range have in memory. The kernel joins mappings of the same kind: what
 * is in one that covers several ranges is shared out by their sizes.
 * @param base host address of guest-physical address 0
 * @param smaps what to read in place of this process's own
 */
export function residenceOf(
  base: number,
  ranges: readonly { readonly address: number; readonly size: number }[],
  smaps: string = readFileSync('/proc/self/smaps', 'latin1'),
): Residence[] {
  const found = ranges
    .map(({ address, size }) => ({ address, size, resident: 0, huge: 0 }))
    .sort((a, b) => a.address - b.address);
  let shares: { range: (typeof found)[number]; share: number }[] = [];
  for (const line of smaps.split('\n')) {
    const mapping = /^([0-9a-f]+)-([0-9a-f]+) /.exec(line);
    if (mapping) {
      const from = Number.parseInt(mapping[1], 16) - base;
      const to = Number.parseInt(mapping[2], 16) - base;
      const overlaps = found.map((range) => ({
        range,
        bytes: Math.max(0, Math.min(to, range.address + range.size) - Math.max(from, range.address)),
      }));
      const sum = overlaps.reduce((total, { bytes }) => total + bytes, 0);
      shares = overlaps.flatMap(({ range, bytes }) => (bytes > 0 ? [{ range, share: bytes / sum }] : []));
      continue;
    }
    const field = shares.length > 0 && /^(\w+):\s+(\d+) kB$/.exec(line);
    if (!field) continue;
    const bytes = Number(field[2]) * 1024;
    for (const { range, share } of shares) {
      if (RESIDENT.has(field[1])) range.resident += Math.round(bytes * share);
      if (HUGE.has(field[1])) range.huge += Math.round(bytes * share);
    }
  }
  return found;
}
