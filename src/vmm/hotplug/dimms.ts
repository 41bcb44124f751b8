import { NemuError } from '../../client/errors.ts';
import type { MemoryDevice, MemoryPlug } from '../../client/live.ts';
import { AcpiMemoryHotplug } from '../../devices/acpi_memory_hotplug.ts';
import type { KvmVm } from '../kvm.ts';
import type { GuestMemoryView } from '../memory.ts';
import type { GuestActs, LiveKind } from './kind.ts';
import type { DimmRoom } from './room.ts';

export interface DimmHotplugOptions {
  readonly room: DimmRoom;
  readonly memory: GuestMemoryView;
  readonly vm: KvmVm;
  readonly guest: GuestActs;
  /** Runs the guest's handler of this general purpose event. */
  readonly raiseGpe: (number: number) => void;
  /** Whether the guest has listened to it since its reset. */
  readonly knowsGpe: (number: number) => boolean;
  /** Before that nobody has to be told: a guest finds what is there at its boot. */
  readonly hasStarted: () => boolean;
}

const GPE = 3;
/** KVM's slots for DIMMs stand behind those for RAM at boot, and before those for memory behind BARs. */
export const FIRST_MEMSLOT = 16;

/** DIMMs that come and go. */
export class DimmHotplug implements LiveKind<MemoryDevice, MemoryPlug> {
  readonly onlineWhenAccepted = true;
  /** What the guest sees; undefined on a machine without slots. */
  readonly registers: AcpiMemoryHotplug | undefined;
  readonly slots: number;
  readonly #options: DimmHotplugOptions;
  /** By slot; those that are attached are what the guest sees. */
  readonly #dimms = new Map<number, { readonly device: MemoryDevice; attached: boolean }>();

  constructor(options: DimmHotplugOptions) {
    this.#options = options;
    const { guest, room } = options;
    this.slots = room.slots;
    if (this.slots === 0) return;
    this.registers = new AcpiMemoryHotplug({
      slots: this.slots,
      dimm: (slot) => this.#attached(slot),
      notify: () => options.raiseGpe(GPE),
      noticed: (slot) => ifThere(this.#attached(slot), (device) => guest.noticed(device)),
      ost: (slot, event, status) => ifThere(this.#attached(slot), (device) => guest.answered(device, event, status)),
      eject: (slot) => ifThere(this.#attached(slot), (device) => guest.ejected(device)),
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
    const avoid = (slot: number) => this.registers?.isUnseen(slot) ?? false;
    const device = this.#options.room.take({ ...request, avoid }, 'dimm', (place): MemoryDevice => {
      return { ...request, ...place };
    });
    this.#dimms.set(device.slot, { device, attached: false });
    return device;
  }

  attach(device: MemoryDevice): void {
    const dimm = this.#dimms.get(device.slot);
    if (!dimm) return;
    const { vm, memory } = this.#options;
    vm.setMemoryRegion(FIRST_MEMSLOT + device.slot, 0, device.address, device.size, memory.hostAddress(device.address));
    memory.add({ gpa: device.address, size: device.size });
    dimm.attached = true;
    if (this.#options.hasStarted()) this.registers?.plugged(device.slot);
  }

  listens(): boolean {
    return this.#options.knowsGpe(GPE);
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
      memory.remove({ gpa: device.address, size: device.size });
      vm.setMemoryRegion(FIRST_MEMSLOT + device.slot, 0, device.address, 0, memory.hostAddress(device.address));
    }
    done();
  }

  vacate({ slot }: MemoryDevice): void {
    this.#dimms.delete(slot);
    this.#options.room.vacate(slot);
  }
}

function ifThere<T>(value: T | undefined, then: (value: T) => void): void {
  if (value !== undefined) then(value);
}
