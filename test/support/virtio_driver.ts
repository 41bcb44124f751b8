/**
 * A driver of virtio devices on PCI, in the test's process: it finds the parts of the device by its capabilities,
 * negotiates, lays rings out in fake memory and does what a kernel's driver does with them (virtio 1.2, sections 2.7,
 * 2.8, 3.1 and 4.1). What it finds wrong on the device's side it throws.
 */
import { PCI, PCI_COMMAND_MASTER, PCI_COMMAND_MEMORY } from '../../src/devices/pci/config_space.ts';
import type { Bar } from '../../src/devices/pci/function.ts';
import type { VirtioDevice } from '../../src/devices/virtio/device.ts';
import { VirtioPci } from '../../src/devices/virtio/pci.ts';
import type { TransportOptions } from '../../src/devices/virtio/transport.ts';
import { FakeMemory } from './board.ts';
import { FakeSlot } from './pci_slot.ts';
import { type DriverQueue, F_PACKED, PackedRing, SplitRing } from './virtio_rings.ts';

export * from './virtio_rings.ts';

export const ACKNOWLEDGE = 1;
export const DRIVER = 2;
export const DRIVER_OK = 4;
export const FEATURES_OK = 8;
export const NEEDS_RESET = 64;
export const FAILED = 128;

/** struct virtio_pci_common_cfg. */
export const COMMON = {
  DEVICE_FEATURE_SELECT: 0x00,
  DEVICE_FEATURE: 0x04,
  DRIVER_FEATURE_SELECT: 0x08,
  DRIVER_FEATURE: 0x0c,
  CONFIG_VECTOR: 0x10,
  NUM_QUEUES: 0x12,
  STATUS: 0x14,
  GENERATION: 0x15,
  QUEUE_SELECT: 0x16,
  QUEUE_SIZE: 0x18,
  QUEUE_VECTOR: 0x1a,
  QUEUE_ENABLE: 0x1c,
  QUEUE_NOTIFY_OFF: 0x1e,
  QUEUE_DESC: 0x20,
  QUEUE_DRIVER: 0x28,
  QUEUE_DEVICE: 0x30,
  QUEUE_RESET: 0x3a,
} as const;

const NO_VECTOR = 0xffff;
const CAP_VENDOR = 0x09;
const CAP_MSIX = 0x11;

/** Where a part of the device stands: in which BAR, from where. */
interface Part {
  readonly bar: Bar;
  readonly offset: number;
  readonly length: number;
}

export interface DriverOptions extends TransportOptions {
  /** Bytes of RAM. */
  readonly memory?: number;
  /** Interrupts by the pin instead of messages. */
  readonly intx?: boolean;
}

export interface QueueSetup {
  readonly size?: number;
  readonly vector?: number;
}

export class MockDriver {
  readonly memory: FakeMemory;
  readonly slot: FakeSlot;
  readonly pci: VirtioPci;
  readonly faults: string[] = [];
  readonly queues: DriverQueue[] = [];
  /** What the driver has accepted. */
  features = 0n;
  /** What a start asks for when nothing else is said: all that is offered, unless a test says less. */
  wanted: bigint | undefined;
  readonly #common: Part;
  readonly #isr: Part;
  readonly #device: Part;
  readonly #notify: Part;
  readonly #notifyMultiplier: number;
  readonly #intx: boolean;
  #free = 0x1000;

