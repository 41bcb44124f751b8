import type { GuestFault, GuestMemory } from '../device.ts';
import {
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_RING_RESET,
  VIRTIO_F_VERSION_1,
  type VirtioDevice,
} from './device.ts';
import { PackedQueue } from './packed_queue.ts';
import { isSavedChain, type QueueState, RingError, type VirtQueue } from './queue.ts';
import { SplitQueue } from './split_queue.ts';

/** Device status (virtio 1.2, section 2.1). */
export const STATUS_ACKNOWLEDGE = 1;
export const STATUS_DRIVER = 2;
export const STATUS_DRIVER_OK = 4;
export const STATUS_FEATURES_OK = 8;
export const STATUS_NEEDS_RESET = 64;
export const STATUS_FAILED = 128;

export const ISR_QUEUE = 1;
export const ISR_CONFIG = 2;

/** Registers of one queue, as every transport has them. */
export interface QueueRegisters {
  size: number;
  readonly maxSize: number;
  enabled: boolean;
  descriptors: number;
  driver: number;
  device: number;
  /** MSI-X vector; unused on other transports. */
  vector: number;
  queue: VirtQueue | undefined;
  /** It was reset, and a back end may not be done with its buffers. */
  resetting: boolean;
}

/** Addresses stay exact as numbers; no processor has as many bits, so what is cut off led nowhere anyway. */
const ADDRESS_HIGH_BITS = 0x1fffff;

/** Puts one half of an address into a queue's registers. @param value unsigned 32 bits. */
export function setQueueAddress(
  queue: QueueRegisters,
  part: 'descriptors' | 'driver' | 'device',
  half: 'low' | 'high',
  value: number,
): void {
  const low = queue[part] % 2 ** 32;
  queue[part] = half === 'high' ? low + (value & ADDRESS_HIGH_BITS) * 2 ** 32 : queue[part] - low + value;
}

/** How a transport interrupts: by a queue's number, or for the configuration. */
export interface TransportInterrupts {
  queue(index: number): void;
  config(): void;
  /** Whether the device may reach memory now; always, when there is nothing to say so. */
  reachable?(): boolean;
  /** Does it when others have had their turn. Without it, a queue is served until it is empty. */
  later?(action: () => void): void;
}

/** A queue is served for so many times its size, then others have their turn. */
const TURN = 2;

export interface TransportOptions {
  /** Offers packed rings. */
  readonly packed?: boolean;
  readonly inOrder?: boolean;
  readonly fault?: GuestFault;
  /** A driver is ready with the device. */
  readonly started?: () => void;
}

/** The one status machine of all virtio devices, with feature negotiation and the queues' registers. */
export class VirtioState {
  readonly device: VirtioDevice;
  readonly offered: bigint;
  readonly queues: QueueRegisters[];
  driverFeatures = 0n;
  status = 0;
  configGeneration = 0;
  isr = 0;
  /** Status before a reset that a back end holds up. */
  #statusBefore = 0;
  /** Queues whose turn comes again. */
  readonly #later = new Set<number>();
  readonly #memory: GuestMemory;
  readonly #interrupts: TransportInterrupts;
  readonly #fault: GuestFault;
  readonly #started: () => void;

  constructor(device: VirtioDevice, memory: GuestMemory, interrupts: TransportInterrupts, options: TransportOptions) {
    this.device = device;
    this.#memory = memory;
    this.#interrupts = interrupts;
    this.#fault = options.fault ?? (() => {});
    this.#started = options.started ?? (() => {});
    this.offered =
      device.features |
      VIRTIO_F_VERSION_1 |
      VIRTIO_F_INDIRECT_DESC |
      VIRTIO_F_EVENT_IDX |
      VIRTIO_F_RING_RESET |
      (options.packed ? VIRTIO_F_RING_PACKED : 0n) |
      (options.inOrder ? VIRTIO_F_IN_ORDER : 0n);
    this.queues = device.queueSizes.map((maxSize) => ({ ...emptyQueue, size: maxSize, maxSize }));
    device.attach({
      memory,
      interrupt: (index) => this.#interrupt(index),
      configChanged: () => this.configChanged(),
      fail: (why) => this.fail(why),
    });
  }

  get running(): boolean {
    const ready = STATUS_DRIVER_OK | STATUS_FEATURES_OK;
    return (this.status & (ready | STATUS_NEEDS_RESET)) === ready;
  }

  /** Status as the driver reads it: a reset is done, and 0, when no back end uses the driver's memory any more. */
  get shownStatus(): number {
    if (this.status !== 0 || !this.device.busy?.()) return this.status;
    // Whoever reset it, the machine too: some bit is set until then.
    return this.#statusBefore || STATUS_ACKNOWLEDGE;
  }

