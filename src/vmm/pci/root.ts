import type { GuestMemory, IrqLine, Region } from '../../devices/device.ts';
import { PciBridge } from '../../devices/pci/bridge.ts';
import { PCI } from '../../devices/pci/config_space.ts';
import type { Bar, MsiSink, PciFunction, PciSlot } from '../../devices/pci/function.ts';
import type { Bus } from '../bus.ts';
import type { ConfigPages } from './config_pages.ts';

/** Bytes of configuration space of all buses. */
export const ECAM_SIZE = 256 * 2 ** 20;
const CONFIG_ADDRESS_ENABLE = 0x80000000;

/** A bus: functions by devfn. */
export interface PciBus {
  readonly functions: Map<number, PciFunction>;
  /** The bridge above; undefined for the root bus. */
  readonly bridge: PciBridge | undefined;
}

/** What the root needs of the machine around it. */
export interface PciHost {
  readonly pio: Bus;
  readonly mmio: Bus;
  readonly memory: GuestMemory;
  readonly msi: MsiSink;
  readonly pages: ConfigPages;
  /** INTx of a pin (1 to 4) of a device on the root bus. */
  intx(device: number, pin: number): IrqLine;
  /** A BAR's doorbells start to ring for writes at `base`. @returns what stops them. */
  connectDoorbells(bar: Bar, base: number): () => void;
  /** Guest memory behind a BAR appears at `base`. @returns what takes it away. */
  mapMemory(bar: Bar, base: number): () => void;
  /** The guest put a BAR where something else is. */
  fault(text: string): void;
}

interface Decoded {
  readonly base: number;
  readonly undo: () => void;
}

interface Placed {
  readonly function: PciFunction;
  readonly page: number;
  readonly bus: PciBus;
  readonly devfn: number;
  readonly decoded: Map<Bar, Decoded>;
}

const hex = (value: number) => `0x${value.toString(16)}`;

/** Everything below one PCI root: who answers configuration cycles, and who decodes what. */
export class PciRoot {
  readonly rootBus: PciBus = { functions: new Map(), bridge: undefined };
  readonly #host: PciHost;
  readonly #buses = new Map<PciBridge, PciBus>();
  readonly #placed = new Map<PciFunction, Placed>();
  #byAddress = new Map<number, PciFunction>();
  #held = 0;
  #stale = false;

  constructor(host: PciHost) {
    this.#host = host;
  }

  /** The bus behind a bridge. */
  busBehind(bridge: PciBridge): PciBus {
    let bus = this.#buses.get(bridge);
    if (!bus) {
      bus = { functions: new Map(), bridge };
      this.#buses.set(bridge, bus);
    }
    return bus;
  }