  constructor(device: VirtioDevice, options: DriverOptions = {}) {
    this.memory = new FakeMemory(options.memory ?? 2 ** 20);
    this.slot = new FakeSlot(this.memory);
    this.pci = new VirtioPci(device, this.slot, {
      fault: (name, text) => {
        // A hostile driver makes many.
        if (this.faults.length < 100) this.faults.push(`${name}: ${text}`);
      },
      ...options,
    });
    this.#intx = options.intx ?? false;
    const { config } = this.pci;
    config.seal();
    const parts = new Map<number, Part & { readonly at: number }>();
    for (let at = config.read(PCI.CAPABILITY_LIST, 1); at; at = config.read(at + 1, 1)) {
      if (config.read(at, 1) !== CAP_VENDOR) continue;
      const type = config.read(at + 3, 1);
      const index = config.read(at + 4, 1);
      const bar = this.pci.bars.find((each) => each.index === index);
      if (!bar || type === 5) continue;
      parts.set(type, { bar, offset: config.read(at + 8, 4), length: config.read(at + 12, 4), at });
    }
    const part = (type: number) => {
      const found = parts.get(type);
      if (!found) throw new Error(`no capability of type ${type}`);
      return found;
    };
    this.#common = part(1);
    this.#notify = part(2);
    this.#isr = part(3);
    this.#device = part(4);
    this.#notifyMultiplier = config.read(part(2).at + 16, 4);
    this.enable();
  }

