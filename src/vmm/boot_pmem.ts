/** Persistent memory of the start, NVDIMMs and virtio-pmems: its files, and where they are mapped. Main thread. */
import type { MachineDescription } from '../client/description.ts';
import type { PlugRequest } from '../client/live.ts';
import type { NvdimmDevice } from '../client/nvdimm.ts';
import type { MappedPmem } from './attach_pmem.ts';
import type { BootNvdimm } from './hotplug/nvdimms.ts';
import type { GuestRam } from './memory.ts';
import { nvdimmRanges, pmemRanges } from './memory_layout.ts';
import { openPmem, pmemSize } from './nvdimm_file.ts';

const pmemsOf = ({ devices }: MachineDescription) => devices.filter((device) => device.type === 'virtio-pmem');

/**
 * A description whose NVDIMMs and virtio-pmems have the sizes of their files; virtio-pmem and virtio-mem devices
 * also have their names, by which their memory is found.
 * @throws NemuError NVDIMM_FILE
 */
export function withPmemSizes(description: MachineDescription): MachineDescription {
  const taken = new Set(description.devices.flatMap((device) => ('id' in device && device.id) || []));
  const name = (prefix: string) => {
    let index = 0;
    while (taken.has(`${prefix}${index}`)) index++;
    taken.add(`${prefix}${index}`);
    return `${prefix}${index}`;
  };
  return {
    ...description,
    nvdimms: description.nvdimms.map((nvdimm) => ({ ...nvdimm, size: pmemSize(nvdimm) })),
    devices: description.devices.map((device) => {
      if (device.type === 'virtio-mem') return { ...device, id: device.id ?? name('vm') };
      if (device.type !== 'virtio-pmem') return device;
      const size = pmemSize({ ...device, labelSize: 0, readonly: false });
      return { ...device, id: device.id ?? name('pmem'), size };
    }),
  };
}

/** @returns the descriptor of its file, which is the memory's. @throws NemuError NVDIMM_FILE */
export function mapNvdimm(ram: GuestRam, device: NvdimmDevice): number {
  const fd = openPmem(device);
  ram.plugFile(device, fd, device.share && !device.readonly);
  return fd;
}

/** @throws NemuError NVDIMM_FILE */
export function mapBootNvdimms(description: MachineDescription, ram: GuestRam): BootNvdimm[] {
  const places = nvdimmRanges(description, ram.handle.ranges);
  return description.nvdimms.map(({ id, ...nvdimm }, slot) => {
    const { gpa: address, size } = places[slot];
    const device: NvdimmDevice = { kind: 'nvdimm', id: id ?? `nvdimm${slot}`, slot, address, ...nvdimm, size };
    return { device, fd: mapNvdimm(ram, device) };
  });
}

/** @throws NemuError NVDIMM_FILE */
export function mapBootPmems(description: MachineDescription, ram: GuestRam): MappedPmem[] {
  const places = pmemRanges(description, ram.handle.ranges);
  return pmemsOf(description).map(({ id = '', ...pmem }, index) => {
    const { gpa: address, size } = places[index];
    return { id, address, size, fd: mapPmem(ram, { address, size }, pmem), lasting: pmem.share };
  });
}

/** @returns the descriptor of its file, which is the memory's. @throws NemuError NVDIMM_FILE */
export function mapPmem(
  ram: GuestRam,
  place: { readonly address: number; readonly size: number },
  { file, share }: { readonly file: string; readonly share: boolean },
): number {
  const fd = openPmem({ file, size: place.size, labelSize: 0, readonly: false, share });
  ram.plugFile(place, fd, share);
  return fd;
}

/** The request with the size that its file says, where one is behind it. @throws NemuError NVDIMM_FILE, PLUG */
export function withPmemSize(request: PlugRequest): PlugRequest {
  if (request.kind === 'nvdimm') return { ...request, size: pmemSize(request) };
  if (request.kind !== 'pci' || request.type !== 'virtio-pmem') return request;
  return { ...request, size: pmemSize({ ...request, labelSize: 0, readonly: false }) };
}
