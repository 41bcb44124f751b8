/**
 * libc through koffi. Every function checks errno and throws a `SystemError` that names the call and its
 * arguments; the `raw` ones, for hot paths and expected errors, return what C returned.
 *
 * Addresses are JavaScript numbers: user space ends at 2^47 on the hosts we run on.
 */
import { constants } from 'node:os';
import koffi from 'koffi';

const libc = koffi.load('libc.so.6');

/** errno names by number, for messages. */
const ERRNO_NAME = new Map(Object.entries(constants.errno).map(([name, number]) => [number, name]));

export const errnoName = (errno: number): string => ERRNO_NAME.get(errno) ?? `errno ${errno}`;
export const { EAGAIN, EBUSY, EEXIST, EINTR, EINVAL, EIO, ENOENT, ENOMEM, ENOSYS, EPERM, EACCES, E2BIG } =
  constants.errno;

/** A system call that failed: which, with what arguments, and errno by name. */
export class SystemError extends Error {
  override readonly name = 'SystemError';
  readonly errno: number;
  readonly code: string;
  readonly syscall: string;

  constructor(syscall: string, args: string, errno: number) {
    super(`${syscall}(${args}) failed: ${errnoName(errno)}.`);
    this.errno = errno;
    this.code = errnoName(errno);
    this.syscall = syscall;
  }
}

export const raw = {
  open: libc.func('int open(const char*, int, int)'),
  close: libc.func('int close(int)'),
  read: libc.func('long read(int, void*, size_t)'),
  write: libc.func('long write(int, const void*, size_t)'),
  pread: libc.func('long pread(int, void*, size_t, long)'),
  pwrite: libc.func('long pwrite(int, const void*, size_t, long)'),
  fdatasync: libc.func('int fdatasync(int)'),
  fallocate: libc.func('int fallocate(int, int, long, long)'),
  // Declared without varargs: on x86-64 and AArch64 integer arguments travel alike in both.
  ioctl: libc.func('int ioctl(int, unsigned long, uintptr_t)'),
  fcntl: libc.func('int fcntl(int, int, long)'),
  dup3: libc.func('int dup3(int, int, int)'),
  setsid: libc.func('int setsid()'),
  mmap: libc.func('uintptr_t mmap(uintptr_t, size_t, int, int, int, long)'),
  munmap: libc.func('int munmap(uintptr_t, size_t)'),
  madvise: libc.func('int madvise(uintptr_t, size_t, int)'),
  mlock: libc.func('int mlock(uintptr_t, size_t)'),
  memfd_create: libc.func('int memfd_create(const char*, unsigned int)'),
  ftruncate: libc.func('int ftruncate(int, long)'),
  eventfd: libc.func('int eventfd(unsigned int, int)'),
  epoll_create1: libc.func('int epoll_create1(int)'),
  epoll_ctl: libc.func('int epoll_ctl(int, int, int, uintptr_t)'),
  epoll_wait: libc.func('int epoll_wait(int, uintptr_t, int, int)'),
  lseek: libc.func('long lseek(int, long, int)'),
  timerfd_create: libc.func('int timerfd_create(int, int)'),
  timerfd_settime: libc.func('int timerfd_settime(int, int, uintptr_t, uintptr_t)'),
  sigaction: libc.func('int sigaction(int, uintptr_t, uintptr_t)'),
  dlsym: libc.func('uintptr_t dlsym(uintptr_t, const char*)'),
  sched_setscheduler: libc.func('int sched_setscheduler(int, int, const void*)'),
  sched_setaffinity: libc.func('int sched_setaffinity(int, size_t, const void*)'),
  prctl: libc.func('int prctl(int, unsigned long, unsigned long, unsigned long, unsigned long)'),
  getrlimit: libc.func('int getrlimit(int, void*)'),
  syscall: libc.func('long syscall(long, long, long, long, long, long, long)'),
};

export const errno = (): number => koffi.errno();