  /** Turns decoding, mastering and MSI-X on, as the bus driver does after a reset of the function. */
  enable(): void {
    const { config, msix, bars } = this.pci;
    config.write(PCI.COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    if (this.#intx) return;
    for (let at = config.read(PCI.CAPABILITY_LIST, 1); at; at = config.read(at + 1, 1)) {
      if (config.read(at, 1) === CAP_MSIX) config.write(at + 2, 2, 0x8000);
    }
    const table = bars.find((each) => each.region === msix)?.region;
    for (let vector = 0; vector < msix.vectors; vector++) {
      table?.write(vector * 16, 4, 0xfee00000);
      table?.write(vector * 16 + 4, 4, 0);
      table?.write(vector * 16 + 8, 4, vector);
      table?.write(vector * 16 + 12, 4, 0);
    }
  }

  /** Room in RAM that nothing else has. */
  allocate(bytes: number, alignment = 16): number {
    const at = Math.ceil(this.#free / alignment) * alignment;
    this.#free = at + bytes;
    if (this.#free > this.memory.bytes.length) throw new Error('the test needs more memory');
    return at;
  }

  get allocated(): number {
    return this.#free;
  }

  /** Takes back all that was allocated since. */
  release(mark: number): void {
    this.#free = mark;
  }

  /** Puts bytes somewhere. @returns their address. */
  put(bytes: Uint8Array): number {
    const at = this.allocate(bytes.length);
    this.memory.bytes.set(bytes, at);
    return at;
  }

  read(field: number, size: number): number {
    return this.#common.bar.region.read(this.#common.offset + field, size);
  }

  write(field: number, size: number, value: number): void {
    this.#common.bar.region.write(this.#common.offset + field, size, value);
  }

  config(offset: number, size: number): number {
    return this.#device.bar.region.read(this.#device.offset + offset, size);
  }

  /** A 64-bit field, read as drivers do: again while the generation changes. */
  config64(offset: number): number {
    for (;;) {
      const before = this.generation;
      const value = this.config(offset, 4) + this.config(offset + 4, 4) * 2 ** 32;
      if (before === this.generation) return value;
    }
  }

  setConfig(offset: number, size: number, value: number): void {
    this.#device.bar.region.write(this.#device.offset + offset, size, value);
  }

  get generation(): number {
    return this.read(COMMON.GENERATION, 1);
  }

  get status(): number {
    return this.read(COMMON.STATUS, 1);
  }

  set status(value: number) {
    this.write(COMMON.STATUS, 1, value);
  }

  /** Interrupt status, which reading clears. */
  readIsr(): number {
    return this.#isr.bar.region.read(this.#isr.offset, 1);
  }

  /** Vectors of the messages that arrived since this was last asked. */
  takeMessages(): number[] {
    return this.slot.messages.splice(0).map(({ data }) => data);
  }

  get offered(): bigint {
    let features = 0n;
    for (const word of [0, 1]) {
      this.write(COMMON.DEVICE_FEATURE_SELECT, 4, word);
      features |= BigInt(this.read(COMMON.DEVICE_FEATURE, 4)) << BigInt(32 * word);
    }
    return features;
  }

  /** Steps 1 to 6 of an initialisation (section 3.1.1). @returns whether the device agrees. */
  negotiate(features: bigint): boolean {
    this.reset();
    this.status = ACKNOWLEDGE;
    this.status = ACKNOWLEDGE | DRIVER;
    for (const word of [0, 1]) {
      this.write(COMMON.DRIVER_FEATURE_SELECT, 4, word);
      this.write(COMMON.DRIVER_FEATURE, 4, Number((features >> BigInt(32 * word)) & 0xffffffffn));
    }
    this.features = features;
    this.status = ACKNOWLEDGE | DRIVER | FEATURES_OK;
    return (this.status & FEATURES_OK) !== 0;
  }

  reset(): void {
    this.status = 0;
    this.queues.length = 0;
  }

  /** Writes a queue's registers and enables it. Vector 0 is the configuration's, 1 the first queue's. */
  setUpQueue(index: number, setup: QueueSetup = {}): DriverQueue {
    this.write(COMMON.QUEUE_SELECT, 2, index);
    const most = this.read(COMMON.QUEUE_SIZE, 2);
    if (most === 0) throw new Error(`there is no queue ${index}`);
    const size = setup.size ?? most;
    const Ring = this.features & F_PACKED ? PackedRing : SplitRing;
    const notifyOffset = this.read(COMMON.QUEUE_NOTIFY_OFF, 2);
    const ring = new Ring(this, index, size, () =>
      this.#notify.bar.region.write(this.#notify.offset + notifyOffset * this.#notifyMultiplier, 2, index),
    );
    this.write(COMMON.QUEUE_SIZE, 2, size);
    const vector = this.#intx ? NO_VECTOR : (setup.vector ?? index + 1);
    this.write(COMMON.QUEUE_VECTOR, 2, vector);
    if (this.read(COMMON.QUEUE_VECTOR, 2) !== vector) throw new Error(`vector ${vector} was refused`);
    this.write64(COMMON.QUEUE_DESC, ring.descriptors);
    this.write64(COMMON.QUEUE_DRIVER, ring.driver);
    this.write64(COMMON.QUEUE_DEVICE, ring.device);
    this.write(COMMON.QUEUE_ENABLE, 2, 1);
    this.queues[index] = ring;
    return ring;
  }

  write64(field: number, value: number): void {
    this.write(field, 4, value % 2 ** 32);
    this.write(field + 4, 4, Math.floor(value / 2 ** 32));
  }

  /** All of an initialisation, with every queue or those that are named. */
  start(
    features: bigint = this.wanted ?? this.offered,
    which?: readonly number[],
    setup: QueueSetup = {},
  ): DriverQueue[] {
    if (!this.negotiate(features)) throw new Error(`the features 0x${features.toString(16)} were refused`);
    this.write(COMMON.CONFIG_VECTOR, 2, this.#intx ? NO_VECTOR : 0);
    const count = this.read(COMMON.NUM_QUEUES, 2);
    for (const index of which ?? Array.from({ length: count }, (_, i) => i)) this.setUpQueue(index, setup);
    this.status = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;
    return this.queues;
  }

  /** Resets one queue (section 2.6.1). @returns whether it is done. */
  resetQueue(index: number): boolean {
    this.write(COMMON.QUEUE_SELECT, 2, index);
    this.write(COMMON.QUEUE_RESET, 2, 1);
    return this.queueIsReset(index);
  }

  queueIsReset(index: number): boolean {
    this.write(COMMON.QUEUE_SELECT, 2, index);
    return this.read(COMMON.QUEUE_RESET, 2) === 0 && this.read(COMMON.QUEUE_ENABLE, 2) === 0;
  }
}
