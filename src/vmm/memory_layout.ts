import { type DeviceDescription, DIMM_ALIGNMENT } from '../client/description.ts';
import type { VirtioMemDescription } from '../client/device_schema.ts';
import type { VirtioMemDevice } from '../client/virtio_mem.ts';

/** Where RAM stands in guest-physical space. Sizes and addresses in bytes. */
export interface RamRange {
  readonly gpa: number;
  readonly size: number;
}

export const GiB = 2 ** 30;
export const MiB = 2 ** 20;

/** First address above the hole that devices, the IOAPIC, the local APICs and firmware use. */
export const FOUR_GIB = 4 * GiB;
/** RAM ends below `limit`, and at `split` when more than that is asked for. q35 puts ECAM at 0xb0000000. */
const LOW_RAM = {
  q35: { limit: 0xb0000000, split: 0x80000000 },
  pc: { limit: 0xe0000000, split: 0xc0000000 },
  minimal: { limit: 0xb0000000, split: 0x80000000 },
} as const;

/** RAM below and above the hole, as QEMU's machine of this type splits it. */
export function ramLayout(size: number, machine: keyof typeof LOW_RAM = 'q35'): RamRange[] {
  const { limit, split } = LOW_RAM[machine];
  if (size < limit) return [{ gpa: 0, size }];
  return [
    { gpa: 0, size: split },
    { gpa: FOUR_GIB, size: size - split },
  ];
}

/** End of RAM below 4 GiB. */
export const lowRamEnd = (ranges: readonly RamRange[]): number => ranges[0].size;
/** End of guest-physical RAM. */
export const ramEnd = (ranges: readonly RamRange[]): number => Math.max(...ranges.map(({ gpa, size }) => gpa + size));

/** RAM of one NUMA node, in guest-physical space. */
export interface NodeRange extends RamRange {
  readonly node: number;
}

/**
 * Which node each piece of RAM belongs to: nodes follow each other from address 0 on, around the hole.
 * @param sizes bytes of each node; together as many as the ranges have.
 */
export function nodeRanges(sizes: readonly number[], ranges: readonly RamRange[]): NodeRange[] {
  const out: NodeRange[] = [];
  let [index, offset] = [0, 0];
  for (const [node, size] of sizes.entries()) {
    for (let rest = size; rest > 0; ) {
      const range = ranges[index];
      const piece = Math.min(rest, range.size - offset);
      out.push({ node, gpa: range.gpa + offset, size: piece });
      rest -= piece;
      offset += piece;
      if (offset === range.size) [index, offset] = [index + 1, 0];
    }
  }
  return out;
}

/** What of a machine stands above its RAM. */
export interface RoomDescription {
  readonly memory: { readonly size: number; readonly max?: number | undefined };
  /** Those of the start; each has its size once its file was looked at. */
  readonly nvdimms: readonly { readonly size?: number | undefined }[];
  readonly devices: readonly DeviceDescription[];
}

const alignUp = (value: number, to: number) => Math.ceil(value / to) * to;

/** Addresses beside those that the limit needs: for gaps of alignment, and for those that a guest may have kept. */
const SPARE = 8 * GiB;

/** A device with its region, and what is described of it. */
export interface VirtioMemRegion extends VirtioMemDevice {
  readonly description: VirtioMemDescription;
}

/** Where memory can be plugged, on a boundary of 1 GiB as in QEMU, and behind that what is there from the start. */
function room({ memory, nvdimms, devices }: RoomDescription, ranges: readonly RamRange[]) {
  const gpa = alignUp(Math.max(FOUR_GIB, ramEnd(ranges)), GiB);
  const pluggable = (memory.max ?? memory.size) - memory.size;
  let end = gpa + (pluggable > 0 ? alignUp(pluggable, DIMM_ALIGNMENT) + SPARE : 0);
  const take = (size = 0, alignment = DIMM_ALIGNMENT): RamRange => {
    const range = { gpa: alignUp(end, alignment), size };
    // Linux takes no two kinds of memory into one section.
    end = alignUp(range.gpa + size, DIMM_ALIGNMENT);
    return range;
  };
  const fixed = nvdimms.map(({ size }) => take(size));
  // DIMMs do not go where devices have memory of their own.
  const endOfDimms = end;
  const virtioMem = devices
    .filter((device) => device.type === 'virtio-mem')
    .map((description): VirtioMemRegion => {
      const { id = '', size, block, node } = description;
      const { gpa: address } = take(size, Math.max(DIMM_ALIGNMENT, block));
      return { kind: 'virtio-mem', id, address, size, block, node, description };
    });
  const endOfHotplug = end;
  const pmems = devices.flatMap((device) => (device.type === 'virtio-pmem' ? [take(device.size)] : []));
  return { gpa, endOfDimms, fixed, virtioMem, endOfHotplug, pmems, last: end };
}

/** The room for DIMMs, and the NVDIMMs of the start. Undefined without any. */
export function dimmRegion(description: RoomDescription, ranges: readonly RamRange[]): RamRange | undefined {
  const { gpa, endOfDimms } = room(description, ranges);
  return endOfDimms > gpa ? { gpa, size: endOfDimms - gpa } : undefined;
}

/**
 * What may come to be memory of the guest, of which SRAT tells: the room for DIMMs and NVDIMMs, and the regions of
 * virtio-mem devices. Undefined without any. A virtio-pmem is none: Linux would keep 64 MiB for bounce buffers for it.
 */
export function hotplugRegion(description: RoomDescription, ranges: readonly RamRange[]): RamRange | undefined {
  const { gpa, endOfHotplug } = room(description, ranges);
  return endOfHotplug > gpa ? { gpa, size: endOfHotplug - gpa } : undefined;
}

/** Where the NVDIMMs of the start are, in their order. */
export const nvdimmRanges = (description: RoomDescription, ranges: readonly RamRange[]): RamRange[] =>
  room(description, ranges).fixed;

/** Where the memory of each virtio-pmem is, in their order. */
export const pmemRanges = (description: RoomDescription, ranges: readonly RamRange[]): RamRange[] =>
  room(description, ranges).pmems;

/** The virtio-mem devices, which have their names by now, each with its region, in their order. */
export const virtioMemRegions = (description: RoomDescription, ranges: readonly RamRange[]): VirtioMemRegion[] =>
  room(description, ranges).virtioMem;

/** End of guest-physical memory, what stands above RAM included. */
export function memoryEnd(description: RoomDescription, ranges: readonly RamRange[]): number {
  const { gpa, last } = room(description, ranges);
  return last > gpa ? last : ramEnd(ranges);
}
