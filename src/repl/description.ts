/** The machine as it is now, as a description that makes it again: what it was made from, with what was done since. */
import type { DeviceDescription, DiskDescription, MachineDescription, NetDescription } from '../client/description.ts';
import { streams } from '../client/device_schema.ts';
import type { PciDevice } from '../client/live.ts';
import type { DiskReport, MachineClient, NetReport } from '../client/machine_client.ts';
import { backendOf } from '../client/notes.ts';
import type { VirtioMemReport } from '../client/virtio_mem.ts';

/**
 * Asks a machine what it is now.
 *
 * Where DIMMs and NVDIMMs stand is left to the next start, which fills its slots in the order of the lists.
 */
export async function describeNow(machine: MachineClient): Promise<MachineDescription> {
  const { description } = machine;
  const [{ cpus, memory, nvdimms, pci }, disks, nets] = await Promise.all([
    machine.plugged(),
    machine.disks(),
    machine.nets(),
  ]);
  const devicesComeAndGo = description.machine !== 'minimal';
  const byId = new Map(pci.devices.map((device) => [device.id, device]));
  return {
    ...description,
    cpus: { ...description.cpus, count: cpus.present.length },
    dimms: memory.dimms
      .toSorted((a, b) => a.address - b.address)
      .map(({ kind: _, slot: __, address: ___, id, size, node, ...backend }) => ({ id, size, node, ...backend })),
    nvdimms: nvdimms.map(({ id, file, size, labelSize, readonly, share, node }) => ({
      ...{ id, file, size, labelSize, readonly, share, node },
    })),
    disks: disks.map((report, index) => diskNow(report, optionsOf(byId.get(report.name)) ?? description.disks[index])),
    nets: nets.map((report, index) => netNow(report, optionsOf(byId.get(report.name)) ?? description.nets[index])),
    ...(devicesComeAndGo && { rng: false }),
    devices: withSizes(
      devicesComeAndGo ? othersNow(description.devices, pci.devices) : description.devices,
      memory.virtio,
    ),
  };
}

/** Devices of which each virtio-mem has what it is asked for now; reports are in the order of the devices. */
function withSizes(devices: readonly DeviceDescription[], reports: readonly VirtioMemReport[]): DeviceDescription[] {
  const left = [...reports];
  return devices.map((device) => {
    if (device.type !== 'virtio-mem') return device;
    const found = left.findIndex(({ id }) => device.id === undefined || id === device.id);
    const [report] = found < 0 ? [] : left.splice(found, 1);
    return report ? { ...device, id: report.id, requested: report.requested } : device;
  });
}

/** Options of a device as they were given, without what says which device it is. */
function optionsOf(device: PciDevice | undefined): Record<string, unknown> | undefined {
  if (!device?.plug) return undefined;
  const { kind: _, type: __, ...options } = device.plug as Record<string, unknown>;
  return options;
}

const someOf = <T extends object>(limits: T) => (Object.keys(limits).length > 0 ? { throttle: limits } : {});

function diskNow({ name, file, format, probed, throttle }: DiskReport, options: object): DiskDescription {
  const { throttle: _, format: __, ...rest } = options as DiskDescription;
  return { id: name, ...rest, file, ...(!probed && { format }), ...someOf(throttle) };
}

function netNow(report: NetReport, options: object): NetDescription {
  const { name: id, mac, link, throttle, queues, hostForwards } = report;
  const { mtu, packed, port } = options as NetDescription;
  return {
    ...{ id, mac, link, packed, queues, restrict: false, ...backendOf(report) },
    ...{ hostForwards: [...hostForwards], ...someOf(throttle) },
    ...(mtu !== undefined && { mtu }),
    ...(port !== undefined && { port }),
  };
}

function othersNow(start: readonly DeviceDescription[], present: readonly PciDevice[]): DeviceDescription[] {
  const others = present.filter(({ type }) => type !== 'virtio-blk' && type !== 'virtio-net');
  // Consoles and ports of the start are one device, of which there is no more than their names.
  const together = new Set(others.filter(({ plug }) => !plug).flatMap((each) => each.streams.map(({ name }) => name)));
  const inOrder = ['virtio-console', 'virtio-port'].flatMap((type) => start.filter((device) => device.type === type));
  return [
    ...others.flatMap(({ plug }) => {
      if (!plug) return [];
      const { kind: _, ...device } = plug;
      return [device as DeviceDescription];
    }),
    ...streams(start).flatMap(({ name }, index) => (together.has(name) ? [inOrder[index]] : [])),
  ];
}
