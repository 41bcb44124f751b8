import type { Device, DeviceState, GuestMemory, IrqLine, Region } from '../device.ts';
import {
  ConfigSpace,
  PCI,
  PCI_COMMAND_INTX_DISABLE,
  PCI_COMMAND_IO,
  PCI_COMMAND_MASTER,
  PCI_COMMAND_MEMORY,
  PCI_COMMAND_SERR,
  PCI_STATUS_INTERRUPT,
} from './config_space.ts';

/** The subsystem that QEMU gives its emulated devices. */
const PCI_VENDOR_ID_REDHAT_QUMRANET = 0x1af4;
const PCI_SUBDEVICE_ID_QEMU = 0x1100;

/** Where a message-signalled interrupt goes: a write of `data` to `address`. */
export interface MsiSink {
  /** @param address byte address (the local APICs' range on x86), @param data 32 bits. */
  send(address: number, data: number): void;
}

/** Writes of a guest to one place that only say "look": they need not stop the processor that made them. */
export interface Doorbell {
  /** Offset in the BAR, in bytes. */
  readonly offset: number;
  /** Bytes of the write. */
  readonly size: number;
  rung(): void;
}

export type BarKind = 'io' | 'memory32' | 'memory64';

/** What a base address register gives access to. */
export interface Bar {
  readonly index: number;
  readonly kind: BarKind;
  readonly prefetchable: boolean;
  /** Bytes, a power of two: at least 16 for memory, 4 for ports. */
  readonly size: number;
  readonly region: Region;
  readonly doorbells: readonly Doorbell[];
  /** Guest memory that stands behind the BAR instead of registers: the host's address of `size` bytes. */
  readonly memory?: { readonly hostAddress: number };
}

/** What the slot that a function is put into gives it. */
export interface PciSlot {
  readonly memory: GuestMemory;
  readonly msi: MsiSink;
  /** The INTx line of the function's pin, shared with others. */
  readonly intx: IrqLine;
  /** What the function decodes may have changed. */
  decodeChanged(): void;
  /**
   * Does `action` soon, when everything else of the machine's thread has had its turn. With it, a driver that makes
   * work available faster than it is done does not keep the thread for itself.
   */
  defer?(action: () => void): void;
  /** 1024 words of configuration space that vCPU threads can read. */
  readonly configWords?: Int32Array;
}

export interface PciIdentity {
  readonly vendor: number;
  readonly device: number;
  /** Base class, sub-class and programming interface, as 0xBBSSPP. */
  readonly classCode: number;
  readonly revision?: number;
  readonly subsystemVendor?: number;
  readonly subsystem?: number;
  /** 1 for INTA … 4 for INTD, 0 for none. */
  readonly pin?: number;
  /** A bridge has a header of type 1, in which the subsystem stands in a capability. */
  readonly bridge?: boolean;
}

/** A function of a PCI device: configuration space, what it decodes, and its interrupt pin. */
export class PciFunction implements Device {
  readonly name: string;
  readonly config: ConfigSpace;
  readonly bars: Bar[] = [];
  /** Guest memory as a bus master sees it: nothing while mastering is off. */
  readonly memory: GuestMemory;
  protected readonly slot: PciSlot;
  #intx = false;

  constructor(name: string, identity: PciIdentity, slot: PciSlot) {
    this.name = name;
    this.slot = slot;
    this.config = new ConfigSpace(slot.configWords);
    const { config } = this;
    config.set(PCI.VENDOR_ID, 2, identity.vendor);
    config.set(PCI.DEVICE_ID, 2, identity.device);
    config.set(PCI.REVISION_ID, 1, identity.revision ?? 0);
    config.set(PCI.CLASS_PROG, 1, identity.classCode);
    config.set(PCI.CLASS_DEVICE, 2, identity.classCode >>> 8);
    if (identity.bridge) {
      config.set(PCI.HEADER_TYPE, 1, 1);
    } else {
      config.set(PCI.SUBSYSTEM_VENDOR_ID, 2, identity.subsystemVendor ?? PCI_VENDOR_ID_REDHAT_QUMRANET);
      config.set(PCI.SUBSYSTEM_ID, 2, identity.subsystem ?? PCI_SUBDEVICE_ID_QEMU);
    }
    config.set(PCI.INTERRUPT_PIN, 1, identity.pin ?? 0);
    config.allow(PCI.COMMAND, 2, PCI_COMMAND_MASTER | PCI_COMMAND_SERR);
    if (identity.pin) config.allow(PCI.COMMAND, 2, PCI_COMMAND_INTX_DISABLE);
    config.allow(PCI.CACHE_LINE_SIZE, 1, 0xff);
    config.allow(PCI.INTERRUPT_LINE, 1, 0xff);
    config.watch(PCI.COMMAND, 2, () => {
      this.#driveIntx();
      slot.decodeChanged();
    });
    this.memory = {
      read: (gpa, into) => this.busMaster && slot.memory.read(gpa, into),
      write: (gpa, from) => this.busMaster && slot.memory.write(gpa, from),
      slice: (gpa, length) => (this.busMaster ? slot.memory.slice(gpa, length) : undefined),
    };
  }

