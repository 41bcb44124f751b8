/** `nemu top`: all machines in the background at a glance. */
import { setTimeout as sleep } from 'node:timers/promises';
import { NemuError } from '../../client/errors.ts';
import { parseDuration } from '../../client/options.ts';
import { EXIT } from '../exit_codes.ts';
import { Watch } from './load_watch.ts';
import { columnNamed, loadTable, NAME_COLUMN, NOTHING, type Order, sortLoads } from './loads.ts';
import { TopTerminal } from './top_terminal.ts';

export interface TopOptions {
  readonly interval: string;
  /** A column. */
  readonly sort?: string;
  readonly once?: boolean;
  readonly json?: boolean;
}

/** Looks cost the machines time. */
const SHORTEST_MS = 100;

/** @returns the exit status. */
export async function top({ interval, sort, once, json }: TopOptions): Promise<number> {
  const every = parseDuration(interval);
  if (every < SHORTEST_MS) {
    throw new NemuError('USAGE', `--interval ${interval} is too short: ${SHORTEST_MS} ms is the least.`);
  }
  const order = { column: sort === undefined ? NAME_COLUMN : columnNamed(sort), reversed: false };
  const left = new AbortController();
  const watch = new Watch(left.signal);
  try {
    if (once || json || !process.stdout.isTTY) {
      await watch.look();
      await sleep(every);
      const loads = sortLoads(await watch.look(), order);
      process.stdout.write(
        json ? `${JSON.stringify(loads, null, 2)}\n` : `${loads.length > 0 ? loadTable(loads) : NOTHING}\n`,
      );
      return EXIT.OK;
    }
    await show(watch, every, order, left);
    return EXIT.OK;
  } finally {
    left.abort();
    watch.close();
  }
}

/** The list until the user leaves. */
async function show(watch: Watch, every: number, order: Order, left: AbortController): Promise<void> {
  const terminal = new TopTerminal(order, left);
  try {
    while (!left.signal.aborted) {
      terminal.show(await watch.look());
      await sleep(every, undefined, { signal: left.signal }).catch(() => {});
    }
  } finally {
    await terminal.close();
  }
}
