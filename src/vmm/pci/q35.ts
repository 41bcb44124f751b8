import { AcpiPciHotplug } from '../../devices/acpi_pci_hotplug.ts';
import type { IrqLine } from '../../devices/device.ts';
import { PCI, PCI_HEADER_TYPE_MULTIFUNCTION } from '../../devices/pci/config_space.ts';
import { EXP_TYPE_ENDPOINT, EXP_TYPE_INTEGRATED_ENDPOINT } from '../../devices/pci/express.ts';
import { Ich9Lpc, Q35Mch } from '../../devices/pci/q35.ts';
import { RootPort } from '../../devices/pci/root_port.ts';
import { DownstreamPort, type UpstreamPort } from '../../devices/pci/switch.ts';
import type { AcpiPci } from '../acpi/board.ts';
import { CONFIG_ADDRESS_PORT, PcPci, type PcPciOptions } from './pc.ts';
import { PirqRouter } from './pirq.ts';
import { type PciPlace, PortPlace, SlotPlace } from './places.ts';

export const ECAM_BASE = 0xb0000000;
const MEMORY_WINDOW = 0xc0000000;

/** PIRQA…PIRQH stand on the IOAPIC behind the sixteen ISA interrupts. */
const FIRST_PIRQ_GSI = 16;
const PIRQS = 8;
/** Devices from here on have registers for their route, which say PIRQA…PIRQD for INTA…INTD after a reset. */
const FIRST_CHIPSET_DEVICE = 25;
const LPC_DEVICE = 0x1f;
const ROOT_PORT_DEVICE = 0x1c;
const FIRST_FREE_DEVICE = 2;
const FUNCTIONS = 8;
const MIN_LAST_BUS = 7;
/** A port's own bus, a switch's, and one for each of its four ports. */
const BUSES_FOR_SWITCH = 6;
/** Where QEMU's q35 has the registers of hot-plug through ACPI, and their event. */
const HOTPLUG_PORT = 0xcc0;
const PCI_HOTPLUG_GPE = 1;
/** Physical slot numbers: root ports count from 1, then come the root bus's devices, then ports of switches. */
const FIRST_BUS_SLOT = 64;
const FIRST_SWITCH_SLOT = 128;
export interface Q35Options extends PcPciOptions {
  readonly pmBase: number;
  readonly rootPorts: number;
  /** Bus numbers behind each of them; undefined for what suits. */
  readonly buses: number | undefined;
  readonly raiseGpe: (number: number) => void;
  readonly pmMoved: (base: number | undefined) => void;
}

/** PIRQ of a pin of a device on the root bus, as ICH9 routes it. */
const pirqOf = (device: number, pin: number): number =>
  device >= FIRST_CHIPSET_DEVICE ? pin - 1 : 4 + ((device + pin - 1) & 3);

/** PCI of a q35 machine: MCH, LPC bridge, root ports, and the places for devices. */
export class Q35Pci extends PcPci {
  readonly mch: Q35Mch;
  readonly lpc: Ich9Lpc;
  readonly hotplug: AcpiPciHotplug;
  readonly rootPorts: RootPort[] = [];
  readonly #ports: PortPlace[] = [];
  #switchPorts: PortPlace[] = [];
  /** Places of the root bus that had a device at boot. */
  readonly #slots: SlotPlace[] = [];
  #nextSlotNumber = FIRST_SWITCH_SLOT;
  readonly #options: Q35Options;
  readonly #pirqs: PirqRouter;
  #takeEcamAway: (() => void) | undefined;

  constructor(options: Q35Options) {
    super(options, MEMORY_WINDOW, FIRST_FREE_DEVICE);
    this.#options = options;
    const setIrq = (gsi: number, level: boolean) => options.vm.setIrq(gsi, level);
    this.#pirqs = new PirqRouter(PIRQS, setIrq, (pirq) => FIRST_PIRQ_GSI + pirq);
    this.mch = this.onRoot(0, (slot) => new Q35Mch(slot, ECAM_BASE));
    this.mch.onEcamMoved = () => this.#placeEcam();
    this.lpc = this.onRoot(LPC_DEVICE << 3, (slot) => new Ich9Lpc(slot, options.pmBase));
    this.lpc.onPirqRouted = () => this.#routePirqs();
    this.lpc.onPmMoved = () => options.pmMoved(this.lpc.pmBase);
    for (let number = 0; number < options.rootPorts; number++) this.#addRootPort(number);
    this.#placeEcam();
    this.hotplug = new AcpiPciHotplug({
      notify: () => options.raiseGpe(PCI_HOTPLUG_GPE),
      noticed: (slots) => {
        for (const place of this.#slots) if (slots & (1 << (place.devfn >> 3))) place.watcher?.noticed();
      },
      eject: (device) => this.#slots.find(({ devfn }) => devfn >> 3 === device)?.watcher?.released('it let go (_EJ0)'),
      settled: (device) => this.#slots.find(({ devfn }) => devfn >> 3 === device)?.settled(),
    });
    options.pio.insert(HOTPLUG_PORT, this.hotplug);
  }

  /** Ports stand side by side as functions of devices 0x1c, 0x1b, …, as chipsets have them. */
  #addRootPort(number: number): void {
    const device = ROOT_PORT_DEVICE - Math.floor(number / FUNCTIONS);
    const devfn = (device << 3) | (number % FUNCTIONS);
    const port = this.onRoot(devfn, (slot) => {
      const made = new RootPort(`rp${number}`, slot, { slotNumber: number + 1, serial: serialOf(devfn) });
      if (number % FUNCTIONS === 0 && this.#options.rootPorts > number + 1) {
        made.config.set(PCI.HEADER_TYPE, 1, made.config.read(PCI.HEADER_TYPE, 1) | PCI_HEADER_TYPE_MULTIFUNCTION);
      }
      return made;
    });
    // A guest looks at all places of each bus number up to the last: not every port gets room for a switch unasked.
    port.reservedBuses = this.#options.buses ?? (number === 0 ? BUSES_FOR_SWITCH : 1);
    this.rootPorts.push(port);
    this.#ports.push(new PortPlace(port, this.root.busBehind(port), EXP_TYPE_ENDPOINT));
  }