  /** Whether the reset of a queue is still under way (section 2.6.1). */
  queueResetting(index: number): boolean {
    const registers = this.queues[index];
    if (!registers?.resetting) return false;
    registers.resetting = this.device.busy?.(index) ?? false;
    return registers.resetting;
  }

  /** 32 bits of the offered features. @param word 0 or 1; higher words are empty. */
  offeredWord(word: number): number {
    return word > 1 ? 0 : Number((this.offered >> BigInt(32 * word)) & 0xffffffffn);
  }

  driverWord(word: number): number {
    return word > 1 ? 0 : Number((this.driverFeatures >> BigInt(32 * word)) & 0xffffffffn);
  }

  setDriverWord(word: number, value: number): void {
    // Features are fixed once FEATURES_OK is set (section 3.1.1).
    if (word > 1 || this.status & STATUS_FEATURES_OK) return;
    const shift = BigInt(32 * word);
    this.driverFeatures = (this.driverFeatures & ~(0xffffffffn << shift)) | (BigInt(value >>> 0) << shift);
  }

  has(feature: bigint): boolean {
    return (this.driverFeatures & feature) !== 0n;
  }

  writeStatus(value: number): void {
    if (value === 0) {
      const before = this.shownStatus;
      this.reset();
      this.#statusBefore = before;
      return;
    }
    const wasRunning = this.running;
    const added = value & ~this.status;
    // A driver sets bits, and clears them only all at once; NEEDS_RESET is the device's own (section 2.1).
    let next = this.status | (value & ~STATUS_NEEDS_RESET);
    if (added & STATUS_FEATURES_OK) {
      // A driver that wants what was not offered, or is older than 1.0, finds the bit clear again.
      const legal = (this.driverFeatures & ~this.offered) === 0n && this.has(VIRTIO_F_VERSION_1);
      if (legal) this.device.negotiated?.(this.driverFeatures);
      else next &= ~STATUS_FEATURES_OK;
    }
    this.status = next;
    if (this.running && !wasRunning) this.#start();
  }

