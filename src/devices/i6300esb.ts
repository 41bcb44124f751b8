import type { Clock, DeviceState, Region, Timer } from './device.ts';
import { PciFunction, type PciSlot } from './pci/function.ts';
import { booleanIn, integerIn, requireKind } from './state.ts';

/** Registers in configuration space (Intel 6300ESB I/O Controller Hub datasheet, section 17). */
const WDT_CONFIG = 0x60;
const WDT_LOCK = 0x68;
const CONFIG_OUTPUT_DISABLED = 0x20;
const CONFIG_FAST_CLOCK = 0x04;
const CONFIG_INTERRUPT = 0x03;
const INTERRUPT_IRQ = 0;
const LOCK_LOCKED = 0x01;
const LOCK_ENABLED = 0x02;
const LOCK_FREE_RUN = 0x04;

/** Registers in the BAR. */
const BAR_SIZE = 0x10;
const TIMER1 = 0x00;
const TIMER2 = 0x04;
const GENERAL_INTERRUPT_STATUS = 0x08;
const RELOAD = 0x0c;
const RELOAD_RELOAD = 0x100;
const RELOAD_TIMEOUT = 0x200;
const UNLOCK_FIRST = 0x80;
const UNLOCK_SECOND = 0x86;
const PRELOAD_MASK = 0xfffff;

/** A tick is 2^15 cycles of the 33 MHz bus (about 1 kHz), or 2^5 (about 1 MHz). */
const CYCLE_NS = 30n;
const SLOW_SHIFT = 15n;
const FAST_SHIFT = 5n;
/** The shortest time that a stage takes here. */
const LEAST_NS = 1_000_000n;

export interface I6300esbOptions {
  readonly name?: string;
  readonly clock: Clock;
  /** The second stage has run out with the output on: what the user chose for it is to be done now. */
  readonly expired: () => void;
}

/**
 * The watchdog of an Intel 6300ESB (8086:25ab), as Linux' `i6300esb` drives it: two timers one after the other. The
 * first warns, the second acts. Registers in the BAR take a write only after 0x80 and 0x86 were written to the reload
 * register, so that a guest gone wild does not feed it.
 */
export class I6300esb extends PciFunction {
  readonly #clock: Clock;
  readonly #expired: () => void;
  readonly #timer: Timer;
  #preloads = [PRELOAD_MASK, PRELOAD_MASK];
  /** 1 or 2 while it runs, 0 while it does not. */
  #stage = 0;
  #deadline = 0n;
  /** Writes of the unlock sequence that were seen. */
  #unlocked = 0;
  #interrupt = false;
  /** It has run out once; the guest clears this. It outlives the reset that it caused. */
  #timedOut = false;
  /** Lock register as it was before the guest wrote it. */
  #lock = 0;

