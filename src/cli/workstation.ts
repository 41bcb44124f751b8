/**
 * `nemu workstation`, and `npm start` in a terminal: a machine with the workstation around it. It has a name, by which
 * other terminals and tools join it.
 */
import { mkdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import type { ReadStream, WriteStream } from 'node:tty';
import { NemuError } from '../client/errors.ts';
import type { Glyphs } from '../tui/graph.ts';
import type { ThemeName } from '../tui/style.ts';
import { describe } from './describe.ts';
import { EventLog } from './event_log.ts';
import { gdbOption, startMachine } from './gdb_listener.ts';
import { openGdb, openHostShell } from './host_shell.ts';
import { canLetGo, letGoOfTerminal } from './let_go.ts';
import { ownConsoles } from './machines/attach_command.ts';
import { type Named, type NamedEnd, runNamed, takeName } from './machines/background.ts';
import { connectMachine, ownLabel } from './machines/connection.ts';
import { statePaths } from './machines/folders.ts';
import { noteRunFolder } from './machines/name_lock.ts';
import { checkOutputFiles } from './output_files.ts';
import { runFolder, stateFolder } from './paths.ts';
import type { RunOptions } from './run_options.ts';

export interface WorkstationOptions extends RunOptions {
  readonly readonly?: boolean;
  readonly theme?: ThemeName;
  readonly graphs?: Glyphs;
  readonly mouse?: boolean;
}

/** The machine of `npm start`: with room to plug into. */
export const START_MACHINE = {
  cpus: '2,max=8',
  memory: '512M,max=4G,slots=8',
  device: ['virtio-balloon', 'virtio-console'],
  rng: true,
};

/**
 * Starts a machine and shows it until the user leaves.
 * @returns the exit status: 0, or what the guest's end stands for.
 * @throws NemuError USAGE without a terminal.
 */
export async function workstation(kernel: string | undefined, options: WorkstationOptions): Promise<number> {
  if (!process.stdin.isTTY || !process.stdout.isTTY) {
    throw new NemuError('USAGE', 'The workstation needs a terminal for its input and output.', {
      hint: 'nemu run boots a guest without one.',
    });
  }
  // A mistake in it is told before anything is made.
  gdbOption(options);
  checkOutputFiles(options);
  const asked = await describe(kernel, [], options);
  const { name, release } = takeName(asked.name);
  try {
    // The supervisor shows it after a crash, when the screen is the user's again.
    symlinkSync(statePaths(name).postMortem, join(runFolder(), 'post-mortem'));
    const events = new EventLog(options.json);
    const { end, status } = await runNamed({ description: { ...asked, name }, command: [], options, events }, (named) =>
      show(named, options),
    );
    if (end.reason !== 'quit') process.stdout.write(`${end.detail}\n`);
    return status;
  } finally {
    release();
  }
}

/** The workstation joins the machine as every other terminal does. When it is left, so is the machine, or it ends. */
async function show(
  { served, machine, place, started, interrupted }: Named,
  options: WorkstationOptions,
): Promise<NamedEnd> {
  mkdirSync(stateFolder(), { recursive: true, mode: 0o700 });
  const { name } = machine.description;
  const connection = await connectMachine(name);
  try {
    const own = await connection.attach(ownLabel());
    const { share } = own;
    if (!share) throw new Error(`The machine ${name} shares nothing with its own workstation.`);
    share.defaults = ownConsoles(options.readonly);
    // React is loaded for those who look at it.
    const { runWorkstation } = await import('../tui/workstation.tsx');
    const shown = runWorkstation(own, share.guest, {
      input: process.stdin as ReadStream,
      output: process.stdout as unknown as WriteStream,
      place: place.kind === 'lab' ? 'in the lab' : "this host's KVM",
      exports: stateFolder(),
      history: join(stateFolder(), 'repl_history'),
      shell: openHostShell,
      gdb: openGdb(name),
      consoles: share.names,
      interrupted,
      canStay: canLetGo(),
      ...(options.readonly !== undefined && { readonly: options.readonly }),
      ...(options.theme !== undefined && { theme: options.theme }),
      ...(options.graphs !== undefined && { glyphs: options.graphs }),
      ...(options.mouse !== undefined && { mouse: options.mouse }),
    });
    const wait = gdbOption(options)?.wait ?? false;
    const running = startMachine(machine, wait, started);
    // What it could not start for is said when the screen is the user's again.
    running.catch(() => {});
    const left = await shown;
    // One that gdb has not started may never be.
    if (!wait) await running;
    if (left === 'stays' && machine.end === undefined) {
      connection.close();
      process.stdout.write(`${name} runs in the background: nemu attach ${name}, nemu stop ${name}\n`);
      letGoOfTerminal(statePaths(name).engine);
      noteRunFolder(name);
      return await served.toTheEnd(interrupted);
    }
  } finally {
    connection.close();
  }
  await machine.close();
  const end = await machine.ended();
  return { end, status: served.statusOf(end) };
}
