/** A machine's name belongs to one process: the kernel gives the lock back however that ends. */
import { closeSync, fstatSync, mkdirSync, openSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { isLocked, tryLock } from '../../ffi/file_lock.ts';
import { isRunFolder, runFolder } from '../paths.ts';
import { runtimePaths } from './folders.ts';

/** Does the path still lead to the file that was opened? Its last owner may have removed it meanwhile. */
function isSame(fd: number, path: string): boolean {
  try {
    return fstatSync(fd).ino === statSync(path).ino;
  } catch {
    return false;
  }
}

/**
 * Takes a machine's name.
 * @returns what gives it back, with all that is in the machine's run-time folder; undefined while another has it.
 */
export function claimName(name: string): (() => void) | undefined {
  const { folder, lock } = runtimePaths(name);
  for (;;) {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    let fd: number;
    try {
      fd = openSync(lock, 'a', 0o600);
    } catch (error) {
      // The one before took its folder away.
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') continue;
      throw error;
    }
    if (!tryLock(fd)) {
      closeSync(fd);
      return undefined;
    }
    if (isSame(fd, lock)) {
      return () => {
        try {
          rmSync(folder, { recursive: true, force: true });
        } catch (error) {
          // Another has come while the lock was removed: the folder is that one's.
          if ((error as NodeJS.ErrnoException).code !== 'ENOTEMPTY') throw error;
        } finally {
          closeSync(fd);
        }
      };
    }
    closeSync(fd);
  }
}

/** Has a process the name? */
export function isClaimed(name: string): boolean {
  let fd: number;
  try {
    fd = openSync(runtimePaths(name).lock, 'r+');
  } catch {
    return false;
  }
  try {
    return isLocked(fd);
  } finally {
    closeSync(fd);
  }
}

/** Writes down where the folder of this process' run is, for the case that all who would take it away are killed. */
export function noteRunFolder(name: string): void {
  writeFileSync(runtimePaths(name).run, `${process.env.NEMU_SUPERVISOR ?? 0} ${runFolder()}`, { mode: 0o600 });
}

/** The folder of a killed process' run; undefined while its supervisor is there, which shows what is in it. */
function orphanedRunFolder(name: string): string | undefined {
  try {
    const [, supervisor, folder] = /^(\d+) (.+)$/.exec(readFileSync(runtimePaths(name).run, 'utf8')) ?? [];
    return folder !== undefined && isRunFolder(folder) && !isThere(Number(supervisor)) ? folder : undefined;
  } catch {
    return undefined;
  }
}

function isThere(pid: number): boolean {
  try {
    return pid > 0 && process.kill(pid, 0);
  } catch {
    return false;
  }
}

/** Takes away what a process that was killed could not. */
export function cleanStale(name: string): void {
  const release = claimName(name);
  if (!release) return;
  const orphan = orphanedRunFolder(name);
  if (orphan !== undefined) rmSync(orphan, { recursive: true, force: true });
  release();
}
