/**
 * The registers by which an ACPI guest learns of devices that come to and go from PCI bus 0, as QEMU's
 * docs/specs/acpi_pci_hotplug.rst describes them, at 0xae00 of a PC without PCI Express.
 */
import type { Device, DeviceState, Region } from './device.ts';
import { integerIn, requireKind } from './state.ts';

const UP = 0x00;
const DOWN = 0x04;
const EJECT = 0x08;
const REMOVABLE = 0x0c;
const BUS_SELECT = 0x10;
const KIND = 'acpi-pci-hotplug';
/** What reading the eject register says: the base set of features. */
const FEATURES = 0;

export interface AcpiPciHotplugOptions {
  /** Something is to be looked at: the guest's GPE.1 handler is to run. */
  readonly notify: () => void;
  /** The guest has read what came, or what is asked to go: a bit for each slot. */
  readonly noticed: (slots: number) => void;
  /** The guest lets go of the device in a slot (0–31). */
  readonly eject: (slot: number) => void;
  /** The guest has let go of a device that was torn out of a slot before. */
  readonly settled: (slot: number) => void;
}

export class AcpiPciHotplug implements Device, Region {
  readonly name = 'acpi-pci-hotplug';
  readonly size = 0x14;
  readonly #options: AcpiPciHotplugOptions;
  /** A bit for each slot in which something has come, or is asked to go. */
  #up = 0;
  #down = 0;
  #removable = 0;
  /** Devices that the guest has just let go of. */
  #ejected = 0;
  /** Slots whose device was torn out: the guest is asked to let go of it all the same, and has not. */
  #torn = 0;
  /** Slots of those into which another device has come, which is told of when that is done. */
  #late = 0;
  /** There is one bus, number 0: others have nothing. */
  #bus = 0;

  constructor(options: AcpiPciHotplugOptions) {
    this.#options = options;
  }

  /** What is in this slot may be taken out. Belongs to the machine: a reset leaves it. */
  setRemovable(slot: number, removable: boolean): void {
    this.#removable = (removable ? this.#removable | (1 << slot) : this.#removable & ~(1 << slot)) >>> 0;
  }

  /** A device has come. */
  plugged(slot: number): void {
    const bit = 1 << slot;
    this.#ejected = (this.#ejected & ~bit) >>> 0;
    if (this.#torn & bit) {
      this.#late = (this.#late | bit) >>> 0;
      return;
    }
    this.#up = (this.#up | bit) >>> 0;
    this.#options.notify();
  }

  /** The guest is asked to let go of a device. */
  requestRemoval(slot: number): void {
    this.#down = (this.#down | (1 << slot)) >>> 0;
    this.#options.notify();
  }

  /**
   * What was in this slot is there no more. A guest that has not let go of it is asked to: Linux does not notice by
   * itself, and would take what comes into the slot next for the same device.
   */
  gone(slot: number): void {
    const bit = 1 << slot;
    const wasLate = (this.#late & bit) !== 0;
    const wasThere = (this.#removable & bit) !== 0;
    const torn = wasThere && !((this.#ejected | this.#up) & bit) && !wasLate;
    this.#up = (this.#up & ~bit) >>> 0;
    this.#ejected = (this.#ejected & ~bit) >>> 0;
    this.#late = (this.#late & ~bit) >>> 0;
    this.setRemovable(slot, false);
    if (!torn) return;
    this.#torn = (this.#torn | bit) >>> 0;
    this.requestRemoval(slot);
  }

  /** Whether the guest still has to let go of a device that was torn out of a slot. */
  isTorn(slot: number): boolean {
    return (this.#torn & (1 << slot)) !== 0;
  }

  /** Whether the guest is still to be told of what is in a slot. */
  isLate(slot: number): boolean {
    return (this.#late & (1 << slot)) !== 0;
  }

  /** Registers are double words; other accesses have no meaning. */
  read(offset: number, size: number): number {
    if (size !== 4) return 0;
    if (offset === BUS_SELECT) return this.#bus;
    if (this.#bus !== 0) return 0;
    switch (offset) {
      case UP: {
        // Told once.
        const up = this.#up;
        this.#up = 0;
        if (up !== 0) this.#options.noticed(up);
        return up;
      }
      case DOWN:
        if (this.#down !== 0) this.#options.noticed(this.#down);
        return this.#down;
      case EJECT:
        return FEATURES;
      case REMOVABLE:
        return this.#removable;
      default:
        return 0;
    }
  }

  write(offset: number, size: number, value: number): void {
    if (size !== 4) return;
    if (offset === BUS_SELECT) this.#bus = value >>> 0;
    if (offset !== EJECT || this.#bus !== 0) return;
    for (let slot = 0; slot < 32; slot++) {
      const bit = 1 << slot;
      if (!(value & (this.#removable | this.#torn) & bit)) continue;
      this.#up = (this.#up & ~bit) >>> 0;
      this.#down = (this.#down & ~bit) >>> 0;
      if (this.#torn & bit) this.#settle(slot);
      else {
        this.#ejected = (this.#ejected | bit) >>> 0;
        this.#options.eject(slot);
      }
    }
  }

  #settle(slot: number): void {
    const bit = 1 << slot;
    const late = (this.#late & bit) !== 0;
    this.#torn = (this.#torn & ~bit) >>> 0;
    this.#late = (this.#late & ~bit) >>> 0;
    this.#options.settled(slot);
    if (late) this.plugged(slot);
  }

  /** The guest that comes has nothing that it could let go of. */
  reset(): void {
    const torn = this.#torn;
    this.#up = 0;
    this.#down = 0;
    this.#bus = 0;
    this.#ejected = 0;
    this.#torn = 0;
    this.#late = 0;
    for (let slot = 0; slot < 32; slot++) if (torn & (1 << slot)) this.#options.settled(slot);
  }

  save(): DeviceState {
    return {
      ...{ kind: KIND, version: 2, up: this.#up, down: this.#down, bus: this.#bus },
      ...{ ejected: this.#ejected, torn: this.#torn, late: this.#late },
    };
  }

  restore(state: unknown): void {
    const from = requireKind(state, KIND, 2);
    const word = (name: string) => integerIn(from, name, 0, 0xffffffff);
    const [up, down, bus, ejected] = [word('up'), word('down'), word('bus'), word('ejected')];
    const [torn, late] = [word('torn'), word('late')];
    this.#up = up;
    this.#down = down;
    this.#bus = bus;
    this.#ejected = ejected;
    this.#torn = torn;
    this.#late = late;
  }
}
