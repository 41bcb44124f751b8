import { BRIDGE, PciBridge } from '../../devices/pci/bridge.ts';
import { PCI, PCI_COMMAND_IO, PCI_COMMAND_MASTER, PCI_COMMAND_MEMORY } from '../../devices/pci/config_space.ts';
import type { Bar, PciFunction } from '../../devices/pci/function.ts';
import { HotplugPort } from '../../devices/pci/hotplug_port.ts';
import type { PciBus, PciRoot } from './root.ts';

/** Addresses that the root bus may give out; `limit` is the first that it may not. */
export interface Aperture {
  /** First that is free. */
  base: number;
  readonly limit: number;
}

export interface Apertures {
  readonly io: Aperture;
  readonly memory: Aperture;
  readonly memory64: Aperture;
}

/** What stays free behind each port for devices that are plugged in later; of memory, for each bus number. */
const HOTPLUG_IO = 0x1000;
const HOTPLUG_MEMORY = 2 * 2 ** 20;
const HOTPLUG_MEMORY_64 = 2 ** 30;
const MEMORY_GRANULE = 2 ** 20;
const IO_GRANULE = 0x1000;
/** Interrupt Line of a function that reaches the IOAPIC alone. */
const NO_ISA_IRQ = 0xff;

const alignUp = (value: number, alignment: number) => Math.ceil(value / alignment) * alignment;

export class OutOfAddresses extends Error {}

function take(aperture: Aperture, size: number, alignment: number, what: string): number {
  const base = alignUp(aperture.base, alignment);
  if (base + size > aperture.limit) {
    throw new OutOfAddresses(
      `There is no room for ${what}: it needs 0x${size.toString(16)} bytes, and the window ends at 0x${aperture.limit.toString(16)}.`,
    );
  }
  aperture.base = base + size;
  return base;
}

/**
 * Does a firmware's part: numbers the buses, gives every BAR an address and every bridge its windows, largest
 * first, and turns decoding on.
 * @throws OutOfAddresses naming what does not fit.
 */
export function assignResources(root: PciRoot, apertures: Apertures): void {
  root.hold(() => {
    numberBuses(root, root.rootBus, 0);
    const { io, memory, memory64 } = apertures;
    assignBus(root, root.rootBus, { io: { ...io }, memory: { ...memory }, memory64: { ...memory64 } });
    for (const { function: each } of root.walk()) {
      if (each.config.read(PCI.INTERRUPT_PIN, 1)) each.config.write(PCI.INTERRUPT_LINE, 1, NO_ISA_IRQ);
      each.config.write(PCI.COMMAND, 2, each.command | decoding(each));
    }
  });
}

function decoding(each: PciFunction): number {
  const io = each.bars.some(({ kind }) => kind === 'io');
  const memory = each.bars.some(({ kind }) => kind !== 'io');
  if (each instanceof PciBridge) return PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
  return (io ? PCI_COMMAND_IO : 0) | (memory ? PCI_COMMAND_MEMORY : 0);
}

const reservedBuses = (bridge: PciBridge): number => (bridge instanceof HotplugPort ? bridge.reservedBuses : 1);

/** Depth first. @returns the highest number below `bus`. */
function numberBuses(root: PciRoot, bus: PciBus, number: number): number {
  let last = number;
  for (const [, each] of [...bus.functions].sort(([a], [b]) => a - b)) {
    if (!(each instanceof PciBridge)) continue;
    const secondary = last + 1;
    each.config.write(BRIDGE.PRIMARY_BUS, 1, number);
    each.config.write(BRIDGE.SECONDARY_BUS, 1, secondary);
    last = Math.max(numberBuses(root, root.busBehind(each), secondary), secondary + reservedBuses(each) - 1);
    each.config.write(BRIDGE.SUBORDINATE_BUS, 1, last);
  }
  return last;
}

