/** Reports for people, from what a machine tells. */
import { setTimeout as sleep } from 'node:timers/promises';
import { stripVTControlCharacters } from 'node:util';
import type { CountersReport, VcpuReport } from '../client/machine_client.ts';
import { table } from '../client/text_table.ts';
import type { Kernel } from '../repl/kernel.ts';

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

/**
 * One line a vCPU: what it does, and where, by the guest's own symbols as far as its kernel tells.
 * @param withinMs what takes longer to be found is left out: the symbols are read from the guest's memory.
 */
export async function describeVcpus(
  vcpus: readonly VcpuReport[],
  kernel: Pick<Kernel, 'describe'>,
  withinMs = 30_000,
): Promise<string> {
  const symbols = await symbolsOf(vcpus, kernel, withinMs);
  return vcpus
    .map(({ index, activity, registers, exits }) => {
      const most = Object.entries(exits)
        .sort((a, b) => b[1] - a[1])
        .slice(0, 3)
        .map(([reason, count]) => `${reason} ${count}`)
        .join(', ');
      const rip = registers?.rip ?? '?';
      const symbol = symbols.has(rip) ? ` (${symbols.get(rip)})` : '';
      return `vCPU ${index}: ${activity ?? 'unknown'}, rip ${rip}${symbol}, exits so far: ${most || 'none'}`;
    })
    .join('\n');
}

/** By `rip`. */
async function symbolsOf(
  vcpus: readonly VcpuReport[],
  kernel: Pick<Kernel, 'describe'>,
  withinMs: number,
): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  let late = false;
  const look = async () => {
    for (const { registers } of vcpus) {
      if (!registers || late) continue;
      const symbol = await kernel.describe(BigInt(registers.rip));
      if (symbol !== undefined) found.set(registers.rip, symbol);
    }
  };
  await Promise.race([look(), sleep(withinMs, undefined, { ref: false })]);
  late = true;
  return found;
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