  get command(): number {
    return this.config.read(PCI.COMMAND, 2);
  }

  get busMaster(): boolean {
    return (this.command & PCI_COMMAND_MASTER) !== 0;
  }

  /** Adds a BAR; one of kind `memory64` takes the next register too. */
  addBar(bar: Omit<Bar, 'doorbells'> & { readonly doorbells?: readonly Doorbell[] }): void {
    const { config } = this;
    const register = PCI.BASE_ADDRESS_0 + 4 * bar.index;
    const io = bar.kind === 'io';
    if (bar.size < (io ? 4 : 16) || !Number.isInteger(Math.log2(bar.size))) {
      throw new Error(`BAR ${bar.index} of ${this.name} cannot be ${bar.size} bytes.`);
    }
    config.set(register, 4, io ? 1 : (bar.kind === 'memory64' ? 4 : 0) | (bar.prefetchable ? 8 : 0));
    // Sizes above 4 GiB leave no writable bit in the low register.
    config.allow(register, 4, bar.size >= 2 ** 32 ? 0 : -bar.size);
    if (bar.kind === 'memory64') config.allow(register + 4, 4, bar.size >= 2 ** 32 ? -(bar.size / 2 ** 32) : -1);
    config.allow(PCI.COMMAND, 2, io ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY);
    config.watch(register, bar.kind === 'memory64' ? 8 : 4, () => this.slot.decodeChanged());
    this.bars.push({ ...bar, doorbells: bar.doorbells ?? [] });
  }

  /** Where a BAR decodes now; undefined while it does not. */
  barAddress(bar: Bar): number | undefined {
    const enable = bar.kind === 'io' ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY;
    if (!(this.command & enable)) return undefined;
    const register = PCI.BASE_ADDRESS_0 + 4 * bar.index;
    const low = this.config.read(register, 4);
    if (bar.kind === 'io') {
      const port = (low & 0xfffc) >>> 0;
      return port === 0 ? undefined : port;
    }
    const base = (low & 0xfffffff0) >>> 0;
    const address = bar.kind === 'memory64' ? base + this.config.read(register + 4, 4) * 2 ** 32 : base;
    // A register that is being sized has all ones.
    return address === 0 || address + bar.size > 2 ** 52 || address + bar.size === 2 ** 32 ? undefined : address;
  }

  /** Raises or lowers the function's INTx. */
  setIntx(level: boolean): void {
    this.#intx = level;
    const status = this.config.read(PCI.STATUS, 2);
    this.config.set(PCI.STATUS, 2, level ? status | PCI_STATUS_INTERRUPT : status & ~PCI_STATUS_INTERRUPT);
    this.#driveIntx();
  }

  #driveIntx(): void {
    this.slot.intx.set(this.#intx && !(this.command & PCI_COMMAND_INTX_DISABLE));
  }

  reset(): void {
    this.setIntx(false);
    this.config.reset();
    this.slot.decodeChanged();
  }

  save(): DeviceState {
    return { kind: 'pci-function', version: 1, config: this.config.save(), intx: this.#intx };
  }

  restore(state: unknown): void {
    const { kind, version, config, intx } = (state ?? {}) as Record<string, unknown>;
    if (kind !== 'pci-function' || version !== 1) throw new Error(`${this.name}: this is not a PCI function's state.`);
    if (typeof intx !== 'boolean') throw new Error(`${this.name}: the level of INTx is missing.`);
    this.config.restore(config);
    this.setIntx(intx);
    this.slot.decodeChanged();
  }
}