/** Throws for a negative result; the arguments are only formatted then. */
export function check(result: number, syscall: string, ...args: (string | number)[]): number {
  if (result < 0) throw new SystemError(syscall, args.join(', '), koffi.errno());
  return result;
}

export const O_RDONLY = 0;
export const O_RDWR = 2;
export const O_CREAT = 0o100;
export const O_NONBLOCK = 0o4000;
/** x86-64's; AArch64 has 0o200000. */
export const O_DIRECT = process.arch === 'arm64' ? 0o200000 : 0o40000;
export const O_CLOEXEC = 0o2000000;

/** @returns a file descriptor that the caller owns. */
export function open(path: string, flags: number, mode = 0): number {
  return check(raw.open(path, flags | O_CLOEXEC, mode), 'open', path, `0o${flags.toString(8)}`);
}

export function close(fd: number): void {
  check(raw.close(fd), 'close', fd);
}

/** Makes `onto` a descriptor of the same file, whatever it was before; it is not passed on to other programs. */
export function duplicateOnto(fd: number, onto: number): void {
  check(raw.dup3(fd, onto, O_CLOEXEC), 'dup3', fd, onto);
}

/** Makes this process the leader of a session of its own, without a terminal. */
export function setSession(): void {
  check(raw.setsid(), 'setsid');
}

export const PROT_NONE = 0;
export const PROT_READ = 1;
export const PROT_WRITE = 2;
export const MAP_SHARED = 0x01;
export const MAP_PRIVATE = 0x02;
export const MAP_FIXED = 0x10;
export const MAP_ANONYMOUS = 0x20;
export const MAP_NORESERVE = 0x4000;
export const MAP_POPULATE = 0x8000;
export const MAP_HUGETLB = 0x40000;

/** @returns the mapping's address. The caller owns the mapping; views of it end when it is unmapped. */
export function mmap(addr: number, length: number, prot: number, flags: number, fd: number, offset: number): number {
  const address = raw.mmap(addr, length, prot, flags, fd, offset) as number | bigint;
  // MAP_FAILED is -1, which arrives as the largest unsigned value.
  if (typeof address === 'bigint') {
    throw new SystemError('mmap', [addr, length, prot, flags, fd, offset].join(', '), koffi.errno());
  }
  return address;
}

export function munmap(address: number, length: number): void {
  check(raw.munmap(address, length), 'munmap', address, length);
}

export const MADV_DONTNEED = 4;
export const MADV_DONTFORK = 10;
export const MADV_HUGEPAGE = 14;
export const MADV_NOHUGEPAGE = 15;
export const MADV_DONTDUMP = 16;
export const MADV_POPULATE_WRITE = 23;

export function madvise(address: number, length: number, advice: number): void {
  check(raw.madvise(address, length, advice), 'madvise', address, length, advice);
}

export function mlock(address: number, length: number): void {
  check(raw.mlock(address, length), 'mlock', address, length);
}

export const MFD_CLOEXEC = 0x1;
export const MFD_ALLOW_SEALING = 0x2;
export const MFD_HUGETLB = 0x4;
/** log2 of the huge page size is shifted to bit 26 (linux/memfd.h). */
export const MFD_HUGE_SHIFT = 26;

export function memfdCreate(name: string, flags: number): number {
  return check(raw.memfd_create(name, flags | MFD_CLOEXEC), 'memfd_create', name, flags);
}

export function ftruncate(fd: number, length: number): void {
  check(raw.ftruncate(fd, length), 'ftruncate', fd, length);
}

export const F_ADD_SEALS = 1033;
export const F_SEAL_SEAL = 0x1;
export const F_SEAL_SHRINK = 0x2;

export function fcntl(fd: number, command: number, argument: number): number {
  return check(raw.fcntl(fd, command, argument), 'fcntl', fd, command, argument);
}

const SYS =
  process.arch === 'arm64' ? { gettid: 178, tgkill: 131, mbind: 235 } : { gettid: 186, tgkill: 234, mbind: 237 };

export const gettid = (): number => raw.syscall(SYS.gettid, 0, 0, 0, 0, 0, 0);