  get places(): readonly PciPlace[] {
    return [...this.#ports, ...this.#switchPorts, ...this.#slots, ...this.bridgePlaces];
  }

  /** An endpoint of the root complex: a port for each device would cost a guest some 500 exits each at its start. */
  override bootPlace(): PciPlace {
    const device = this.freeDevice();
    const place = new SlotPlace(this.hotplug, this.root.rootBus, device, EXP_TYPE_INTEGRATED_ENDPOINT);
    this.#slots.push(place);
    return place;
  }

  /** Puts a switch's ports behind its upstream port. @returns what takes them away. */
  addSwitch(upstream: UpstreamPort, count: number): { readonly ports: readonly DownstreamPort[]; remove(): void } {
    const bus = this.root.busBehind(upstream);
    const ports = Array.from({ length: count }, (_, index) =>
      this.root.place(bus, index << 3, (slot) => {
        const number = this.#nextSlotNumber++;
        const made = new DownstreamPort(`${upstream.name}.${index}`, slot, number, index + 1);
        made.config.seal();
        return made;
      }),
    );
    const places = ports.map((port) => new PortPlace(port, this.root.busBehind(port), EXP_TYPE_ENDPOINT));
    this.#switchPorts.push(...places);
    const remove = () => {
      this.#switchPorts = this.#switchPorts.filter((place) => !places.includes(place));
    };
    return { ports, remove };
  }

  #placeEcam(): void {
    this.#takeEcamAway?.();
    this.#takeEcamAway = undefined;
    const base = this.mch.ecamBase;
    if (base === undefined) return;
    try {
      this.#takeEcamAway = this.#options.mmio.insert(base, this.root.ecam());
    } catch (error) {
      this.#options.fault('mch', (error as Error).message);
    }
  }

  protected override intxLine(device: number, pin: number): IrqLine {
    return this.#pirqs.line(pirqOf(device, pin));
  }

  #routePirqs(): void {
    for (let pirq = 0; pirq < PIRQS; pirq++) this.#pirqs.route(pirq, this.lpc.pirqRoute(pirq));
  }

  override reset(): void {
    super.reset();
    this.hotplug.reset();
    this.#placeEcam();
    this.#routePirqs();
    this.#options.pmMoved(this.lpc.pmBase);
  }

  /** Linux tries all 32 places of each bus up to the last, two exits each: room to grow, but not all 256. */
  #lastBus(): number {
    const reserved = this.rootPorts.reduce((sum, { reservedBuses }) => sum + reservedBuses, 0);
    return Math.max(MIN_LAST_BUS, reserved + this.bridges);
  }

  /** What the tables say. */
  override acpi(): AcpiPci {
    const { io, memory, memory64 } = this.apertures;
    return {
      ecamBase: ECAM_BASE,
      lastBus: this.#lastBus(),
      io: [
        { min: 0, max: CONFIG_ADDRESS_PORT - 1 },
        { min: 0xd00, max: io.limit - 1 },
      ],
      memory: [
        { min: memory.base, max: memory.limit - 1 },
        { min: memory64.base, max: memory64.limit - 1 },
      ],
      interrupts: Array.from({ length: 32 }, (_, device) =>
        [1, 2, 3, 4].map((pin) => ({ device, pin, gsi: FIRST_PIRQ_GSI + pirqOf(device, pin) })),
      ).flat(),
      ports: this.rootPorts.map((port, index) => ({
        name: `RP${index.toString(16).toUpperCase().padStart(2, '0')}`,
        device: ROOT_PORT_DEVICE - Math.floor(index / FUNCTIONS),
        function: index % FUNCTIONS,
        slotNumber: port.slotNumber,
      })),
      ...(this.#slots.length > 0 && {
        hotplug: { port: HOTPLUG_PORT, slots: this.#slots.map(({ devfn }) => devfn >> 3), firstSun: FIRST_BUS_SLOT },
      }),
    };
  }
}

/** A serial number that is the same at each start: QEMU's locally administered prefix and the place. */
const serialOf = (devfn: number): bigint => 0x525400fffe000000n | BigInt(devfn);
