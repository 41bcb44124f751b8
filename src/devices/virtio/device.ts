import type { GuestMemory } from '../device.ts';
import type { VirtQueue } from './queue.ts';

/** Feature bits that belong to the rings and the transport (virtio 1.2, section 6). */
export const VIRTIO_F_INDIRECT_DESC = 1n << 28n;
export const VIRTIO_F_EVENT_IDX = 1n << 29n;
export const VIRTIO_F_VERSION_1 = 1n << 32n;
export const VIRTIO_F_ACCESS_PLATFORM = 1n << 33n;
export const VIRTIO_F_RING_PACKED = 1n << 34n;
export const VIRTIO_F_IN_ORDER = 1n << 35n;
export const VIRTIO_F_RING_RESET = 1n << 40n;

/** What a device may do to the driver; made by the transport. */
export interface VirtioHost {
  readonly memory: GuestMemory;
  /** Interrupts the driver if it wants that: once after a burst of buffers was given back. */
  interrupt(queue: number): void;
  /** The configuration has changed. */
  configChanged(): void;
  /** The driver broke the rules: the device does nothing more until it is reset. */
  fail(why: string): void;
}

/**
 * A virtio device: its type, its features and what it does with its queues. It knows neither rings nor
 * transport. Methods are called by the transport, in the device's thread.
 */
export interface VirtioDevice {
  readonly name: string;
  /** Device ID (section 5). */
  readonly type: number;
  /** PCI class code that goes with it, 0xBBSSPP. */
  readonly classCode: number;
  /** Device's own feature bits, without those of the rings. */
  readonly features: bigint;
  /** Largest size of each queue: how many there are, too. */
  readonly queueSizes: readonly number[];
  /** Bytes of configuration space. */
  readonly configSize: number;
  readConfig(offset: number, size: number): number;
  writeConfig(offset: number, size: number, value: number): void;
  attach(host: VirtioHost): void;
  /** The driver and the device have agreed on these features; the driver is not ready yet. */
  negotiated?(features: bigint): void;
  /** The driver is ready, with these features; `queues` has those that it enabled. */
  start(features: bigint, queues: readonly (VirtQueue | undefined)[]): void;
  /** A queue was enabled or reset while the device runs. */
  queueChanged?(index: number, queue: VirtQueue | undefined): void;
  /** Buffers may wait in a queue. */
  notify(queue: number): void;
  /** Stops everything; requests in flight may complete later, and touch nothing then. */
  stop(): void;
  /**
   * Whether a back end still works on memory that requests of before a reset named: of one queue, or of any. The
   * driver may not have that memory back before, so the reset is not shown as done.
   */
  busy?(queue?: number): boolean;
  /** The device's own state, for a snapshot. */
  save?(): Record<string, unknown>;
  restore?(state: unknown): void;
}

/** A configuration space of little-endian fields that the device fills. */
export class ConfigFields {
  readonly view: DataView;

  constructor(size: number) {
    this.view = new DataView(new ArrayBuffer(size));
  }

  read(offset: number, size: number): number {
    let value = 0;
    for (let i = 0; i < size; i++) {
      if (offset + i < this.view.byteLength) value |= this.view.getUint8(offset + i) << (8 * i);
    }
    return value >>> 0;
  }
}
