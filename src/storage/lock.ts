import { fstatSync, readFileSync, statSync } from 'node:fs';
import { Arena } from '../ffi/arena.ts';
import { EACCES, EAGAIN, errno, raw } from '../ffi/libc.ts';
import { F_OFD_GETLK, F_OFD_SETLK, F_RDLCK, F_UNLCK, F_WRLCK, flock } from '../ffi/os.ts';
import { ImageInUse } from './error.ts';

/**
 * The bytes that QEMU's tools lock, so that they and we keep out of each other's way: a shared lock at 100 + n
 * says "I use permission n", one at 200 + n says "others may not".
 */
const PERMISSION_BASE = 100;
const EXCLUSION_BASE = 200;
const CONSISTENT_READ = 0;
const WRITE = 1;
const RESIZE = 3;

/**
 * Locks an image: any number of readers, or one writer. A file system without locks is used without.
 * @throws ImageInUse that names the process which has it, where the kernel tells.
 */
export function lockImage(fd: number, path: string, writes: boolean): void {
  const uses = writes ? [CONSISTENT_READ, WRITE, RESIZE] : [CONSISTENT_READ];
  // Nobody else may write while we read or write; whoever only reads is welcome to a reader.
  const excludes = writes ? [CONSISTENT_READ, WRITE, RESIZE] : [WRITE, RESIZE];
  const arena = new Arena(4096);
  try {
    const lock = arena.struct(flock);
    const control = (command: number, type: number, start: number): number => {
      lock.fields.l_type = type;
      lock.fields.l_whence = 0;
      lock.fields.l_start = BigInt(start);
      lock.fields.l_len = 1n;
      lock.fields.l_pid = 0;
      return raw.fcntl(fd, command, lock.address);
    };
    const ours = [...uses.map((each) => PERMISSION_BASE + each), ...excludes.map((each) => EXCLUSION_BASE + each)];
    for (const start of ours) {
      if (control(F_OFD_SETLK, F_RDLCK, start) < 0) {
        if (errno() === EAGAIN || errno() === EACCES) throw inUse(fd, path, writes);
        return;
      }
    }
    // Who excludes what we use, or uses what we exclude, has a lock where an exclusive one would not fit.
    const theirs = [...uses.map((each) => EXCLUSION_BASE + each), ...excludes.map((each) => PERMISSION_BASE + each)];
    for (const start of theirs) {
      if (control(F_OFD_GETLK, F_WRLCK, start) === 0 && lock.fields.l_type !== F_UNLCK) throw inUse(fd, path, writes);
    }
  } finally {
    arena.free();
  }
}

/** Gives an image's locks back: a ring that still has the file for a moment would hold them past `close`. */
export function unlockImage(fd: number): void {
  const arena = new Arena(4096);
  const lock = arena.struct(flock);
  lock.fields.l_type = F_UNLCK;
  lock.fields.l_whence = 0;
  lock.fields.l_start = BigInt(PERMISSION_BASE);
  lock.fields.l_len = BigInt(2 * (EXCLUSION_BASE - PERMISSION_BASE));
  lock.fields.l_pid = 0;
  raw.fcntl(fd, F_OFD_SETLK, lock.address);
  arena.free();
}

/** Whether two paths lead to one file; one that there is not is none. */
export function isSameFile(path: string, other: string): boolean {
  const [one, two] = [path, other].map((each) => statSync(each, { throwIfNoEntry: false }));
  return one !== undefined && two !== undefined && one.dev === two.dev && one.ino === two.ino;
}

function inUse(fd: number, path: string, writes: boolean): ImageInUse {
  const holder = lockHolder(fd);
  return new ImageInUse(
    `The disk image ${path} is in use${holder ? ` by ${holder}` : ' by another process'}.`,
    writes
      ? 'Stop that process, or share the image among readers with readonly=on.'
      : 'Another process writes it: stop that first.',
  );
}

/** OFD locks name no process in /proc/locks: whoever has the file open is the one. */
function lockHolder(fd: number): string | undefined {
  try {
    const { ino } = fstatSync(fd);
    const line = readFileSync('/proc/locks', 'utf8')
      .split('\n')
      .find((each) => each.includes(`:${ino} `) && !each.includes(' -1 '));
    const pid = line?.trim().split(/\s+/)[4];
    if (!pid || Number(pid) <= 0) return undefined;
    return `${readFileSync(`/proc/${pid}/comm`, 'utf8').trim()} (process ${pid})`;
  } catch {
    return undefined;
  }
}
