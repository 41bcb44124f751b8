/**
 * The block of shared memory between a machine's threads: one header, then one slot a vCPU. Word numbers
 * are indices into an Int32Array over the whole block; everything here is read and written with Atomics.
 */

/** Header words. */
export const H = {
  /** 1 while the machine thread is, or is about to be, blocked in epoll_wait. */
  SLEEPING: 0,
  /** 1 once the machine is to end: latched, tested before every wait. */
  STOP: 1,
  /** 1 while vCPUs are to stay out of the guest. */
  PAUSE: 2,
  /** Doorbell of the coalesced ring: 1 when a vCPU saw entries in it. */
  RING: 3,
  /** 1 when a control message waits on the machine thread's port. */
  CONTROL: 4,
  /** The address that the next access to PCI's configuration data port is for: what was written to 0xcf8. */
  PCI_ADDRESS: 5,
  /** Doorbell of hot-plug: 1 when a plugged vCPU was started by the guest, or a thread that was to leave has. */
  CPUS: 6,
  /** Eight words: one bit for each vCPU with a posted exit. */
  PENDING: 8,
  /** Clock offset in nanoseconds: an int64 at word 16 (see clock.ts). */
  CLOCK_OFFSET: 16,
  /** Published device registers (see LocalRegister). */
  REGISTERS: 32,
} as const;

export const HEADER_WORDS = 64;
export const MAX_VCPUS = 254;

/** vCPU slot words. */
export const S = {
  /** POST_*: who has the exit. */
  POST: 0,
  /** What the vCPU thread is doing: RUN_*. Waited on by the machine thread's pause. */
  RUN_STATE: 1,
  TID: 2,
  /** File descriptor of the vCPU, written before GO. */
  FD: 3,
  /** 1 once the vCPU may start: the worker waits here. */
  GO: 4,
  /** The exit: kind (0 io, 1 mmio, 2 other), direction, element size, count, address, value. */
  KIND: 5,
  IS_WRITE: 6,
  SIZE: 7,
  COUNT: 8,
  ADDRESS_LOW: 9,
  ADDRESS_HIGH: 10,
  VALUE_LOW: 11,
  VALUE_HIGH: 12,
  /** Bytes of the kvm_run mapping. */
  RUN_LENGTH: 13,
  /** Address of the kvm_run mapping: a float64 at words 14 and 15. */
  RUN_ADDRESS: 14,
  /** 1 when this thread is to end while the machine goes on. */
  LEAVE: 16,
  /** 1 once the guest has started the vCPU (a plugged one waits for that), or when nobody waits for it. */
  STARTED: 17,
  /** 1 while this vCPU stays out of the guest when others run: a debugger asked for them alone. */
  HELD: 18,
  /** float64 counters from here, see C. */
  COUNTERS: 20,
} as const;

/** Counters of a slot: index of a float64 from S.COUNTERS. Written by the vCPU thread alone. */
export const C = {
  /** 48 KVM exit reasons. */
  REASON: 0,
  /** Exits served on the vCPU thread, by LocalRegister number (8). */
  LOCAL: 48,
  FORWARDED: 56,
  /** Forwarded exits for which the vCPU thread had to sleep. */
  SLEPT: 57,
  KICKS: 58,
  /** Of the exits served on the vCPU thread, the writes: those of the `pci-address` latch. */
  LATCHED: 59,
  COUNT: 60,
} as const;

export const SLOT_WORDS = S.COUNTERS + C.COUNT * 2 + 8;
/** Data of string I/O: KVM moves at most a page an exit. */
export const SLOT_DATA = 4096;

export const POST_IDLE = 0;
export const POST_POSTED = 1;
/** Posted, and the vCPU thread sleeps: the server must notify. */
export const POST_WAITING = 2;
export const POST_DONE = 3;

export const RUN_CREATED = 0;
export const RUN_RUNNING = 1;
export const RUN_PAUSED = 2;
export const RUN_ENDED = 3;
export const RUN_STATE_NAMES = ['created', 'running', 'paused', 'ended'] as const;

/** Typed views of one machine's block. */
export interface SharedBlock {
  readonly buffer: SharedArrayBuffer;
  readonly words: Int32Array<SharedArrayBuffer>;
  readonly doubles: Float64Array<SharedArrayBuffer>;
  readonly longs: BigInt64Array<SharedArrayBuffer>;
  readonly vcpus: number;
}

export function viewShared(buffer: SharedArrayBuffer, vcpus: number): SharedBlock {
  return {
    buffer,
    words: new Int32Array(buffer),
    doubles: new Float64Array(buffer),
    longs: new BigInt64Array(buffer),
    vcpus,
  };
}

export function allocateShared(vcpus: number): SharedBlock {
  return viewShared(new SharedArrayBuffer((HEADER_WORDS + vcpus * SLOT_WORDS) * 4 + vcpus * SLOT_DATA), vcpus);
}

/** First word of a vCPU's slot. */
export const slotWord = (vcpu: number): number => HEADER_WORDS + vcpu * SLOT_WORDS;
/** Index of a slot's counter in `doubles`. */
export const counterIndex = (vcpu: number, counter: number): number => (slotWord(vcpu) + S.COUNTERS) / 2 + counter;
/** String I/O data of a vCPU. */
export const slotData = (block: SharedBlock, vcpu: number): Uint8Array =>
  new Uint8Array(block.buffer, (HEADER_WORDS + block.vcpus * SLOT_WORDS) * 4 + vcpu * SLOT_DATA, SLOT_DATA);

/**
 * A register that vCPU threads read without the machine thread. `lsr` is published by its UART, and is
 * served only while no error bit is set (reading those clears them); `pm-timer` is computed from the clock;
 * `pci-address` is a latch, written here too; `pci-data` is read from the shared configuration pages.
 */
export interface LocalRegister {
  readonly kind: 'lsr' | 'pm-timer' | 'pci-address' | 'pci-data';
  readonly name: string;
  readonly port: number;
  /** Bytes of an access; for `pci-data` the ports that there are. */
  readonly size: number;
  /** Word of the published value. */
  readonly word: number;
}
