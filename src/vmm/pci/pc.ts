import type { GuestMemory, IrqLine, Region } from '../../devices/device.ts';
import { PciBridge } from '../../devices/pci/bridge.ts';
import { addExpress } from '../../devices/pci/express.ts';
import type { PciFunction, PciSlot } from '../../devices/pci/function.ts';
import { close } from '../../ffi/libc.ts';
import type { AcpiPci } from '../acpi/board.ts';
import type { Bus } from '../bus.ts';
import type { KvmVm } from '../kvm.ts';
import { GiB, type RamRange } from '../memory_layout.ts';
import { newEventfd, type Reactor } from '../reactor.ts';
import { H, type SharedBlock } from '../shared.ts';
import { type Apertures, assignResources } from './assign.ts';
import { ConfigPages } from './config_pages.ts';
import { BridgePlace, type PciPlace } from './places.ts';
import { PciRoot } from './root.ts';

const IO_WINDOW = { base: 0xc000, limit: 0x10000 };
const MEMORY_WINDOW_LIMIT = 0xfec00000;
const MEMORY64_SIZE = 64 * GiB;
export const CONFIG_ADDRESS_PORT = 0xcf8;
export const CONFIG_DATA_PORT = 0xcfc;
/** Slots for guest memory behind BARs, behind those of RAM and of DIMMs. */
const FIRST_BAR_MEMSLOT = 288;
const DEVICES = 32;

export interface PcPciOptions {
  readonly pio: Bus;
  readonly mmio: Bus;
  readonly memory: GuestMemory;
  readonly ranges: readonly RamRange[];
  /** End of guest-physical memory, room for DIMMs included. */
  readonly memoryEnd: number;
  readonly vm: KvmVm;
  readonly reactor: Reactor;
  readonly block: SharedBlock;
  readonly configPages: SharedArrayBuffer;
  /** Width of the guest's physical addresses. */
  readonly physicalBits: number;
  /** Takes the place of the byte at 0xcf9. */
  readonly resetControl: Region;
  readonly fault: (device: string, text: string) => void;
}

/** What PCI has in common on all PCs: configuration ports, windows, doorbells and the places of the root bus. */
export abstract class PcPci {
  readonly root: PciRoot;
  protected readonly apertures: Apertures;
  readonly #options: PcPciOptions;
  readonly #firstFreeDevice: number;
  /** Bridges to conventional PCI, and the places behind them. */
  protected bridges = 0;
  protected readonly bridgePlaces: PciPlace[] = [];
  readonly #freeMemslots: number[] = [];
  #nextMemslot = FIRST_BAR_MEMSLOT;

  /**
   * @param memoryWindow first address that the root hands on below 4 GiB.
   * @param firstFreeDevice first device number of the root bus that is not the chipset's.
   */
  constructor(options: PcPciOptions, memoryWindow: number, firstFreeDevice: number) {
    this.#options = options;
    this.#firstFreeDevice = firstFreeDevice;
    const { pio, mmio, vm } = options;
    const memory64 = Math.ceil(Math.max(4 * GiB, options.memoryEnd) / GiB) * GiB;
    this.apertures = {
      io: { ...IO_WINDOW },
      memory: { base: memoryWindow, limit: MEMORY_WINDOW_LIMIT },
      memory64: { base: memory64, limit: Math.min(memory64 + MEMORY64_SIZE, 2 ** options.physicalBits) },
    };
    this.root = new PciRoot({
      pio,
      mmio,
      memory: options.memory,
      msi: { send: (address, data) => vm.signalMsi(address, data) },
      pages: new ConfigPages(options.configPages),
      intx: (device, pin) => this.intxLine(device, pin),
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
  }

  /** The line that a pin (1 to 4) of a device on the root bus holds high or lets go, besides others. */
  protected abstract intxLine(device: number, pin: number): IrqLine;

  /** What the tables say. */
  abstract acpi(): AcpiPci;

  protected onRoot<F extends PciFunction>(devfn: number, make: (slot: PciSlot) => F): F {
    return this.root.place(this.root.rootBus, devfn, (slot) => {
      const made = make(slot);
      made.config.seal();
      return made;
    });
  }

  /** Where devices can come and go; what is plugged may bring more. */
  abstract readonly places: readonly PciPlace[];

  /** The place of a device that is there from the start and names none. */
  abstract bootPlace(): PciPlace;

  /** Puts a function into a place, as an endpoint of the bus there. */
  addEndpoint<F extends PciFunction>({ bus, devfn, express }: PciPlace, make: (slot: PciSlot) => F): F {
    return this.root.place(bus, devfn, (slot) => {
      const made = make(slot);
      // A switch has the capability of its own kind.
      if (express !== undefined && !(made instanceof PciBridge)) addExpress(made.config, { type: express });
      made.config.seal();
      return made;
    });
  }

  /** Places behind a bridge to conventional PCI. */
  addBridge(bridge: PciBridge): readonly PciPlace[] {
    const bus = this.root.busBehind(bridge);
    // Device 0 is left free, as QEMU leaves it for a controller of hot-plug.
    const places = Array.from({ length: DEVICES - 1 }, (_, index) => new BridgePlace(bridge.name, bus, index + 1));
    this.bridgePlaces.push(...places);
    this.bridges++;
    return places;
  }

  protected freeDevice(): number {
    const { functions } = this.root.rootBus;
    for (let device = this.#firstFreeDevice; device < DEVICES; device++) {
      if (![...functions.keys()].some((devfn) => devfn >> 3 === device)) return device;
    }
    throw new Error(`The root bus is full: it has ${DEVICES} places, and each is taken.`);
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
    assignResources(this.root, this.apertures);
  }

  reset(): void {
    this.root.reset();
    Atomics.store(this.#options.block.words, H.PCI_ADDRESS, 0);
  }
}
