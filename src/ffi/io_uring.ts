/** linux/io_uring.h. */
import { at, struct } from './struct.ts';

export const SYS_io_uring_setup = 425;
export const SYS_io_uring_enter = 426;
export const SYS_io_uring_register = 427;
export const IORING_ENTER_GETEVENTS = 1;
/** In the completion ring's flags, which are the program's to write. */
export const IORING_CQ_EVENTFD_DISABLED = 1;

export const io_sqring_offsets = struct('io_sqring_offsets', {
  head: 'u32',
  tail: 'u32',
  ring_mask: 'u32',
  ring_entries: 'u32',
  flags: 'u32',
  dropped: 'u32',
  array: 'u32',
  resv1: 'u32',
  resv2: 'u64',
});

export const io_cqring_offsets = struct('io_cqring_offsets', {
  head: 'u32',
  tail: 'u32',
  ring_mask: 'u32',
  ring_entries: 'u32',
  overflow: 'u32',
  cqes: 'u32',
  flags: 'u32',
  resv1: 'u32',
  resv2: 'u64',
});

export const io_uring_params = struct('io_uring_params', {
  sq_entries: 'u32',
  cq_entries: 'u32',
  flags: 'u32',
  sq_thread_cpu: 'u32',
  sq_thread_idle: 'u32',
  features: 'u32',
  wq_fd: 'u32',
  sq_off: at(40, io_sqring_offsets),
  cq_off: at(80, io_cqring_offsets),
});

/** The header's unions are named by their first member. */
export const io_uring_sqe = struct('io_uring_sqe', {
  opcode: 'u8',
  flags: 'u8',
  ioprio: 'u16',
  fd: 's32',
  off: 'u64',
  addr: 'u64',
  len: 'u32',
  rw_flags: 'u32',
  user_data: 'u64',
  pad: at(63, 'u8'),
});

export const io_uring_cqe = struct('io_uring_cqe', { user_data: 'u64', res: 's32', flags: 'u32' });

export const IORING_OFF_SQ_RING = 0;
export const IORING_OFF_SQES = 0x10000000;
export const IORING_FEAT_SINGLE_MMAP = 1;
export const IORING_REGISTER_FILES = 2;
export const IORING_REGISTER_EVENTFD = 4;
export const IOSQE_FIXED_FILE = 1;
export const IORING_FSYNC_DATASYNC = 1;
export const IORING_OP_READV = 1;
export const IORING_OP_WRITEV = 2;
export const IORING_OP_FSYNC = 3;
export const IORING_OP_FALLOCATE = 17;
export const IORING_OP_READ = 22;
export const IORING_OP_WRITE = 23;

export const uringLayouts = [io_sqring_offsets, io_cqring_offsets, io_uring_params, io_uring_cqe];
export const uringNumbers = {
  IORING_OFF_SQES,
  IORING_CQ_EVENTFD_DISABLED,
  IORING_FEAT_SINGLE_MMAP,
  IORING_FSYNC_DATASYNC,
};
