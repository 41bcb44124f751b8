/** How much of a machine's room for memory is taken. */
import type { MachineDescription } from '../client/description.ts';
import type { PluggedReport } from '../client/live.ts';

export interface MemoryRoom {
  /** Slots with a DIMM or an NVDIMM in them. */
  readonly taken: number;
  /** Those for what is plugged, and one for each NVDIMM of the start. */
  readonly slots: number;
  /** Bytes that count towards the limit: all that virtio-mem devices may plug, but no NVDIMM of the start. */
  readonly used: number;
}

const sizeOf = (list: readonly { readonly size: number }[]) => list.reduce((sum, { size }) => sum + size, 0);

export function memoryRoom(
  { memory, nvdimms, pci }: PluggedReport,
  { nvdimms: ofStart }: Pick<MachineDescription, 'nvdimms'>,
): MemoryRoom {
  const names = new Set(ofStart.map(({ id }, slot) => id ?? `nvdimm${slot}`));
  const came = nvdimms.filter(({ id }) => !names.has(id));
  const pmem = pci.devices.flatMap(({ type, memory: at }) => (type === 'virtio-pmem' && at ? [at] : []));
  return {
    taken: memory.dimms.length + nvdimms.length,
    slots: (memory.slots ?? 0) + ofStart.length,
    used: memory.boot + sizeOf([...memory.dimms, ...came, ...memory.virtio, ...pmem]),
  };
}
