import koffi from 'koffi';
import { check, EACCES, EAGAIN, errno } from './libc.ts';
import { F_OFD_GETLK, F_OFD_SETLK, F_UNLCK, F_WRLCK, flock } from './os.ts';

const fcntl = koffi.load('libc.so.6').func('int fcntl(int, int, void*)');

/** An exclusive lock on a file's first byte: of an open file description, so that it ends with that (fcntl(2)). */
function lockBytes() {
  const bytes = new Uint8Array(flock.size);
  const fields = flock.on(new DataView(bytes.buffer));
  fields.l_type = F_WRLCK;
  fields.l_len = 1n;
  return { bytes, fields };
}

/** Takes the lock, or does not while another has it. @throws SystemError */
export function tryLock(fd: number): boolean {
  const result = fcntl(fd, F_OFD_SETLK, lockBytes().bytes) as number;
  if (result < 0 && (errno() === EAGAIN || errno() === EACCES)) return false;
  check(result, 'fcntl', fd, 'F_OFD_SETLK');
  return true;
}

/** Does another have it? @throws SystemError */
export function isLocked(fd: number): boolean {
  const { bytes, fields } = lockBytes();
  check(fcntl(fd, F_OFD_GETLK, bytes), 'fcntl', fd, 'F_OFD_GETLK');
  return fields.l_type !== F_UNLCK;
}
