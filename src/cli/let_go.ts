/** A process that had a terminal goes on without it, and without the supervisor that waits for it there. */
import { closeSync, openSync, readdirSync, readlinkSync, rmSync } from 'node:fs';
import { constants } from 'node:os';
import { duplicateOnto, setParentDeathSignal, setSession } from '../ffi/libc.ts';
import { runFolder } from './paths.ts';

/** Whether there is a supervisor, which gives the terminal back to the shell. */
export const canLetGo = (): boolean => process.env.NEMU_SUPERVISOR !== undefined;

/**
 * Lets go of the terminal for good.
 * @param log file that gets what would have been printed. @throws SystemError, Error of the system for the file.
 */
export function letGoOfTerminal(log: string): void {
  const supervisor = Number(process.env.NEMU_SUPERVISOR);
  const folder = runFolder();
  process.stdin.destroy();
  setParentDeathSignal(0);
  // A hang-up of the terminal is nothing to this process any more.
  setSession();
  const words = openSync(log, 'a', 0o600);
  const nothing = openSync('/dev/null', 'r+');
  // The supervisor's copy of standard input is among them, and libuv's own of each stream.
  for (const fd of terminalDescriptors()) duplicateOnto(fd === 0 ? nothing : words, fd);
  closeSync(words);
  closeSync(nothing);
  delete process.env.NEMU_SUPERVISOR;
  delete process.env.NEMU_RUN_DIR;
  process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
  process.kill(supervisor, constants.signals.SIGUSR1);
}

function terminalDescriptors(): number[] {
  const links = new Map<number, string>();
  for (const fd of readdirSync('/proc/self/fd')) {
    try {
      links.set(Number(fd), readlinkSync(`/proc/self/fd/${fd}`));
    } catch {
      // The one that was the folder's.
    }
  }
  const terminals = new Set([0, 1, 2].map((fd) => links.get(fd)).filter((link) => link?.startsWith('/dev/')));
  terminals.delete('/dev/null');
  return [...links].filter(([fd, link]) => fd <= 2 || terminals.has(link)).map(([fd]) => fd);
}
