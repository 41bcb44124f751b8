/** A device as it is now, as options that make the same again: what it was made with, with what was changed since. */
import type { DiskDescription, NetDescription } from './description.ts';
import type { LiveDevice, PciDevice, PlugInput } from './live.ts';
import type { DiskReport, MachineClient, NetReport } from './machine_client.ts';
import { backendOf } from './notes.ts';

/** Options of a device as they were given, without what says which device it is. */
export function optionsOf(device: PciDevice | undefined): Record<string, unknown> | undefined {
  if (!device?.plug) return undefined;
  const { kind: _, type: __, ...options } = device.plug as Record<string, unknown>;
  return options;
}

const someOf = <T extends object>(limits: T) => (Object.keys(limits).length > 0 ? { throttle: limits } : {});

export function diskNow({ name, file, format, probed, throttle }: DiskReport, options: object): DiskDescription {
  const { throttle: _, format: __, ...rest } = options as DiskDescription;
  return { id: name, ...rest, file, ...(!probed && { format }), ...someOf(throttle) };
}

export function netNow(report: NetReport, options: object): NetDescription {
  const { name: id, mac, link, throttle, queues, hostForwards } = report;
  const { mtu, packed, port } = options as NetDescription;
  return {
    ...{ id, mac, link, packed, queues, restrict: false, ...backendOf(report) },
    ...{ hostForwards: [...hostForwards], ...someOf(throttle) },
    ...(mtu !== undefined && { mtu }),
    ...(port !== undefined && { port }),
  };
}

/**
 * What plugs a device again as it is now, in the same place; undefined for one that no request makes. Asked for before
 * the device goes.
 * @param id of the machine. @throws NemuError where the machine does not answer.
 */
export async function plugNow(machine: MachineClient, id: string): Promise<PlugInput | undefined> {
  const { cpus, memory, nvdimms, pci } = await machine.plugged();
  const all: LiveDevice[] = [...cpus.present, ...memory.dimms, ...nvdimms, ...pci.devices];
  const device = all.find((each) => each.id === id);
  if (device?.kind !== 'pci') return device && plugOf(device);
  const { plug } = device;
  if (!plug) return undefined;
  switch (device.type) {
    case 'virtio-blk': {
      const report = (await machine.disks()).find(({ name }) => name === id);
      return report ? { kind: 'pci', type: 'virtio-blk', ...diskNow(report, optionsOf(device) ?? {}) } : plug;
    }
    case 'virtio-net': {
      const report = (await machine.nets()).find(({ name }) => name === id);
      if (!report) return plug;
      const { type: backend, ...options } = netNow(report, optionsOf(device) ?? {});
      return { kind: 'pci', type: 'virtio-net', backend, ...options };
    }
    case 'virtio-mem': {
      const report = memory.virtio.find((each) => each.id === id);
      return report ? ({ ...plug, requested: report.requested } as PlugInput) : plug;
    }
    default:
      return plug;
  }
}

function plugOf(device: Exclude<LiveDevice, PciDevice>): PlugInput | undefined {
  if (device.kind === 'cpu') return { kind: 'cpu', index: device.index };
  if (device.kind === 'virtio-mem') return undefined;
  if (device.kind === 'nvdimm') {
    const { id, slot, file, size, labelSize, readonly, share, node } = device;
    return { kind: 'nvdimm', id, slot, file, size, labelSize, readonly, share, node };
  }
  return device;
}
