/**
 * The registers by which an ACPI guest learns of DIMMs that come and is to let go of others, and by which it
 * answers, as QEMU's docs/specs/acpi_mem_hotplug.rst describes them, at 0xa00.
 */
import type { Device, DeviceState, Region } from './device.ts';
import { integerIn, numbersIn, requireKind } from './state.ts';

/** Of reads. */
const ADDRESS_LOW = 0x00;
const ADDRESS_HIGH = 0x04;
const SIZE_LOW = 0x08;
const SIZE_HIGH = 0x0c;
const PROXIMITY = 0x10;
const FLAGS = 0x14;
/** Of writes. */
const SELECTOR = 0x00;
const OST_EVENT = 0x04;
const OST_STATUS = 0x08;

const FLAG_ENABLED = 1 << 0;
const FLAG_INSERT = 1 << 1;
const FLAG_REMOVE = 1 << 2;
const FLAG_EJECT = 1 << 3;

const KIND = 'acpi-memory-hotplug';
const WORD = 2 ** 32;

/** What the guest is told of a DIMM. */
export interface Dimm {
  /** Guest-physical address, and bytes. */
  readonly address: number;
  readonly size: number;
  /** Proximity domain. */
  readonly node: number;
}

export interface AcpiMemoryHotplugOptions {
  readonly slots: number;
  /** What is in a slot. */
  readonly dimm: (slot: number) => Dimm | undefined;
  /** Something is to be looked at: the guest's GPE.3 handler is to run. */
  readonly notify: () => void;
  /** The guest has taken the event to its drivers. */
  readonly noticed: (slot: number) => void;
  /** The guest's answer (ACPI specification 6.4, section 6.3.5). */
  readonly ost: (slot: number, event: number, status: number) => void;
  /** The guest lets go of a DIMM that is there. */
  readonly eject: (slot: number) => void;
}

export class AcpiMemoryHotplug implements Device, Region {
  readonly name = KIND;
  readonly size = 0x18;
  readonly #options: AcpiMemoryHotplugOptions;
  readonly #inserting: Set<number> = new Set();
  readonly #removing: Set<number> = new Set();
  /** Slots that the guest emptied, and has not looked at since. */
  readonly #emptied: Set<number> = new Set();
  #selector = 0;
  /** What the guest wrote last as the event of an answer, whose status follows. */
  #ostEvent = 0;

  constructor(options: AcpiMemoryHotplugOptions) {
    this.#options = options;
  }

  /**
   * Whether the guest has let go of what was in a slot and has yet to see that it is gone. What came into the slot before
   * would look to Linux as if the DIMM had not left ("Eject incomplete").
   */
  isUnseen(slot: number): boolean {
    return this.#emptied.has(slot);
  }

  /** A DIMM has come. */
  plugged(slot: number): void {
    this.#emptied.delete(slot);
    this.#inserting.add(slot);
    this.#options.notify();
  }

  /** The guest is asked to let go of a DIMM. */
  requestRemoval(slot: number): void {
    this.#removing.add(slot);
    this.#options.notify();
  }

  /** A DIMM is gone: there is no more to tell of it. */
  gone(slot: number): void {
    this.#inserting.delete(slot);
    this.#removing.delete(slot);
  }

  read(offset: number, size: number): number {
    if (this.#selector >= this.#options.slots) return 0;
    const value = this.#register(offset);
    return size === 4 ? value >>> 0 : value & (2 ** (8 * size) - 1);
  }

  #register(offset: number): number {
    const dimm = this.#options.dimm(this.#selector);
    switch (offset) {
      case ADDRESS_LOW:
        return (dimm?.address ?? 0) % WORD;
      case ADDRESS_HIGH:
        return Math.floor((dimm?.address ?? 0) / WORD);
      case SIZE_LOW:
        return (dimm?.size ?? 0) % WORD;
      case SIZE_HIGH:
        return Math.floor((dimm?.size ?? 0) / WORD);
      case PROXIMITY:
        return dimm?.node ?? 0;
      case FLAGS:
        this.#emptied.delete(this.#selector);
        return (
          (dimm ? FLAG_ENABLED : 0) |
          (this.#inserting.has(this.#selector) ? FLAG_INSERT : 0) |
          (this.#removing.has(this.#selector) ? FLAG_REMOVE : 0)
        );
      default:
        return 0xffffffff;
    }
  }

  write(offset: number, _size: number, value: number): void {
    const slot = this.#selector;
    if (offset === SELECTOR) this.#selector = value >>> 0;
    else if (slot >= this.#options.slots) return;
    else if (offset === OST_EVENT) this.#ostEvent = value >>> 0;
    else if (offset === OST_STATUS) this.#options.ost(slot, this.#ostEvent, value >>> 0);
    else if (offset === FLAGS) this.#control(slot, value);
  }

  #control(slot: number, value: number): void {
    if (value & FLAG_INSERT) {
      if (this.#inserting.delete(slot)) this.#options.noticed(slot);
    } else if (value & FLAG_REMOVE) {
      if (this.#removing.delete(slot)) this.#options.noticed(slot);
    } else if (value & FLAG_EJECT && this.#options.dimm(slot)) {
      this.#emptied.add(slot);
      this.#options.eject(slot);
    }
  }

  /** Events are for the guest that was. */
  reset(): void {
    this.#inserting.clear();
    this.#removing.clear();
    this.#emptied.clear();
    this.#selector = 0;
    this.#ostEvent = 0;
  }

  save(): DeviceState {
    return {
      kind: KIND,
      version: 1,
      selector: this.#selector,
      ostEvent: this.#ostEvent,
      inserting: [...this.#inserting].sort((a, b) => a - b),
      removing: [...this.#removing].sort((a, b) => a - b),
    };
  }

  restore(state: unknown): void {
    const from = requireKind(state, KIND, 1);
    const selector = integerIn(from, 'selector', 0, 0xffffffff);
    const ostEvent = integerIn(from, 'ostEvent', 0, 0xffffffff);
    const inserting = numbersIn(from, 'inserting', this.#options.slots);
    const removing = numbersIn(from, 'removing', this.#options.slots);
    this.reset();
    this.#selector = selector;
    this.#ostEvent = ostEvent;
    for (const slot of inserting) this.#inserting.add(slot);
    for (const slot of removing) this.#removing.add(slot);
  }
}
