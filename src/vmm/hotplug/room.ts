import { DIMM_ALIGNMENT, type MachineDescription } from '../../client/description.ts';
import { NemuError } from '../../client/errors.ts';
import type { MemoryDevice } from '../../client/live.ts';
import type { NvdimmDevice } from '../../client/nvdimm.ts';
import { formatSize } from '../../client/sizes.ts';
import { dimmRegion, GiB, memoryEnd, type RamRange, ramEnd } from '../memory_layout.ts';

/** What stands in a slot. */
export type Module = MemoryDevice | NvdimmDevice;

/** What is in the way of others. */
type Occupant = Pick<Module, 'id' | 'address' | 'size'>;

/** What a module that is plugged asks for. */
export interface Place {
  readonly size: number;
  readonly id?: string | undefined;
  readonly slot?: number | undefined;
  readonly address?: number | undefined;
  readonly node?: number | undefined;
  readonly hugepages?: '2M' | '1G' | undefined;
  /** Slots that are free, but better left alone while there are others. */
  readonly avoid?: (slot: number) => boolean;
}

export interface RoomOptions {
  readonly description: Pick<MachineDescription, 'memory' | 'numa' | 'nvdimms' | 'devices'>;
  /** RAM at boot. */
  readonly ranges: readonly RamRange[];
  /** Width of the guest's physical addresses. */
  readonly physicalBits: number;
  /** Whether a device of another kind has an id. */
  readonly isOthersId: (id: string) => boolean;
}

const hex = (value: number) => `0x${value.toString(16)}`;

/**
 * Slots and guest-physical addresses of DIMMs and NVDIMMs, which share both, and addresses of virtio devices that bring
 * memory, which take no slot.
 */
export class DimmRoom {
  /** Those for what is plugged, and one for each NVDIMM of the start. */
  readonly slots: number;
  readonly #options: RoomOptions;
  readonly #region: RamRange | undefined;
  /** By slot; what was there at the start has its own room, and counts for nothing. */
  readonly #taken = new Map<number, { readonly module: Module; readonly counts: boolean }>();
  /** By the device's id. */
  readonly #regions = new Map<string, Occupant>();
  /** Those that a guest may have kept. */
  #retired: Occupant[] = [];

  /** @throws NemuError MEMORY_LIMIT when guest-physical addresses do not reach as far as the room that is asked for. */
  constructor(options: RoomOptions) {
    this.#options = options;
    const { memory, nvdimms } = options.description;
    this.#region = dimmRegion(options.description, options.ranges);
    this.slots = ((memory.max !== undefined && memory.slots) || 0) + nvdimms.length;
    const end = memoryEnd(options.description, options.ranges);
    if (end === ramEnd(options.ranges) || end <= 2 ** options.physicalBits) return;
    throw new NemuError(
      'MEMORY_LIMIT',
      `Room for ${formatSize(memory.max ?? memory.size)} reaches guest-physical ${hex(end)}; this processor has ${options.physicalBits} bits of them.`,
      { hint: 'Use a smaller max= with --memory, or smaller NVDIMMs and virtio-mem devices.' },
    );
  }

  /** Puts what is there from the start into its slot. */
  adopt(module: Module): void {
    this.#taken.set(module.slot, { module, counts: false });
  }

