/**
 * Where machines in the background are found by their names. What lives no longer than a machine is below the run-time
 * folder: its lock and its sockets. What outlives it is below the state folder: what it was, its consoles' logs, its
 * events, and what a crash left.
 */
import { lstatSync, mkdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { NemuError } from '../../client/errors.ts';
import { stateFolder } from '../paths.ts';

/** As in a machine's description. */
export const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/;

const uid = (): number => process.getuid?.() ?? 0;

/** A folder that is this user's alone. @throws NemuError RUNTIME_FOLDER for one that somebody else could change. */
function ownFolder(path: string): string {
  mkdirSync(path, { recursive: true, mode: 0o700 });
  const { uid: owner, mode } = lstatSync(path);
  if (owner === uid() && (mode & 0o077) === 0 && (mode & 0o170000) === 0o040000) return path;
  throw new NemuError('RUNTIME_FOLDER', `The folder ${path} is open to others, or is not yours.`, {
    hint: `Remove it, or set XDG_RUNTIME_DIR to a folder of yours with mode 0700.`,
  });
}

/** `$XDG_RUNTIME_DIR/nemu`, `/run/user/UID/nemu`, or a folder of this user's in the folder for temporary files. */
export function runtimeFolder(): string {
  const given = process.env.XDG_RUNTIME_DIR;
  if (given) return ownFolder(join(given, 'nemu'));
  const usual = `/run/user/${uid()}`;
  try {
    if (lstatSync(usual).uid === uid()) return ownFolder(join(usual, 'nemu'));
  } catch {
    // A system without a session manager.
  }
  return ownFolder(join(tmpdir(), `nemu-${uid()}`));
}

/** What of a machine is there while it runs. */
export function runtimePaths(name: string) {
  const folder = join(runtimeFolder(), name);
  return {
    folder,
    lock: join(folder, 'lock'),
    control: join(folder, 'control'),
    qmp: join(folder, 'qmp'),
    /** Where the folder of its run is, and who takes that away. */
    run: join(folder, 'run'),
  };
}

export const machinesFolder = (): string => join(stateFolder(), 'machines');

/** What of a machine stays when it has ended. */
export function statePaths(name: string) {
  const folder = join(machinesFolder(), name);
  return {
    folder,
    record: join(folder, 'machine.json'),
    events: join(folder, 'events.jsonl'),
    /** What the engine itself said. */
    engine: join(folder, 'engine.log'),
    postMortem: join(folder, 'post-mortem'),
    console: (console: string) => join(folder, `console-${console}.log`),
  };
}
