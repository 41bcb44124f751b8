/**
 * Asynchronous reads and writes of one file, by io_uring; where the kernel has none, at once and in place.
 * Callback style: this runs in threads that never return to libuv.
 */
import { Arena, type Pinned } from '../ffi/arena.ts';
import * as uring from '../ffi/io_uring.ts';
import {
  addressOfView,
  check,
  close,
  EAGAIN,
  EINTR,
  errno,
  MAP_SHARED,
  mmap,
  munmap,
  PROT_READ,
  PROT_WRITE,
  raw,
  viewOf,
} from '../ffi/libc.ts';
import { EFD_CLOEXEC, EFD_NONBLOCK } from '../ffi/os.ts';
import type { Done } from './task.ts';

export const EIO = 5;
export const ENOSPC = 28;
export const EOPNOTSUPP = 95;
export const FALLOC_FL_KEEP_SIZE = 1;
export const FALLOC_FL_PUNCH_HOLE = 2;
export const FALLOC_FL_ZERO_RANGE = 16;

/** What a queue waits with: the loop of the thread that it lives in. */
export interface Poller {
  add(fd: number, handler: () => void): void;
  remove(fd: number): void;
}

/** A file's queue. Views have to stay where they are until `done`. */
export interface FileQueue {
  read(offset: number, into: readonly Uint8Array[], done: Done): void;
  write(offset: number, from: readonly Uint8Array[], done: Done): void;
  /** fdatasync. */
  sync(done: Done): void;
  fallocate(mode: number, offset: number, length: number, done: Done): void;
  /** Does `action`, and hands over in one go what it asked for. */
  batch(action: () => void): void;
  /** Called before (true) and after (false) a burst of completions. */
  onBurst: ((running: boolean) => void) | undefined;
  /** Waits in place for something that is under way, and calls back. @returns whether there was anything. */
  drain(): boolean;
  /** All that was asked for must be done. */
  close(): void;
}

/** Every operation at once, in the caller's thread. */
export class SyncFileQueue implements FileQueue {
  onBurst: ((running: boolean) => void) | undefined;
  readonly #fd: number;

  constructor(fd: number) {
    this.#fd = fd;
  }