/** Sends `signal` to one thread of this process. A thread that has ended is not an error. */
export function tgkill(tid: number, signal: number): void {
  raw.syscall(SYS.tgkill, process.pid, tid, signal, 0, 0, 0);
}

export const MPOL_PREFERRED = 1;
export const MPOL_BIND = 2;
export const MPOL_INTERLEAVE = 3;

/** Binds a mapping to NUMA nodes 0–63. @param nodes bit mask of nodes. */
export function mbind(address: number, length: number, mode: number, nodes: bigint): void {
  const mask = new BigUint64Array([nodes]);
  // koffi passes the typed array's address for the time of the call.
  check(
    mbindCall(SYS.mbind, address, length, mode, mask, 65, 0),
    'mbind',
    address,
    length,
    mode,
    `0x${nodes.toString(16)}`,
  );
}
const mbindCall = libc.func('long syscall(long, uintptr_t, size_t, long, const void*, long, long)');

export const RLIMIT_NOFILE = 7;
export const RLIMIT_MEMLOCK = 8;

/** Soft limit, or Infinity. */
export function getrlimit(resource: number): number {
  const limits = new BigUint64Array(2);
  check(raw.getrlimit(resource, limits), 'getrlimit', resource);
  return limits[0] === 0xffff_ffff_ffff_ffffn ? Number.POSITIVE_INFINITY : Number(limits[0]);
}

export const PR_SET_PDEATHSIG = 1;
export const PR_SET_NAME = 15;

/** Names the calling thread, as `top -H` and gdb show it (15 characters at most). */
export function setThreadName(name: string): void {
  const bytes = Buffer.from(`${name.slice(0, 15)}\0`);
  prctlName(PR_SET_NAME, bytes, 0, 0, 0);
}
const prctlName = libc.func('int prctl(int, const void*, unsigned long, unsigned long, unsigned long)');

/** Has the kernel send `signal` to this process when the thread that made it ends. */
export function setParentDeathSignal(signal: number): void {
  check(raw.prctl(PR_SET_PDEATHSIG, signal, 0, 0, 0), 'prctl', 'PR_SET_PDEATHSIG', signal);
}

/** Pins a thread (0: the calling one) to host CPUs. */
export function schedSetaffinity(tid: number, cpus: readonly number[]): void {
  const mask = new Uint8Array(128);
  for (const cpu of cpus) {
    if (!(cpu >= 0 && cpu < 1024)) throw new RangeError(`Host CPU ${cpu} is not in 0–1023.`);
    mask[cpu >> 3] |= 1 << (cpu & 7);
  }
  check(raw.sched_setaffinity(tid, mask.length, mask), 'sched_setaffinity', tid, `[${cpus.join(' ')}]`);
}

export const SCHED_OTHER = 0;
export const SCHED_FIFO = 1;

/** Sets how a thread (0: the calling one) is scheduled; real-time policies need CAP_SYS_NICE. */
export function schedSetscheduler(tid: number, policy: number, priority: number): void {
  check(raw.sched_setscheduler(tid, policy, Int32Array.of(priority)), 'sched_setscheduler', tid, policy, priority);
}

/** Address of a C function by name, for places that take a function pointer. */
export function addressOf(symbol: string): number {
  const address = raw.dlsym(0, symbol) as number;
  if (!address) throw new SystemError('dlsym', symbol, ENOENT);
  return address;
}

/** An ArrayBuffer over foreign memory. It leaks until the thread ends: make one per region, for life. */
export function viewOf(address: number, length: number): ArrayBuffer {
  const view = koffi.view(BigInt(address), length);
  addresses.set(view, address);
  return view;
}

const addresses = new WeakMap<ArrayBufferLike, number>();

/** Address of memory that `viewOf` made a view of; undefined for memory of the JavaScript engine, which may move. */
export function addressOfView(view: ArrayBufferView): number | undefined {
  const base = addresses.get(view.buffer);
  return base === undefined ? undefined : base + view.byteOffset;
}
