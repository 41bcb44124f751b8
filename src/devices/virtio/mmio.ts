import type { Device, DeviceState, GuestMemory, Region } from '../device.ts';
import { requireKind } from '../state.ts';
import type { VirtioDevice } from './device.ts';
import { type QueueRegisters, setQueueAddress, type TransportOptions, VirtioState } from './transport.ts';

/** Registers (virtio 1.2, section 4.2.2, table 4.1). All are little-endian double words. */
const R = {
  MAGIC_VALUE: 0x000,
  VERSION: 0x004,
  DEVICE_ID: 0x008,
  VENDOR_ID: 0x00c,
  DEVICE_FEATURES: 0x010,
  DEVICE_FEATURES_SEL: 0x014,
  DRIVER_FEATURES: 0x020,
  DRIVER_FEATURES_SEL: 0x024,
  QUEUE_SEL: 0x030,
  QUEUE_NUM_MAX: 0x034,
  QUEUE_NUM: 0x038,
  QUEUE_READY: 0x044,
  QUEUE_NOTIFY: 0x050,
  INTERRUPT_STATUS: 0x060,
  INTERRUPT_ACK: 0x064,
  STATUS: 0x070,
  QUEUE_DESC: 0x080,
  QUEUE_DRIVER: 0x090,
  QUEUE_DEVICE: 0x0a0,
  SHM_LENGTH: 0x0b0,
  SHM_BASE: 0x0b8,
  QUEUE_RESET: 0x0c0,
  CONFIG_GENERATION: 0x0fc,
  CONFIG: 0x100,
} as const;

/** "virt" */
const MAGIC = 0x74726976;
const VERSION = 2;
/** "QEMU": what its devices on this transport say. */
const VENDOR_ID = 0x554d4551;
const QUEUE_SELECTORS = 0xffff;

/** Bytes that a device takes, as QEMU's do: the registers and 256 bytes of configuration. */
export const MMIO_SIZE = 0x200;

/** A place whose writes, of one value, may come another way than through `write` (an ioeventfd). */
export interface MmioDoorbell {
  readonly offset: number;
  readonly size: 4;
  readonly value: number;
  rung(): void;
}

export interface VirtioMmioOptions extends TransportOptions {
  readonly memory: GuestMemory;
  /**
   * An edge of the interrupt line. There is one for each bit of InterruptStatus that becomes set: the driver clears
   * a bit before it looks at what the bit is about, so nothing that comes while the bit is set needs another.
   */
  readonly interrupt: () => void;
}

/** A virtio device as a range of memory, version 2 (virtio 1.2, section 4.2). */
export class VirtioMmio implements Device, Region {
  readonly name: string;
  readonly size = MMIO_SIZE;
  readonly state: VirtioState;
  readonly doorbells: readonly MmioDoorbell[];
  readonly #interrupt: () => void;
  #deviceFeatureSelect = 0;
  #driverFeatureSelect = 0;
  #queueSelect = 0;
  /** Bits of InterruptStatus for which the driver was interrupted. */
  #told = 0;

  constructor(device: VirtioDevice, options: VirtioMmioOptions) {
    this.name = device.name;
    this.#interrupt = options.interrupt;
    const raise = () => this.#raise();
    this.state = new VirtioState(device, options.memory, { queue: raise, config: raise }, options);
    this.doorbells = device.queueSizes.map((_, index) => ({
      offset: R.QUEUE_NOTIFY,
      size: 4,
      value: index,
      rung: () => this.state.notify(index),
    }));
  }

