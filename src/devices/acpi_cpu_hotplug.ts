/**
 * The registers by which an ACPI guest learns of processors that come and is to let go of others, and by which
 * it answers: the modern interface of QEMU's docs/specs/acpi_cpu_hotplug.rst, at 0xcd8 of q35 and 0xaf00 of pc.
 * Writing 0 to the selector, which switches QEMU's legacy interface off, selects processor 0 and no more.
 */
import type { Device, DeviceState, Region } from './device.ts';
import { integerIn, numbersIn, requireKind } from './state.ts';

/** Reads here are of "command data 2", the upper half of an id that has no more than 32 bits on x86: 0. */
const SELECTOR = 0x00;
const FLAGS = 0x04;
const COMMAND = 0x05;
const COMMAND_DATA = 0x08;

const FLAG_ENABLED = 1 << 0;
const FLAG_INSERT = 1 << 1;
const FLAG_REMOVE = 1 << 2;
const FLAG_EJECT = 1 << 3;

const CMD_NEXT_WITH_EVENT = 0;
const CMD_OST_EVENT = 1;
const CMD_OST_STATUS = 2;
const CMD_ARCH_ID = 3;

const KIND = 'acpi-cpu-hotplug';

export interface AcpiCpuHotplugOptions {
  /** Processors that there is room for. */
  readonly count: number;
  readonly apicId: (cpu: number) => number;
  readonly present: (cpu: number) => boolean;
  /** Something is to be looked at: the guest's GPE.2 handler is to run. */
  readonly notify: () => void;
  /** The guest has taken the event to its drivers. */
  readonly noticed: (cpu: number) => void;
  /** The guest's answer (ACPI specification 6.4, section 6.3.5). */
  readonly ost: (cpu: number, event: number, status: number) => void;
  /** The guest lets go of a processor that is present. */
  readonly eject: (cpu: number) => void;
}

export class AcpiCpuHotplug implements Device, Region {
  readonly name = KIND;
  readonly size = 12;
  readonly #options: AcpiCpuHotplugOptions;
  readonly #inserting: Set<number> = new Set();
  readonly #removing: Set<number> = new Set();
  #selector = 0;
  #command = CMD_NEXT_WITH_EVENT;
  /** What the guest wrote last as the event of an answer, whose status follows. */
  #ostEvent = 0;

  constructor(options: AcpiCpuHotplugOptions) {
    this.#options = options;
  }

  /** A processor has come. */
  plugged(cpu: number): void {
    this.#inserting.add(cpu);
    this.#options.notify();
  }

  /** The guest is asked to let go of a processor. */
  requestRemoval(cpu: number): void {
    this.#removing.add(cpu);
    this.#options.notify();
  }

  /** A processor is gone: there is no more to tell of it. */
  gone(cpu: number): void {
    this.#inserting.delete(cpu);
    this.#removing.delete(cpu);
  }

  read(offset: number, size: number): number {
    const { count, apicId, present } = this.#options;
    const cpu = this.#selector;
    if (cpu >= count) return 0;
    if (offset === FLAGS) {
      return (
        (present(cpu) ? FLAG_ENABLED : 0) |
        (this.#inserting.has(cpu) ? FLAG_INSERT : 0) |
        (this.#removing.has(cpu) ? FLAG_REMOVE : 0)
      );
    }
    if (offset !== COMMAND_DATA) return 0;
    const value = this.#command === CMD_NEXT_WITH_EVENT ? cpu : this.#command === CMD_ARCH_ID ? apicId(cpu) : 0;
    return size === 4 ? value >>> 0 : value & (2 ** (8 * size) - 1);
  }

  write(offset: number, _size: number, value: number): void {
    if (offset === SELECTOR) {
      this.#selector = value >>> 0;
      return;
    }
    if (this.#selector >= this.#options.count) return;
    if (offset === FLAGS) this.#control(this.#selector, value);
    else if (offset === COMMAND) this.#obey(value & 0xff);
    else if (offset === COMMAND_DATA) this.#answer(this.#selector, value >>> 0);
  }

  #control(cpu: number, value: number): void {
    if (value & FLAG_INSERT) {
      if (this.#inserting.delete(cpu)) this.#options.noticed(cpu);
    } else if (value & FLAG_REMOVE) {
      if (this.#removing.delete(cpu)) this.#options.noticed(cpu);
    } else if (value & FLAG_EJECT && cpu !== 0 && this.#options.present(cpu)) {
      // The boot processor stays whatever a guest writes.
      this.#options.eject(cpu);
    }
  }

  #obey(command: number): void {
    if (command > CMD_ARCH_ID) return;
    this.#command = command;
    if (command !== CMD_NEXT_WITH_EVENT) return;
    const { count } = this.#options;
    for (let i = 0; i < count; i++) {
      const cpu = (this.#selector + i) % count;
      if (!this.#inserting.has(cpu) && !this.#removing.has(cpu)) continue;
      this.#selector = cpu;
      return;
    }
  }

  #answer(cpu: number, value: number): void {
    if (this.#command === CMD_OST_EVENT) this.#ostEvent = value;
    else if (this.#command === CMD_OST_STATUS) this.#options.ost(cpu, this.#ostEvent, value);
  }

  /** The selector keeps its value, as it does in QEMU. Events are for the guest that was. */
  reset(): void {
    this.#inserting.clear();
    this.#removing.clear();
    this.#command = CMD_NEXT_WITH_EVENT;
    this.#ostEvent = 0;
  }

  save(): DeviceState {
    return {
      kind: KIND,
      version: 1,
      selector: this.#selector,
      command: this.#command,
      ostEvent: this.#ostEvent,
      inserting: [...this.#inserting].sort((a, b) => a - b),
      removing: [...this.#removing].sort((a, b) => a - b),
    };
  }

  restore(state: unknown): void {
    const from = requireKind(state, KIND, 1);
    const selector = integerIn(from, 'selector', 0, 0xffffffff);
    const command = integerIn(from, 'command', 0, CMD_ARCH_ID);
    const ostEvent = integerIn(from, 'ostEvent', 0, 0xffffffff);
    const inserting = numbersIn(from, 'inserting', this.#options.count);
    const removing = numbersIn(from, 'removing', this.#options.count);
    this.reset();
    this.#selector = selector;
    this.#command = command;
    this.#ostEvent = ostEvent;
    for (const cpu of inserting) this.#inserting.add(cpu);
    for (const cpu of removing) this.#removing.add(cpu);
  }
}
