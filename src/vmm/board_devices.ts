/** The devices that a user asks for, at the start or while the machine runs: each by its description. */
import {
  asNet,
  type DeviceDescription,
  diskName,
  type MachineDescription,
  type NetDescription,
} from '../client/description.ts';
import { streams } from '../client/device_schema.ts';
import { NemuError } from '../client/errors.ts';
import type { PciPlug } from '../client/live.ts';
import type { Clock, GuestFault } from '../devices/device.ts';
import { I6300esb } from '../devices/i6300esb.ts';
import { PciePciBridge, PciPciBridge } from '../devices/pci/pci_bridge.ts';
import { UpstreamPort } from '../devices/pci/switch.ts';
import { VirtioPci } from '../devices/virtio/pci.ts';
import type { Attached, MadeVirtio } from './attach.ts';
import type { Extra } from './attach_extra.ts';
import type { MappedPmem, Pmems } from './attach_pmem.ts';
import type { MadeDevice, PciHotplug } from './hotplug/pci.ts';
import type { VirtioMemories } from './hotplug/virtio_mem.ts';
import type { PcPci } from './pci/pc.ts';
import type { SerialRings } from './serial_channel.ts';
import type { VirtioMmioBus } from './virtio_mmio_bus.ts';

export interface BoardDevicesOptions {
  readonly description: MachineDescription;
  readonly attached: Attached;
  readonly extra: Extra;
  readonly pmems: Pmems;
  /** Memory of those of the start. */
  readonly bootPmems: readonly MappedPmem[];
  readonly virtioMem: VirtioMemories;
  readonly clock: Clock;
  readonly fault: GuestFault;
  readonly watchdog: (action: 'reset' | 'poweroff' | 'pause' | 'nmi' | 'none') => void;
}

type PmemPlug = Extract<PciPlug, { type: 'virtio-pmem' }>;

/** Name of the one device that has all consoles and ports of the start. */
const CONSOLES = 'serial';

/** Devices of the start but consoles and ports, each as it would be plugged, in the order of their places. */
function* bootPlugs({ disks, nets, rng, devices }: MachineDescription): Generator<PciPlug & { id?: string }> {
  const brings = ({ type }: DeviceDescription) => type === 'pcie-switch' || type === 'pci-bridge';
  // Their places are there before what stands in them.
  for (const device of devices.filter(brings)) yield { kind: 'pci', ...device } as PciPlug;
  for (const [index, disk] of disks.entries()) {
    yield { kind: 'pci', type: 'virtio-blk', ...disk, id: disk.id ?? diskName(index) };
  }
  for (const [index, { type, ...net }] of nets.entries()) {
    yield { kind: 'pci', type: 'virtio-net', backend: type, ...net, id: net.id ?? `net${index}` };
  }
  if (rng) yield { kind: 'pci', type: 'virtio-rng' };
  for (const device of devices.filter((each) => !brings(each))) {
    if (device.type !== 'virtio-console' && device.type !== 'virtio-port') yield { kind: 'pci', ...device };
  }
}

/** A virtio device of those that every machine can have; undefined for one that is no virtio device. */
function makeVirtio(
  { attached, extra, pmems, bootPmems, virtioMem }: BoardDevicesOptions,
  plug: PciPlug,
  id: string,
  address?: number,
): MadeVirtio | undefined {
  switch (plug.type) {
    case 'virtio-blk':
      return attached.disk(plug, id);
    case 'virtio-net': {
      const { kind: _, type: __, ...options } = plug;
      return attached.net(asNet(options) as NetDescription, id);
    }
    case 'virtio-rng':
      return attached.rng(id);
    case 'virtio-pmem': {
      const mapped = bootPmems.find((each) => each.id === id);
      return mapped && pmems.open(mapped);
    }
    case 'virtio-mem':
      return virtioMem.make(id, plug, address);
    case 'virtio-balloon':
    case 'virtio-console':
    case 'virtio-port':
      return extra.make(plug, id);
    default:
      return undefined;
  }
}