  constructor(slot: PciSlot, options: I6300esbOptions) {
    super(options.name ?? 'watchdog', { vendor: 0x8086, device: 0x25ab, classCode: 0x088000 }, slot);
    this.#clock = options.clock;
    this.#expired = options.expired;
    this.#timer = options.clock.timer(() => this.#ranOut());
    const { config } = this;
    config.allow(WDT_CONFIG, 2, CONFIG_OUTPUT_DISABLED | CONFIG_FAST_CLOCK | CONFIG_INTERRUPT);
    config.allow(WDT_LOCK, 1, LOCK_LOCKED | LOCK_ENABLED | LOCK_FREE_RUN);
    config.watch(WDT_LOCK, 1, () => this.#lockWritten());
    const region: Region = {
      name: this.name,
      size: BAR_SIZE,
      read: (offset, size) => this.#read(offset, size),
      write: (offset, size, value) => this.#write(offset, size, value),
    };
    this.addBar({ index: 0, kind: 'memory32', prefetchable: false, size: BAR_SIZE, region });
  }

  /** Whether a timer counts. */
  get running(): boolean {
    return this.#stage !== 0;
  }

  #lockWritten(): void {
    const { config } = this;
    if (this.#lock & LOCK_LOCKED) {
      // Until a reset, what was locked stays as it is.
      config.set(WDT_LOCK, 1, this.#lock);
      return;
    }
    const before = this.#lock;
    this.#lock = config.read(WDT_LOCK, 1);
    if (!(this.#lock & LOCK_ENABLED)) this.#stop();
    else if (!(before & LOCK_ENABLED)) this.#start(1);
  }

  #stop(): void {
    this.#stage = 0;
    this.#timer.cancel();
  }

  #start(stage: 1 | 2): void {
    const shift = this.config.read(WDT_CONFIG, 2) & CONFIG_FAST_CLOCK ? FAST_SHIFT : SLOW_SHIFT;
    const duration = (BigInt(this.#preloads[stage - 1]) << shift) * CYCLE_NS;
    this.#stage = stage;
    // A guest that lets it run free with next to nothing keeps this thread busy with it otherwise.
    this.#deadline = this.#clock.now() + (duration > LEAST_NS ? duration : LEAST_NS);
    this.#timer.armAt(this.#deadline);
  }

  #ranOut(): void {
    // A timer can come for a deadline that has been moved since.
    if (this.#stage === 0 || this.#clock.now() < this.#deadline) return;
    const configuration = this.config.read(WDT_CONFIG, 2);
    if (this.#stage === 1) {
      if ((configuration & CONFIG_INTERRUPT) === INTERRUPT_IRQ) this.#interrupt = true;
      this.#start(2);
      return;
    }
    this.#stage = 0;
    this.#timedOut = true;
    if (this.#lock & LOCK_FREE_RUN) this.#start(1);
    if (!(configuration & CONFIG_OUTPUT_DISABLED)) this.#expired();
  }

  #read(offset: number, size: number): number {
    const register = offset & ~3;
    const value = (() => {
      switch (register) {
        case TIMER1:
          return this.#preloads[0];
        case TIMER2:
          return this.#preloads[1];
        case GENERAL_INTERRUPT_STATUS:
          return this.#interrupt ? 1 : 0;
        default:
          return this.#timedOut ? RELOAD_TIMEOUT : 0;
      }
    })();
    const shifted = value >>> (8 * (offset & 3));
    return size === 4 ? shifted : shifted & (size === 1 ? 0xff : 0xffff);
  }

  #write(offset: number, size: number, value: number): void {
    if (offset === RELOAD && value === UNLOCK_FIRST) {
      this.#unlocked = 1;
      return;
    }
    if (offset === RELOAD && value === UNLOCK_SECOND && this.#unlocked === 1) {
      this.#unlocked = 2;
      return;
    }
    const unlocked = this.#unlocked === 2;
    // One write for each unlocking; anything else begins anew.
    this.#unlocked = 0;
    if (!unlocked) return;
    if (offset === RELOAD && size >= 2) {
      if (value & RELOAD_TIMEOUT) this.#timedOut = false;
      if (value & RELOAD_RELOAD && this.#stage !== 0) this.#start(1);
    } else if ((offset === TIMER1 || offset === TIMER2) && size === 4) {
      this.#preloads[offset === TIMER1 ? 0 : 1] = value & PRELOAD_MASK;
    } else if (offset === GENERAL_INTERRUPT_STATUS && value & 1) this.#interrupt = false;
  }

  override reset(): void {
    super.reset();
    this.#stop();
    this.#preloads = [PRELOAD_MASK, PRELOAD_MASK];
    this.#unlocked = 0;
    this.#interrupt = false;
    this.#lock = 0;
    this.#deadline = 0n;
  }

  override save(): DeviceState {
    return {
      ...super.save(),
      watchdog: {
        kind: 'i6300esb',
        version: 1,
        timer1: this.#preloads[0],
        timer2: this.#preloads[1],
        stage: this.#stage,
        left: this.#stage === 0 ? '0' : `${this.#left()}`,
        unlocked: this.#unlocked,
        interrupt: this.#interrupt,
      },
      timedOut: this.#timedOut,
    };
  }

  /** Nanoseconds until the timer runs out. */
  #left(): bigint {
    const left = this.#deadline - this.#clock.now();
    return left > 0n ? left : 0n;
  }

  override restore(state: unknown): void {
    const whole = (state ?? {}) as Record<string, unknown>;
    const fields = requireKind(whole.watchdog, 'i6300esb', 1);
    const { left } = fields;
    if (typeof left !== 'string' || !/^\d{1,16}$/.test(left)) {
      throw new Error(`${this.name}: the time that is left is ${String(left)}, not nanoseconds.`);
    }
    const preloads = ['timer1', 'timer2'].map((name) => integerIn(fields, name, 0, PRELOAD_MASK));
    const stage = integerIn(fields, 'stage', 0, 2);
    const unlocked = integerIn(fields, 'unlocked', 0, 2);
    const interrupt = booleanIn(fields, 'interrupt');
    const timedOut = booleanIn(whole, 'timedOut');
    super.restore(state);
    this.#stop();
    this.#preloads = preloads;
    this.#unlocked = unlocked;
    this.#interrupt = interrupt;
    this.#timedOut = timedOut;
    this.#lock = this.config.read(WDT_LOCK, 1);
    this.#stage = stage;
    if (stage === 0) return;
    this.#deadline = this.#clock.now() + BigInt(left);
    this.#timer.armAt(this.#deadline);
  }
}
