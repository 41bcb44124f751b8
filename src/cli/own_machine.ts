/**
 * The machine of `nemu run` and `nemu repl`: it ends with them. One that was given a name is known by it meanwhile, and
 * others join it as they join machines in the background.
 */
import { symlinkSync } from 'node:fs';
import { join } from 'node:path';
import type { MachineDescription } from '../client/description.ts';
import { GuestSession } from '../client/guest_session.ts';
import type { ConsoleStream, MachineClient } from '../client/machine_client.ts';
import type { SharedConsole } from '../client/shared_console.ts';
import { serveSockets } from './control_socket.ts';
import { type EventLog, note } from './event_log.ts';
import { gdbOption, startMachine } from './gdb_listener.ts';
import { type Named, runNamed, takeName } from './machines/background.ts';
import { statePaths } from './machines/folders.ts';
import { checkOutputFiles } from './output_files.ts';
import { runFolder } from './paths.ts';
import { openPlace, type Place } from './place.ts';
import { labProgress } from './progress.ts';
import type { RunOptions } from './run_options.ts';

export interface OwnMachine {
  readonly place: Place;
  readonly machine: MachineClient;
  readonly guest: GuestSession | undefined;
  /** Others may join: its events, logs and recordings are written where it is served. */
  readonly joinable: boolean;
  /** A signal asks for its end; where there is no such promise, it ends this process. */
  readonly interrupted?: Promise<void>;
  start(): Promise<void>;
  /** This terminal's end of a console; it drives. */
  console(name: string): ConsoleStream | SharedConsole;
}

/** Of a command's output nothing may be left out, however slow its reader is: its consoles are handed to nobody. */
const COMMAND_CONSOLES = ['com2', 'com3'];

/**
 * Makes a machine, and ends it when `drive` is done with it.
 * @returns what `drive` gave: the exit status.
 */
export async function withOwnMachine(
  description: MachineDescription,
  command: readonly string[],
  options: RunOptions,
  events: EventLog,
  drive: (own: OwnMachine) => Promise<number>,
): Promise<number> {
  // A mistake in it is told before anything is made.
  const wait = gdbOption(options)?.wait ?? false;
  checkOutputFiles(options);
  if (options.name !== undefined) return withNamedMachine(description, command, options, events, drive);
  const place = await openPlace(options.on, { vcpus: description.cpus.count, progress: labProgress(events) });
  try {
    if (place.reason) note(events, `This host's KVM cannot run stock kernels (${place.reason}); using the lab.`);
    const machine = await place.create(description, { postMortem: postMortemPath() });
    let endSockets = async () => {};
    try {
      endSockets = await serveSockets(machine, options, (text) => note(events, text));
      return await drive({
        ...{ place, machine, guest: GuestSession.of(machine), joinable: false },
        start: () => startMachine(machine, wait),
        console: (name) => machine.console(name),
      });
    } finally {
      await endSockets();
      await machine.close();
    }
  } finally {
    await place.close();
  }
}

/** The supervisor shows what is there after a crash. */
const postMortemPath = () => join(runFolder(), 'post-mortem');

async function withNamedMachine(
  description: MachineDescription,
  command: readonly string[],
  options: RunOptions,
  events: EventLog,
  drive: (own: OwnMachine) => Promise<number>,
): Promise<number> {
  const { name, release } = takeName(description.name);
  const own = command.length > 0 ? COMMAND_CONSOLES : [];
  try {
    symlinkSync(statePaths(name).postMortem, postMortemPath());
    const ended = await runNamed(
      { description: { ...description, name }, command, options, events, own },
      async (named) => {
        const status = await drive(ofNamed(named, own, gdbOption(options)?.wait ?? false));
        await named.machine.close();
        return { end: await named.machine.ended(), status };
      },
    );
    return ended.status;
  } finally {
    release();
  }
}

const ofNamed = (
  { served, machine, place, started, interrupted }: Named,
  own: readonly string[],
  wait: boolean,
): OwnMachine => ({
  ...{ place, machine, guest: served.guest, joinable: true, interrupted },
  start: () => startMachine(machine, wait, started),
  console: (name) =>
    own.includes(name)
      ? machine.console(name)
      : served.consoles.open(name, {
          role: 'driver',
          label: `its own terminal (process ${process.pid})`,
          // Whoever is no terminal does not answer what the guest asks of one.
          ...(process.stdin.isTTY && process.stdout.isTTY && { terminal: true, ...terminalSize() }),
        }),
});

const terminalSize = () => ({ rows: process.stdout.rows, columns: process.stdout.columns });
