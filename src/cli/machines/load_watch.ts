/** Looks at machines in the background: what they do, from what they have counted since the look before. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { MachineClient } from '../../client/machine_client.ts';
import { type AttachedMachine, attachMachine } from './connection.ts';
import type { Load } from './loads.ts';
import { type KnownMachine, listMachines } from './records.ts';

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