  read(offset: number, into: readonly Uint8Array[], done: Done): void {
    done(transfer(offset, into, (view, at) => raw.pread(this.#fd, view, view.length, at), true));
  }

  write(offset: number, from: readonly Uint8Array[], done: Done): void {
    done(transfer(offset, from, (view, at) => raw.pwrite(this.#fd, view, view.length, at), false));
  }

  sync(done: Done): void {
    done(raw.fdatasync(this.#fd) < 0 ? errno() : 0);
  }

  fallocate(mode: number, offset: number, length: number, done: Done): void {
    done(raw.fallocate(this.#fd, mode, offset, length) < 0 ? errno() : 0);
  }

  batch(action: () => void): void {
    action();
  }

  drain(): boolean {
    return false;
  }

  close(): void {}
}

function transfer(
  offset: number,
  views: readonly Uint8Array[],
  call: (view: Uint8Array, at: number) => number,
  zeroTail: boolean,
): number {
  let at = offset;
  for (const view of views) {
    for (let rest = view; rest.length > 0; ) {
      const moved = call(rest, at);
      if (moved < 0) {
        if (errno() === EINTR) continue;
        return errno();
      }
      if (moved === 0) {
        // A file that ends early reads as zeros; a write that moves nothing is an error.
        if (!zeroTail) return EIO;
        rest.fill(0);
        at += rest.length;
        break;
      }
      rest = rest.subarray(moved);
      at += moved;
    }
  }
  return 0;
}

const ENTRIES = 256;
/** Pieces of a request, the most that a queue's chain can have. */
const MAX_PIECES = 1024;
const IOVEC_SIZE = 16;

interface Pending {
  readonly done: Done;
  readonly views: readonly Uint8Array[];
  readonly offset: number;
  readonly length: number;
  readonly kind: 'read' | 'write' | 'other';
}

/** A queue on io_uring, with its file registered and one system call for each batch. */
export class UringFileQueue implements FileQueue {
  onBurst: ((running: boolean) => void) | undefined;
  readonly #fd: number;
  readonly #poller: Poller;
  readonly #ring: number;
  readonly #eventfd: number;
  readonly #arena = new Arena(64 * 1024 + ENTRIES * 8 * IOVEC_SIZE);
  readonly #mappings: { address: number; length: number }[] = [];
  readonly #words: Int32Array;
  readonly #sqes: DataView;
  readonly #cqes: { at: number; view: DataView };
  readonly #sq: { head: number; tail: number; mask: number };
  readonly #cq: { head: number; tail: number; mask: number; flags: number };
  readonly #pending: (Pending | undefined)[] = new Array(ENTRIES).fill(undefined);
  readonly #iovecs: Pinned[] = [];
  readonly #free = Array.from({ length: ENTRIES }, (_, i) => ENTRIES - 1 - i);
  /** Requests that found the ring full. */
  readonly #waiting: (() => void)[] = [];
  #queued = 0;
  #reaping = false;
  #batching = 0;

  /** @throws SystemError when the kernel has no io_uring, or does not let us. */
  constructor(fd: number, poller: Poller) {
    this.#fd = fd;
    this.#poller = poller;
    const params = this.#arena.struct(uring.io_uring_params);
    this.#ring = check(
      raw.syscall(uring.SYS_io_uring_setup, ENTRIES, params.address, 0, 0, 0, 0),
      'io_uring_setup',
      ENTRIES,
    );
    const { fields } = params;
    const map = (offset: number, length: number) => {
      const address = mmap(0, length, PROT_READ | PROT_WRITE, MAP_SHARED, this.#ring, offset);
      this.#mappings.push({ address, length });
      return viewOf(address, length);
    };
    const { sq_off: sq, cq_off: cq, sq_entries: entries, cq_entries: completions } = fields;
    const length = Math.max(sq.array + entries * 4, cq.cqes + completions * uring.io_uring_cqe.size);
    const rings = map(uring.IORING_OFF_SQ_RING, length);
    this.#words = new Int32Array(rings, 0, Math.floor(length / 4));
    this.#sqes = new DataView(map(uring.IORING_OFF_SQES, entries * uring.io_uring_sqe.size));
    this.#sq = { head: sq.head >> 2, tail: sq.tail >> 2, mask: this.#words[sq.ring_mask >> 2] };
    this.#cq = {
      ...{ head: cq.head >> 2, tail: cq.tail >> 2, flags: cq.flags >> 2 },
      mask: this.#words[cq.ring_mask >> 2],
    };
    this.#cqes = { at: cq.cqes, view: new DataView(rings) };
    for (let i = 0; i < entries; i++) this.#words[(sq.array >> 2) + i] = i;
    this.#eventfd = check(raw.eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), 'eventfd');
    const number = this.#arena.alloc(8);
    number.view.setInt32(0, this.#eventfd, true);
    this.#register(uring.IORING_REGISTER_EVENTFD, number.address, 'IORING_REGISTER_EVENTFD');
    number.view.setInt32(0, fd, true);
    this.#register(uring.IORING_REGISTER_FILES, number.address, 'IORING_REGISTER_FILES');
    const drain = this.#arena.alloc(8);
    poller.add(this.#eventfd, () => {
      raw.read(this.#eventfd, drain.bytes, 8);
      this.#reap();
    });
  }

  #register(operation: number, address: number, name: string): void {
    check(raw.syscall(uring.SYS_io_uring_register, this.#ring, operation, address, 1, 0, 0), 'io_uring_register', name);
  }

  read(offset: number, into: readonly Uint8Array[], done: Done): void {
    this.#move('read', offset, into, done);
  }

  write(offset: number, from: readonly Uint8Array[], done: Done): void {
    this.#move('write', offset, from, done);
  }

  #move(kind: 'read' | 'write', offset: number, views: readonly Uint8Array[], done: Done): void {
    if (views.length > MAX_PIECES || views.some((view) => addressOfView(view) === undefined)) {
      // Memory that may move is not for the kernel to keep: this is not a guest's request.
      const call = kind === 'read' ? raw.pread : raw.pwrite;
      done(transfer(offset, views, (view, at) => call(this.#fd, view, view.length, at), kind === 'read'));
      return;
    }
    const length = views.reduce((sum, view) => sum + view.length, 0);
    this.#submit({ done, views, offset, length, kind }, (slot) => {
      if (views.length === 1) {
        const opcode = kind === 'read' ? uring.IORING_OP_READ : uring.IORING_OP_WRITE;
        return { opcode, offset, address: addressOfView(views[0]) as number, length, flags: 0 };
      }
      const vector = this.#vector(slot, views);
      const opcode = kind === 'read' ? uring.IORING_OP_READV : uring.IORING_OP_WRITEV;
      return { opcode, offset, address: vector, length: views.length, flags: 0 };
    });
  }

  sync(done: Done): void {
    this.#submit({ done, views: [], offset: 0, length: 0, kind: 'other' }, () => ({
      opcode: uring.IORING_OP_FSYNC,
      offset: 0,
      address: 0,
      length: 0,
      flags: uring.IORING_FSYNC_DATASYNC,
    }));
  }

  fallocate(mode: number, offset: number, length: number, done: Done): void {
    this.#submit({ done, views: [], offset, length, kind: 'other' }, () => ({
      opcode: uring.IORING_OP_FALLOCATE,
      offset,
      address: length,
      length: mode,
      flags: 0,
    }));
  }

  /** Room for the pieces of a request, kept for the slot. @returns its address. */
  #vector(slot: number, views: readonly Uint8Array[]): number {
    let vector = this.#iovecs[slot];
    if (!vector || vector.bytes.length < views.length * IOVEC_SIZE) {
      const small = views.length <= 8;
      vector = small
        ? this.#arena.alloc(8 * IOVEC_SIZE)
        : new Arena(MAX_PIECES * IOVEC_SIZE).alloc(MAX_PIECES * IOVEC_SIZE);
      this.#iovecs[slot] = vector;
    }
    for (const [i, view] of views.entries()) {
      vector.view.setBigUint64(i * IOVEC_SIZE, BigInt(addressOfView(view) as number), true);
      vector.view.setBigUint64(i * IOVEC_SIZE + 8, BigInt(view.length), true);
    }
    return vector.address;
  }

  #submit(
    pending: Pending,
    make: (slot: number) => { opcode: number; offset: number; address: number; length: number; flags: number },
  ): void {
    const slot = this.#free.pop();
    if (slot === undefined) {
      this.#waiting.push(() => this.#submit(pending, make));
      return;
    }
    this.#pending[slot] = pending;
    const tail = this.#words[this.#sq.tail];
    const at = (tail & this.#sq.mask) * uring.io_uring_sqe.size;
    const { offsets } = uring.io_uring_sqe;
    const { opcode, offset, address, length, flags } = make(slot);
    const sqe = this.#sqes;
    for (let i = 0; i < uring.io_uring_sqe.size; i += 8) sqe.setBigUint64(at + i, 0n, true);
    sqe.setUint8(at + offsets.opcode, opcode);
    sqe.setUint8(at + offsets.flags, uring.IOSQE_FIXED_FILE);
    sqe.setBigUint64(at + offsets.off, BigInt(offset), true);
    sqe.setBigUint64(at + offsets.addr, BigInt(address), true);
    sqe.setUint32(at + offsets.len, length, true);
    sqe.setUint32(at + offsets.rw_flags, flags, true);
    sqe.setUint32(at + offsets.user_data, slot, true);
    Atomics.store(this.#words, this.#sq.tail, (tail + 1) | 0);
    this.#queued++;
    if (this.#batching === 0) this.#enter();
  }

  #enter(): void {
    while (this.#queued > 0) {
      const taken = raw.syscall(uring.SYS_io_uring_enter, this.#ring, this.#queued, 0, 0, 0, 0);
      if (taken < 0) {
        const error = errno();
        // Out of memory for the moment, or interrupted: what is in the ring stays there.
        if (error === EINTR) continue;
        if (error === EAGAIN) {
          this.#reap();
          continue;
        }
        check(taken, 'io_uring_enter', this.#queued);
      }
      this.#queued -= taken;
    }
  }

  batch(action: () => void): void {
    this.#batching++;
    try {
      action();
    } finally {
      if (--this.#batching === 0) this.#enterAndReap();
    }
  }

  /**
   * What is in the page cache is done when the kernel has taken the request: such completions are seen at once, without
   * the way through the poller. Those of what a completion asks for go that way, so that others have their turn.
   */
  #enterAndReap(): void {
    if (this.#queued === 0) return;
    if (this.#reaping) {
      this.#enter();
      return;
    }
    Atomics.store(this.#words, this.#cq.flags, uring.IORING_CQ_EVENTFD_DISABLED);
    try {
      this.#enter();
    } finally {
      // A completion from now on is told; one from before is in the ring.
      Atomics.store(this.#words, this.#cq.flags, 0);
    }
    this.#reap();
  }

  drain(): boolean {
    if (this.#free.length === ENTRIES) return false;
    this.#enter();
    if (this.#words[this.#cq.head] === Atomics.load(this.#words, this.#cq.tail)) {
      const waited = raw.syscall(uring.SYS_io_uring_enter, this.#ring, 0, 1, uring.IORING_ENTER_GETEVENTS, 0, 0);
      if (waited < 0 && errno() !== EINTR) check(waited, 'io_uring_enter', 'IORING_ENTER_GETEVENTS');
    }
    this.#reap();
    return true;
  }

  #reap(): void {
    if (this.#words[this.#cq.head] === Atomics.load(this.#words, this.#cq.tail)) return;
    const outer = this.#reaping;
    this.#reaping = true;
    this.onBurst?.(true);
    try {
      this.batch(() => this.#completeAll());
    } finally {
      // A callback that throws must not keep interrupts back that others wait for.
      this.#reaping = outer;
      this.onBurst?.(false);
    }
  }

  #completeAll(): void {
    // A callback may drain the queue itself: where the head is, is asked anew each time.
    for (let head = this.#words[this.#cq.head]; head !== Atomics.load(this.#words, this.#cq.tail); ) {
      const at = this.#cqes.at + (head & this.#cq.mask) * uring.io_uring_cqe.size;
      const slot = this.#cqes.view.getUint32(at, true);
      const result = this.#cqes.view.getInt32(at + 8, true);
      Atomics.store(this.#words, this.#cq.head, (head + 1) | 0);
      const pending = this.#pending[slot] as Pending;
      this.#pending[slot] = undefined;
      this.#free.push(slot);
      this.#complete(pending, result);
      this.#waiting.shift()?.();
      head = this.#words[this.#cq.head];
    }
  }

  #complete(pending: Pending, result: number): void {
    const { kind, length, views, offset, done } = pending;
    if (result < 0) {
      if (-result === EAGAIN || -result === EINTR) {
        if (kind === 'read') this.read(offset, views, done);
        else if (kind === 'write') this.write(offset, views, done);
        else done(-result);
        return;
      }
      done(-result);
      return;
    }
    if (kind === 'other' || result === length) {
      done(0);
      return;
    }
    // The rest of what was done in part; a read behind the end of the file gives zeros.
    const rest = skip(views, result);
    if (result === 0) {
      if (kind === 'read') for (const view of rest) view.fill(0);
      done(kind === 'read' ? 0 : EIO);
    } else if (kind === 'read') this.read(offset + result, rest, done);
    else this.write(offset + result, rest, done);
  }

  close(): void {
    this.#poller.remove(this.#eventfd);
    close(this.#eventfd);
    close(this.#ring);
    for (const { address, length } of this.#mappings) munmap(address, length);
    this.#arena.free();
  }
}

function skip(views: readonly Uint8Array[], bytes: number): Uint8Array[] {
  let left = bytes;
  const rest: Uint8Array[] = [];
  for (const view of views) {
    if (left >= view.length) {
      left -= view.length;
      continue;
    }
    rest.push(view.subarray(left));
    left = 0;
  }
  return rest;
}

/** A queue for a file that is open: io_uring where there is one. The descriptor stays the caller's. */
export function openFileQueue(fd: number, poller: Poller): FileQueue {
  try {
    return new UringFileQueue(fd, poller);
  } catch {
    return new SyncFileQueue(fd);
  }
}
