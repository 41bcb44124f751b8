/**
 * High Precision Event Timer (IA-PC HPET specification 1.0a) with the capabilities of QEMU's: three timers of 64 bits
 * that can be periodic, a clock of 100 MHz, legacy replacement, no FSB interrupts.
 */
import type { Clock, Device, DeviceState, IrqLine, Region, Timer } from './device.ts';
import { booleanIn, integerIn, requireKind } from './state.ts';

export const HPET_BASE = 0xfed00000;
export const HPET_SIZE = 0x400;
export const HPET_TIMERS = 3;
/** Ticks between interrupts of a timer that nobody should go below: what the ACPI table says of it, as QEMU's does. */
export const HPET_MINIMUM_TICK = 100;
/** A periodic timer comes no more often than this many ticks, 100 µs: a guest must not keep this thread busy with it. */
const LEAST_PERIOD = 10_000n;

const NS_PER_TICK = 10n;
const FEMTOSECONDS_PER_TICK = 10_000_000;
const REVISION = 1;
const VENDOR = 0x8086;
const COUNTER_IS_64_BITS = 1 << 13;
const LEGACY_CAPABLE = 1 << 15;
/** General Capabilities and ID, low half: what the ACPI table repeats. */
export const HPET_BLOCK_ID =
  ((VENDOR << 16) | LEGACY_CAPABLE | COUNTER_IS_64_BITS | ((HPET_TIMERS - 1) << 8) | REVISION) >>> 0;

/** Registers (section 2.3). */
const CAPABILITIES = 0x000;
const PERIOD = 0x004;
const CONFIGURATION = 0x010;
const STATUS = 0x020;
const COUNTER = 0x0f0;
const TIMER_BASE = 0x100;
const TIMER_SIZE = 0x20;
const TIMER_CONFIGURATION = 0x00;
const TIMER_ROUTES = 0x04;
const TIMER_COMPARATOR = 0x08;

const ENABLE = 0x01;
const LEGACY = 0x02;

/** Bits of a timer's configuration. */
const LEVEL = 0x0002;
const INTERRUPT = 0x0004;
const PERIODIC = 0x0008;
const CAN_BE_PERIODIC = 0x0010;
const IS_64_BITS = 0x0020;
const SET_ACCUMULATOR = 0x0040;
const FORCE_32_BITS = 0x0100;
const ROUTE_SHIFT = 9;
const ROUTE_MASK = 0x1f;
const WRITABLE = LEVEL | INTERRUPT | PERIODIC | FORCE_32_BITS | (ROUTE_MASK << ROUTE_SHIFT);

const M32 = 0xffff_ffffn;
const M64 = 0xffff_ffff_ffff_ffffn;

export interface HpetOptions {
  readonly clock: Clock;
  /** Inputs of the I/O APIC that a timer may be routed to; QEMU's q35 has 2, 8 and 16 to 23. */
  readonly routes: number;
  /** Line of one of those inputs, or of ISA interrupt 0 or 8, which timers 0 and 1 take in legacy replacement. */
  readonly line: (gsi: number) => IrqLine;
  /** Timers 0 and 1 have taken the interrupts of PIT and RTC, or given them back. */
  readonly legacy: (taken: boolean) => void;
}

interface TimerState {
  configuration: number;
  /** The comparator as it was last written, or as a period moved it on. */
  comparator: bigint;
  period: bigint;
}

const fresh = (): TimerState => ({
  configuration: CAN_BE_PERIODIC | IS_64_BITS,
  comparator: M64,
  period: 0n,
});

/** `value` with its low or high half replaced. */
const withHalf = (value: bigint, high: boolean, half: number): bigint =>
  high ? (value & M32) | (BigInt(half >>> 0) << 32n) : (value & ~M32 & M64) | BigInt(half >>> 0);
const halfOf = (value: bigint, high: boolean): number => Number((high ? value >> 32n : value) & M32);

export class Hpet implements Device, Region {
  readonly name = 'hpet';
  readonly size = HPET_SIZE;
  readonly #clock: Clock;
  readonly #routes: number;
  readonly #line: (gsi: number) => IrqLine;
  readonly #legacyTaken: (taken: boolean) => void;
  readonly #alarms: readonly Timer[];
  #timers: TimerState[] = Array.from({ length: HPET_TIMERS }, fresh);
  #configuration = 0;
  #status = 0;
  /** The counter while it stands; while it runs, what it was at the time `#since`. */
  #counter = 0n;
  #since = 0n;
  /** High half of the counter at the last read of its low half, so that 64 bits can be read in two steps. */
  #latched: number | undefined;

  constructor(options: HpetOptions) {
    this.#clock = options.clock;
    this.#routes = options.routes;
    this.#line = options.line;
    this.#legacyTaken = options.legacy;
    this.#alarms = this.#timers.map((_, index) => options.clock.timer(() => this.#expired(index)));
  }

