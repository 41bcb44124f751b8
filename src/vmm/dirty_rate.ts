import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { NemuError } from '../client/errors.ts';
import type { DirtyRateReport, MemoryRangeReport } from '../client/machine_client.ts';
import type { DirtySlot } from './dirty_pages.ts';

/** QEMU's bounds for `calc-dirty-rate` are one second and one minute; an instant says something too. */
const LEAST_MS = 10;
const MOST_MS = 60_000;

/** Measures how fast the guest writes to its memory: one measurement at a time, for it is one switch in KVM. */
export class DirtyRate {
  readonly #log: (on: boolean) => Promise<DirtySlot[]>;
  readonly #ranges: () => Promise<readonly MemoryRangeReport[]>;
  #last: Promise<unknown> = Promise.resolve();

  /** @param log begins to note pages, or gives those noted and ends it. @param ranges of the guest's RAM. */
  constructor(log: (on: boolean) => Promise<DirtySlot[]>, ranges: () => Promise<readonly MemoryRangeReport[]>) {
    this.#log = log;
    this.#ranges = ranges;
  }

  /** Whoever comes while another measures is next. @throws NemuError DIRTY_RATE for a time that is none. */
  async measure(milliseconds: number): Promise<DirtyRateReport> {
    if (!Number.isFinite(milliseconds) || milliseconds < LEAST_MS || milliseconds > MOST_MS) {
      throw new NemuError('DIRTY_RATE', `Memory cannot be watched for ${milliseconds} ms.`, {
        hint: `Give a time from ${LEAST_MS} ms to ${MOST_MS / 1000} s.`,
      });
    }
    const mine = this.#last.then(() => this.#measure(milliseconds));
    this.#last = mine.catch(() => {});
    return mine;
  }

  async #measure(milliseconds: number): Promise<DirtyRateReport> {
    try {
      await this.#log(true);
    } catch (error) {
      // Some memory may be watched already, and would be from then on.
      await this.#log(false).catch(() => {});
      throw error;
    }
    const from = performance.now();
    await sleep(milliseconds);
    const slots = await this.#log(false);
    const took = Math.round(performance.now() - from);
    const ranges = (await this.#ranges()).map(({ dimm, address, size }) => {
      const inside = slots.filter((slot) => slot.address >= address && slot.address < address + size);
      const dirty = inside.reduce((all, slot) => all + slot.dirty, 0);
      return { ...(dimm !== undefined && { dimm }), address, size, dirty };
    });
    return { milliseconds: took, ranges };
  }
}
