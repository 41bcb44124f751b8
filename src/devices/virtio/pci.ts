import type { DeviceState, Region } from '../device.ts';
import { PCI, PCI_COMMAND_MASTER } from '../pci/config_space.ts';
import { type Doorbell, PciFunction, type PciSlot } from '../pci/function.ts';
import { Msix } from '../pci/msix.ts';
import type { VirtioDevice } from './device.ts';
import { ISR_CONFIG, ISR_QUEUE, setQueueAddress, type TransportOptions, VirtioState } from './transport.ts';

const VENDOR_ID = 0x1af4;
/** Device IDs of the modern interface start here (virtio 1.2, section 4.1.2). */
const DEVICE_ID_BASE = 0x1040;
const REVISION = 1;

/** BARs as QEMU lays them out. */
const MSIX_BAR = 1;
const REGISTERS_BAR = 4;
const COMMON = 0x0000;
const ISR = 0x1000;
const DEVICE = 0x2000;
const NOTIFY = 0x3000;
const PART_SIZE = 0x1000;
const BAR_SIZE = 0x4000;
const NOTIFY_MULTIPLIER = 4;

const PCI_CAP_ID_VNDR = 0x09;
const CAP_COMMON = 1;
const CAP_NOTIFY = 2;
const CAP_ISR = 3;
const CAP_DEVICE = 4;
const CAP_PCI = 5;
const CAP_SIZE = 16;

const NO_VECTOR = 0xffff;

/** A virtio device as a PCI function with the modern interface (virtio 1.2, section 4.1). */
export class VirtioPci extends PciFunction {
  readonly state: VirtioState;
  readonly msix: Msix;
  #deviceFeatureSelect = 0;
  #driverFeatureSelect = 0;
  #queueSelect = 0;
  #configVector = NO_VECTOR;
  readonly #window: number;
  readonly #registers: Region;

