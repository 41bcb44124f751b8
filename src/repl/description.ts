/** The machine as it is now, as a description that makes it again: what it was made from, with what was done since. */
import type { DeviceDescription, MachineDescription } from '../client/description.ts';
import { diskNow, netNow, optionsOf } from '../client/device_now.ts';
import { streams } from '../client/device_schema.ts';
import type { PciDevice } from '../client/live.ts';
import type { MachineClient } from '../client/machine_client.ts';
import type { VirtioMemReport } from '../client/virtio_mem.ts';

/**
 * Asks a machine what it is now.
 *
 * @param options `formats` tells those of disks that were found out, too: to compare with, and not to make one of.
 *
 * Where DIMMs and NVDIMMs stand is left to the next start, which fills its slots in the order of the lists.
 */
export async function describeNow(
  machine: MachineClient,
  { formats = false }: { readonly formats?: boolean } = {},
): Promise<MachineDescription> {
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
    cpus: cpusNow(description.cpus, cpus.present.length),
    dimms: memory.dimms
      .toSorted((a, b) => a.address - b.address)
      .map(({ kind: _, slot: __, address: ___, id, size, node, ...backend }) => ({ id, size, node, ...backend })),
    nvdimms: nvdimms.map(({ id, file, size, labelSize, readonly, share, node }) => ({
      ...{ id, file, size, labelSize, readonly, share, node },
    })),
    disks: disks.map((report, index) => ({
      ...diskNow(report, optionsOf(byId.get(report.name)) ?? description.disks[index]),
      ...(formats && { format: report.format }),
    })),
    nets: nets.map((report, index) => netNow(report, optionsOf(byId.get(report.name)) ?? description.nets[index])),
    ...(devicesComeAndGo && { rng: false }),
    devices: withSizes(
      devicesComeAndGo ? othersNow(description.devices, pci.devices) : description.devices,
      memory.virtio,
    ),
  };
}

type Pin = NonNullable<MachineDescription['cpus']['pin']>;

/** Pinning for another number of vCPUs: those that come later are pinned to nothing where it is of those of the start. */
export const pinningFor = (pin: Pin, { count, max = count }: { readonly count: number; readonly max?: number }): Pin =>
  pin.length === max ? pin : Array.from({ length: count }, (_, index) => pin[index] ?? []);

function cpusNow({ pin, ...cpus }: MachineDescription['cpus'], count: number): MachineDescription['cpus'] {
  return { ...cpus, count, ...(pin && { pin: pinningFor(pin, { ...cpus, count }) }) };
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