function virtioOnPci(made: MadeVirtio, fault: GuestFault): MadeDevice {
  const { device, packed } = made;
  return {
    make: (slot, started) => new VirtioPci(device, slot, { packed, fault, started }),
    tellsStart: true,
    ...(made.kept && { kept: () => made.kept?.() }),
    settle: (done) => made.settle(done),
    close: () => made.close(),
  };
}

/** Persistent memory that is plugged: there is nothing of it before the main thread has mapped its file. */
function pmemOnPci({ pmems, fault }: BoardDevicesOptions, plug: PmemPlug, id: string, address: number): MadeDevice {
  pmems.requireFree();
  let made: MadeDevice | undefined;
  return {
    prepared: ({ fd }) => {
      if (fd === undefined) throw new Error(`${plug.file} is not open.`);
      const mapped = { id, address, size: plug.size ?? 0, fd, lasting: plug.share };
      made = virtioOnPci(pmems.open(mapped), fault);
    },
    make: (...parts) => (made as MadeDevice).make(...parts),
    tellsStart: true,
    settle: (done) => (made ? made.settle(done) : done()),
    close: () => made?.close(),
  };
}

/** Nothing of the host stands behind it. */
const PLAIN = { tellsStart: false, settle: (done: () => void) => done(), close: () => {} };

function makeOnPci(options: BoardDevicesOptions, plug: PciPlug, id: string, address?: number): MadeDevice {
  if (plug.type === 'virtio-pmem' && address !== undefined) return pmemOnPci(options, plug, id, address);
  const virtio = makeVirtio(options, plug, id, address);
  if (virtio) return virtioOnPci(virtio, options.fault);
  if (plug.type === 'i6300esb') {
    const { action } = plug;
    const parts = { clock: options.clock, expired: () => options.watchdog(action) };
    return { ...PLAIN, make: (slot) => new I6300esb(slot, { name: id, ...parts }) };
  }
  if (plug.type === 'pci-bridge') {
    const make: MadeDevice['make'] = (slot, _, { express }) =>
      express === undefined ? new PciPciBridge(id, slot) : new PciePciBridge(id, slot);
    return { ...PLAIN, make };
  }
  return { ...PLAIN, make: (slot) => new UpstreamPort(id, slot) };
}

/**
 * Puts the devices of the start on PCI, and has others come and go there.
 * @throws NemuError for what cannot be had.
 */
export function connectPci(
  options: BoardDevicesOptions,
  pci: PcPci,
  hotplug: PciHotplug,
  addStreams: (rings: Readonly<Record<string, SerialRings>>) => void,
): void {
  hotplug.connect({ pci, addStreams, make: (plug, id, address) => makeOnPci(options, plug, id, address) });
  for (const plug of bootPlugs(options.description)) hotplug.boot(plug);
  const ports = streams(options.description.devices);
  const [first] = options.description.devices.filter(
    (device) => device.type === 'virtio-console' || device.type === 'virtio-port',
  );
  if (!first) return;
  // One alone has its own name, as one that is plugged has.
  const id = ports.length === 1 ? ports[0].name : CONSOLES;
  const device = virtioOnPci(options.extra.consoles(id, ports), options.fault);
  hotplug.boot({ kind: 'pci', ...first }, { id, streams: ports, device });
}

/**
 * Puts the devices of the start in memory, side by side.
 * @throws NemuError DEVICE for what needs PCI.
 */
export function connectMmio(options: BoardDevicesOptions, bus: VirtioMmioBus): void {
  const { description, extra, fault } = options;
  for (const plug of bootPlugs(description)) {
    const made = makeVirtio(options, plug, plug.id ?? (plug.type === 'virtio-balloon' ? 'balloon' : 'rng'));
    if (!made || plug.port !== undefined) {
      const what = made ? `The place ${plug.port} of a ${plug.type}` : `The device ${plug.type}`;
      throw new NemuError('DEVICE', `${what} is one of PCI, and this machine has no PCI.`, {
        hint: 'Use --machine q35 or pc.',
      });
    }
    bus.addVirtio(made.device, { packed: made.packed, fault });
  }
  const ports = streams(description.devices);
  if (ports.length > 0) bus.addVirtio(extra.consoles(CONSOLES, ports).device, { fault });
}
