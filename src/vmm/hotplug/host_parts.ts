import { NemuError } from '../../client/errors.ts';
import type { LiveDevice, PlugRequest } from '../../client/live.ts';
import { mapNvdimm, mapPmem } from '../boot_pmem.ts';
import type { EngineThreads } from '../engine_threads.ts';
import type { MachineConsoles } from '../machine_consoles.ts';
import { type DimmMemory, type GuestRam, virtioMemMemory } from '../memory.ts';
import type { HostPart } from './kind.ts';

/** What was made for a device, or why it could not be. */
export type Prepared = HostPart & { readonly error?: string };

const why = (error: unknown): string => (error instanceof NemuError ? error.text : (error as Error).message);

/** What the main thread makes for devices that come, and takes back when they have gone: memory, streams, threads. */
export class HostParts {
  readonly #ram: GuestRam;
  readonly #threads: EngineThreads;
  readonly #consoles: MachineConsoles;
  /** Memory that is being mapped: it must be there to be freed. */
  readonly #mapping = new Set<Promise<void>>();
  #closed = false;

  constructor(ram: GuestRam, threads: EngineThreads, consoles: MachineConsoles) {
    this.#ram = ram;
    this.#threads = threads;
    this.#consoles = consoles;
  }

  /** Nothing is made from now on. @returns the ends of what is under way. */
  close(): readonly Promise<void>[] {
    this.#closed = true;
    return [...this.#mapping];
  }

  /** @param device the place that the request has taken. */
  async prepare(request: PlugRequest, device: LiveDevice): Promise<Prepared> {
    if (this.#closed) return { error: 'The machine was closed.' };
    try {
      return await this.#make(request, device);
    } catch (error) {
      return { error: why(error) };
    }
  }

  async #make(request: PlugRequest, device: LiveDevice): Promise<HostPart> {
    if (device.kind === 'cpu') this.#threads.startVcpu(device.index);
    else if (device.kind === 'nvdimm') return { fd: mapNvdimm(this.#ram, device) };
    else if (device.kind === 'memory' && request.kind === 'memory') await this.#map(device, request);
    else if (device.kind === 'pci' && request.kind === 'pci') {
      const rings = this.#consoles.add(device.streams);
      const { memory } = device;
      if (memory && request.type === 'virtio-mem') await this.#map(memory, virtioMemMemory(request));
      if (memory && request.type === 'virtio-pmem') return { rings, fd: mapPmem(this.#ram, memory, request) };
      return { rings };
    }
    return {};
  }

  async #map(place: { readonly address: number; readonly size: number }, memory: DimmMemory): Promise<void> {
    const mapped = this.#ram.plug(place, memory);
    const done = mapped.catch(() => {});
    this.#mapping.add(done);
    try {
      await mapped;
    } finally {
      this.#mapping.delete(done);
    }
  }

  /** Takes back what was made for a device that the guest has let go. */
  async release(device: LiveDevice): Promise<void> {
    switch (device.kind) {
      case 'cpu':
        await this.#threads.vcpuEnded(device.index);
        break;
      case 'pci':
        this.#consoles.remove(device.streams);
        if (device.memory && !this.#closed) this.#ram.unplug(device.memory.address);
        break;
      default:
        if (!this.#closed) this.#ram.unplug(device.address);
    }
  }
}
