import { PCI, PCI_HEADER_TYPE_MULTIFUNCTION } from './config_space.ts';
import { PciFunction, type PciSlot } from './function.ts';

const VENDOR_INTEL = 0x8086;
/** Graphics and Memory Controller Hub of the Q35 (Intel document 316966, section 5.1). */
const DEVICE_MCH = 0x29c0;
const PCIEXBAR = 0x60;
const PAM0 = 0x90;
const SMRAM = 0x9d;
const PCIEXBAR_ENABLE = 1;

/** ICH9's LPC bridge (Intel document 316972, section 13.1). */
const DEVICE_LPC = 0x2918;
const PMBASE = 0x40;
const ACPI_CNTL = 0x44;
const PIRQ_ROUTE = [0x60, 0x61, 0x62, 0x63, 0x68, 0x69, 0x6a, 0x6b];
const RCBA = 0xf0;
const PIRQ_DISABLED = 0x80;

/** The host bridge: where ECAM stands, and the registers by which firmware shadows its ROM. */
export class Q35Mch extends PciFunction {
  onEcamMoved: (() => void) | undefined;

  constructor(slot: PciSlot, ecamBase: number) {
    super('mch', { vendor: VENDOR_INTEL, device: DEVICE_MCH, classCode: 0x060000 }, slot);
    const { config } = this;
    // Length 00: 256 MiB, a window for every bus.
    config.set(PCIEXBAR, 4, ecamBase | PCIEXBAR_ENABLE);
    config.allow(PCIEXBAR, 4, 0xf0000001);
    config.allow(PCIEXBAR + 4, 4, 0xf);
    config.watch(PCIEXBAR, 8, () => this.onEcamMoved?.());
    for (let i = 0; i < 7; i++) config.allow(PAM0 + i, 1, 0x33);
    config.set(SMRAM, 1, 0x02);
    config.allow(SMRAM, 1, 0x78);
    config.set(SMRAM + 1, 1, 0x38);
    config.allow(SMRAM + 1, 1, 0x87);
  }

  /** Base of the 256 MiB of configuration space; undefined while it is off. */
  get ecamBase(): number | undefined {
    const low = this.config.read(PCIEXBAR, 4);
    if (!(low & PCIEXBAR_ENABLE)) return undefined;
    return ((low & 0xf0000000) >>> 0) + this.config.read(PCIEXBAR + 4, 4) * 2 ** 32;
  }
}

/** The LPC bridge: where the power management block stands, and how PIRQA…PIRQH reach the old interrupt controller. */
export class Ich9Lpc extends PciFunction {
  onPirqRouted: (() => void) | undefined;
  onPmMoved: (() => void) | undefined;

  constructor(slot: PciSlot, pmBase: number) {
    super('lpc', { vendor: VENDOR_INTEL, device: DEVICE_LPC, classCode: 0x060100, revision: 2 }, slot);
    const { config } = this;
    config.set(PCI.HEADER_TYPE, 1, PCI_HEADER_TYPE_MULTIFUNCTION);
    config.set(PCI.COMMAND, 2, 0x7);
    config.forbid(PCI.COMMAND, 2, 0x4);
    config.set(PMBASE, 4, pmBase | 1);
    config.allow(PMBASE, 4, 0xff80);
    config.watch(PMBASE, 4, () => this.onPmMoved?.());
    config.set(ACPI_CNTL, 1, 0x80);
    config.allow(ACPI_CNTL, 1, 0x87);
    config.watch(ACPI_CNTL, 1, () => this.onPmMoved?.());
    for (const register of PIRQ_ROUTE) {
      config.set(register, 1, PIRQ_DISABLED);
      config.allow(register, 1, 0x8f);
      config.watch(register, 1, () => this.onPirqRouted?.());
    }
    config.allow(RCBA, 4, 0xffffc001);
  }

  /** Base of the power management ports; undefined while they are off. */
  get pmBase(): number | undefined {
    return this.config.read(ACPI_CNTL, 1) & 0x80 ? this.config.read(PMBASE, 4) & 0xff80 : undefined;
  }

  /** ISA interrupt that PIRQ `number` (0 for PIRQA) goes to; undefined when it goes to the IOAPIC alone. */
  pirqRoute(number: number): number | undefined {
    const route = this.config.read(PIRQ_ROUTE[number], 1);
    return route & PIRQ_DISABLED ? undefined : route & 0xf;
  }
}
