/** `nemu workstation`, and `npm start` in a terminal: a machine with the workstation around it. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { ReadStream, WriteStream } from 'node:tty';
import { NemuError } from '../client/errors.ts';
import { GuestSession } from '../client/guest_session.ts';
import type { Glyphs } from '../tui/graph.ts';
import type { ThemeName } from '../tui/style.ts';
import { serveSockets } from './control_socket.ts';
import { describe } from './describe.ts';
import { EXIT, exitStatusOf } from './exit_codes.ts';
import { runFolder, stateFolder } from './paths.ts';
import { openPlace } from './place.ts';
import { labProgress } from './progress.ts';
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
  const description = await describe(kernel, [], options);
  const place = await openPlace(options.on, { vcpus: description.cpus.count, progress: labProgress() });
  try {
    const machine = await place.create(description, { postMortem: join(runFolder(), 'post-mortem') });
    let endSockets = () => {};
    try {
      endSockets = await serveSockets(machine, options);
      mkdirSync(stateFolder(), { recursive: true, mode: 0o700 });
      // React is loaded for those who look at it.
      const { runWorkstation } = await import('../tui/workstation.tsx');
      const guest = GuestSession.of(machine);
      const shown = runWorkstation(machine, guest, {
        input: process.stdin as ReadStream,
        output: process.stdout as unknown as WriteStream,
        place: place.kind === 'lab' ? 'in the lab' : "this host's KVM",
        exports: stateFolder(),
        history: join(stateFolder(), 'repl_history'),
        ...(place.recordConsole && { onConsole: place.recordConsole }),
        ...(options.readonly !== undefined && { readonly: options.readonly }),
        ...(options.theme !== undefined && { theme: options.theme }),
        ...(options.graphs !== undefined && { glyphs: options.graphs }),
        ...(options.mouse !== undefined && { mouse: options.mouse }),
      });
      const started = machine.start();
      // What it could not start for is said when the screen is the user's again.
      started.catch(() => {});
      await shown;
      await started;
      const { end } = machine;
      if (!end) return EXIT.OK;
      process.stdout.write(`${end.detail}\n`);
      return exitStatusOf(end.reason, end.exitCode);
    } finally {
      endSockets();
      await machine.close();
    }
  } finally {
    await place.close();
  }
}
