/** Kernel interfaces besides KVM: event loops, timers, signals. Names are the headers'. */
import { array, at, struct } from './struct.ts';

/** Packed on x86-64 only (EPOLL_PACKED); the compiled test checks this machine's. */
export const epoll_event =
  process.arch === 'x64'
    ? struct('epoll_event', { events: 'u32', fd: at(4, 's32'), pad: at(8, 'u32') }, 12)
    : struct('epoll_event', { events: 'u32', fd: at(8, 's32'), pad: at(12, 'u32') }, 16);
export const EPOLL_CTL_ADD = 1;
export const EPOLL_CTL_DEL = 2;
export const EPOLL_CTL_MOD = 3;
export const EPOLLIN = 0x001;
export const EPOLLPRI = 0x002;
export const EPOLLOUT = 0x004;
export const EPOLLERR = 0x008;
export const EPOLLHUP = 0x010;

export const timespec = struct('timespec', { tv_sec: 's64', tv_nsec: 's64' });
export const itimerspec = struct('itimerspec', { it_interval: timespec, it_value: timespec });
export const CLOCK_MONOTONIC = 1;
export const TFD_TIMER_ABSTIME = 1;

export const EFD_NONBLOCK = 0o4000;
export const EFD_CLOEXEC = 0o2000000;

/** glibc's struct sigaction. */
export const sigaction_t = struct('sigaction', {
  sa_handler: 'u64',
  sa_mask: array('u64', 16),
  sa_flags: 's32',
  sa_restorer: 'u64',
});

export const flock = struct('flock', { l_type: 's16', l_whence: 's16', l_start: 's64', l_len: 's64', l_pid: 's32' });
export const F_RDLCK = 0;
export const F_WRLCK = 1;
export const F_UNLCK = 2;
export const F_OFD_GETLK = 36;
export const F_OFD_SETLK = 37;

export const osLayouts = [flock, timespec, itimerspec, sigaction_t];
export const osNumbers = {
  EPOLL_CTL_ADD,
  EPOLL_CTL_DEL,
  EPOLL_CTL_MOD,
  EPOLLIN,
  EPOLLPRI,
  F_RDLCK,
  F_WRLCK,
  F_UNLCK,
  F_OFD_GETLK,
  F_OFD_SETLK,
  EPOLLOUT,
  EPOLLERR,
  EPOLLHUP,
  CLOCK_MONOTONIC,
  TFD_TIMER_ABSTIME,
  EFD_NONBLOCK,
  EFD_CLOEXEC,
};
