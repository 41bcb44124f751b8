import type { GuestMemory, IrqLine, Region } from '../../devices/device.ts';
import { PCI, PCI_HEADER_TYPE_MULTIFUNCTION } from '../../devices/pci/config_space.ts';
import { addExpress, EXP_TYPE_INTEGRATED_ENDPOINT } from '../../devices/pci/express.ts';
import type { PciFunction, PciSlot } from '../../devices/pci/function.ts';
import { Ich9Lpc, Q35Mch } from '../../devices/pci/q35.ts';
import { RootPort } from '../../devices/pci/root_port.ts';
import type { VirtioDevice } from '../../devices/virtio/device.ts';
import { VirtioPci } from '../../devices/virtio/pci.ts';
import type { TransportOptions } from '../../devices/virtio/transport.ts';
import { close } from '../../ffi/libc.ts';
import type { AcpiPci } from '../acpi/board.ts';
import type { Bus } from '../bus.ts';
import type { KvmVm } from '../kvm.ts';
import { GiB, type RamRange, ramEnd } from '../memory_layout.ts';
import { newEventfd, type Reactor } from '../reactor.ts';
import { H, type SharedBlock } from '../shared.ts';
import { type Apertures, assignResources } from './assign.ts';
import { ConfigPages } from './config_pages.ts';
import { PciRoot } from './root.ts';

export const ECAM_BASE = 0xb0000000;
const MEMORY_WINDOW = { base: 0xc0000000, limit: 0xfec00000 };
const IO_WINDOW = { base: 0xc000, limit: 0x10000 };
const MEMORY64_SIZE = 64 * GiB;
export const CONFIG_ADDRESS_PORT = 0xcf8;
export const CONFIG_DATA_PORT = 0xcfc;

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
/** Slots for guest memory behind BARs, behind those of RAM. */
const FIRST_BAR_MEMSLOT = 64;

export interface Q35Options {
  readonly pio: Bus;
  readonly mmio: Bus;
  readonly memory: GuestMemory;
  readonly ranges: readonly RamRange[];
  readonly vm: KvmVm;
  readonly reactor: Reactor;
  readonly block: SharedBlock;
  readonly configPages: SharedArrayBuffer;
  /** Width of the guest's physical addresses. */
  readonly physicalBits: number;
  readonly pmBase: number;
  readonly rootPorts: number;
  /** Takes the place of the byte at 0xcf9. */
  readonly resetControl: Region;
  readonly pmMoved: (base: number | undefined) => void;
  readonly fault: (device: string, text: string) => void;
}

/** PIRQ of a pin of a device on the root bus, as ICH9 routes it. */
const pirqOf = (device: number, pin: number): number =>
  device >= FIRST_CHIPSET_DEVICE ? pin - 1 : 4 + ((device + pin - 1) & 3);

/** PCI of a q35 machine: MCH, LPC bridge, root ports, and the places for devices. */
export class Q35Pci {
  readonly root: PciRoot;
  readonly mch: Q35Mch;
  readonly lpc: Ich9Lpc;
  readonly rootPorts: RootPort[] = [];
  readonly #options: Q35Options;
  /** How many hold each PIRQ high. */
  readonly #asserted = new Array<number>(PIRQS).fill(0);
  /** ISA interrupt that each PIRQ drives now. */
  readonly #isa = new Array<number | undefined>(PIRQS).fill(undefined);
  readonly #apertures: Apertures;
  readonly #freeMemslots: number[] = [];
  #nextMemslot = FIRST_BAR_MEMSLOT;
  #takeEcamAway: (() => void) | undefined;

  constructor(options: Q35Options) {
    this.#options = options;
    const { pio, mmio, vm } = options;
    const memory64 = Math.ceil(Math.max(4 * GiB, ramEnd(options.ranges)) / GiB) * GiB;
    this.#apertures = {
      io: { ...IO_WINDOW },
      memory: { ...MEMORY_WINDOW },
      memory64: { base: memory64, limit: Math.min(memory64 + MEMORY64_SIZE, 2 ** options.physicalBits) },
    };
    this.root = new PciRoot({
      pio,
      mmio,
      memory: options.memory,
      msi: { send: (address, data) => vm.signalMsi(address, data) },
      pages: new ConfigPages(options.configPages),
      intx: (device, pin) => this.#intxLine(pirqOf(device, pin)),
      connectDoorbells: (bar, base) => this.#connectDoorbells(bar.doorbells, base, bar.kind === 'io' ? 'pio' : 'mmio'),
      mapMemory: (bar, base) => this.#mapMemory(bar.memory?.hostAddress ?? 0, bar.size, base),
      fault: (text) => options.fault('pci', text),
    });
    pio.insert(CONFIG_ADDRESS_PORT, this.#configAddress());
    const { words } = options.block;
    pio.insert(
      CONFIG_DATA_PORT,
      this.root.configData(() => Atomics.load(words, H.PCI_ADDRESS) >>> 0),
    );
    this.mch = this.#onRoot(0, (slot) => new Q35Mch(slot, ECAM_BASE));
    this.mch.onEcamMoved = () => this.#placeEcam();
    this.lpc = this.#onRoot(LPC_DEVICE << 3, (slot) => new Ich9Lpc(slot, options.pmBase));
    this.lpc.onPirqRouted = () => this.#routePirqs();
    this.lpc.onPmMoved = () => options.pmMoved(this.lpc.pmBase);
    for (let number = 0; number < options.rootPorts; number++) this.#addRootPort(number);
    this.#placeEcam();
  }

