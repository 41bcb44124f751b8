/** `nemu top`: all machines in the background at a glance. */
import { setTimeout as sleep } from 'node:timers/promises';
import { NemuError } from '../../client/errors.ts';
import type { MachineClient } from '../../client/machine_client.ts';
import { parseDuration } from '../../client/options.ts';
import { table } from '../../client/text_table.ts';
import { EXIT } from '../exit_codes.ts';
import { type AttachedMachine, attachMachine } from './connection.ts';
import { duration } from './list_command.ts';
import { type KnownMachine, listMachines } from './records.ts';

export interface TopOptions {
  readonly interval: string;
  readonly once?: boolean;
  readonly json?: boolean;
}

/** Counts since a machine's start. */
interface Sample {
  readonly at: number;
  /** Nanoseconds of host processors that its vCPUs had. */
  readonly cpuTime: number;
  readonly exits: number;
  readonly read: number;
  readonly written: number;
  readonly received: number;
  readonly sent: number;
  /** Bytes of its memory that the host has. */
  readonly resident: number;
}

/** What goes on in one machine; rates are a second's. */
export interface Load {
  readonly name: string;
  readonly state: string;
  readonly age: number;
  readonly vcpus: number;
  readonly memory: number;
  readonly resident?: number;
  /** Share of one host processor: 2 is two of them. */
  readonly processors?: number;
  readonly exits?: number;
  readonly read?: number;
  readonly written?: number;
  readonly received?: number;
  readonly sent?: number;
}

const sum = (values: readonly number[]) => values.reduce((a, b) => a + b, 0);

async function sample(machine: MachineClient): Promise<Sample | undefined> {
  try {
    const [counters, disks, nets, memory] = await Promise.all([
      machine.counters(),
      machine.disks(),
      machine.nets(),
      machine.memoryMap(),
    ]);
    return {
      at: performance.now(),
      cpuTime: sum(counters.vcpus.map(({ cpuTime }) => cpuTime)),
      exits: counters.total,
      read: sum(disks.map(({ operations }) => operations.read.bytes)),
      written: sum(disks.map(({ operations }) => operations.write.bytes)),
      received: sum(nets.map(({ rx }) => rx.bytes)),
      sent: sum(nets.map(({ tx }) => tx.bytes)),
      resident: sum(memory.map(({ resident }) => resident)),
    };
  } catch {
    // It ends, or does not answer: the next look tells.
    return undefined;
  }
}

function loadOf(known: KnownMachine, state: string, before: Sample | undefined, now: Sample | undefined): Load {
  const { name, record } = known;
  const base = {
    ...{ name, state, vcpus: record.cpus, memory: record.memory },
    age: (record.end ? Date.parse(record.end.at) : Date.now()) - Date.parse(record.startedAt),
  };
  if (!now) return base;
  if (!before) return { ...base, resident: now.resident };
  const seconds = (now.at - before.at) / 1000;
  const rate = (key: Exclude<keyof Sample, 'at' | 'resident'>) => Math.max(0, now[key] - before[key]) / seconds;
  return {
    ...{ ...base, resident: now.resident, processors: rate('cpuTime') / 1e9, exits: rate('exits') },
    ...{ read: rate('read'), written: rate('written'), received: rate('received'), sent: rate('sent') },
  };
}

/** How long the others wait for a machine's numbers. */
const ANSWER_MS = 2000;
const SILENT = 'no answer';

/** Looks at all machines again and again, with a connection to each. */
export class Watch {
  readonly #attached = new Map<string, AttachedMachine>();
  /** Looks that have not ended: a machine that hangs is not asked again meanwhile. */
  readonly #looking = new Map<string, Promise<Load>>();
  /** Machines that have been waited for once. */
  readonly #silent = new Set<string>();
  readonly #left: AbortSignal;
  readonly #samples = new Map<string, Sample>();

  /** @param left ends what is under way. */
  constructor(left: AbortSignal) {
    this.#left = left;
  }

