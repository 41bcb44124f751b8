/** `nemu top`: all machines in the background at a glance. */
import { setTimeout as sleep } from 'node:timers/promises';
import { NemuError } from '../../client/errors.ts';
import { parseDuration } from '../../client/options.ts';
import { EXIT } from '../exit_codes.ts';
import { Watch } from './load_watch.ts';
import { columnNamed, loadTable, NAME_COLUMN, type Order, sortLoads } from './loads.ts';

export interface TopOptions {
  readonly interval: string;
  /** A column. */
  readonly sort?: string;
  readonly once?: boolean;
  readonly json?: boolean;
}

/** Looks cost the machines time. */
const SHORTEST_MS = 100;

const NOTHING = 'No machine runs in the background; nemu run -d starts one.';

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

/** The screen until `q`. */
async function show(watch: Watch, every: number, order: Order, left: AbortController): Promise<void> {
  const keys = (typed: Buffer) => {
    // The last two are Ctrl-c and Ctrl-].
    if (['q', 'Q', '\x03', '\x1d'].some((key) => typed.includes(key))) left.abort();
  };
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => left.abort());
  process.stdin.setRawMode?.(true);
  process.stdin.on('data', keys);
  process.stdout.write('\x1b[?1049h\x1b[?25l');
  try {
    while (!left.signal.aborted) {
      const loads = sortLoads(await watch.look(), order);
      const text = loads.length > 0 ? loadTable(loads) : NOTHING;
      const { rows = 24, columns = 80 } = process.stdout;
      const [head, ...rest] = text.split('\n');
      const lines = [
        `\x1b[7m${head.slice(0, columns).padEnd(columns)}\x1b[0m`,
        ...rest.map((line) => line.slice(0, columns)),
      ];
      const footer = `\x1b[${rows};1H\x1b[2mq leaves · nemu attach NAME shows one\x1b[0m`;
      process.stdout.write(
        `\x1b[H${lines
          .slice(0, rows - 1)
          .map((line) => `${line}\x1b[K`)
          .join('\r\n')}\x1b[J${footer}`,
      );
      await sleep(every, undefined, { signal: left.signal }).catch(() => {});
    }
  } finally {
    process.stdin.off('data', keys);
    process.stdin.setRawMode?.(false);
    process.stdin.pause();
    process.stdout.write('\x1b[?25h\x1b[?1049l');
  }
}
