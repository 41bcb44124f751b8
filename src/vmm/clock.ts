import type { SharedBlock } from './shared.ts';
import { H } from './shared.ts';

/** Guest time in nanoseconds: the host's monotonic clock less the offset that pauses add to. */
export const guestNow = (block: SharedBlock): bigint => process.hrtime.bigint() - clockOffset(block);

export const clockOffset = (block: SharedBlock): bigint => Atomics.load(block.longs, H.CLOCK_OFFSET / 2);

export const setClockOffset = (block: SharedBlock, offset: bigint): void => {
  Atomics.store(block.longs, H.CLOCK_OFFSET / 2, offset);
};
