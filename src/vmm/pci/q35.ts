import type { IrqLine } from '../../devices/device.ts';
import { PCI, PCI_HEADER_TYPE_MULTIFUNCTION } from '../../devices/pci/config_space.ts';
import { addExpress, EXP_TYPE_INTEGRATED_ENDPOINT } from '../../devices/pci/express.ts';
import type { PciFunction, PciSlot } from '../../devices/pci/function.ts';
import { Ich9Lpc, Q35Mch } from '../../devices/pci/q35.ts';
import { RootPort } from '../../devices/pci/root_port.ts';
import type { AcpiPci } from '../acpi/board.ts';
import { CONFIG_ADDRESS_PORT, PcPci, type PcPciOptions } from './pc.ts';
import { PirqRouter } from './pirq.ts';

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
export interface Q35Options extends PcPciOptions {
  readonly pmBase: number;
  readonly rootPorts: number;
  readonly pmMoved: (base: number | undefined) => void;
}

/** PIRQ of a pin of a device on the root bus, as ICH9 routes it. */
const pirqOf = (device: number, pin: number): number =>
  device >= FIRST_CHIPSET_DEVICE ? pin - 1 : 4 + ((device + pin - 1) & 3);

/** PCI of a q35 machine: MCH, LPC bridge, root ports, and the places for devices. */
export class Q35Pci extends PcPci {
  readonly mch: Q35Mch;
  readonly lpc: Ich9Lpc;
  readonly rootPorts: RootPort[] = [];
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
  }

  /** Ports stand side by side as functions of devices 0x1c, 0x1b, …, as chipsets have them. */
  #addRootPort(number: number): void {
    const device = ROOT_PORT_DEVICE - Math.floor(number / FUNCTIONS);
    const devfn = (device << 3) | (number % FUNCTIONS);
    this.rootPorts.push(
      this.onRoot(devfn, (slot) => {
        const port = new RootPort(`port${number}`, slot, { slotNumber: number + 1, serial: serialOf(devfn) });
        if (number % FUNCTIONS === 0 && this.#options.rootPorts > number + 1) {
          port.config.set(PCI.HEADER_TYPE, 1, port.config.read(PCI.HEADER_TYPE, 1) | PCI_HEADER_TYPE_MULTIFUNCTION);
        }
        return port;
      }),
    );
  }

  /** Puts a function into a free device of the root bus, as an endpoint of the root complex. */
  override addEndpoint<F extends PciFunction>(make: (slot: PciSlot) => F, device = this.freeDevice()): F {
    return super.addEndpoint((slot) => {
      const made = make(slot);
      addExpress(made.config, { type: EXP_TYPE_INTEGRATED_ENDPOINT });
      return made;
    }, device);
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
    this.#placeEcam();
    this.#routePirqs();
    this.#options.pmMoved(this.lpc.pmBase);
  }

  /** Linux tries all 32 places of each bus up to the last, two exits each: room to grow, but not all 256. */
  #lastBus(): number {
    const used = Math.max(...[...this.root.walk()].map(({ bus }) => bus), this.rootPorts.length);
    return Math.min(255, Math.max(MIN_LAST_BUS, 2 ** Math.ceil(Math.log2(used + 2)) - 1));
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
    };
  }
}

/** A serial number that is the same at each start: QEMU's locally administered prefix and the place. */
const serialOf = (devfn: number): bigint => 0x525400fffe000000n | BigInt(devfn);
