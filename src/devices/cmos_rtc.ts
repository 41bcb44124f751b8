/**
 * The MC146818 clock with 128 bytes of battery-backed RAM behind an index and a data port (Motorola MC146818
 * data sheet; Intel 316972-004, section 13.6). The time is the wall clock plus an offset that moves when the
 * guest sets the clock. Flags are worked out when somebody looks; a timer runs only for an enabled interrupt
 * whose flag is not set yet, so an idle guest costs nothing and a fast one no more than it reads.
 */
import { alarmField, nextAlarm, type RtcFormat, readFields, writeFields } from './cmos_time.ts';
import type { Clock, Device, DeviceState, IrqLine, Region, Timer } from './device.ts';
import { byteIn, bytesIn, integerIn, nanosecondsIn, requireKind } from './state.ts';

const RTC_SECONDS_ALARM = 1;
const RTC_MINUTES_ALARM = 3;
const RTC_HOURS_ALARM = 5;
const RTC_REG_A = 10;
const RTC_REG_B = 11;
const RTC_REG_C = 12;
const RTC_REG_D = 13;
const RTC_CENTURY = 0x32;

const RTC_UIP = 0x80;
/** Divider control of register A: 11x holds the divider in reset. */
const RTC_DIV_RESET = 0x60;
const RTC_RATE_SELECT = 0x0f;
const RTC_SET = 0x80;
const RTC_UIE = 0x10;
const RTC_DM_BINARY = 0x04;
const RTC_24H = 0x02;
const RTC_IRQF = 0x80;
const RTC_PF = 0x40;
const RTC_AF = 0x20;
const RTC_UF = 0x10;
const RTC_FLAGS = RTC_PF | RTC_AF | RTC_UF;
const RTC_VRT = 0x80;

/** 32.768 kHz, and a periodic interrupt of 1024 Hz: what firmware leaves behind. */
const REG_A_AT_POWER_ON = 0x26;
const INDEX_MASK = 0x7f;
const NMI_DISABLE = 0x80;
const RAM_SIZE = 128;
/** Update takes 1.984 ms and is announced 244 µs ahead on the real chip; here the last millisecond of a second. */
const UPDATE_MS = 999;
/** The host's wall clock can be set, and stops counting in its sleep: look again after so long. */
const LONGEST_WAIT_MS = 60_000;
const MOST_OFFSET_MS = 2 ** 52;
const KIND = 'cmos-rtc';
const KiB = 2 ** 10;
const MiB = 2 ** 20;
const UNIT = 64 * KiB;

export interface CmosRtcOptions {
  readonly clock: Clock;
  readonly irq: IrqLine;
  /** Bytes of RAM below 4 GiB, from address 0. */
  readonly lowMemory: number;
  /** Bytes of RAM from 4 GiB up. */
  readonly highMemory: number;
  /** Processors at boot, at most 256. */
  readonly cpus: number;
  /** The guest has set the time, so many seconds ahead of the host's. */
  readonly onSet?: (offset: number) => void;
}

/** Two ports: the index with the NMI mask in bit 7 (write only), then the data. */
export class CmosRtc implements Device, Region {
  readonly name = 'rtc';
  readonly size = 2;
  readonly #clock: Clock;
  readonly #irq: IrqLine;
  readonly #onSet: ((offset: number) => void) | undefined;
  readonly #timer: Timer;
  readonly #ram = new Uint8Array(RAM_SIZE);
  #index = 0;
  #nmiMasked = false;
  /** Clock time less the host's wall clock. */
  #offsetMs = 0;
  /** The last second whose update was looked at. */
  #seenSecond = 0;
  /** Guest time of the next periodic event. */
  #nextPeriod = 0n;
  #level = false;

  constructor(options: CmosRtcOptions) {
    this.#clock = options.clock;
    this.#irq = options.irq;
    this.#onSet = options.onSet;
    this.#timer = options.clock.timer(() => this.#update());
    this.#ram[RTC_REG_A] = REG_A_AT_POWER_ON;
    this.#ram[RTC_REG_B] = RTC_24H;
    this.#ram[RTC_REG_D] = RTC_VRT;
    this.#describe(options);
    this.#seenSecond = Math.floor(this.#nowMs / 1000);
    this.#nextPeriod = this.#clock.now() + this.#periodNs;
  }

