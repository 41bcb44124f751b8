/** Ports of a few lines each: reset control, pvpanic, isa-debug-exit and the POST code port. */
import type { Device, DeviceState, Region } from './device.ts';
import { byteIn, bytesIn, requireKind } from './state.ts';

const stateless = (kind: string): DeviceState => ({ kind, version: 1 });

/** Reset control register of the ICH9 at 0xcf9 (Intel 316972-004, section 13.7.5). */
export class ResetControl implements Device, Region {
  readonly name = 'reset-control';
  readonly size = 1;
  readonly #reset: () => void;
  #value = 0;

  constructor(reset: () => void) {
    this.#reset = reset;
  }

  reset(): void {
    this.#value = 0;
  }

  read(): number {
    return this.#value;
  }

  write(_offset: number, _size: number, value: number): void {
    const RST_CPU = 0x04;
    // RST_CPU acts when it is set; the kind of reset (bits 1 and 3) makes no difference to a guest.
    this.#value = value & 0x0a;
    if (value & RST_CPU) this.#reset();
  }

  save(): DeviceState {
    return { ...stateless('reset-control'), value: this.#value };
  }

  restore(state: unknown): void {
    this.#value = byteIn(requireKind(state, 'reset-control', 1), 'value') & 0x0a;
  }
}

/** Events of pvpanic (QEMU docs/specs/pvpanic). */
export const PVPANIC_PANICKED = 1 << 0;
export const PVPANIC_CRASH_LOADED = 1 << 1;
export const PVPANIC_SHUTDOWN = 1 << 2;

/** The guest kernel's last words, in one byte. */
export class Pvpanic implements Device, Region {
  readonly name = 'pvpanic';
  readonly size = 1;
  readonly #event: (events: number) => void;

  constructor(event: (events: number) => void) {
    this.#event = event;
  }

  reset(): void {}

  read(): number {
    return PVPANIC_PANICKED | PVPANIC_CRASH_LOADED | PVPANIC_SHUTDOWN;
  }

  write(_offset: number, _size: number, value: number): void {
    const known = value & (PVPANIC_PANICKED | PVPANIC_CRASH_LOADED | PVPANIC_SHUTDOWN);
    if (known) this.#event(known);
  }

  save(): DeviceState {
    return stateless('pvpanic');
  }

  restore(state: unknown): void {
    requireKind(state, 'pvpanic', 1);
  }
}

/** QEMU's isa-debug-exit: a write ends the machine with the exit status (value << 1) | 1. */
export class IsaDebugExit implements Device, Region {
  readonly name = 'isa-debug-exit';
  readonly size = 4;
  readonly #exit: (status: number) => void;

  constructor(exit: (status: number) => void) {
    this.#exit = exit;
  }

  reset(): void {}

  read(): number {
    return 0;
  }

  write(_offset: number, _size: number, value: number): void {
    this.#exit(((value << 1) | 1) & 0xff);
  }

  save(): DeviceState {
    return stateless('isa-debug-exit');
  }

  restore(state: unknown): void {
    requireKind(state, 'isa-debug-exit', 1);
  }
}

const CODES_KEPT = 16;

/** The POST code port, 0x80: remembers what firmware wrote last; Linux writes it to wait a microsecond. */
export class DebugPort implements Device, Region {
  readonly name = 'debug-port';
  readonly size = 1;
  #codes: number[] = [];

  reset(): void {
    this.#codes = [];
  }

  /** The last codes, oldest first. */
  get codes(): readonly number[] {
    return this.#codes;
  }

  read(): number {
    return this.#codes.at(-1) ?? 0;
  }

  write(_offset: number, _size: number, value: number): void {
    if (this.#codes.length === CODES_KEPT) this.#codes.shift();
    this.#codes.push(value & 0xff);
  }

  save(): DeviceState {
    return { ...stateless('debug-port'), codes: [...this.#codes] };
  }

  restore(state: unknown): void {
    this.#codes = bytesIn(requireKind(state, 'debug-port', 1), 'codes', CODES_KEPT);
  }
}
