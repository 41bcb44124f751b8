/**
 * A network back end: what a network card is plugged into. Frames are Ethernet frames without a checksum; where
 * `headerSize` is not 0, each has a virtio_net_hdr_v1 of that many bytes before it (virtio 1.2, section 5.1.6).
 * Neither side ever blocks.
 */
export interface NetBackend {
  /** For messages: `tap0`, `user`. */
  readonly name: string;
  /** 12 when frames carry offload headers, else 0. */
  readonly headerSize: 0 | 12;
  /** Offload features that the back end can do (OFFLOAD_*). */
  readonly offloads: number;
  /**
   * Sends a frame, header first; its bytes may be changed.
   * @returns false when there is no room now: `onWritable` is called once there is.
   */
  send(frame: Uint8Array): boolean;
  /**
   * Takes one received frame, header first; one that is longer than `into` is cut.
   * @returns its bytes, 0 when there is none.
   */
  receive(into: Uint8Array): number;
  /** Frames may have arrived. It is called again only after `receive` has given 0. */
  onReadable: (() => void) | undefined;
  onWritable: (() => void) | undefined;
  /** Frames that it lost: received ones for which it had no room, sent ones that the host would not have. */
  readonly lost: { readonly rxDropped: number; readonly txErrors: number };
  /** What the guest's driver accepts to receive (OFFLOAD_*). */
  setOffloads(offloads: number): void;
  close(): void;
}

/** Offloads, as TUNSETOFFLOAD numbers them (linux/if_tun.h). */
export const OFFLOAD_CSUM = 0x01;
export const OFFLOAD_TSO4 = 0x02;
export const OFFLOAD_TSO6 = 0x04;
export const OFFLOAD_TSO_ECN = 0x08;
export const OFFLOAD_UFO = 0x10;

/** What a back end waits with: the loop of the thread that it lives in. */
export interface Poller {
  /** Calls `handler` while `fd` is readable. */
  add(fd: number, handler: () => void): void;
  remove(fd: number): void;
}

/** A one-shot timer; arming it again replaces the deadline. */
export interface NetTimer {
  armAt(ns: bigint): void;
  cancel(): void;
}

export interface NetClock {
  now(): bigint;
  timer(callback: () => void): NetTimer;
}

/** Longest frame: 64 KiB of segmentation offload and its headers. */
export const MAX_FRAME = 65_550 + 12;

/** A back end that cannot be had. `hint` says what to do. */
export class NetError extends Error {
  override readonly name = 'NetError';
  readonly hint: string | undefined;

  constructor(message: string, hint?: string, cause?: unknown) {
    super(message, { cause });
    this.hint = hint;
  }
}
