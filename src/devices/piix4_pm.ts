/**
 * The ACPI part of the PIIX4 (Intel document 290562, section 7.2), and the block of general purpose events that
 * QEMU's PC has beside it at ports of its own.
 */
import type { Clock, Device, DeviceState, IrqLine, Region } from './device.ts';
import { GpeBlock } from './gpe_block.ts';
import { Ich9Pm } from './ich9_pm.ts';
import { requireKind } from './state.ts';

const GPE_LENGTH = 4;
const KIND = 'piix4-pm';
/** PM1 events, control and the timer; the rest of the 64 ports is about power planes that there are not. */
const PM1_LENGTH = 0x0c;

export interface Piix4PmOptions {
  readonly clock: Clock;
  readonly sci: IrqLine;
  /** The guest wrote SLP_EN with the S5 type. */
  readonly powerOff: () => void;
}

export class Piix4Pm implements Device {
  readonly name = KIND;
  /** 64 ports at PMBA. */
  readonly ports: Region;
  /** Status, then enable bits of 16 events, at 0xafe0. */
  readonly events: Region;
  /** PM1 and the timer are at the same offsets and do the same as in the chip's successor. */
  readonly #pm1: Ich9Pm;
  readonly #sci: IrqLine;
  readonly #gpe = new GpeBlock(GPE_LENGTH);
  #pm1Level = false;
  #level = false;

  constructor({ clock, sci, powerOff }: Piix4PmOptions) {
    this.#sci = sci;
    const pm1 = new Ich9Pm({
      clock,
      powerOff,
      sci: {
        set: (level) => {
          this.#pm1Level = level;
          this.#update();
        },
      },
    });
    this.#pm1 = pm1;
    this.ports = {
      name: KIND,
      size: 0x40,
      read: (offset, size) => (offset + size <= PM1_LENGTH ? pm1.read(offset, size) : 0),
      write: (offset, size, value) => {
        if (offset + size <= PM1_LENGTH) pm1.write(offset, size, value);
      },
    };
    this.events = {
      name: 'piix4-gpe',
      size: GPE_LENGTH,
      read: (offset, size) => {
        let value = 0;
        for (let i = 0; i < size; i++) value |= this.#gpe.read(offset + i) << (8 * i);
        return value >>> 0;
      },
      write: (offset, size, value) => {
        for (let i = 0; i < size; i++) this.#gpe.write(offset + i, (value >>> (8 * i)) & 0xff);
        this.#update();
      },
    };
  }

  /** The user pressed the power button. */
  pressPowerButton(): void {
    this.#pm1.pressPowerButton();
  }

  /** Sets a general purpose event's status bit (0–15). */
  raiseGpe(number: number): void {
    this.#gpe.raise(number);
    this.#update();
  }

  /** Whether the guest has listened to a general purpose event since it was reset. */
  knowsGpe(number: number): boolean {
    return this.#gpe.isKnown(number);
  }

  #update(): void {
    const level = this.#pm1Level || this.#gpe.active;
    if (level === this.#level) return;
    this.#level = level;
    this.#sci.set(level);
  }

  reset(): void {
    this.#gpe.reset();
    this.#pm1.reset();
    this.#update();
  }

  save(): DeviceState {
    return { kind: KIND, version: 2, pm1: this.#pm1.save(), ...this.#gpe.save() };
  }

  restore(state: unknown): void {
    const from = requireKind(state, KIND, 2);
    const setGpe = this.#gpe.restore(from);
    this.#pm1.restore(from.pm1);
    setGpe();
    this.#update();
  }
}