  /** Where firmware for PCs and for QEMU looks up memory and processors. */
  #describe({ lowMemory, highMemory, cpus }: CmosRtcOptions): void {
    const word = (at: number, value: number) => {
      this.#ram[at] = value;
      this.#ram[at + 1] = value >> 8;
    };
    const extended = Math.min(0xffff, Math.max(0, lowMemory - MiB) / KiB);
    const EQUIPMENT = 0x14;
    const COPROCESSOR = 0x02;
    this.#ram[EQUIPMENT] = COPROCESSOR;
    word(0x15, 640);
    word(0x17, extended);
    word(0x30, extended);
    word(0x34, Math.min(0xffff, Math.max(0, lowMemory - 16 * MiB) / UNIT));
    const high = Math.min(0xffffff, highMemory / UNIT);
    word(0x5b, high);
    this.#ram[0x5d] = high / 0x10000;
    this.setProcessors(cpus);
  }

  /** How many processors there are, for firmware that waits for them. */
  setProcessors(count: number): void {
    this.#ram[0x5f] = count - 1;
  }

  /** The RESET pin: interrupts off; the battery keeps the time and the RAM. */
  reset(): void {
    this.#index = 0;
    this.#nmiMasked = false;
    this.#ram[RTC_REG_B] &= RTC_SET | RTC_DM_BINARY | RTC_24H | 1;
    this.#ram[RTC_REG_C] = 0;
    this.#update();
  }

  /** True while the guest keeps the board's NMI sources from its processors (bit 7 of the index port). */
  get nmiMasked(): boolean {
    return this.#nmiMasked;
  }

  get #nowMs(): number {
    return this.#clock.wallClockMs() + this.#offsetMs;
  }

  get #phaseMs(): number {
    const ms = this.#nowMs % 1000;
    return ms < 0 ? ms + 1000 : ms;
  }

  get #format(): RtcFormat {
    const b = this.#ram[RTC_REG_B];
    return { binary: (b & RTC_DM_BINARY) !== 0, hours24: (b & RTC_24H) !== 0 };
  }

  get #dividerReset(): boolean {
    return (this.#ram[RTC_REG_A] & RTC_DIV_RESET) === RTC_DIV_RESET;
  }

  /** While stopped the time stands in the RAM as it was last read or written. */
  get #stopped(): boolean {
    return (this.#ram[RTC_REG_B] & RTC_SET) !== 0 || this.#dividerReset;
  }

  /** Nanoseconds between periodic events, 0 for none (MC146818, table 5, for a 32.768 kHz time base). */
  get #periodNs(): bigint {
    const rate = this.#ram[RTC_REG_A] & RTC_RATE_SELECT;
    if (rate === 0 || this.#dividerReset) return 0n;
    // The two shortest settings repeat longer ones with this time base.
    const cycles = 1n << BigInt((rate <= 2 ? rate + 7 : rate) - 1);
    return (cycles * 1_000_000_000n) / 32_768n;
  }

  read(offset: number, size: number): number {
    let value = 0;
    for (let i = 0; i < size; i++) value |= (offset + i === 0 ? 0xff : this.#readData()) << (8 * i);
    return value;
  }

  write(offset: number, size: number, value: number): void {
    for (let i = 0; i < size; i++) {
      const byte = (value >>> (8 * i)) & 0xff;
      if (offset + i === 0) {
        this.#index = byte & INDEX_MASK;
        this.#nmiMasked = (byte & NMI_DISABLE) !== 0;
      } else {
        this.#writeData(byte);
      }
    }
  }

  #readData(): number {
    const index = this.#index;
    if (index === RTC_REG_A) {
      const updating = !this.#stopped && this.#phaseMs >= UPDATE_MS;
      return this.#ram[RTC_REG_A] | (updating ? RTC_UIP : 0);
    }
    if (index === RTC_REG_C) {
      this.#update();
      const flags = this.#ram[RTC_REG_C];
      this.#ram[RTC_REG_C] = 0;
      this.#update();
      return flags;
    }
    if (isTime(index)) this.#refresh();
    return this.#ram[index];
  }

  #writeData(byte: number): void {
    const index = this.#index;
    if (index === RTC_REG_C || index === RTC_REG_D) return;
    if (index === RTC_REG_A || index === RTC_REG_B) {
      this.#writeControl(index, byte);
    } else if (isTime(index)) {
      this.#refresh();
      this.#ram[index] = byte;
      if (!this.#stopped) this.#setTime();
    } else {
      if (isAlarm(index)) this.#update();
      this.#ram[index] = byte;
    }
    if (index <= RTC_REG_D || index === RTC_CENTURY) this.#update();
  }

  #writeControl(index: number, byte: number): void {
    this.#update();
    this.#refresh();
    const wasStopped = this.#stopped;
    const wasReset = this.#dividerReset;
    const period = this.#periodNs;
    this.#ram[index] = index === RTC_REG_A ? byte & ~RTC_UIP : byte;
    // SET going high takes UIE with it.
    if (this.#ram[RTC_REG_B] & RTC_SET) this.#ram[RTC_REG_B] &= ~RTC_UIE;
    // The first update comes half a second after the divider starts.
    if (wasReset && !this.#dividerReset) this.#offsetMs += 500 - this.#phaseMs;
    if (wasStopped && !this.#stopped) this.#setTime();
    if (this.#periodNs !== period) this.#nextPeriod = this.#clock.now() + this.#periodNs;
  }

  /** Puts the time into the RAM, unless it stands still there. */
  #refresh(): void {
    if (!this.#stopped) writeFields(this.#ram, Math.floor(this.#nowMs / 1000), this.#format);
  }

  /** Goes on from the time in the RAM, at the same place within the second. */
  #setTime(): void {
    const second = readFields(this.#ram, this.#format);
    this.#offsetMs += second * 1000 + this.#phaseMs - this.#nowMs;
    this.#seenSecond = second;
    this.#onSet?.(Math.round(this.#offsetMs / 1000));
  }

  #alarmAfter(second: number): number {
    const format = this.#format;
    return nextAlarm(
      second,
      alarmField(this.#ram[RTC_HOURS_ALARM], format, 'hours'),
      alarmField(this.#ram[RTC_MINUTES_ALARM], format, 'minutes'),
      alarmField(this.#ram[RTC_SECONDS_ALARM], format, 'seconds'),
    );
  }

  /** Sets the flags of what has happened, the interrupt line by them, and the timer for what comes. */
  #update(): void {
    const now = this.#clock.now();
    const period = this.#periodNs;
    if (period > 0n && now >= this.#nextPeriod) {
      this.#ram[RTC_REG_C] |= RTC_PF;
      this.#nextPeriod += ((now - this.#nextPeriod) / period + 1n) * period;
    }
    const second = Math.floor(this.#nowMs / 1000);
    if (!this.#stopped && second > this.#seenSecond) {
      this.#ram[RTC_REG_C] |= RTC_UF;
      if (this.#alarmAfter(this.#seenSecond) <= second) this.#ram[RTC_REG_C] |= RTC_AF;
    }
    this.#seenSecond = second;
    const active = (this.#ram[RTC_REG_B] & this.#ram[RTC_REG_C] & RTC_FLAGS) !== 0;
    this.#ram[RTC_REG_C] = (this.#ram[RTC_REG_C] & RTC_FLAGS) | (active ? RTC_IRQF : 0);
    if (active !== this.#level) {
      this.#level = active;
      this.#irq.set(active);
    }
    this.#arm(now, second);
  }

  #arm(now: bigint, second: number): void {
    const wanted = this.#ram[RTC_REG_B] & ~this.#ram[RTC_REG_C] & RTC_FLAGS;
    let at: bigint | undefined;
    if (wanted & RTC_PF && this.#periodNs > 0n) at = this.#nextPeriod;
    if (wanted & (RTC_UF | RTC_AF) && !this.#stopped) {
      const next = wanted & RTC_UF ? second + 1 : this.#alarmAfter(second);
      const ms = Math.min(LONGEST_WAIT_MS, next * 1000 - this.#nowMs);
      const update = now + BigInt(Math.max(1, ms)) * 1_000_000n;
      if (at === undefined || update < at) at = update;
    }
    if (at === undefined) this.#timer.cancel();
    else this.#timer.armAt(at);
  }

  save(): DeviceState {
    this.#update();
    this.#refresh();
    return {
      kind: KIND,
      version: 1,
      index: this.#index | (this.#nmiMasked ? NMI_DISABLE : 0),
      ram: [...this.#ram],
      offsetMs: this.#offsetMs,
      seenSecond: this.#seenSecond,
      nextPeriod: String(this.#nextPeriod),
    };
  }

  /** An alarm that fell into the time between is raised now. */
  restore(state: unknown): void {
    const from = requireKind(state, KIND, 1);
    const index = byteIn(from, 'index');
    const ram = bytesIn(from, 'ram', RAM_SIZE);
    const offsetMs = integerIn(from, 'offsetMs', -MOST_OFFSET_MS, MOST_OFFSET_MS);
    const seenSecond = integerIn(from, 'seenSecond', -MOST_OFFSET_MS, MOST_OFFSET_MS);
    const nextPeriod = nanosecondsIn(from, 'nextPeriod');
    if (ram.length !== RAM_SIZE) throw new Error(`The state field ram has ${ram.length} bytes, not ${RAM_SIZE}.`);
    this.#index = index & INDEX_MASK;
    this.#nmiMasked = (index & NMI_DISABLE) !== 0;
    this.#ram.set(ram);
    this.#ram[RTC_REG_A] &= ~RTC_UIP;
    this.#ram[RTC_REG_D] = RTC_VRT;
    this.#offsetMs = offsetMs;
    this.#seenSecond = seenSecond;
    const latest = this.#clock.now() + this.#periodNs;
    this.#nextPeriod = nextPeriod;
    if (nextPeriod > latest) this.#nextPeriod = latest;
    this.#update();
  }
}

const isAlarm = (index: number) =>
  index === RTC_SECONDS_ALARM || index === RTC_MINUTES_ALARM || index === RTC_HOURS_ALARM;
const isTime = (index: number) => (index < RTC_REG_A && !isAlarm(index)) || index === RTC_CENTURY;
