/** `nemu ps`: machines in the background. */
import type { MachineState } from '../../client/machine_client.ts';
import type { ConsoleReport } from '../../client/shared_console.ts';
import { table } from '../../client/text_table.ts';
import { EXIT } from '../exit_codes.ts';
import { attachMachine } from './connection.ts';
import { isUp, type KnownMachine, listMachines } from './records.ts';

interface Listed extends KnownMachine {
  /** What the engine says; undefined when it does not answer. */
  readonly state?: MachineState;
  readonly consoles?: readonly ConsoleReport[];
}

async function look(known: KnownMachine): Promise<Listed> {
  if (known.status !== 'running') return known;
  try {
    const attached = await attachMachine(known.name);
    const consoles = await attached.share.consoleReports();
    const { state } = attached.machine;
    attached.close();
    return { ...known, state, consoles };
  } catch {
    return known;
  }
}

/** `3 h 12 min`, with the two largest units. */
export function duration(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  const parts: [number, string][] = [
    [Math.floor(seconds / 86400), 'd'],
    [Math.floor(seconds / 3600) % 24, 'h'],
    [Math.floor(seconds / 60) % 60, 'min'],
    [seconds % 60, 's'],
  ];
  const first = parts.findIndex(([count]) => count > 0);
  return parts
    .slice(first < 0 ? -1 : first)
    .slice(0, 2)
    .filter(([count], index) => count > 0 || index === 0)
    .map(([count, unit]) => `${count} ${unit}`)
    .join(' ');
}

const age = ({ record }: KnownMachine) =>
  duration((record.end ? Date.parse(record.end.at) : Date.now()) - Date.parse(record.startedAt));

export const stateOf = (machine: Listed): string => {
  if (machine.status !== 'running') return machine.status;
  return machine.state ?? 'no answer';
};

function row(machine: Listed) {
  const { name, record, consoles } = machine;
  const viewers = (consoles ?? []).reduce((sum, each) => sum + each.viewers.length + (each.driver ? 1 : 0), 0);
  const what = record.end
    ? `${record.end.detail} (status ${record.end.status})`
    : (record.command?.join(' ') ?? record.kernel.replace(/^.*\//, ''));
  return [
    ...[name, stateOf(machine), isUp(machine) ? record.pid : '-', age(machine)],
    ...[record.cpus, `${record.memory / 2 ** 20} MiB`, record.place ?? '-', viewers, what],
  ];
}

export interface ListOptions {
  readonly all?: boolean;
  readonly json?: boolean;
  readonly quiet?: boolean;
}

/** @returns the exit status. */
export async function list({ all, json, quiet }: ListOptions): Promise<number> {
  // One that has crashed waits for somebody to look at it; one that has ended well does not.
  const known = listMachines().filter((each) => all || each.status !== 'ended');
  if (quiet) {
    process.stdout.write(known.map(({ name }) => `${name}\n`).join(''));
    return EXIT.OK;
  }
  const machines = await Promise.all(known.map(look));
  if (json) {
    const values = machines.map((machine) => ({
      ...machine.record,
      status: machine.status,
      state: stateOf(machine),
      ...(machine.consoles && { consoles: machine.consoles }),
    }));
    process.stdout.write(`${JSON.stringify(values, null, 2)}\n`);
  } else if (machines.length === 0) {
    process.stdout.write('No machine runs in the background; nemu run -d starts one.\n');
  } else {
    const head = ['name', 'state', 'process', 'age', 'vCPUs', 'memory', 'place', 'viewers', 'what'];
    process.stdout.write(`${table(head, machines.map(row))}\n`);
  }
  return EXIT.OK;
}