  /**
   * Takes a slot and a place in memory.
   * @param prefix of an id that is not given.
   * @throws NemuError that names the limit in the way.
   */
  take<M extends Module>(
    request: Place,
    prefix: string,
    make: (place: { id: string; slot: number; address: number; size: number; node: number }) => M,
  ): M {
    const { size, node = 0 } = request;
    this.#requireRoom(size, node);
    const slot = this.#slot(request);
    const id = request.id ?? this.#freeName(prefix, slot);
    if (this.#isTaken(id)) {
      throw new NemuError('ID', `There is a ${id} already.`, { hint: 'Give another id, or none.' });
    }
    const module = make({ id, slot, address: this.#place(request, alignmentOf(request)), size, node });
    this.#taken.set(slot, { module, counts: true });
    return module;
  }

  /**
   * Takes a place in memory for a device that has its id and its place elsewhere.
   * @returns its guest-physical address. @throws NemuError that names the limit in the way.
   */
  takeRegion(id: string, { size, alignment, node = 0 }: { size: number; alignment: number; node?: number }): number {
    this.#requireRoom(size, node);
    const address = this.#place({ size }, Math.max(DIMM_ALIGNMENT, alignment));
    this.#regions.set(id, { id, address, size });
    return address;
  }

  freeRegion(id: string): void {
    this.#regions.delete(id);
  }

  /**
   * Frees what a device took, but for its addresses, which wait for the guest's reset: who looks at the device from
   * outside cannot know whether the guest has let go of all of them.
   */
  retireRegion(id: string): void {
    const region = this.#regions.get(id);
    if (!region) return;
    this.#regions.delete(id);
    this.#retired.push({ ...region, id: `what ${id} has left` });
  }

  /** The guest that was is no more. */
  reset(): void {
    this.#retired = [];
  }

  #requireRoom(size: number, node: number): void {
    const { memory, numa } = this.#options.description;
    if (!this.#region || memory.max === undefined) {
      const max = formatSize(memory.size + Math.max(size, GiB)).replace(/ (.)iB/, '$1');
      throw new NemuError('MEMORY_LIMIT', 'This machine has no room for more memory.', {
        hint: `Start it with room: --memory ${memory.size / 2 ** 20}M,max=${max},slots=8.`,
      });
    }
    const nodes = numa?.nodes.length ?? 1;
    if (node >= nodes) {
      throw new NemuError('NUMA_NODE', `There is no node ${node}: this machine has nodes 0 to ${nodes - 1}.`, {
        hint: 'Nodes are made at the start, with --numa node,…',
      });
    }
    const counted = [...this.#taken.values()].flatMap(({ module, counts }) => (counts ? [module] : []));
    const used = [...counted, ...this.#regions.values()].reduce((sum, each) => sum + each.size, memory.size);
    if (used + size > memory.max) {
      throw new NemuError(
        'MEMORY_LIMIT',
        `${formatSize(size)} more would be ${formatSize(used + size)}, above this machine's limit of ${formatSize(memory.max)}.`,
        { hint: `${formatSize(memory.max - used)} can be plugged; the limit is max= of --memory.` },
      );
    }
  }

  vacate(slot: number): void {
    this.#taken.delete(slot);
  }

  #occupants(): Occupant[] {
    return [...[...this.#taken.values()].map(({ module }) => module), ...this.#regions.values()];
  }

  /** Whether something in a slot, or with a place of its own in memory, has an id. */
  hasId(id: string): boolean {
    return this.#occupants().some((each) => each.id === id);
  }

  #isTaken(id: string): boolean {
    const devices = this.#options.description.devices.flatMap((device) => ('id' in device && device.id) || []);
    return this.hasId(id) || devices.includes(id) || /^cpu\d+$/.test(id) || this.#options.isOthersId(id);
  }

  /** Named by its slot, or by the next number that nobody was given as a name. */
  #freeName(prefix: string, slot: number): string {
    for (let number = slot; ; number++) if (!this.#isTaken(`${prefix}${number}`)) return `${prefix}${number}`;
  }

  #slot({ slot: wanted, avoid = () => false }: Place): number {
    const raise = { hint: 'The number of slots is slots= of --memory.' };
    if (wanted !== undefined && wanted >= this.slots) {
      throw new NemuError(
        'MEMORY_SLOTS',
        `There is no slot ${wanted}: this machine has 0 to ${this.slots - 1}.`,
        raise,
      );
    }
    const holder = wanted === undefined ? undefined : this.#taken.get(wanted);
    if (holder) {
      throw new NemuError('MEMORY_SLOTS', `Slot ${wanted} has ${holder.module.id} in it.`, {
        hint: 'Leave the slot out for the first one that is free.',
      });
    }
    const all = Array.from({ length: this.slots }, (_, slot) => slot).filter((slot) => !this.#taken.has(slot));
    const free = wanted ?? all.find((slot) => !avoid(slot)) ?? all[0];
    if (free === undefined) {
      throw new NemuError('MEMORY_SLOTS', `All ${this.slots} slots for DIMMs are taken.`, raise);
    }
    return free;
  }

  /** The address that is asked for, or the first one with room. */
  #place({ size, address, hugepages }: Place, alignment: number): number {
    const region = this.#region as RamRange;
    if (hugepages === '1G' && size % GiB !== 0) {
      throw new NemuError('MEMORY_ALIGNMENT', `${formatSize(size)} are not a multiple of the page size, 1 GiB.`, {
        hint: 'Use a multiple of 1G, or other pages.',
      });
    }
    const taken = [...this.#occupants(), ...this.#retired].sort((a, b) => a.address - b.address);
    const end = region.gpa + region.size;
    if (address !== undefined) {
      const place = `${hex(address)}–${hex(address + size - 1)}`;
      const problem = (text: string) =>
        new NemuError('MEMORY_ADDRESS', text, { hint: 'Leave the address out for the first place with room.' });
      if (address % alignment !== 0) throw problem(`${hex(address)} is not a multiple of ${formatSize(alignment)}.`);
      if (address < region.gpa || address + size > end) {
        throw problem(`${place} is not within the room for DIMMs, ${hex(region.gpa)}–${hex(end - 1)}.`);
      }
      const other = taken.find((each) => address < each.address + each.size && each.address < address + size);
      if (other) throw problem(`${place} overlaps ${other.id} at ${hex(other.address)}.`);
      return address;
    }
    let next = alignUp(region.gpa, alignment);
    for (const each of taken) {
      if (next + size <= each.address) break;
      next = Math.max(next, alignUp(each.address + each.size, alignment));
    }
    if (next + size <= end) return next;
    const kept = this.#retired.reduce((sum, each) => sum + each.size, 0);
    throw new NemuError('MEMORY_ADDRESS', `There is no gap of ${formatSize(size)} between what is plugged.`, {
      hint:
        kept === 0
          ? 'Unplug one that is in the way, or plug smaller ones.'
          : `The guest may still hold ${formatSize(kept)} of addresses of virtio-mem devices that were unplugged: a reset frees them.`,
    });
  }
}

const alignmentOf = ({ hugepages }: Place) => (hugepages === '1G' ? GiB : DIMM_ALIGNMENT);
const alignUp = (value: number, to: number) => Math.ceil(value / to) * to;
