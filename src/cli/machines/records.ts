/** What is written down of machines in the background: each has a folder of its name. */
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import * as z from 'zod';
import { NemuError } from '../../client/errors.ts';
import { didYouMean } from '../../client/suggest.ts';
import { machinesFolder, NAME, runtimeFolder, statePaths } from './folders.ts';
import { cleanStale, isClaimed } from './name_lock.ts';

const recordSchema = z.object({
  name: z.string(),
  pid: z.int(),
  place: z.enum(['kvm', 'lab']).optional(),
  /** ISO 8601. */
  startedAt: z.string(),
  running: z.boolean(),
  kernel: z.string(),
  cpus: z.int(),
  /** Bytes. */
  memory: z.number(),
  consoles: z.array(z.string()),
  /** What is run in the guest, where that is not a shell. */
  command: z.array(z.string()).optional(),
  end: z.object({ at: z.string(), reason: z.string(), detail: z.string(), status: z.int() }).optional(),
});
export type MachineRecord = z.output<typeof recordSchema>;

export type MachineStatus = 'starting' | 'running' | 'ended' | 'crashed';

/** A machine that is known by its name. */
export interface KnownMachine {
  readonly name: string;
  readonly status: MachineStatus;
  readonly record: MachineRecord;
}

/** @throws Error of the system. */
export function writeRecord(record: MachineRecord): void {
  const { folder, record: path } = statePaths(record.name);
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  // Whoever reads meanwhile gets the old one or the new one.
  writeFileSync(`${path}.new`, `${JSON.stringify(record, null, 2)}\n`, { mode: 0o600 });
  renameSync(`${path}.new`, path);
}

function readRecord(name: string): MachineRecord | undefined {
  try {
    const record = recordSchema.parse(JSON.parse(readFileSync(statePaths(name).record, 'utf8')));
    return record.name === name ? record : undefined;
  } catch {
    return undefined;
  }
}

const statusOf = (record: MachineRecord): MachineStatus => {
  if (record.end) return record.end.reason === 'engine-error' ? 'crashed' : 'ended';
  if (!isClaimed(record.name)) return 'crashed';
  return record.running ? 'running' : 'starting';
};

/** The machine of a name; undefined when there is none, whatever else has such a folder. */
export function findMachine(name: string): KnownMachine | undefined {
  if (!NAME.test(name)) return undefined;
  // It may end between two looks: then it has written that down before it let its name go.
  for (let look = 0; ; look++) {
    const record = readRecord(name);
    if (!record) return undefined;
    const status = statusOf(record);
    if (status !== 'crashed' || record.end || look > 0) return { name, status, record };
  }
}

const names = (folder: string): string[] => {
  try {
    return readdirSync(folder).filter((name) => NAME.test(name));
  } catch {
    return [];
  }
};

/** All machines that are known, by name. What killed ones left of their sockets is taken away. */
export function listMachines(): KnownMachine[] {
  for (const name of names(runtimeFolder())) if (!isClaimed(name)) cleanStale(name);
  return names(machinesFolder())
    .toSorted()
    .map(findMachine)
    .filter((known) => known !== undefined);
}

export const isUp = ({ status }: KnownMachine): boolean => status === 'starting' || status === 'running';

/** Forgets a machine that has ended. */
export const forgetMachine = (name: string): void => rmSync(statePaths(name).folder, { recursive: true, force: true });

/**
 * The machine of a name; without one, the only one that runs.
 * @throws NemuError MACHINE
 */
export function machineNamed(name: string | undefined): KnownMachine {
  const all = listMachines();
  const up = all.filter(isUp);
  if (name === undefined) {
    if (up.length === 1) return up[0];
    throw new NemuError(
      'MACHINE',
      up.length === 0 ? 'No machine runs in the background.' : `${up.length} machines run in the background.`,
      {
        hint:
          up.length === 0
            ? 'nemu run -d starts one; nemu ps -a lists those that have ended.'
            : `Name one of ${up.map((each) => each.name).join(', ')}.`,
      },
    );
  }
  const found = all.find((each) => each.name === name);
  if (found) return found;
  const near = didYouMean(
    name,
    all.map((each) => each.name),
  );
  throw new NemuError('MACHINE', `There is no machine "${name}".`, {
    hint: near ? `Did you mean ${near}?` : 'nemu ps -a lists those that there are.',
  });
}

/** @throws NemuError MACHINE for one that does not run, with what became of it. */
export function runningMachine(name: string | undefined): KnownMachine {
  const known = machineNamed(name);
  if (isUp(known)) return known;
  const { end } = known.record;
  throw new NemuError(
    'MACHINE',
    `The machine ${known.name} has ${known.status === 'crashed' ? 'crashed' : 'ended'}${end ? `: ${end.detail}` : '.'}`,
    { hint: `nemu logs ${known.name} shows what it printed last.` },
  );
}
