import { DIMM_ALIGNMENT, type MachineDescription } from '../../client/description.ts';
import { NemuError } from '../../client/errors.ts';
import type { MemoryDevice, MemoryPlug } from '../../client/live.ts';
import { formatSize } from '../../client/sizes.ts';
import { AcpiMemoryHotplug } from '../../devices/acpi_memory_hotplug.ts';
import type { KvmVm } from '../kvm.ts';
import type { GuestMemoryView } from '../memory.ts';
import { dimmRegion, GiB, type RamRange } from '../memory_layout.ts';
import type { GuestActs, LiveKind } from './kind.ts';

export interface DimmHotplugOptions {
  readonly description: Pick<MachineDescription, 'memory' | 'numa'>;
  /** RAM at boot. */
  readonly ranges: readonly RamRange[];
  readonly memory: GuestMemoryView;
  readonly vm: KvmVm;
  /** Width of the guest's physical addresses. */
  readonly physicalBits: number;
  readonly guest: GuestActs;
  /** Runs the guest's handler of this general purpose event. */
  readonly raiseGpe: (number: number) => void;
}

const GPE = 3;
/** KVM's slots for DIMMs stand behind those for RAM at boot, and before those for memory behind BARs. */
const FIRST_MEMSLOT = 16;

const hex = (value: number) => `0x${value.toString(16)}`;

/** DIMMs that come and go. */
export class DimmHotplug implements LiveKind<MemoryDevice, MemoryPlug> {
  readonly onlineWhenAccepted = true;
  /** What the guest sees; undefined on a machine without room for DIMMs. */
  readonly registers: AcpiMemoryHotplug | undefined;
  readonly slots: number;
  readonly #options: DimmHotplugOptions;
  readonly #region: RamRange | undefined;
  /** By slot; those that are attached are what the guest sees. */
  readonly #dimms = new Map<number, { readonly device: MemoryDevice; attached: boolean }>();

  /** @throws NemuError MEMORY_LIMIT when guest-physical addresses do not reach as far as the room that is asked for. */
  constructor(options: DimmHotplugOptions) {
    this.#options = options;
    const { memory } = options.description;
    this.#region = dimmRegion(memory, options.ranges);
    this.slots = (memory.max !== undefined && memory.slots) || 0;
    if (!this.#region) return;
    const end = this.#region.gpa + this.#region.size;
    if (end > 2 ** options.physicalBits) {
      throw new NemuError(
        'MEMORY_LIMIT',
        `Room for ${formatSize(memory.max as number)} reaches guest-physical ${hex(end)}; this processor has ${options.physicalBits} bits of them.`,
        { hint: 'Use a smaller max= with --memory.' },
      );
    }
    const { guest } = options;
    const at = (slot: number) => this.#dimms.get(slot)?.device;
    this.registers = new AcpiMemoryHotplug({
      slots: this.slots,
      dimm: (slot) => this.#attached(slot),
      notify: () => options.raiseGpe(GPE),
      noticed: (slot) => ifThere(at(slot), (device) => guest.noticed(device)),
      ost: (slot, event, status) => ifThere(at(slot), (device) => guest.answered(device, event, status)),
      eject: (slot) => ifThere(at(slot), (device) => guest.ejected(device)),
    });
  }

  #attached(slot: number): MemoryDevice | undefined {
    const dimm = this.#dimms.get(slot);
    return dimm?.attached ? dimm.device : undefined;
  }