  #raise(): void {
    const { isr } = this.state;
    const news = isr & ~this.#told;
    this.#told = isr;
    if (news) this.#interrupt();
  }

  /** Registers are read in double words; only the device's configuration has other widths (section 4.2.2.2). */
  read(offset: number, size: number): number {
    if (offset >= R.CONFIG) return this.state.device.readConfig(offset - R.CONFIG, size);
    return size === 4 && (offset & 3) === 0 ? this.#readRegister(offset) >>> 0 : 0;
  }

  write(offset: number, size: number, value: number): void {
    if (offset >= R.CONFIG) this.state.device.writeConfig(offset - R.CONFIG, size, value);
    else if (size === 4 && (offset & 3) === 0) this.#writeRegister(offset, value >>> 0);
  }

  get #queue(): QueueRegisters | undefined {
    return this.state.queues[this.#queueSelect];
  }

  #readRegister(offset: number): number {
    const { state } = this;
    switch (offset) {
      case R.MAGIC_VALUE:
        return MAGIC;
      case R.VERSION:
        return VERSION;
      case R.DEVICE_ID:
        return state.device.type;
      case R.VENDOR_ID:
        return VENDOR_ID;
      case R.DEVICE_FEATURES:
        return state.offeredWord(this.#deviceFeatureSelect);
      case R.QUEUE_NUM_MAX:
        return this.#queue?.maxSize ?? 0;
      case R.QUEUE_READY:
        return this.#queue?.enabled ? 1 : 0;
      case R.INTERRUPT_STATUS:
        return state.isr;
      case R.STATUS:
        return state.status;
      // There is no shared memory: each region is of length and at address −1.
      case R.SHM_LENGTH:
      case R.SHM_LENGTH + 4:
      case R.SHM_BASE:
      case R.SHM_BASE + 4:
        return 0xffffffff;
      case R.CONFIG_GENERATION:
        return state.configGeneration;
      // QueueReset reads 0: a reset is done at once.
      default:
        return 0;
    }
  }

  #writeRegister(offset: number, value: number): void {
    const { state } = this;
    switch (offset) {
      case R.DEVICE_FEATURES_SEL:
        this.#deviceFeatureSelect = value;
        return;
      case R.DRIVER_FEATURES:
        state.setDriverWord(this.#driverFeatureSelect, value);
        return;
      case R.DRIVER_FEATURES_SEL:
        this.#driverFeatureSelect = value;
        return;
      case R.QUEUE_SEL:
        this.#queueSelect = value & QUEUE_SELECTORS;
        return;
      case R.QUEUE_NUM:
        if (this.#queue && !this.#queue.enabled) this.#queue.size = value & 0xffff;
        return;
      case R.QUEUE_READY:
        if (value & 1) state.enableQueue(this.#queueSelect);
        else if (this.#queue?.enabled) state.resetQueue(this.#queueSelect);
        return;
      case R.QUEUE_NOTIFY:
        state.notify(value);
        return;
      case R.INTERRUPT_ACK:
        state.isr &= ~value;
        this.#told &= state.isr;
        return;
      case R.STATUS:
        state.writeStatus(value & 0xff);
        if ((value & 0xff) === 0) this.#forget();
        return;
      case R.QUEUE_RESET:
        if (value === 1) state.resetQueue(this.#queueSelect);
        return;
      default:
        this.#setAddress(offset, value);
    }
  }

  /** A queue's addresses are fixed while it is in use (section 4.2.2.2). */
  #setAddress(offset: number, value: number): void {
    const queue = this.#queue;
    const part = ({ [R.QUEUE_DESC]: 'descriptors', [R.QUEUE_DRIVER]: 'driver', [R.QUEUE_DEVICE]: 'device' } as const)[
      offset & ~4
    ];
    if (!queue || queue.enabled || part === undefined) return;
    setQueueAddress(queue, part, offset & 4 ? 'high' : 'low', value);
  }

  #forget(): void {
    this.#deviceFeatureSelect = 0;
    this.#driverFeatureSelect = 0;
    this.#queueSelect = 0;
    this.#told = 0;
  }

  reset(): void {
    this.state.reset();
    this.#forget();
  }

  save(): DeviceState {
    return {
      kind: 'virtio-mmio',
      version: 1,
      virtio: this.state.save(),
      selects: [this.#deviceFeatureSelect, this.#driverFeatureSelect, this.#queueSelect],
    };
  }

  restore(state: unknown): void {
    const { virtio, selects } = requireKind(state, 'virtio-mmio', 1);
    const isWord = (each: unknown) => Number.isInteger(each) && (each as number) >= 0 && (each as number) < 2 ** 32;
    if (!Array.isArray(selects) || selects.length !== 3 || !selects.every(isWord) || selects[2] > QUEUE_SELECTORS) {
      throw new Error(`${this.name}: the selectors are not valid.`);
    }
    this.state.restore(virtio);
    [this.#deviceFeatureSelect, this.#driverFeatureSelect, this.#queueSelect] = selects;
    // An edge that was on its way when the state was saved is made again; one too many does no harm.
    this.#told = 0;
    if (this.state.running) this.#raise();
    this.#told = this.state.isr;
  }
}
