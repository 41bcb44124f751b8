import type { MachineDescription } from '../../client/description.ts';
import type { LiveDevice, LiveRequest, PluggedReport } from '../../client/live.ts';
import type { MachineEvent } from '../../client/machine_client.ts';
import type { GuestFault } from '../../devices/device.ts';
import type { Poller } from '../../storage/file_queue.ts';
import type { MappedPmem } from '../attach_pmem.ts';
import { backendOf, type MemoryPart } from '../discard.ts';
import type { MachineClock } from '../machine_clock.ts';
import type { GuestMemoryView, MemoryHandle } from '../memory.ts';
import { virtioMemRegions } from '../memory_layout.ts';
import type { Processors } from '../processors.ts';
import type { MachineCalls } from '../thread_messages.ts';
import { CpuHotplug } from './cpus.ts';
import { DimmHotplug } from './dimms.ts';
import { Hotplug } from './hotplug.ts';
import { type BootNvdimm, NvdimmHotplug } from './nvdimms.ts';
import { PciHotplug } from './pci.ts';
import { DimmRoom } from './room.ts';
import { VirtioMemories } from './virtio_mem.ts';

/** Calls of the machine thread that are about what comes and goes. */
export type LiveCall = 'plug' | 'prepared' | 'unplug' | 'resizeMemory' | 'released' | 'requests' | 'plugged';

export interface LiveDevicesOptions {
  readonly description: MachineDescription;
  /** RAM of the start. */
  readonly handle: MemoryHandle;
  readonly memory: GuestMemoryView;
  readonly processors: Processors;
  readonly clock: MachineClock;
  /** NVDIMMs of the start. */
  readonly nvdimms: readonly BootNvdimm[];
  /** The same for memory of virtio-pmem devices. */
  readonly pmems: readonly MappedPmem[];
  readonly poller: Poller;
  readonly hold: () => () => void;
  readonly fault: GuestFault;
  readonly flushFailed: (id: string, errno: string) => void;
  readonly raiseGpe: (number: number) => void;
  readonly knowsGpe: (number: number) => boolean;
  readonly hasStarted: () => boolean;
  readonly changed: (request: LiveRequest) => void;
  readonly event: (event: MachineEvent) => void;
  readonly release: (id: number, device: LiveDevice) => void;
}

/** Everything of a machine that comes and goes while it runs. */
export class LiveDevices {
  readonly cpus: CpuHotplug;
  readonly dimms: DimmHotplug;
  readonly pci: PciHotplug;
  readonly nvdimms: NvdimmHotplug;
  readonly virtioMem: VirtioMemories;
  readonly #description: MachineDescription;
  readonly #ranges: MemoryHandle['ranges'];
  readonly #hotplug: Hotplug;
  readonly #room: DimmRoom;
  readonly #calls: { [N in LiveCall]: (parameter: MachineCalls[N]['parameter']) => MachineCalls[N]['result'] };

  /** @throws NemuError when there cannot be as much room as the description asks for. */
  constructor(options: LiveDevicesOptions) {
    const { description, processors, raiseGpe, knowsGpe, handle, memory } = options;
    const { ranges } = handle;
    const hotplug = new Hotplug(options);
    this.#description = description;
    this.#ranges = ranges;
    this.#hotplug = hotplug;
    this.cpus = hotplug.add('cpu', (guest) => new CpuHotplug({ description, processors, guest, raiseGpe, knowsGpe }));
    const { vm, physicalBits } = processors;
    const room = new DimmRoom({
      ...{ description, ranges, physicalBits },
      // Those of the start are named by the description.
      isOthersId: (id) => this.pci.hasId(id),
    });
    this.#room = room;
    // First, for those that are there have their slots.
    this.nvdimms = hotplug.add(
      'nvdimm',
      (guest) => new NvdimmHotplug({ ...options, boot: options.nvdimms, room, vm, guest }),
    );
    this.dimms = hotplug.add('memory', (guest) => new DimmHotplug({ ...options, room, vm, guest }));
    const virtioMem = virtioMemRegions(description, ranges);
    const regions = new Map([
      ...virtioMem.map(({ id, address, size }) => [id, { address, size }] as const),
      ...options.pmems.map(({ id, address, size }) => [id, { address, size }] as const),
    ]);
    this.pci = hotplug.add(
      'pci',
      (guest) => new PciHotplug({ description, guest, room, regions, isLeaving: (id) => hotplug.isLeaving(id) }),
    );
    this.virtioMem = new VirtioMemories({
      ...{ regions: virtioMem, host: { vm, memory, handle }, hotplug },
      ...{ clock: options.clock, event: options.event },
    });
    this.#calls = {
      plug: ({ request, timeoutMs }) => hotplug.plug(request, timeoutMs),
      prepared: ({ id, error, ...host }) => hotplug.prepared(id, error, host) as undefined,
      unplug: ({ id, timeoutMs, force }) => hotplug.unplug(id, timeoutMs, force),
      resizeMemory: ({ id, size, timeoutMs }) => this.virtioMem.resize(id, size, timeoutMs),
      released: ({ id }) => hotplug.released(id) as undefined,
      requests: () => hotplug.requests(),
      plugged: () => this.#plugged(),
    };
  }

  /** @throws NemuError as the call has it. */
  call<N extends LiveCall>(name: N, parameter: unknown): MachineCalls[N]['result'] {
    return this.#calls[name](parameter as never);
  }

  /** The guest is no more: before devices are reset, for those that were to leave are gone with it. */
  guestGone(): void {
    this.#hotplug.reset();
  }

  reset(): void {
    this.nvdimms.reset();
    this.virtioMem.reset();
    this.#room.reset();
  }

  /** RAM of the guest, with what is behind each part of it. Persistent memory is none, and keeps what it has. */
  *memoryParts(): Generator<MemoryPart> {
    const boot = backendOf(this.#description.memory);
    for (const { gpa: address, size } of this.#ranges) yield { address, size, backend: boot };
    for (const dimm of this.dimms.present()) {
      yield { address: dimm.address, size: dimm.size, backend: backendOf(dimm) };
    }
    yield* this.virtioMem.parts();
  }

  #plugged(): PluggedReport {
    const { cpus, memory } = this.#description;
    return {
      cpus: { present: this.cpus.present(), ...(cpus.max !== undefined && { max: cpus.max }) },
      memory: {
        ...{ boot: memory.size, dimms: this.dimms.present(), virtio: this.virtioMem.report() },
        ...(memory.max !== undefined && { max: memory.max, slots: memory.slots }),
      },
      nvdimms: this.nvdimms.report(),
      pci: { devices: this.pci.present(), ports: this.pci.ports() },
    };
  }
}