  #onRoot<F extends PciFunction>(devfn: number, make: (slot: PciSlot) => F): F {
    return this.root.place(this.root.rootBus, devfn, (slot) => {
      const made = make(slot);
      made.config.seal();
      return made;
    });
  }

  /** Ports stand side by side as functions of devices 0x1c, 0x1b, …, as chipsets have them. */
  #addRootPort(number: number): void {
    const device = ROOT_PORT_DEVICE - Math.floor(number / FUNCTIONS);
    const devfn = (device << 3) | (number % FUNCTIONS);
    this.rootPorts.push(
      this.#onRoot(devfn, (slot) => {
        const port = new RootPort(`port${number}`, slot, { slotNumber: number + 1, serial: serialOf(devfn) });
        if (number % FUNCTIONS === 0 && this.#options.rootPorts > number + 1) {
          port.config.set(PCI.HEADER_TYPE, 1, port.config.read(PCI.HEADER_TYPE, 1) | PCI_HEADER_TYPE_MULTIFUNCTION);
        }
        return port;
      }),
    );
  }

  /** Puts a function into the next free device of the root bus, as an endpoint of the root complex. */
  addIntegrated<F extends PciFunction>(make: (slot: PciSlot) => F, device = this.#freeDevice()): F {
    return this.#onRoot(device << 3, (slot) => {
      const made = make(slot);
      addExpress(made.config, { type: EXP_TYPE_INTEGRATED_ENDPOINT });
      return made;
    });
  }

  addVirtio(device: VirtioDevice, transport: TransportOptions): void {
    this.addIntegrated((slot) => new VirtioPci(device, slot, transport));
  }

  #freeDevice(): number {
    const { functions } = this.root.rootBus;
    for (let device = FIRST_FREE_DEVICE; device < LPC_DEVICE; device++) {
      if (![...functions.keys()].some((devfn) => devfn >> 3 === device)) return device;
    }
    throw new Error('The root bus is full: 28 devices, root ports and the LPC bridge are on it.');
  }

  #configAddress(): Region {
    const { resetControl, block } = this.#options;
    const isReset = (offset: number, size: number) => offset === 1 && size === 1;
    return {
      name: 'pci-config-address',
      size: 4,
      read: (offset, size) =>
        isReset(offset, size)
          ? resetControl.read(0, 1)
          : size === 4
            ? Atomics.load(block.words, H.PCI_ADDRESS) >>> 0
            : 0xffffffff >>> (32 - 8 * size),
      write: (offset, size, value) => {
        // Bytes and words are no configuration cycles (PCI 3.0, section 3.2.2.3.2): the reset register is below.
        if (isReset(offset, size)) resetControl.write(0, 1, value);
        else if (size === 4) Atomics.store(block.words, H.PCI_ADDRESS, value & 0x80fffffc);
      },
    };
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

  #intxLine(pirq: number): IrqLine {
    let level = false;
    return {
      set: (next) => {
        if (next === level) return;
        level = next;
        this.#asserted[pirq] += next ? 1 : -1;
        const high = this.#asserted[pirq] > 0;
        if (high !== this.#asserted[pirq] - (next ? 1 : -1) > 0) this.#drive(pirq, high);
      },
    };
  }

  #drive(pirq: number, high: boolean): void {
    this.#options.vm.setIrq(FIRST_PIRQ_GSI + pirq, high);
    const isa = this.#isa[pirq];
    if (isa !== undefined)
      this.#options.vm.setIrq(
        isa,
        this.#asserted.some((count, i) => count > 0 && this.#isa[i] === isa),
      );
  }

  #routePirqs(): void {
    for (let pirq = 0; pirq < PIRQS; pirq++) {
      const before = this.#isa[pirq];
      const now = this.lpc.pirqRoute(pirq);
      if (before === now) continue;
      this.#isa[pirq] = undefined;
      if (before !== undefined) this.#drivesIsa(before);
      this.#isa[pirq] = now;
      if (now !== undefined) this.#drivesIsa(now);
    }
  }

  #drivesIsa(isa: number): void {
    this.#options.vm.setIrq(
      isa,
      this.#asserted.some((count, pirq) => count > 0 && this.#isa[pirq] === isa),
    );
  }

  #connectDoorbells(
    doorbells: readonly { offset: number; size: number; rung: () => void }[],
    base: number,
    space: 'pio' | 'mmio',
  ): () => void {
    const { vm, reactor } = this.#options;
    const connected: { fd: number; address: number; size: number }[] = [];
    const undo = () => {
      for (const { fd, address, size } of connected) {
        vm.ioeventfd(fd, address, size, space, false);
        reactor.remove(fd);
        close(fd);
      }
    };
    for (const { offset, size, rung } of doorbells) {
      const fd = newEventfd();
      try {
        vm.ioeventfd(fd, base + offset, size, space, true);
      } catch {
        // KVM has a limit on these: the rest comes as ordinary exits.
        close(fd);
        break;
      }
      reactor.addEventfd(fd, rung);
      connected.push({ fd, address: base + offset, size });
    }
    return undo;
  }

  #mapMemory(hostAddress: number, size: number, base: number): () => void {
    const { vm } = this.#options;
    const slot = this.#freeMemslots.pop() ?? this.#nextMemslot++;
    vm.setMemoryRegion(slot, 0, base, size, hostAddress);
    return () => {
      vm.setMemoryRegion(slot, 0, base, 0, hostAddress);
      this.#freeMemslots.push(slot);
    };
  }

  /** Firmware's part, for a kernel that is started without one. */
  assign(): void {
    assignResources(this.root, this.#apertures);
  }

  reset(): void {
    this.root.reset();
    Atomics.store(this.#options.block.words, H.PCI_ADDRESS, 0);
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
  acpi(): AcpiPci {
    const { io, memory, memory64 } = this.#apertures;
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
