/** How fast the guest writes to its memory. */
import * as z from 'zod';
import { command } from '../command.ts';
import { QmpError } from '../errors.ts';
import type { Monitor } from '../monitor.ts';
import { int, none } from '../types.ts';

const MiB = 2 ** 20;
/** QEMU's bounds of a measurement, in seconds. */
const [LEAST, MOST] = [1, 60];
/** The same of the pages that it would look at in each GiB. */
const [LEAST_PAGES, MOST_PAGES] = [128, 16384];

const mode = z.enum(['page-sampling', 'dirty-ring', 'dirty-bitmap']);

const dirtyRateInfo = z.strictObject({
  'dirty-rate': int.optional(),
  status: z.enum(['unstarted', 'measuring', 'measured']),
  ...{ 'start-time': int, 'calc-time': int, 'sample-pages': int, mode },
});

/** The last measurement. */
export interface DirtyRateState {
  readonly status: 'unstarted' | 'measuring' | 'measured';
  /** Seconds of the host's monotonic clock, as QEMU has it. */
  readonly startedAt: number;
  readonly seconds: number;
  /** Bytes a second. */
  readonly rate?: number;
}

const argumentsSchema = z.strictObject({
  ...{ 'calc-time': int, 'sample-pages': int.optional(), mode: mode.optional() },
});

/** Begins to measure; how it came out is asked for. */
function start(monitor: Monitor, args: z.output<typeof argumentsSchema>): void {
  const { 'calc-time': seconds } = args;
  if (monitor.dirtyRate.status === 'measuring') throw new QmpError('the dirty rate is already being measured.');
  if (seconds < LEAST || seconds > MOST) throw new QmpError(`calc-time is out of range[${LEAST}, ${MOST}].`);
  if (args.mode === 'dirty-ring') throw new QmpError('There is no dirty ring here: use the mode dirty-bitmap');
  if (args['sample-pages'] !== undefined && args.mode === 'dirty-bitmap') {
    throw new QmpError('sample-pages is used only in page-sampling mode');
  }
  const { 'sample-pages': pages } = args;
  if (pages !== undefined && (pages < LEAST_PAGES || pages > MOST_PAGES)) {
    throw new QmpError(`sample-pages is out of range[${LEAST_PAGES}, ${MOST_PAGES}].`);
  }
  const before = monitor.dirtyRate;
  const [startedAt] = process.hrtime();
  monitor.dirtyRate = { status: 'measuring', startedAt, seconds };
  monitor.machine.dirtyRate(seconds * 1000).then(
    ({ milliseconds, ranges }) => {
      const rate = (ranges.reduce((sum, { dirty }) => sum + dirty, 0) * 1000) / milliseconds;
      monitor.dirtyRate = { status: 'measured', startedAt, seconds, rate };
    },
    () => {
      // The machine has ended meanwhile: nothing was measured.
      monitor.dirtyRate = before;
    },
  );
}

export function dirtyRateOf({ dirtyRate: { status, startedAt, seconds, rate } }: Monitor) {
  return {
    ...(rate !== undefined && { 'dirty-rate': Math.floor(rate / MiB) }),
    ...{ status, 'start-time': startedAt, 'calc-time': seconds, 'sample-pages': 0, mode: 'dirty-bitmap' as const },
  };
}

export const DIRTY_RATE = [
  command({
    name: 'calc-dirty-rate',
    summary: "begins to measure how fast the guest's processors write to memory, by KVM's log of pages",
    args: argumentsSchema,
    returns: none,
    run: (monitor, args) => {
      start(monitor, args);
      return {};
    },
  }),
  command({
    name: 'query-dirty-rate',
    summary: 'what was measured, in MiB a second',
    args: none,
    returns: dirtyRateInfo,
    run: dirtyRateOf,
  }),
];
