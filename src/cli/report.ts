/** Reports for people, from what a machine tells. */
import { stripVTControlCharacters } from 'node:util';
import type { CountersReport, VcpuReport } from '../client/machine_client.ts';
import { table } from '../client/text_table.ts';

/**
 * What a guest printed, for a message of ours: without sequences that move the cursor, set modes or have the
 * terminal answer.
 */
export function printable(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is taken out
  return stripVTControlCharacters(text).replaceAll(/[\x00-\x08\x0b-\x1f\x7f-\x9f]/g, '');
}

/** Exits by reason, over all vCPUs. */
export function exitsByReason(counters: CountersReport): [string, number][] {
  const sums = new Map<string, number>();
  for (const { exits } of counters.vcpus) {
    for (const [reason, count] of Object.entries(exits)) sums.set(reason, (sums.get(reason) ?? 0) + count);
  }
  return [...sums].sort((a, b) => b[1] - a[1]);
}

/** One line a vCPU: what it does, and where. */
export function describeVcpus(vcpus: readonly VcpuReport[]): string {
  return vcpus
    .map(({ index, activity, registers, exits }) => {
      const most = Object.entries(exits)
        .sort((a, b) => b[1] - a[1])
        .slice(0, 3)
        .map(([reason, count]) => `${reason} ${count}`)
        .join(', ');
      return `vCPU ${index}: ${activity ?? 'unknown'}, rip ${registers?.rip ?? '?'}, exits so far: ${most || 'none'}`;
    })
    .join('\n');
}

/** Regions that the guest used, busiest first. */
export function regionTable(counters: CountersReport, most = 12): string {
  const used = counters.regions
    .filter(({ reads, writes }) => reads + writes > 0)
    .sort((a, b) => b.reads + b.writes - (a.reads + a.writes))
    .slice(0, most);
  return table(
    ['device', 'space', 'address', 'reads', 'writes'],
    used.map(({ name, space, base, reads, writes }) => [name, space, `0x${base.toString(16)}`, reads, writes]),
  );
}
