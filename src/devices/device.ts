/**
 * What a device model sees of the machine it is in. A device knows none of KVM, threads or file
 * descriptors: everything is handed in through these interfaces, so that a unit test can be the board.
 */

/**
 * A range of port or memory addresses that a device answers for. Offsets count from the start of the
 * region. `size` is 1, 2 or 4; values are unsigned. The bus splits wider or odd accesses before they
 * arrive here, low address first. Neither method throws: a guest can write anything.
 */
export interface Region {
  /** Name for traces, counters and overlap errors, for example `com1`. */
  readonly name: string;
  /** Length in bytes. */
  readonly size: number;
  read(offset: number, size: number): number;
  write(offset: number, size: number, value: number): void;
  /**
   * Optional whole-transfer path for `rep ins` and `rep outs` at one port (fw_cfg's data port, a UART's
   * holding register). Without it the bus makes one call per element.
   */
  readMany?(offset: number, size: number, into: Uint8Array): void;
  writeMany?(offset: number, size: number, from: Uint8Array): void;
}

/** One interrupt line. Level is kept by the device; the board turns changes into KVM_IRQ_LINE or irqfd writes. */
export interface IrqLine {
  set(level: boolean): void;
}

/** A one-shot timer owned by the machine thread's reactor. Re-arming replaces the earlier deadline. */
export interface Timer {
  /** Arms for an absolute time of the clock that made it, in nanoseconds. */
  armAt(ns: bigint): void;
  cancel(): void;
}

/** Guest time: stands still while the machine is paused. */
export interface Clock {
  /** Nanoseconds since the machine was first started, pauses not counted. */
  now(): bigint;
  /** Wall clock in milliseconds since 1970, as the guest should see it. */
  wallClockMs(): number;
  timer(callback: () => void): Timer;
}

/**
 * Guest-physical memory as devices see it. Every access checks its range: one that is not wholly RAM
 * gives `false` (or `undefined`) and touches nothing.
 */
export interface GuestMemory {
  read(gpa: number, into: Uint8Array): boolean;
  write(gpa: number, from: Uint8Array): boolean;
  /** A view of guest RAM, valid until the memory layout changes; undefined unless the whole range is RAM. */
  slice(gpa: number, length: number): Uint8Array | undefined;
}

/** A byte stream behind a console or a serial port. Neither side ever blocks. */
export interface ByteChannel {
  /** Takes as many bytes as it has room for, from the start, and says how many. */
  write(bytes: Uint8Array): number;
  /** Next received byte, or -1 when there is none. */
  read(): number;
  /** True when at least one byte can be read. */
  readonly readable: boolean;
  /** Called when bytes may have arrived; more than once for the same bytes. */
  onReadable?: () => void;
  /** Called when there is room again after a short `write`. */
  onWritable?: () => void;
}

/** Plain data that `save` gives and `restore` takes back as untrusted input. */
export interface DeviceState {
  readonly kind: string;
  readonly version: number;
  readonly [field: string]: unknown;
}

/** What every device does besides its registers. */
export interface Device {
  /** Instance name, unique in a machine, for example `com1`. */
  readonly name: string;
  reset(): void;
  save(): DeviceState;
  /** @throws Error when the state is not of this device's kind and version, or has values out of range. */
  restore(state: unknown): void;
}

/**
 * Says, at a limited rate, what a guest did wrong. Devices call it instead of throwing; `text` carries
 * the values.
 */
export type GuestFault = (device: string, text: string) => void;
