/**
 * The ACPI power management block of the ICH9 (Intel 316972-004, section 13.8.3), with the registers that
 * QEMU's q35 has and at its offsets from PMBASE.
 */
import type { Clock, Device, DeviceState, IrqLine, Region } from './device.ts';
import { GpeBlock } from './gpe_block.ts';
import { integerIn, requireKind } from './state.ts';

const PM1_STS = 0x00;
const PM1_EN = 0x02;
const PM1_CNT = 0x04;
const PM_TMR = 0x08;
const GPE0 = 0x20;
const GPE0_LENGTH = 16;
const SMI_EN = 0x30;

const TMR_STS = 1 << 0;
const PWRBTN_STS = 1 << 8;
const PM1_EN_MASK = 0x0521;
const PM1_STS_MASK = 0xcf31;

const SCI_EN = 1 << 0;
const SLP_TYP_SHIFT = 10;
const SLP_EN = 1 << 13;
/** SLP_TYP that `\_S5` of our DSDT names; QEMU's q35 uses the same. */
export const S5_SLP_TYP = 0;

/** 3.579545 MHz, as ACPI fixes it. */
const PM_TIMER_HZ = 3_579_545n;
const KIND = 'ich9-pm';

/** The 24-bit PM timer at a time in nanoseconds: pure, so that vCPU threads compute the same value. */
export const pmTimerValue = (nowNs: bigint): number => Number(((nowNs * PM_TIMER_HZ) / 1_000_000_000n) & 0xffffffn);

export interface Ich9PmOptions {
  readonly clock: Clock;
  readonly sci: IrqLine;
  /** The guest wrote SLP_EN with the S5 type. */
  readonly powerOff: () => void;
}

export class Ich9Pm implements Device, Region {
  readonly name = 'ich9-pm';
  readonly size = 0x80;
  readonly #clock: Clock;
  readonly #sci: IrqLine;
  readonly #powerOff: () => void;
  #status = 0;
  #enable = 0;
  /** No SMM here: ACPI is on from the start, and SMI_CMD in the FADT is 0. */
  #control = SCI_EN;
  #smiEnable = 0;
  readonly #gpe = new GpeBlock(GPE0_LENGTH);
  #level = false;

  constructor(options: Ich9PmOptions) {
    this.#clock = options.clock;
    this.#sci = options.sci;
    this.#powerOff = options.powerOff;
  }

  reset(): void {
    this.#status = 0;
    this.#enable = 0;
    this.#control = SCI_EN;
    this.#smiEnable = 0;
    this.#gpe.reset();
    this.#update();
  }

  read(offset: number, size: number): number {
    let value = 0;
    for (let i = 0; i < size; i++) value |= this.#readByte(offset + i) << (8 * i);
    return value >>> 0;
  }

  #readByte(offset: number): number {
    if (offset >= GPE0 && offset < GPE0 + GPE0_LENGTH) return this.#gpe.read(offset - GPE0);
    const byteOf = (value: number, base: number) => (value >>> (8 * (offset - base))) & 0xff;
    if (offset < PM1_EN) return byteOf(this.#status, PM1_STS);
    if (offset < PM1_CNT) return byteOf(this.#enable, PM1_EN);
    if (offset < PM1_CNT + 4) return byteOf(this.#control, PM1_CNT);
    if (offset < PM_TMR + 4) return byteOf(pmTimerValue(this.#clock.now()), PM_TMR);
    if (offset >= SMI_EN && offset < SMI_EN + 4) return byteOf(this.#smiEnable, SMI_EN);
    return 0;
  }

  write(offset: number, size: number, value: number): void {
    for (let i = 0; i < size; i++) this.#writeByte(offset + i, (value >>> (8 * i)) & 0xff);
    // Acts once a whole access has arrived: SLP_TYP and SLP_EN stand in one byte, but a word write has both.
    if (this.#control & SLP_EN) {
      const type = (this.#control >> SLP_TYP_SHIFT) & 7;
      this.#control &= ~SLP_EN;
      if (type === S5_SLP_TYP) this.#powerOff();
    }
    this.#update();
  }

  #writeByte(offset: number, byte: number): void {
    const shiftOf = (base: number) => 8 * (offset - base);
    const replace = (old: number, base: number) => (old & ~(0xff << shiftOf(base))) | (byte << shiftOf(base));
    if (offset >= GPE0 && offset < GPE0 + GPE0_LENGTH) {
      this.#gpe.write(offset - GPE0, byte);
    } else if (offset < PM1_EN) {
      this.#status &= ~(byte << shiftOf(PM1_STS));
    } else if (offset < PM1_CNT) {
      this.#enable = replace(this.#enable, PM1_EN) & PM1_EN_MASK;
    } else if (offset < PM1_CNT + 2) {
      // SCI_EN belongs to the firmware's SMI handler, which we do not have: it stays on.
      this.#control = (replace(this.#control, PM1_CNT) & 0xffff) | SCI_EN;
    } else if (offset >= SMI_EN && offset < SMI_EN + 4) {
      this.#smiEnable = replace(this.#smiEnable, SMI_EN) >>> 0;
    }
  }

  /** The user pressed the power button: the guest gets PWRBTN_STS and, when enabled, an SCI. */
  pressPowerButton(): void {
    this.#status |= PWRBTN_STS;
    this.#update();
  }

  /** Sets a general purpose event's status bit (0–63). */
  raiseGpe(number: number): void {
    this.#gpe.raise(number);
    this.#update();
  }

  /** Whether the guest has listened to a general purpose event since it was reset. */
  knowsGpe(number: number): boolean {
    return this.#gpe.isKnown(number);
  }

  #update(): void {
    const active = (this.#status & this.#enable & (PWRBTN_STS | TMR_STS)) !== 0 || this.#gpe.active;
    if (active === this.#level) return;
    this.#level = active;
    this.#sci.set(active);
  }

  save(): DeviceState {
    return {
      kind: KIND,
      version: 2,
      status: this.#status,
      enable: this.#enable,
      control: this.#control,
      smiEnable: this.#smiEnable,
      ...this.#gpe.save(),
    };
  }

  restore(state: unknown): void {
    const from = requireKind(state, KIND, 2);
    const status = integerIn(from, 'status', 0, 0xffff) & PM1_STS_MASK;
    const enable = integerIn(from, 'enable', 0, 0xffff) & PM1_EN_MASK;
    const control = (integerIn(from, 'control', 0, 0xffff) & ~SLP_EN) | SCI_EN;
    const smiEnable = integerIn(from, 'smiEnable', 0, 0xffffffff);
    this.#gpe.restore(from)();
    this.#status = status;
    this.#enable = enable;
    this.#control = control;
    this.#smiEnable = smiEnable;
    this.#update();
  }
}
