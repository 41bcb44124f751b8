import type { VirtioMemDescription } from '../../client/device_schema.ts';
import { NemuError } from '../../client/errors.ts';
import type { LiveRequest } from '../../client/live.ts';
import type { MachineEvent } from '../../client/machine_client.ts';
import { formatSize } from '../../client/sizes.ts';
import type { VirtioMemReport } from '../../client/virtio_mem.ts';
import type { Clock, Timer } from '../../devices/device.ts';
import { VirtioMem } from '../../devices/virtio/mem.ts';
import type { MadeVirtio } from '../attach.ts';
import type { MemoryPart } from '../discard.ts';
import type { VirtioMemRegion } from '../memory_layout.ts';
import { type RegionHost, VirtioMemMemory } from '../virtio_mem_memory.ts';
import type { Hotplug } from './hotplug.ts';

/** A guest that plugs and unplugs as fast as it can is told of so often: nanoseconds. */
const EVENT_INTERVAL_NS = 100_000_000n;

export interface VirtioMemoriesOptions {
  readonly regions: readonly VirtioMemRegion[];
  readonly host: RegionHost;
  readonly hotplug: Pick<Hotplug, 'resize' | 'resized'>;
  readonly clock: Clock;
  readonly event: (event: MachineEvent) => void;
}

interface Made {
  readonly region: VirtioMemRegion;
  /** Which of the sets of KVM's slots it has. */
  readonly index: number;
  readonly memory: VirtioMemMemory;
  readonly device: VirtioMem;
  readonly timer: Timer;
  /** What was told last. */
  told: number;
  /** Nothing is told before that: nanoseconds of the guest's time. */
  quietUntil: bigint;
}

/** Memory that a guest plugs and unplugs by blocks: the devices, and what they are asked for. */
export class VirtioMemories {
  readonly #options: VirtioMemoriesOptions;
  readonly #made = new Map<string, Made>();

  constructor(options: VirtioMemoriesOptions) {
    this.#options = options;
  }

  /** Makes a device: one of the description's, or with an `address` one that is plugged there. */
  make(id: string, description: VirtioMemDescription, address?: number): MadeVirtio {
    const { host, clock } = this.#options;
    const region = this.#region(id, description, address);
    const taken = [...this.#made.values()].map((each) => each.index);
    let index = 0;
    while (taken.includes(index)) index++;
    const memory = new VirtioMemMemory(region, index, host);
    const device = new VirtioMem({
      ...{ name: id, backend: memory, address: region.address, size: region.size, block: region.block },
      ...{ node: region.node, requested: region.description.requested },
      changed: () => this.#changed(made),
    });
    const timer = clock.timer(() => this.#changed(made));
    const made: Made = { region, index, memory, device, timer, told: 0, quietUntil: 0n };
    this.#made.set(id, made);
    return {
      device,
      packed: false,
      kept: () => {
        const { plugged, requested } = device;
        if (plugged === 0 && requested === 0) return undefined;
        // What is asked for may be plugged at any moment, also while the device is on its way out.
        const has = plugged > 0 ? `has ${formatSize(plugged)}` : `is to have ${formatSize(requested)}`;
        return new NemuError('BUSY', `The guest ${has} of ${id} plugged.`, {
          hint: `Ask for nothing of it first: vm.memory.resize('${id}', 0).`,
        });
      },
      settle: (done) => {
        timer.cancel();
        this.#made.delete(id);
        memory.close();
        done();
      },
      close: () => {
        timer.cancel();
        this.#made.delete(id);
      },
    };
  }

  #region(id: string, description: VirtioMemDescription, address: number | undefined): VirtioMemRegion {
    if (address === undefined) return this.#options.regions.find((each) => each.id === id) as VirtioMemRegion;
    const { size, block, node } = description;
    return { kind: 'virtio-mem', id, address, size, block, node, description };
  }

  #changed(made: Made): void {
    const { clock, event, hotplug } = this.#options;
    const { region, device, timer } = made;
    const { plugged, requested } = device;
    const { kind, id, address, size, block, node } = region;
    if (device.running || plugged > 0) hotplug.resized({ kind, id, address, size, block, node }, plugged);
    if (plugged === made.told) return;
    const now = clock.now();
    if (now < made.quietUntil) {
      timer.armAt(made.quietUntil);
      return;
    }
    made.told = plugged;
    made.quietUntil = now + EVENT_INTERVAL_NS;
    event({ type: 'memory-size', device: id, plugged, requested });
  }

  /**
   * Asks the guest to have so many bytes of a device plugged.
   * @throws NemuError NO_DEVICE, or MEMORY_SIZE that says which sizes there can be; then nothing was touched.
   */
  resize(id: string, bytes: number, timeoutMs?: number): LiveRequest {
    const made = this.#made.get(id);
    if (!made) {
      const ids = [...this.#made.keys()];
      throw new NemuError('NO_DEVICE', `There is no virtio-mem device ${id} in this machine.`, {
        hint:
          ids.length > 0 ? `It has ${ids.join(', ')}.` : 'Plug one, or start it with one: --device virtio-mem,size=4G.',
      });
    }
    const { region, device } = made;
    const { kind, address, size, block, node } = region;
    if (bytes > size) {
      throw new NemuError('MEMORY_SIZE', `${id} has room for ${formatSize(size)}: it cannot be ${formatSize(bytes)}.`, {
        hint: 'Its size is that for good; another device can have more.',
      });
    }
    if (bytes % block !== 0) {
      const below = bytes - (bytes % block);
      throw new NemuError(
        'MEMORY_SIZE',
        `${bytes} bytes are not a multiple of the block size of ${id}, ${formatSize(block)}.`,
        { hint: `${formatSize(below)} and ${formatSize(below + block)} are.` },
      );
    }
    const words = device.running ? undefined : 'it has no driver that is ready with the device';
    const live = { kind, id, address, size, block, node };
    return this.#options.hotplug.resize(live, bytes, { timeoutMs, words, plugged: device.plugged }, () =>
      device.request(bytes),
    );
  }

  /** The machine was reset. */
  reset(): void {
    for (const { device } of this.#made.values()) device.systemReset();
  }

  /** The regions, plugged or not. */
  *parts(): Generator<MemoryPart> {
    for (const { region, memory } of this.#made.values()) {
      yield { address: region.address, size: region.size, backend: memory.backend };
    }
  }

  report(): VirtioMemReport[] {
    return [...this.#made.values()].map(({ region, memory, device }) => {
      const { kind, id, address, size, block, node, description } = region;
      const { requested, plugged, usable, running, counts } = device;
      const { plug, unplug, unplugAll, state, nack, busy, error } = counts;
      return {
        ...{ kind, id, address, size, block, node, requested, plugged, usable, backend: description.backend },
        ...(description.hugepages && { hugepages: description.hugepages }),
        driver: running,
        requests: { plug, unplug, unplugAll, state, nack, busy, error },
        memslots: memory.memslots,
      };
    });
  }
}
