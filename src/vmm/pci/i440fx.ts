import { AcpiPciHotplug } from '../../devices/acpi_pci_hotplug.ts';
import type { IrqLine } from '../../devices/device.ts';
import { PCI } from '../../devices/pci/config_space.ts';
import { I440fx, PIIX3_PIRQS, Piix3Isa, Piix4Function } from '../../devices/pci/i440fx.ts';
import type { AcpiPci } from '../acpi/board.ts';
import { lowRamEnd } from '../memory_layout.ts';
import { CONFIG_ADDRESS_PORT, PcPci, type PcPciOptions } from './pc.ts';
import { PirqRouter } from './pirq.ts';
import { type PciPlace, SlotPlace } from './places.ts';

/** What low RAM may reach up to is not the devices': two windows, of which one is for much RAM. */
const MEMORY_WINDOW = 0xc0000000;
const MEMORY_WINDOW_BEHIND_MUCH_RAM = 0xe0000000;

const CHIPSET_DEVICE = 1;
const PM_FUNCTION = 3;
const FIRST_FREE_DEVICE = 2;
const DEVICES = 32;
export const PCI_HOTPLUG_PORT = 0xae00;
const PCI_HOTPLUG_END = 0xb000;
/** GPE.1 says that the hot-plug registers have news. */
export const PCI_HOTPLUG_GPE = 1;

/** ISA interrupts that PIRQs may drive, and what firmware makes of them, as SeaBIOS does. */
export const PC_PCI_IRQS = [10, 11];
const PIRQ_ROUTES = [10, 10, 11, 11];

export interface I440fxOptions extends PcPciOptions {
  readonly pmBase: number;
  readonly sci: number;
  readonly pmMoved: (base: number | undefined) => void;
  readonly raiseGpe: (number: number) => void;
}

/** Pins of devices turn by their number; device 1's INTA is PIRQA. */
const pirqOf = (device: number, pin: number): number => (device + pin - 2) & 3;

/** PCI of a PC of the nineties: i440FX, PIIX3 and the PIIX4's power management, hot-plug by ACPI. */
export class I440fxPci extends PcPci {
  readonly hotplug: AcpiPciHotplug;
  readonly isa: Piix3Isa;
  readonly #slots: readonly SlotPlace[];
  readonly #pm: Piix4Function;
  readonly #pirqs: PirqRouter;
  readonly #options: I440fxOptions;

  constructor(options: I440fxOptions) {
    const window = lowRamEnd(options.ranges) > MEMORY_WINDOW ? MEMORY_WINDOW_BEHIND_MUCH_RAM : MEMORY_WINDOW;
    super(options, window, FIRST_FREE_DEVICE);
    this.#options = options;
    this.#pirqs = new PirqRouter(PIIX3_PIRQS, (gsi, level) => options.vm.setIrq(gsi, level));
    this.hotplug = new AcpiPciHotplug({
      notify: () => options.raiseGpe(PCI_HOTPLUG_GPE),
      noticed: (slots) => {
        for (const place of this.#slots) if (slots & (1 << (place.devfn >> 3))) place.watcher?.noticed();
      },
      eject: (device) => this.#slots[device - FIRST_FREE_DEVICE]?.watcher?.released('it let go (_EJ0)'),
      settled: (device) => this.#slots[device - FIRST_FREE_DEVICE]?.settled(),
    });
    this.#slots = Array.from(
      { length: DEVICES - FIRST_FREE_DEVICE },
      (_, i) => new SlotPlace(this.hotplug, this.root.rootBus, FIRST_FREE_DEVICE + i, undefined),
    );
    options.pio.insert(PCI_HOTPLUG_PORT, this.hotplug);
    this.onRoot(0, (slot) => new I440fx(slot));
    this.isa = this.onRoot(CHIPSET_DEVICE << 3, (slot) => new Piix3Isa(slot));
    this.isa.onPirqRouted = () => this.#routePirqs();
    const pmAt = (CHIPSET_DEVICE << 3) | PM_FUNCTION;
    this.#pm = this.onRoot(pmAt, (slot) => new Piix4Function(slot, options.pmBase, options.sci));
    this.#pm.onPmMoved = () => options.pmMoved(this.#pm.pmBase);
  }

  get places(): readonly PciPlace[] {
    return [...this.#slots, ...this.bridgePlaces];
  }

  protected override intxLine(device: number, pin: number): IrqLine {
    return this.#pirqs.line(pirqOf(device, pin));
  }

  override bootPlace(): PciPlace {
    return this.#slots[this.freeDevice() - FIRST_FREE_DEVICE];
  }

  #routePirqs(): void {
    for (let pirq = 0; pirq < PIIX3_PIRQS; pirq++) this.#pirqs.route(pirq, this.isa.pirqRoute(pirq));
  }

  override assign(): void {
    super.assign();
    for (const [pirq, isa] of PIRQ_ROUTES.entries()) this.isa.routePirq(pirq, isa);
    for (const { function: each, devfn, bus } of this.root.walk()) {
      const pin = each.config.read(PCI.INTERRUPT_PIN, 1);
      if (pin === 0 || bus !== 0) continue;
      const line = each === this.#pm ? this.#options.sci : PIRQ_ROUTES[pirqOf(devfn >> 3, pin)];
      each.config.write(PCI.INTERRUPT_LINE, 1, line);
    }
  }

  override reset(): void {
    super.reset();
    this.hotplug.reset();
    this.#routePirqs();
    this.#options.pmMoved(this.#pm.pmBase);
  }

  override acpi(): AcpiPci {
    const { io, memory, memory64 } = this.apertures;
    const devices = Array.from({ length: DEVICES - CHIPSET_DEVICE }, (_, i) => CHIPSET_DEVICE + i);
    return {
      ecamBase: undefined,
      lastBus: this.bridges,
      io: [
        { min: 0, max: CONFIG_ADDRESS_PORT - 1 },
        { min: 0xd00, max: PCI_HOTPLUG_PORT - 1 },
        { min: PCI_HOTPLUG_END, max: io.limit - 1 },
      ],
      memory: [
        { min: memory.base, max: memory.limit - 1 },
        { min: memory64.base, max: memory64.limit - 1 },
      ],
      interrupts: devices.flatMap((device) => [1, 2, 3, 4].map((pin) => ({ device, pin, link: pirqOf(device, pin) }))),
      links: { device: CHIPSET_DEVICE, count: PIIX3_PIRQS, irqs: PC_PCI_IRQS },
      ports: [],
      hotplug: { port: PCI_HOTPLUG_PORT, slots: devices.filter((device) => device >= FIRST_FREE_DEVICE), firstSun: 0 },
    };
  }
}
