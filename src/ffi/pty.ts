/** Pseudo-terminals (pts(4)): the master's end here, a device in /dev/pts for any program. */
import { chmodSync } from 'node:fs';
import koffi from 'koffi';
import { check, close, EAGAIN, EIO, errno, O_CLOEXEC, O_NONBLOCK, O_RDWR, open, raw } from './libc.ts';

const libc = koffi.load('libc.so.6');
const call = {
  posix_openpt: libc.func('int posix_openpt(int)'),
  grantpt: libc.func('int grantpt(int)'),
  unlockpt: libc.func('int unlockpt(int)'),
  ptsname_r: libc.func('int ptsname_r(int, void*, size_t)'),
  tcgetattr: libc.func('int tcgetattr(int, void*)'),
  cfmakeraw: libc.func('void cfmakeraw(void*)'),
  tcsetattr: libc.func('int tcsetattr(int, int, const void*)'),
  setWindowSize: libc.func('int ioctl(int, unsigned long, const void*)'),
  poll: libc.func('int poll(void*, unsigned long, int)'),
};

export const O_NOCTTY = 0o400;
const F_DUPFD_CLOEXEC = 1030;
/** struct termios has 60 bytes on x86-64 and AArch64. */
const TERMIOS_BYTES = 64;
const POLLIN = 0x1;
const POLLHUP = 0x10;
const TCFLSH = 0x540b;
const TCIFLUSH = 0;
const TIOCSWINSZ = 0x5414;

export class PseudoTerminal {
  /** What a program opens. */
  readonly path: string;
  #fd: number;

  /**
   * A terminal for this user alone.
   * @param raw without echo and line editing, or as a terminal is at first. @throws SystemError
   */
  constructor({ raw: isRaw = true } = {}) {
    this.#fd = check(call.posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC), 'posix_openpt');
    try {
      check(call.grantpt(this.#fd), 'grantpt', this.#fd);
      check(call.unlockpt(this.#fd), 'unlockpt', this.#fd);
      const name = Buffer.alloc(64);
      check(-call.ptsname_r(this.#fd, name, name.length), 'ptsname_r', this.#fd);
      this.path = name.toString('latin1', 0, name.indexOf(0));
      if (isRaw) this.#makeRaw();
      chmodSync(this.path, 0o600);
      // The kernel tells a hang-up from "nobody has come yet" only after somebody was there.
      close(open(this.path, O_RDWR | O_NOCTTY));
    } catch (error) {
      this.close();
      throw error;
    }
  }

  #makeRaw(): void {
    const termios = Buffer.alloc(TERMIOS_BYTES);
    check(call.tcgetattr(this.#fd, termios), 'tcgetattr', this.path);
    call.cfmakeraw(termios);
    check(call.tcsetattr(this.#fd, 0, termios), 'tcsetattr', this.path);
  }

  /** Tells the programs in it of its size. */
  resize(rows: number, columns: number): void {
    const winsize = new Uint16Array([rows, columns, 0, 0]);
    check(call.setWindowSize(this.#fd, TIOCSWINSZ, winsize), 'ioctl', this.path, 'TIOCSWINSZ');
  }

  /** Some program has it open. */
  get connected(): boolean {
    return (this.#poll() & POLLHUP) === 0;
  }

  /** A program has written what nobody has read, and may be gone. */
  get written(): boolean {
    return (this.#poll() & POLLIN) !== 0;
  }

  #poll(): number {
    const pollfd = Buffer.alloc(8);
    pollfd.writeInt32LE(this.#fd, 0);
    pollfd.writeInt16LE(POLLIN, 4);
    call.poll(pollfd, 1, 0);
    return pollfd.readInt16LE(6);
  }

  /** Drops what programs have not read: the kernel keeps it for the next one. @throws SystemError */
  forget(): void {
    const device = open(this.path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    try {
      check(raw.ioctl(device, TCFLSH, TCIFLUSH), 'ioctl', this.path, 'TCFLSH', 'TCIFLUSH');
    } finally {
      close(device);
    }
  }

  /** Another descriptor of the same end, which the caller owns. */
  duplicate(): number {
    return check(raw.fcntl(this.#fd, F_DUPFD_CLOEXEC, 0), 'fcntl', this.path, 'F_DUPFD_CLOEXEC');
  }

  /** Bytes for the program. @returns how many it has room for: all, when there is none. */
  write(bytes: Uint8Array): number {
    const count = raw.write(this.#fd, bytes, bytes.length) as number;
    if (count >= 0) return count;
    if (errno() === EAGAIN) return 0;
    // The program has just closed the terminal.
    if (errno() === EIO) return bytes.length;
    return check(count, 'write', this.path, bytes.length);
  }

  close(): void {
    if (this.#fd < 0) return;
    close(this.#fd);
    this.#fd = -1;
  }
}
