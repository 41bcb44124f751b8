import { PCI, PCI_HEADER_TYPE_MULTIFUNCTION } from './config_space.ts';
import { PciFunction, type PciSlot } from './function.ts';

const VENDOR_INTEL = 0x8086;

/** 82441FX PCI and Memory Controller (Intel document 290549, section 3.2). */
const DEVICE_I440FX = 0x1237;
const PAM0 = 0x59;
const PAMS = 7;
const SMRAM = 0x72;

/** 82371SB, the PIIX3: its ISA bridge (Intel document 290550, section 2.2). */
const DEVICE_PIIX3_ISA = 0x7000;
const PIRQ_ROUTE = 0x60;
export const PIIX3_PIRQS = 4;
const PIRQ_DISABLED = 0x80;

/** 82371AB, the PIIX4: its power management (Intel document 290562, section 7.1). */
const DEVICE_PIIX4_PM = 0x7113;
const PMBA = 0x40;
const PMREGMISC = 0x80;
const PMIOSE = 1;

/** The host bridge: the registers by which firmware shadows its ROM. */
export class I440fx extends PciFunction {
  constructor(slot: PciSlot) {
    super('i440fx', { vendor: VENDOR_INTEL, device: DEVICE_I440FX, classCode: 0x060000, revision: 2 }, slot);
    const { config } = this;
    for (let i = 0; i < PAMS; i++) config.allow(PAM0 + i, 1, 0x33);
    config.set(SMRAM, 1, 0x02);
    config.allow(SMRAM, 1, 0x78);
  }
}

/** The ISA bridge: how PIRQA…PIRQD reach the interrupt controllers. */
export class Piix3Isa extends PciFunction {
  onPirqRouted: (() => void) | undefined;

  constructor(slot: PciSlot) {
    super('isa', { vendor: VENDOR_INTEL, device: DEVICE_PIIX3_ISA, classCode: 0x060100 }, slot);
    const { config } = this;
    config.set(PCI.HEADER_TYPE, 1, PCI_HEADER_TYPE_MULTIFUNCTION);
    config.set(PCI.COMMAND, 2, 0x7);
    config.forbid(PCI.COMMAND, 2, 0x4);
    for (let pirq = 0; pirq < PIIX3_PIRQS; pirq++) {
      config.set(PIRQ_ROUTE + pirq, 1, PIRQ_DISABLED);
      config.allow(PIRQ_ROUTE + pirq, 1, 0x8f);
    }
    config.watch(PIRQ_ROUTE, PIIX3_PIRQS, () => this.onPirqRouted?.());
  }

  /** ISA interrupt that PIRQ `number` (0 for PIRQA) drives; undefined for none. */
  pirqRoute(number: number): number | undefined {
    const route = this.config.read(PIRQ_ROUTE + number, 1);
    return route & PIRQ_DISABLED ? undefined : route & 0xf;
  }

  /** Firmware's choice of the ISA interrupt for a PIRQ. */
  routePirq(number: number, isa: number): void {
    this.config.write(PIRQ_ROUTE + number, 1, isa);
  }
}

/** The power management function: where its ports stand. */
export class Piix4Function extends PciFunction {
  onPmMoved: (() => void) | undefined;

  constructor(slot: PciSlot, pmBase: number, sci: number) {
    const identity = { vendor: VENDOR_INTEL, device: DEVICE_PIIX4_PM, classCode: 0x068000, revision: 3, pin: 1 };
    super('piix4-pm-function', identity, slot);
    const { config } = this;
    config.set(PCI.INTERRUPT_LINE, 1, sci);
    config.set(PMBA, 4, pmBase | 1);
    config.allow(PMBA, 4, 0xffc0);
    config.watch(PMBA, 4, () => this.onPmMoved?.());
    config.set(PMREGMISC, 1, PMIOSE);
    config.allow(PMREGMISC, 1, PMIOSE);
    config.watch(PMREGMISC, 1, () => this.onPmMoved?.());
  }

  /** Base of the power management ports; undefined while they are off. */
  get pmBase(): number | undefined {
    return this.config.read(PMREGMISC, 1) & PMIOSE ? this.config.read(PMBA, 4) & 0xffc0 : undefined;
  }
}