  #start(): void {
    this.#guarded('start', () =>
      this.device.start(
        this.driverFeatures,
        this.queues.map(({ queue }) => queue),
      ),
    );
    // What the driver made available before it was ready is looked at now.
    for (const [index, { queue }] of this.queues.entries()) if (queue) this.notify(index);
    this.#started();
  }

  /** Queue registers were written: `enabled` takes effect. */
  enableQueue(index: number): void {
    const registers = this.queues[index];
    if (!registers || registers.enabled) return;
    if (!(this.status & STATUS_FEATURES_OK)) {
      this.#fault(this.device.name, `queue ${index} was enabled before the features were settled`);
      return;
    }
    const { size, descriptors, driver, device } = registers;
    const packed = this.has(VIRTIO_F_RING_PACKED);
    try {
      if (size < 1 || size > registers.maxSize || (!packed && (size & (size - 1)) !== 0)) {
        throw new RingError(`queue ${index} cannot have ${size} descriptors`);
      }
      registers.queue = new (packed ? PackedQueue : SplitQueue)(this.#memory, {
        size,
        descriptors,
        driver,
        device,
        indirect: this.has(VIRTIO_F_INDIRECT_DESC),
        eventIndex: this.has(VIRTIO_F_EVENT_IDX),
        inOrder: this.has(VIRTIO_F_IN_ORDER),
        reachable: this.#interrupts.reachable,
      });
    } catch (error) {
      if (!(error instanceof RingError)) throw error;
      this.fail(error.message);
      return;
    }
    registers.enabled = true;
    registers.resetting = false;
    if (this.running) this.#guarded(`queue ${index}`, () => this.device.queueChanged?.(index, registers.queue));
  }

  /** Resets one queue (section 2.6.1). */
  resetQueue(index: number): void {
    const registers = this.queues[index];
    if (!registers) return;
    Object.assign(registers, emptyQueue, { size: registers.maxSize, resetting: true });
    if (this.running) this.device.queueChanged?.(index, undefined);
  }

  /** The driver rang for a queue. */
  notify(index: number): void {
    const queue = this.queues[index]?.queue;
    if (!this.running || !queue) return;
    const { later } = this.#interrupts;
    if (later) queue.beginTurn(TURN * queue.size);
    this.#guarded(`queue ${index}`, () => this.device.notify(index));
    if (!later || !queue.endTurn() || this.#later.has(index)) return;
    this.#later.add(index);
    later(() => {
      this.#later.delete(index);
      // It may have been reset since.
      if (this.queues[index].queue === queue) this.notify(index);
    });
  }

  #guarded(what: string, action: () => void): void {
    try {
      action();
    } catch (error) {
      if (!(error instanceof RingError)) throw error;
      this.fail(`${what}: ${error.message}`);
    }
  }

  fail(why: string): void {
    this.#fault(this.device.name, why);
    if (this.status & STATUS_NEEDS_RESET) return;
    const told = this.running;
    this.status |= STATUS_NEEDS_RESET;
    this.device.stop();
    if (told) this.#config();
  }

  configChanged(): void {
    this.configGeneration = (this.configGeneration + 1) & 0xff;
    if (this.status & STATUS_DRIVER_OK) this.#config();
  }

  #config(): void {
    this.isr |= ISR_CONFIG;
    this.#interrupts.config();
  }

  #interrupt(index: number): void {
    const { queue } = this.queues[index];
    if (!this.running || !queue?.wantsInterrupt()) return;
    this.isr |= ISR_QUEUE;
    this.#interrupts.queue(index);
  }

  reset(): void {
    this.status = 0;
    this.#statusBefore = 0;
    this.driverFeatures = 0n;
    this.isr = 0;
    this.configGeneration = 0;
    for (const registers of this.queues) Object.assign(registers, emptyQueue, { size: registers.maxSize });
    this.device.stop();
  }

  save(): Record<string, unknown> {
    return {
      status: this.status,
      features: this.driverFeatures.toString(16),
      generation: this.configGeneration,
      isr: this.isr,
      queues: this.queues.map(({ size, enabled, descriptors, driver, device, vector, queue }) => ({
        ...{ size, enabled, descriptors, driver, device, vector },
        ...(queue && { ring: queue.save() }),
      })),
      ...(this.device.save && { device: this.device.save() }),
    };
  }

  /** @throws Error when the state is not one of this device. */
  restore(state: unknown): void {
    const { status, features, generation, isr, queues, device } = (state ?? {}) as Record<string, unknown>;
    const byte = (value: unknown) => Number.isInteger(value) && (value as number) >= 0 && (value as number) < 256;
    if (![status, generation, isr].every(byte) || typeof features !== 'string' || !/^[0-9a-f]{1,16}$/.test(features)) {
      throw new Error(`${this.device.name}: this is not a virtio device's state.`);
    }
    if (!Array.isArray(queues) || queues.length !== this.queues.length) {
      throw new Error(`${this.device.name}: the state has another number of queues.`);
    }
    const wanted = BigInt(`0x${features}`);
    // A driver can ask for anything before it is told that it cannot have it.
    if ((status as number) & STATUS_FEATURES_OK && (wanted & ~this.offered) !== 0n) {
      throw new Error(`${this.device.name}: the state has features 0x${features} that are not offered here.`);
    }
    for (const each of queues) checkQueue(this.device.name, each);
    this.reset();
    this.driverFeatures = wanted;
    this.status = (status as number) & ~STATUS_DRIVER_OK;
    if (this.status & STATUS_FEATURES_OK) this.device.negotiated?.(wanted);
    this.device.restore?.(device);
    for (const [index, saved] of (queues as SavedQueue[]).entries()) {
      const { size, descriptors, driver, device: used, vector, enabled, ring } = saved;
      Object.assign(this.queues[index], { size, descriptors, driver, device: used, vector });
      if (!enabled) continue;
      this.enableQueue(index);
      if (ring) this.queues[index].queue?.restore(ring);
    }
    this.configGeneration = generation as number;
    this.isr = isr as number;
    if ((status as number) & STATUS_DRIVER_OK) this.writeStatus(status as number);
  }
}

interface SavedQueue {
  size: number;
  descriptors: number;
  driver: number;
  device: number;
  vector: number;
  enabled: boolean;
  ring?: QueueState;
}

function checkQueue(name: string, saved: unknown): asserts saved is SavedQueue {
  const { size, descriptors, driver, device, vector, enabled, ring } = (saved ?? {}) as Record<string, unknown>;
  const numbers = [size, descriptors, driver, device, vector];
  const { available, used, inFlight } = (ring ?? { available: 0, used: 0, inFlight: [] }) as Record<string, unknown>;
  const valid =
    // Addresses are what the driver wrote, whether there is memory or not.
    [...numbers, available, used].every((value) => Number.isInteger(value) && (value as number) >= 0) &&
    typeof enabled === 'boolean';
  if (!valid) throw new Error(`${name}: a queue's state is not valid.`);
  if (!Array.isArray(inFlight) || inFlight.length > (size as number) || !inFlight.every(isSavedChain)) {
    throw new Error(`${name}: the buffers in flight of a queue are not valid.`);
  }
}

const NO_VECTOR = 0xffff;
const emptyQueue: Omit<QueueRegisters, 'maxSize' | 'size'> = {
  enabled: false,
  descriptors: 0,
  driver: 0,
  device: 0,
  vector: NO_VECTOR,
  queue: undefined,
  resetting: false,
};