  /** Whether timers 0 and 1 have the interrupts of PIT and RTC. */
  get legacy(): boolean {
    return (this.#configuration & (ENABLE | LEGACY)) === (ENABLE | LEGACY);
  }

  get #enabled(): boolean {
    return (this.#configuration & ENABLE) !== 0;
  }

  #now(): bigint {
    if (!this.#enabled) return this.#counter;
    return (this.#counter + (this.#clock.now() - this.#since) / NS_PER_TICK) & M64;
  }

  read(offset: number, size: number): number {
    const word = this.#readWord(offset & ~3);
    if (size === 4) return word;
    return (word >>> (8 * (offset & 3))) & (size === 1 ? 0xff : 0xffff);
  }

  #readWord(offset: number): number {
    switch (offset) {
      case CAPABILITIES:
        return HPET_BLOCK_ID;
      case PERIOD:
        return FEMTOSECONDS_PER_TICK;
      case CONFIGURATION:
        return this.#configuration;
      case STATUS:
        return this.#status;
      case COUNTER: {
        const now = this.#now();
        this.#latched = halfOf(now, true);
        return halfOf(now, false);
      }
      case COUNTER + 4: {
        const latched = this.#latched;
        this.#latched = undefined;
        return latched ?? halfOf(this.#now(), true);
      }
    }
    const timer = this.#timers[((offset - TIMER_BASE) / TIMER_SIZE) | 0];
    if (offset < TIMER_BASE || !timer) return 0;
    switch (offset % TIMER_SIZE) {
      case TIMER_CONFIGURATION:
        return timer.configuration;
      case TIMER_ROUTES:
        return this.#routes;
      case TIMER_COMPARATOR:
        return halfOf(timer.comparator, false);
      case TIMER_COMPARATOR + 4:
        return is32(timer) ? 0 : halfOf(timer.comparator, true);
      default:
        return 0;
    }
  }

  write(offset: number, size: number, value: number): void {
    // Section 2.3 leaves it open what a write of less than 32 bits does; here it changes nothing.
    if (size !== 4 || offset & 3) return;
    this.#latched = undefined;
    switch (offset) {
      case CONFIGURATION:
        this.#configure(value & (ENABLE | LEGACY));
        return;
      case STATUS:
        this.#acknowledge(value);
        return;
      case COUNTER:
      case COUNTER + 4:
        // A counter that runs is not to be written; it keeps its way.
        if (!this.#enabled) this.#counter = withHalf(this.#counter, offset !== COUNTER, value);
        return;
    }
    const index = ((offset - TIMER_BASE) / TIMER_SIZE) | 0;
    if (offset < TIMER_BASE || index >= HPET_TIMERS) return;
    const timer = this.#timers[index];
    const register = offset % TIMER_SIZE;
    if (register === TIMER_CONFIGURATION) this.#configureTimer(index, value);
    else if (register === TIMER_COMPARATOR || (register === TIMER_COMPARATOR + 4 && !is32(timer))) {
      this.#compare(timer, register !== TIMER_COMPARATOR, value);
    } else return;
    this.#arm(index);
  }

  #configure(value: number): void {
    const before = this.legacy;
    const ran = this.#enabled;
    const now = this.#now();
    for (const [index] of this.#timers.entries()) this.#lower(index);
    this.#configuration = value;
    if (ran !== this.#enabled) {
      this.#counter = now;
      this.#since = this.#clock.now();
    }
    if (before !== this.legacy) this.#legacyTaken(this.legacy);
    for (const [index] of this.#timers.entries()) {
      this.#raise(index);
      this.#arm(index);
    }
  }

  /** Writing a one takes the interrupt of a level-triggered timer back. */
  #acknowledge(value: number): void {
    for (const [index] of this.#timers.entries()) {
      if (!(value & this.#status & (1 << index))) continue;
      this.#lower(index);
      this.#status &= ~(1 << index);
    }
  }

  #configureTimer(index: number, value: number): void {
    const timer = this.#timers[index];
    this.#lower(index);
    const accumulate = value & PERIODIC ? value & SET_ACCUMULATOR : 0;
    timer.configuration = CAN_BE_PERIODIC | IS_64_BITS | (value & WRITABLE) | accumulate;
    if (is32(timer)) {
      timer.comparator &= M32;
      timer.period &= M32;
    }
    if (!(timer.configuration & LEVEL)) this.#status &= ~(1 << index);
    this.#raise(index);
  }

  /** A periodic timer takes a write as its period, and as its next time too when it was told so before. */
  #compare(timer: TimerState, high: boolean, value: number): void {
    const periodic = (timer.configuration & PERIODIC) !== 0;
    if (!periodic || timer.configuration & SET_ACCUMULATOR) timer.comparator = withHalf(timer.comparator, high, value);
    if (periodic) timer.period = withHalf(timer.period, high, value);
    if (is32(timer)) {
      timer.comparator &= M32;
      timer.period &= M32;
    }
    // The high half of 64 bits belongs to the same write.
    if (high || is32(timer)) timer.configuration &= ~SET_ACCUMULATOR;
  }

  /** When the counter is where a timer waits for it, from now on: at once is the whole way round. */
  #arm(index: number): void {
    const alarm = this.#alarms[index];
    alarm.cancel();
    if (!this.#enabled) return;
    const timer = this.#timers[index];
    const now = this.#now();
    const mask = is32(timer) ? M32 : M64;
    this.#skipPast(timer, now, mask);
    let ticks = (timer.comparator - now) & mask;
    // Behind by less than half the range is in the past: a 64-bit timer waits for ever then.
    if (mask === M64 && ticks > M64 >> 1n) return;
    if (ticks === 0n) ticks = mask === M32 ? M32 + 1n : 1n;
    const at = this.#clock.now() + ticks * NS_PER_TICK;
    if (at <= MAX_ALARM) alarm.armAt(at);
  }

  /** A periodic timer that is behind goes on with the next of its times. */
  #skipPast(timer: TimerState, now: bigint, mask: bigint): void {
    const { period } = timer;
    if (!(timer.configuration & PERIODIC) || period === 0n) return;
    const behind = (now - timer.comparator) & mask;
    if (behind > mask >> 1n) return;
    const step = period < LEAST_PERIOD ? (LEAST_PERIOD / period) * period : period;
    timer.comparator = (timer.comparator + (behind / step + 1n) * step) & mask;
  }

  #expired(index: number): void {
    if (!this.#enabled) return;
    const timer = this.#timers[index];
    if (timer.configuration & LEVEL) this.#status |= 1 << index;
    if (timer.configuration & INTERRUPT) {
      if (timer.configuration & LEVEL) this.#raise(index);
      else {
        const line = this.#line(this.#gsi(index));
        line.set(true);
        line.set(false);
      }
    }
    // One-shot timers of 32 bits come again when the counter has gone round (section 2.3.9.2.1).
    if (timer.configuration & PERIODIC || is32(timer)) this.#arm(index);
  }

  #gsi(index: number): number {
    if (this.legacy && index === 0) return 0;
    if (this.legacy && index === 1) return 8;
    return (this.#timers[index].configuration >> ROUTE_SHIFT) & ROUTE_MASK;
  }

  /** Whether the timer's line is up: for level-triggered ones alone. */
  #asserts(index: number): boolean {
    const { configuration } = this.#timers[index];
    return (
      this.#enabled &&
      (configuration & (LEVEL | INTERRUPT)) === (LEVEL | INTERRUPT) &&
      ((this.#status >> index) & 1) === 1
    );
  }

  #raise(index: number): void {
    if (this.#asserts(index)) this.#line(this.#gsi(index)).set(true);
  }

  #lower(index: number): void {
    if (this.#asserts(index)) this.#line(this.#gsi(index)).set(false);
  }

  reset(): void {
    for (const [index] of this.#timers.entries()) this.#lower(index);
    for (const alarm of this.#alarms) alarm.cancel();
    const taken = this.legacy;
    this.#timers = Array.from({ length: HPET_TIMERS }, fresh);
    this.#configuration = 0;
    this.#status = 0;
    this.#counter = 0n;
    this.#latched = undefined;
    if (taken) this.#legacyTaken(false);
  }

  save(): DeviceState {
    return {
      ...{ kind: 'hpet', version: 1, configuration: this.#configuration, status: this.#status },
      counter: `${this.#now()}`,
      timers: this.#timers.map(({ configuration, comparator, period }) => ({
        ...{ kind: 'hpet-timer', version: 1, configuration, comparator: `${comparator}`, period: `${period}` },
        accumulate: (configuration & SET_ACCUMULATOR) !== 0,
      })),
    };
  }

  restore(state: unknown): void {
    const fields = requireKind(state, 'hpet', 1);
    const configuration = integerIn(fields, 'configuration', 0, ENABLE | LEGACY);
    const status = integerIn(fields, 'status', 0, (1 << HPET_TIMERS) - 1);
    const counter = wordIn(fields, 'counter');
    const list = fields.timers;
    if (!Array.isArray(list) || list.length !== HPET_TIMERS) {
      throw new Error(`The state field timers is not a list of ${HPET_TIMERS}.`);
    }
    const timers = list.map((each): TimerState => {
      const timer = requireKind(each, 'hpet-timer', 1);
      const accumulate = booleanIn(timer, 'accumulate') ? SET_ACCUMULATOR : 0;
      const written = integerIn(timer, 'configuration', 0, 0xffff) & WRITABLE;
      return {
        configuration: CAN_BE_PERIODIC | IS_64_BITS | written | accumulate,
        comparator: wordIn(timer, 'comparator'),
        period: wordIn(timer, 'period'),
      };
    });
    this.reset();
    this.#timers = timers;
    this.#status = status;
    this.#counter = counter;
    this.#configure(configuration);
  }
}

/** Farther off than a timer of the host can be set. */
const MAX_ALARM = 2n ** 62n;

const is32 = ({ configuration }: TimerState): boolean => (configuration & FORCE_32_BITS) !== 0;

/** 64 bits, saved as a decimal string. */
function wordIn(fields: Record<string, unknown>, name: string): bigint {
  const value = fields[name];
  if (typeof value !== 'string' || !/^\d{1,20}$/.test(value) || BigInt(value) > M64) {
    throw new Error(`The state field ${name} is ${String(value)}, not a number of 64 bits.`);
  }
  return BigInt(value);
}