  /**
   * Puts a function in a place of a bus.
   * @param make is given the slot, makes the function, and seals its configuration space.
   * @throws Error when the place is taken, or the machine has no room for another function.
   */
  place<F extends PciFunction>(bus: PciBus, devfn: number, make: (slot: PciSlot) => F): F {
    if (bus.functions.has(devfn)) {
      throw new Error(`Device ${devfn >> 3} function ${devfn & 7} of the bus is ${bus.functions.get(devfn)?.name}.`);
    }
    const page = this.#host.pages.take();
    if (page === undefined) throw new Error('The machine has no room for another PCI function.');
    const lines = [1, 2, 3, 4].map((pin) => this.#intx(bus, devfn >> 3, pin));
    let pin = 1;
    const slot: PciSlot = {
      memory: this.#host.memory,
      msi: this.#host.msi,
      intx: { set: (level) => lines[pin - 1].set(level) },
      configWords: this.#host.pages.page(page),
      decodeChanged: () => this.update(),
    };
    let placed: Placed | undefined;
    this.hold(() => {
      const made = make(slot);
      pin = made.config.read(PCI.INTERRUPT_PIN, 1) || 1;
      placed = { function: made, page, bus, devfn, decoded: new Map() };
      if (made instanceof PciBridge) made.onBusReset = () => this.#resetBehind(made);
      bus.functions.set(devfn, made);
      this.#placed.set(made, placed);
      this.#stale = true;
    });
    return (placed as Placed).function as F;
  }

  /** Takes a function out, with all that is behind it: it decodes nothing from now on, and its interrupt is low. */
  remove(gone: PciFunction): void {
    const placed = this.#placed.get(gone);
    if (!placed) return;
    if (gone instanceof PciBridge) {
      for (const each of [...this.busBehind(gone).functions.values()]) this.remove(each);
      this.#buses.delete(gone);
    }
    gone.setIntx(false);
    for (const { undo } of placed.decoded.values()) undo();
    placed.bus.functions.delete(placed.devfn);
    this.#placed.delete(gone);
    // Nobody finds the page any more before it is another's.
    this.update();
    this.#host.pages.give(placed.page);
  }

  /**
   * Keeps the addresses that a function decodes answered when it is torn out: reads give 0. Linux's virtio driver waits
   * without end for a status of 0, which an empty bus, all ones, never gives it.
   * @returns what puts that in place, when the function is gone; and that, what takes it away.
   */
  remains(function_: PciFunction): () => () => void {
    const { mmio } = this.#host;
    const ranges = [...(this.#placed.get(function_)?.decoded ?? [])]
      .filter(([bar]) => bar.kind !== 'io' && !bar.memory)
      .map(([{ size, index }, { base }]) => ({ base, size, name: `${function_.name} BAR ${index}, torn out` }));
    return () => {
      // A guest may have put others there, which answer from now on.
      const free = ranges.filter(({ base, size }) => mmio.isFree(base, size));
      const undo = free.map(({ base, size, name }) =>
        mmio.insert(base, { name, size, read: () => 0, write: () => {} }),
      );
      return () => {
        for (const each of undo) each();
      };
    };
  }

  /** Resets what is behind a bridge (PCI-to-PCI Bridge Architecture Specification 1.2, section 3.2.5.17). */
  #resetBehind(bridge: PciBridge): void {
    const bus = this.#buses.get(bridge);
    if (!bus) return;
    this.hold(() => {
      for (const each of bus.functions.values()) {
        each.reset();
        if (each instanceof PciBridge) this.#resetBehind(each);
      }
      this.#stale = true;
    });
  }

  /** Pins of devices behind bridges turn by their device number (PCI-to-PCI Bridge Specification, section 9.1). */
  #intx(bus: PciBus, device: number, pin: number): IrqLine {
    if (!bus.bridge) return this.#host.intx(device, pin);
    const above = this.#placed.get(bus.bridge);
    if (!above) throw new Error(`The bridge ${bus.bridge.name} is not in the machine.`);
    return this.#intx(above.bus, above.devfn >> 3, ((pin - 1 + device) % 4) + 1);
  }

  /** Every function with its place, in the order of a depth-first walk. */
  *walk(bus = this.rootBus, number = 0): Generator<{ function: PciFunction; bus: number; devfn: number; on: PciBus }> {
    for (const devfn of [...bus.functions.keys()].sort((a, b) => a - b)) {
      const each = bus.functions.get(devfn) as PciFunction;
      yield { function: each, bus: number, devfn, on: bus };
      if (each instanceof PciBridge && this.#buses.has(each)) yield* this.walk(this.busBehind(each), each.secondaryBus);
    }
  }

  /** Does `action`, then brings up to date what is decoded, once. */
  hold(action: () => void): void {
    this.#held++;
    try {
      action();
    } finally {
      this.#held--;
      if (this.#held === 0 && this.#stale) this.update();
    }
  }

  /** Brings the index of configuration spaces and all mappings in line with the registers. */
  update(): void {
    if (this.#held > 0) {
      this.#stale = true;
      return;
    }
    this.#stale = false;
    this.#updateIndex();
    // First what goes, then what comes: BARs may change places with each other.
    const wanted = [...this.#placed.values()].map((placed) => ({ placed, bases: this.#bases(placed) }));
    for (const { placed, bases } of wanted) {
      for (const [bar, { base, undo }] of placed.decoded) {
        if (bases.get(bar) === base) continue;
        undo();
        placed.decoded.delete(bar);
      }
    }
    for (const { placed, bases } of wanted) {
      for (const [bar, base] of bases) if (!placed.decoded.has(bar)) this.#decode(placed, bar, base);
    }
  }

  #updateIndex(): void {
    const index = new Map<number, number>();
    this.#byAddress.clear();
    const seen = new Set<number>();
    const enter = (bus: PciBus, number: number) => {
      if (seen.has(number)) return;
      seen.add(number);
      for (const [devfn, each] of bus.functions) {
        index.set((number << 8) | devfn, (this.#placed.get(each) as Placed).page);
        this.#byAddress.set((number << 8) | devfn, each);
        // Bus 0 behind a bridge means that nobody has numbered it yet.
        if (each instanceof PciBridge && each.secondaryBus > 0 && each.linkActive)
          enter(this.busBehind(each), each.secondaryBus);
      }
    };
    enter(this.rootBus, 0);
    this.#host.pages.setIndex(index);
  }

  #bases(placed: Placed): Map<Bar, number> {
    const bases = new Map<Bar, number>();
    for (const bar of placed.function.bars) {
      const base = placed.function.barAddress(bar);
      if (base !== undefined && this.#reaches(placed.bus, bar, base)) bases.set(bar, base);
    }
    return bases;
  }

  #reaches(bus: PciBus, bar: Bar, base: number): boolean {
    const { bridge } = bus;
    if (!bridge) return true;
    if (!bridge.linkActive || !bridge.passes(bar.kind === 'io' ? 'io' : 'memory', base, bar.size)) return false;
    return this.#reaches((this.#placed.get(bridge) as Placed).bus, bar, base);
  }

  #decode(placed: Placed, bar: Bar, base: number): void {
    const { pio, mmio } = this.#host;
    const undo: (() => void)[] = [];
    try {
      if (bar.memory) undo.push(this.#host.mapMemory(bar, base));
      else undo.push((bar.kind === 'io' ? pio : mmio).insert(base, bar.region));
      if (bar.doorbells.length > 0) undo.push(this.#host.connectDoorbells(bar, base));
    } catch (error) {
      for (const each of undo) each();
      this.#host.fault(`BAR ${bar.index} of ${placed.function.name} at ${hex(base)}: ${(error as Error).message}`);
      return;
    }
    placed.decoded.set(bar, {
      base,
      undo: () => {
        for (const each of undo.reverse()) each();
      },
    });
  }

  readConfig(bdf: number, offset: number, size: number): number {
    return this.#host.pages.read(bdf, offset, size);
  }

  writeConfig(bdf: number, offset: number, size: number, value: number): void {
    this.#byAddress.get(bdf)?.config.write(offset, size, value);
  }

  /**
   * Configuration mechanism 1 (PCI 3.0, section 3.2.2.3.2): the data ports at 0xcfc.
   * @param address gives what the latch at 0xcf8 holds.
   */
  configData(address: () => number): Region {
    return {
      name: 'pci-config-data',
      size: 4,
      read: (offset, size) => {
        const at = address();
        if (!(at & CONFIG_ADDRESS_ENABLE)) return 0xffffffff >>> (32 - 8 * size);
        return this.readConfig((at >>> 8) & 0xffff, (at & 0xfc) + offset, size);
      },
      write: (offset, size, value) => {
        const at = address();
        if (at & CONFIG_ADDRESS_ENABLE) this.writeConfig((at >>> 8) & 0xffff, (at & 0xfc) + offset, size, value);
      },
    };
  }

  /** PCI Express's enhanced mechanism: 4 KiB of memory for each function (PCI Express 4.0, section 7.2.2). */
  ecam(): Region {
    const split = (offset: number, size: number) => (offset & 3) + size > 4;
    const read = (offset: number, size: number): number => {
      if (split(offset, size)) {
        let value = 0;
        for (let i = 0; i < size; i++) value |= read(offset + i, 1) << (8 * i);
        return value >>> 0;
      }
      return this.readConfig(offset >>> 12, offset & 0xfff, size);
    };
    const write = (offset: number, size: number, value: number): void => {
      if (split(offset, size)) {
        for (let i = 0; i < size; i++) write(offset + i, 1, (value >>> (8 * i)) & 0xff);
      } else this.writeConfig(offset >>> 12, offset & 0xfff, size, value);
    };
    return { name: 'pci-ecam', size: ECAM_SIZE, read, write };
  }

  /** Every function as after power-on. */
  reset(): void {
    this.hold(() => {
      for (const each of this.#placed.keys()) each.reset();
      this.#stale = true;
    });
  }
}