  constructor(device: VirtioDevice, slot: PciSlot, options: TransportOptions = {}) {
    super(
      device.name,
      {
        vendor: VENDOR_ID,
        device: DEVICE_ID_BASE + device.type,
        classCode: device.classCode,
        revision: REVISION,
        pin: 1,
      },
      slot,
    );
    this.state = new VirtioState(
      device,
      // Queues are empty without bus mastering, which is how it is kept: where they stand is known all the same.
      slot.memory,
      {
        reachable: () => this.busMaster,
        queue: (index) => this.#raise(this.state.queues[index].vector),
        config: () => this.#raise(this.#configVector),
        ...(slot.defer && { later: (action: () => void) => slot.defer?.(() => this.busMaster && action()) }),
      },
      options,
    );
    this.msix = new Msix(this, slot.msi, device.queueSizes.length + 1, MSIX_BAR);
    this.addBar({
      index: MSIX_BAR,
      kind: 'memory32',
      prefetchable: false,
      size: this.msix.size,
      region: this.msix,
    });
    this.#addCapability(CAP_COMMON, COMMON, PART_SIZE);
    this.#addCapability(CAP_ISR, ISR, PART_SIZE);
    this.#addCapability(CAP_DEVICE, DEVICE, PART_SIZE);
    const notify = this.#addCapability(CAP_NOTIFY, NOTIFY, PART_SIZE, 4);
    this.config.set(notify + CAP_SIZE, 4, NOTIFY_MULTIPLIER);
    this.#window = this.#addCapability(CAP_PCI, 0, 0, 4);
    this.#addWindow();
    const doorbells = device.queueSizes.map(
      (_, index): Doorbell => ({
        offset: NOTIFY + index * NOTIFY_MULTIPLIER,
        size: 2,
        rung: () => this.#rung(index),
      }),
    );
    this.#registers = {
      name: device.name,
      size: BAR_SIZE,
      read: (offset, size) => this.#read(offset, size),
      write: (offset, size, value) => this.#write(offset, size, value),
    };
    this.addBar({
      index: REGISTERS_BAR,
      kind: 'memory64',
      prefetchable: true,
      size: BAR_SIZE,
      region: this.#registers,
      doorbells,
    });
    this.config.watch(PCI.COMMAND, 2, () => {
      // A driver that could not be heard while mastering was off is heard now.
      if (this.command & PCI_COMMAND_MASTER) for (const index of device.queueSizes.keys()) this.state.notify(index);
    });
  }

  #addCapability(type: number, offset: number, length: number, extra = 0): number {
    const { config } = this;
    const at = config.addCapability(PCI_CAP_ID_VNDR, CAP_SIZE + extra);
    config.set(at + 2, 1, CAP_SIZE + extra);
    config.set(at + 3, 1, type);
    config.set(at + 4, 1, type === CAP_PCI ? 0 : REGISTERS_BAR);
    config.set(at + 8, 4, offset);
    config.set(at + 12, 4, length);
    return at;
  }

  /** A window on the BARs in configuration space, for firmware that has not mapped them (section 4.1.4.9). */
  #addWindow(): void {
    const { config } = this;
    const at = this.#window;
    config.allow(at + 4, 1, 0xff);
    config.allow(at + 8, 4, -1);
    config.allow(at + 12, 4, 0x7);
    config.allow(at + CAP_SIZE, 4, -1);
    const target = (): { offset: number; length: number } | undefined => {
      const length = config.read(at + 12, 4);
      const offset = config.read(at + 8, 4);
      const valid = length === 1 || length === 2 || length === 4;
      if (config.read(at + 4, 1) !== REGISTERS_BAR || !valid) return undefined;
      return offset % length === 0 && offset + length <= BAR_SIZE ? { offset, length } : undefined;
    };
    // Reads come from shared memory: the value is put there whenever the window moves.
    const fetch = () => {
      const where = target();
      // Reading the interrupt status clears it: that has to be a real access.
      if (where && !(where.offset >= ISR && where.offset < DEVICE)) {
        config.set(at + CAP_SIZE, 4, this.#read(where.offset, where.length));
      }
    };
    config.watch(at + 4, 12, fetch);
    config.watch(at + CAP_SIZE, 4, () => {
      const where = target();
      if (where) this.#write(where.offset, where.length, config.read(at + CAP_SIZE, where.length));
      fetch();
    });
  }

  #rung(index: number): void {
    if (this.busMaster) this.state.notify(index);
  }

  #raise(vector: number): void {
    if (this.msix.enabled) this.msix.notify(vector);
    else this.setIntx((this.state.isr & (ISR_QUEUE | ISR_CONFIG)) !== 0);
  }

  #read(offset: number, size: number): number {
    if (offset < ISR) return this.#readCommon(offset, size);
    if (offset < DEVICE) {
      if (offset !== ISR) return 0;
      const { isr } = this.state;
      this.state.isr = 0;
      this.setIntx(false);
      return isr;
    }
    if (offset < NOTIFY) return this.state.device.readConfig(offset - DEVICE, size);
    return 0;
  }

  #write(offset: number, size: number, value: number): void {
    if (offset < ISR) this.#writeCommon(offset, size, value);
    else if (offset >= NOTIFY) this.#rung(Math.floor((offset - NOTIFY) / NOTIFY_MULTIPLIER));
    else if (offset >= DEVICE) this.state.device.writeConfig(offset - DEVICE, size, value);
  }

  /** struct virtio_pci_common_cfg (section 4.1.4.3); fields are read in their own width or less. */
  #readCommon(offset: number, size: number): number {
    const { state } = this;
    const queue = state.queues[this.#queueSelect];
    const start = offset & ~3;
    const value = (() => {
      switch (start) {
        case 0x00:
          return this.#deviceFeatureSelect;
        case 0x04:
          return state.offeredWord(this.#deviceFeatureSelect);
        case 0x08:
          return this.#driverFeatureSelect;
        case 0x0c:
          return state.driverWord(this.#driverFeatureSelect);
        case 0x10:
          return this.#configVector | (state.queues.length << 16);
        case 0x14:
          return state.shownStatus | (state.configGeneration << 8) | (this.#queueSelect << 16);
        case 0x18:
          return queue ? queue.size | (queue.vector << 16) : NO_VECTOR << 16;
        case 0x1c:
          return queue ? (queue.enabled ? 1 : 0) | (this.#queueSelect << 16) : 0;
        case 0x20:
          return (queue?.descriptors ?? 0) % 2 ** 32;
        case 0x24:
          return Math.floor((queue?.descriptors ?? 0) / 2 ** 32);
        case 0x28:
          return (queue?.driver ?? 0) % 2 ** 32;
        case 0x2c:
          return Math.floor((queue?.driver ?? 0) / 2 ** 32);
        case 0x30:
          return (queue?.device ?? 0) % 2 ** 32;
        case 0x34:
          return Math.floor((queue?.device ?? 0) / 2 ** 32);
        case 0x38:
          // queue_notify_data and queue_reset.
          return this.#queueSelect | (state.queueResetting(this.#queueSelect) ? 1 << 16 : 0);
        default:
          return 0;
      }
    })();
    const shifted = value >>> (8 * (offset & 3));
    return size === 4 ? shifted >>> 0 : shifted & (size === 1 ? 0xff : 0xffff);
  }

  #writeCommon(offset: number, size: number, value: number): void {
    const { state } = this;
    const queue = state.queues[this.#queueSelect];
    // A queue's registers are fixed while it is enabled (section 4.1.4.3.2).
    const settable = queue && !queue.enabled ? queue : undefined;
    switch (offset) {
      case 0x00:
        this.#deviceFeatureSelect = value;
        return;
      case 0x08:
        this.#driverFeatureSelect = value;
        return;
      case 0x0c:
        state.setDriverWord(this.#driverFeatureSelect, value);
        return;
      case 0x10:
        this.#configVector = this.#vector(value);
        return;
      case 0x14:
        state.writeStatus(value & 0xff);
        if ((value & 0xff) === 0) this.#forget();
        return;
      case 0x16:
        this.#queueSelect = value & 0xffff;
        return;
      case 0x18:
        if (settable) settable.size = value & 0xffff;
        return;
      case 0x1a:
        if (queue) queue.vector = this.#vector(value);
        return;
      case 0x1c:
        if (value === 1) state.enableQueue(this.#queueSelect);
        return;
      case 0x3a:
        if (value === 1) state.resetQueue(this.#queueSelect);
        return;
      default:
        if (settable && offset >= 0x20 && offset < 0x38 && size === 4 && (offset & 3) === 0) {
          const part = offset < 0x28 ? 'descriptors' : offset < 0x30 ? 'driver' : 'device';
          setQueueAddress(settable, part, offset & 4 ? 'high' : 'low', value);
        }
    }
  }

  /** A vector that does not exist reads back as none. */
  #vector(value: number): number {
    return value < this.msix.vectors ? value : NO_VECTOR;
  }

  #forget(): void {
    this.#deviceFeatureSelect = 0;
    this.#driverFeatureSelect = 0;
    this.#queueSelect = 0;
    this.#configVector = NO_VECTOR;
    this.setIntx(false);
  }

  /**
   * Whether a back end still moves data to or from guest memory for requests of before a reset. Memory that is to be
   * used anew, as when the machine starts again, has to wait for it.
   */
  get busy(): boolean {
    return this.state.device.busy?.() ?? false;
  }

  override reset(): void {
    this.state.reset();
    this.#forget();
    this.msix.reset();
    super.reset();
  }

  override save(): DeviceState {
    return {
      ...super.save(),
      msix: this.msix.save(),
      virtio: this.state.save(),
      selects: [this.#deviceFeatureSelect, this.#driverFeatureSelect, this.#queueSelect, this.#configVector],
    };
  }

  override restore(state: unknown): void {
    const { msix, virtio, selects } = (state ?? {}) as Record<string, unknown>;
    if (
      !Array.isArray(selects) ||
      selects.length !== 4 ||
      !selects.every((each) => Number.isInteger(each) && each >= 0)
    ) {
      throw new Error(`${this.name}: the selectors are not valid.`);
    }
    super.restore(state);
    this.msix.restore(msix);
    [this.#deviceFeatureSelect, this.#driverFeatureSelect, this.#queueSelect, this.#configVector] = selects;
    this.state.restore(virtio);
  }
}