/** BARs by falling size, so that none of them leaves a gap; then the windows of bridges. */
function assignBus(root: PciRoot, bus: PciBus, apertures: Apertures): void {
  const bars: { function: PciFunction; bar: Bar }[] = [];
  for (const each of bus.functions.values()) for (const bar of each.bars) bars.push({ function: each, bar });
  bars.sort((a, b) => b.bar.size - a.bar.size);
  for (const { function: each, bar } of bars) {
    const what = `BAR ${bar.index} of ${each.name}`;
    const register = PCI.BASE_ADDRESS_0 + 4 * bar.index;
    if (bar.kind === 'io') {
      each.config.write(register, 4, take(apertures.io, bar.size, bar.size, what));
      continue;
    }
    const wide = bar.kind === 'memory64' && bar.prefetchable;
    const base = take(wide ? apertures.memory64 : apertures.memory, bar.size, bar.size, what);
    each.config.write(register, 4, base % 2 ** 32);
    if (bar.kind === 'memory64') each.config.write(register + 4, 4, Math.floor(base / 2 ** 32));
  }
  for (const each of bus.functions.values()) {
    if (each instanceof PciBridge) assignBridge(root, bus, each, apertures);
  }
}

/** @param bus on which the bridge stands. */
function assignBridge(root: PciRoot, bus: PciBus, bridge: PciBridge, apertures: Apertures): void {
  const { config } = bridge;
  const inner: Apertures = {
    io: { base: alignUp(apertures.io.base, IO_GRANULE), limit: apertures.io.limit },
    memory: { base: alignUp(apertures.memory.base, MEMORY_GRANULE), limit: apertures.memory.limit },
    memory64: { base: alignUp(apertures.memory64.base, MEMORY_GRANULE), limit: apertures.memory64.limit },
  };
  const io = inner.io.base;
  const memory = inner.memory.base;
  const memory64 = alignUp(inner.memory64.base, HOTPLUG_MEMORY_64);
  inner.memory64.base = memory64;
  assignBus(root, root.busBehind(bridge), inner);
  // Port addresses are few: a bridge that finds none left, or is a switch's, has no window, as with any firmware.
  const spare = bus === root.rootBus ? HOTPLUG_IO : 0;
  const ioEnd = Math.max(alignUp(inner.io.base, IO_GRANULE), io + spare);
  if (ioEnd > io && ioEnd <= apertures.io.limit) {
    apertures.io.base = ioEnd;
    config.write(BRIDGE.IO_BASE, 1, io >> 8);
    config.write(BRIDGE.IO_LIMIT, 1, (ioEnd - 1) >> 8);
  } else {
    config.write(BRIDGE.IO_BASE, 1, 0xf0);
    config.write(BRIDGE.IO_LIMIT, 1, 0x00);
  }
  const memoryEnd = Math.max(
    alignUp(inner.memory.base, MEMORY_GRANULE),
    memory + HOTPLUG_MEMORY * reservedBuses(bridge),
  );
  take(apertures.memory, memoryEnd - apertures.memory.base, 1, `the memory window of ${bridge.name}`);
  config.write(BRIDGE.MEMORY_BASE, 2, (memory / 2 ** 16) & 0xfff0);
  config.write(BRIDGE.MEMORY_LIMIT, 2, ((memoryEnd - 1) / 2 ** 16) & 0xfff0);
  const end64 = Math.max(alignUp(inner.memory64.base, MEMORY_GRANULE), memory64 + HOTPLUG_MEMORY_64);
  take(apertures.memory64, end64 - apertures.memory64.base, 1, `the 64-bit memory window of ${bridge.name}`);
  config.write(BRIDGE.PREFETCH_BASE, 2, ((memory64 % 2 ** 32) / 2 ** 16) & 0xfff0);
  config.write(BRIDGE.PREFETCH_LIMIT, 2, (((end64 - 1) % 2 ** 32) / 2 ** 16) & 0xfff0);
  config.write(BRIDGE.PREFETCH_BASE_UPPER, 4, Math.floor(memory64 / 2 ** 32));
  config.write(BRIDGE.PREFETCH_LIMIT_UPPER, 4, Math.floor((end64 - 1) / 2 ** 32));
}