  async look(): Promise<Load[]> {
    const machines = listMachines().filter(({ status }) => status !== 'ended');
    const up = new Set(machines.map(({ name }) => name));
    for (const [name, attached] of this.#attached) {
      if (up.has(name) && attached.machine.state !== 'closed') continue;
      attached.close();
      this.#attached.delete(name);
    }
    for (const name of this.#samples.keys()) if (!up.has(name)) this.#samples.delete(name);
    return Promise.all(machines.map((known) => this.#within(known)));
  }

  /** One machine's numbers, or that it does not answer: a hanging engine holds nobody up. */
  async #within(known: KnownMachine): Promise<Load> {
    const { name, status } = known;
    if (status !== 'running') return loadOf(known, status, undefined, undefined);
    let looking = this.#looking.get(name);
    if (!looking) {
      looking = this.#look(known).finally(() => {
        this.#looking.delete(name);
        this.#silent.delete(name);
      });
      this.#looking.set(name, looking);
    }
    const patience = this.#silent.has(name) ? 0 : ANSWER_MS;
    const late = sleep(patience, undefined, { signal: this.#left, ref: false }).catch(() => undefined);
    const load = await Promise.race([looking, late]);
    if (load) return load;
    this.#silent.add(name);
    return loadOf(known, SILENT, undefined, undefined);
  }

  async #look(known: KnownMachine): Promise<Load> {
    const { name } = known;
    const attached = this.#attached.get(name) ?? (await attachMachine(name, this.#left).catch(() => undefined));
    if (!attached) return loadOf(known, SILENT, undefined, undefined);
    this.#attached.set(name, attached);
    if (this.#left.aborted) attached.close();
    const now = await sample(attached.machine);
    const before = this.#samples.get(name);
    if (now) this.#samples.set(name, now);
    else this.#samples.delete(name);
    return loadOf(known, attached.machine.state, before, now);
  }

  close(): void {
    for (const attached of this.#attached.values()) attached.close();
  }
}

/** Bytes as people read them. */
function bytes(value: number | undefined): string {
  if (value === undefined) return '-';
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  const power = Math.min(units.length - 1, Math.max(0, Math.floor(Math.log2(Math.max(1, value)) / 10)));
  const scaled = value / 1024 ** power;
  return `${scaled < 10 && power > 0 ? scaled.toFixed(1) : Math.round(scaled)} ${units[power]}`;
}

export function loadTable(loads: readonly Load[]): string {
  const head = ['name', 'state', 'age', 'vCPUs', 'CPU %', 'exits/s', 'resident', 'memory', 'read/s', 'written/s'];
  return table(
    [...head, 'received/s', 'sent/s'],
    loads.map((load) => [
      ...[load.name, load.state, duration(load.age), load.vcpus],
      load.processors === undefined ? '-' : (load.processors * 100).toFixed(1),
      load.exits === undefined ? '-' : Math.round(load.exits),
      ...[bytes(load.resident), bytes(load.memory), bytes(load.read), bytes(load.written)],
      ...[bytes(load.received), bytes(load.sent)],
    ]),
  );
}

/** Looks cost the machines time. */
const SHORTEST_MS = 100;

const NOTHING = 'No machine runs in the background; nemu run -d starts one.';

/** @returns the exit status. */
export async function top({ interval, once, json }: TopOptions): Promise<number> {
  const every = parseDuration(interval);
  if (every < SHORTEST_MS) {
    throw new NemuError('USAGE', `--interval ${interval} is too short: ${SHORTEST_MS} ms is the least.`);
  }
  const left = new AbortController();
  const watch = new Watch(left.signal);
  try {
    if (once || json || !process.stdout.isTTY) {
      await watch.look();
      await sleep(every);
      const loads = await watch.look();
      process.stdout.write(
        json ? `${JSON.stringify(loads, null, 2)}\n` : `${loads.length > 0 ? loadTable(loads) : NOTHING}\n`,
      );
      return EXIT.OK;
    }
    await show(watch, every, left);
    return EXIT.OK;
  } finally {
    left.abort();
    watch.close();
  }
}

/** The screen until `q`. */
async function show(watch: Watch, every: number, left: AbortController): Promise<void> {
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
      const loads = await watch.look();
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
