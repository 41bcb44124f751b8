/** `nemu attach` and `nemu repl NAME`: the workstation, or a REPL, on a machine in the background. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { ReadStream, WriteStream } from 'node:tty';
import type { OpenConsole } from '../../client/shared_console.ts';
import { Vm } from '../../repl/vm.ts';
import type { Glyphs } from '../../tui/graph.ts';
import type { ThemeName } from '../../tui/style.ts';
import { EventLog } from '../event_log.ts';
import { EXIT } from '../exit_codes.ts';
import { openGdb, openHostShell } from '../host_shell.ts';
import { stateFolder } from '../paths.ts';
import { perform, type ReplTask } from '../repl_run.ts';
import type { AttachedMachine } from './connection.ts';

export interface AttachOptions {
  readonly readonly?: boolean;
  readonly theme?: ThemeName;
  readonly graphs?: Glyphs;
  readonly mouse?: boolean;
}

/** How a workstation opens consoles. */
export const ownConsoles = (readonly = false): OpenConsole => ({
  role: readonly ? 'viewer' : 'driver',
  replay: true,
  history: 1000,
  terminal: !readonly,
});

/** Shows a machine until the user leaves; it goes on then. @returns the exit status. */
export async function runAttached(
  { name, known, machine, share }: AttachedMachine,
  options: AttachOptions,
): Promise<number> {
  share.defaults = ownConsoles(options.readonly);
  mkdirSync(stateFolder(), { recursive: true, mode: 0o700 });
  const history = await share.history();
  const { runWorkstation } = await import('../../tui/workstation.tsx');
  await runWorkstation(machine, share.guest, {
    input: process.stdin as ReadStream,
    output: process.stdout as unknown as WriteStream,
    place: known.record.place === 'lab' ? 'in the lab' : "this host's KVM",
    exports: stateFolder(),
    history: join(stateFolder(), 'repl_history'),
    shell: openHostShell,
    gdb: openGdb(name),
    attached: { history },
    consoles: share.names,
    ...(options.readonly !== undefined && { readonly: options.readonly }),
    ...(options.theme !== undefined && { theme: options.theme }),
    ...(options.graphs !== undefined && { glyphs: options.graphs }),
    ...(options.mouse !== undefined && { mouse: options.mouse }),
  });
  const { end } = machine;
  process.stdout.write(end ? `${end.detail}\n` : `Left ${name}; nemu attach ${name} comes back.\n`);
  return EXIT.OK;
}

/** Runs code with the machine in scope, or a REPL; the machine goes on afterwards. @returns the exit status. */
export function runAttachedRepl(
  { machine, share }: AttachedMachine,
  task: ReplTask,
  json: string | true | undefined,
): Promise<number> {
  return perform(new Vm({ machine, guest: share.guest }), task, new EventLog(json));
}
