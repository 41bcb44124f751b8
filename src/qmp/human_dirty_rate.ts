/** `calc_dirty_rate` and `info dirty_rate`. */
import { dirtyRateOf } from './commands/dirty_rate.ts';
import { type Entry, run, UsageError } from './human_line.ts';
import type { Monitor } from './monitor.ts';

export const DIRTY_RATE_ACTIONS: Readonly<Record<string, Entry>> = {
  calc_dirty_rate: {
    help: '[-b] seconds -- begin to measure how fast the guest writes to its memory',
    tell: async (monitor, words) => {
      const [seconds, ...more] = words.filter((word) => word !== '-b');
      if (words.includes('-r')) throw new UsageError('there is no dirty ring here');
      if (more.length > 0 || !/^\d+$/.test(seconds ?? '')) throw new UsageError('Incorrect period length specified!');
      await run(monitor, 'calc-dirty-rate', { 'calc-time': Number(seconds), mode: 'dirty-bitmap' });
      return [
        `Starting dirty rate measurement with period ${seconds} seconds`,
        "[Please use 'info dirty_rate' to check results]",
      ];
    },
  },
};

export function tellDirtyRate(monitor: Monitor): string[] {
  const info = dirtyRateOf(monitor);
  return [
    `Status: ${info.status}`,
    `Start Time: ${info['start-time'] * 1000} (ms)`,
    `Period: ${info['calc-time']} (sec)`,
    `Mode: ${info.mode}`,
    `Dirty rate: ${'dirty-rate' in info ? `${info['dirty-rate']} (MB/s)` : '(not ready)'}`,
  ];
}
