import { Arena } from '../ffi/arena.ts';
import { check, close, EINTR, errno, raw, SystemError } from '../ffi/libc.ts';
import {
  CLOCK_MONOTONIC,
  EFD_CLOEXEC,
  EFD_NONBLOCK,
  EPOLL_CTL_ADD,
  EPOLL_CTL_DEL,
  EPOLLIN,
  epoll_event,
  itimerspec,
  TFD_TIMER_ABSTIME,
} from '../ffi/os.ts';

const MAX_EVENTS = 32;
const TFD_CLOEXEC = 0o2000000;
const TFD_NONBLOCK = 0o4000;
const EPOLL_CLOEXEC = 0o2000000;

/** A wake-up descriptor that any thread of the process may write. The caller owns it. */
export const newEventfd = (): number =>
  check(raw.eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), 'eventfd', 0, 'EFD_CLOEXEC | EFD_NONBLOCK');

/** A blocking event loop on epoll, with one timer. Synchronous: it lives in a thread that never returns to libuv. */
export class Reactor {
  readonly #epoll = check(raw.epoll_create1(EPOLL_CLOEXEC), 'epoll_create1', 'EPOLL_CLOEXEC');
  readonly #timer = check(
    raw.timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK),
    'timerfd_create',
    'CLOCK_MONOTONIC',
  );
  readonly #arena = new Arena(4096);
  readonly #events = this.#arena.alloc(epoll_event.size * MAX_EVENTS);
  readonly #control = this.#arena.struct(epoll_event);
  readonly #setting = this.#arena.struct(itimerspec);
  readonly #drain = this.#arena.alloc(8);
  readonly #handlers = new Map<number, () => void>();

  /** Calls `handler` in `wait` while `fd` is readable. The descriptor stays the caller's. */
  add(fd: number, handler: () => void): void {
    this.#control.fields.events = EPOLLIN;
    this.#control.fields.fd = fd;
    check(raw.epoll_ctl(this.#epoll, EPOLL_CTL_ADD, fd, this.#control.address), 'epoll_ctl', 'EPOLL_CTL_ADD', fd);
    this.#handlers.set(fd, handler);
  }

  remove(fd: number): void {
    check(raw.epoll_ctl(this.#epoll, EPOLL_CTL_DEL, fd, 0), 'epoll_ctl', 'EPOLL_CTL_DEL', fd);
    this.#handlers.delete(fd);
  }

  /** Adds an eventfd: its count is taken before the handler runs. */
  addEventfd(fd: number, handler: () => void): void {
    this.add(fd, () => {
      raw.read(fd, this.#drain.bytes, 8);
      handler();
    });
  }

  /** Calls `handler` when the timer set with `arm` is due. */
  onTimer(handler: () => void): void {
    this.addEventfd(this.#timer, handler);
  }

  /** Sets the timer to an absolute CLOCK_MONOTONIC time in nanoseconds; 0 disarms it. */
  arm(ns: bigint): void {
    this.#setting.fields.it_value.tv_sec = ns / 1_000_000_000n;
    this.#setting.fields.it_value.tv_nsec = ns % 1_000_000_000n;
    check(
      raw.timerfd_settime(this.#timer, TFD_TIMER_ABSTIME, this.#setting.address, 0),
      'timerfd_settime',
      this.#timer,
      String(ns),
    );
  }

  /** Blocks until something is ready, or for `timeoutMs` (-1: without end), and runs the handlers. */
  wait(timeoutMs: number): void {
    const count = raw.epoll_wait(this.#epoll, this.#events.address, MAX_EVENTS, timeoutMs);
    if (count < 0) {
      if (errno() === EINTR) return;
      throw new SystemError('epoll_wait', `${this.#epoll}, …, ${timeoutMs}`, errno());
    }
    for (let i = 0; i < count; i++) {
      const fd = this.#events.view.getInt32(i * epoll_event.size + epoll_event.offsets.fd, true);
      this.#handlers.get(fd)?.();
    }
  }

  close(): void {
    close(this.#epoll);
    close(this.#timer);
    this.#arena.free();
  }
}