  present(): MemoryDevice[] {
    return [...this.#dimms.values()].filter(({ attached }) => attached).map(({ device }) => device);
  }

  reserve(request: MemoryPlug): MemoryDevice {
    const { memory } = this.#options.description;
    const { size, backend, path, hugepages, node = 0 } = request;
    if (!this.#region || memory.max === undefined) {
      const max = formatSize(memory.size + Math.max(size, GiB)).replace(/ (.)iB/, '$1');
      throw new NemuError('MEMORY_LIMIT', 'This machine has no room for more memory.', {
        hint: `Start it with room: --memory ${memory.size / 2 ** 20}M,max=${max},slots=8.`,
      });
    }
    const nodes = this.#options.description.numa?.nodes.length ?? 1;
    if (node >= nodes) {
      throw new NemuError('NUMA_NODE', `There is no node ${node}: this machine has nodes 0 to ${nodes - 1}.`, {
        hint: 'Nodes are made at the start, with --numa node,…',
      });
    }
    const used = [...this.#dimms.values()].reduce((sum, { device }) => sum + device.size, memory.size);
    if (used + size > memory.max) {
      throw new NemuError(
        'MEMORY_LIMIT',
        `${formatSize(size)} more would be ${formatSize(used + size)}, above this machine's limit of ${formatSize(memory.max)}.`,
        { hint: `${formatSize(memory.max - used)} can be plugged; the limit is max= of --memory.` },
      );
    }
    const slot = this.#slot(request.slot);
    const id = request.id ?? `dimm${slot}`;
    if ([...this.#dimms.values()].some(({ device }) => device.id === id) || /^cpu\d+$/.test(id)) {
      throw new NemuError('ID', `There is a ${id} already.`, { hint: 'Give another id, or none.' });
    }
    const address = this.#place(request);
    const device: MemoryDevice = {
      ...{ kind: 'memory', id, slot, address, size, node, backend },
      ...(path !== undefined && { path }),
      ...(hugepages !== undefined && { hugepages }),
    };
    this.#dimms.set(slot, { device, attached: false });
    return device;
  }

  #slot(wanted: number | undefined): number {
    const raise = { hint: 'The number of slots is slots= of --memory.' };
    if (wanted !== undefined && wanted >= this.slots) {
      throw new NemuError(
        'MEMORY_SLOTS',
        `There is no slot ${wanted}: this machine has 0 to ${this.slots - 1}.`,
        raise,
      );
    }
    const holder = wanted === undefined ? undefined : this.#dimms.get(wanted);
    if (holder) {
      throw new NemuError('MEMORY_SLOTS', `Slot ${wanted} has ${holder.device.id} in it.`, {
        hint: 'Leave the slot out for the first one that is free.',
      });
    }
    const free = wanted ?? Array.from({ length: this.slots }, (_, slot) => slot).find((slot) => !this.#dimms.has(slot));
    if (free === undefined) {
      throw new NemuError('MEMORY_SLOTS', `All ${this.slots} slots for DIMMs are taken.`, raise);
    }
    return free;
  }

  /** The address that is asked for, or the first one with room. */
  #place({ size, address, hugepages }: MemoryPlug): number {
    const region = this.#region as RamRange;
    const alignment = hugepages === '1G' ? GiB : DIMM_ALIGNMENT;
    if (size % alignment !== 0) {
      throw new NemuError('MEMORY_ALIGNMENT', `${formatSize(size)} are not a multiple of the page size, 1 GiB.`, {
        hint: 'Use a multiple of 1G, or other pages.',
      });
    }
    const taken = [...this.#dimms.values()].map(({ device }) => device).sort((a, b) => a.address - b.address);
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
    let next = region.gpa;
    for (const each of taken) {
      if (next + size <= each.address) break;
      next = Math.ceil((each.address + each.size) / alignment) * alignment;
    }
    if (next + size <= end) return next;
    throw new NemuError('MEMORY_ADDRESS', `There is no gap of ${formatSize(size)} between the DIMMs.`, {
      hint: 'Unplug one that is in the way, or plug smaller ones.',
    });
  }

  attach(device: MemoryDevice): void {
    const dimm = this.#dimms.get(device.slot);
    if (!dimm) return;
    const { vm, memory } = this.#options;
    vm.setMemoryRegion(FIRST_MEMSLOT + device.slot, 0, device.address, device.size, memory.hostAddress(device.address));
    memory.add({ gpa: device.address, size: device.size });
    dimm.attached = true;
    this.registers?.plugged(device.slot);
  }

  requireRemovable({ id }: MemoryDevice, force: boolean): void {
    if (!force) return;
    throw new NemuError(
      'FORCE',
      `${id} cannot be taken by force: the guest would read and write memory that is not there.`,
      { hint: 'Take its blocks offline in the guest first, below /sys/devices/system/memory.' },
    );
  }

  requestRemoval({ slot }: MemoryDevice): void {
    this.registers?.requestRemoval(slot);
  }

  detach(device: MemoryDevice, done: () => void): void {
    const dimm = this.#dimms.get(device.slot);
    if (dimm?.attached) {
      const { vm, memory } = this.#options;
      dimm.attached = false;
      this.registers?.gone(device.slot);
      memory.remove(device.address);
      vm.setMemoryRegion(FIRST_MEMSLOT + device.slot, 0, device.address, 0, memory.hostAddress(device.address));
    }
    done();
  }

  vacate({ slot }: MemoryDevice): void {
    this.#dimms.delete(slot);
  }
}

function ifThere<T>(value: T | undefined, then: (value: T) => void): void {
  if (value !== undefined) then(value);
}
