import { MOST_PMEMS } from '../client/description.ts';
import { NemuError } from '../client/errors.ts';
import { VirtioPmem } from '../devices/virtio/pmem.ts';
import type { Poller } from '../storage/file_queue.ts';
import { openImageFile } from '../storage/image_file.ts';
import type { MadeVirtio } from './attach.ts';
import type { KvmVm } from './kvm.ts';
import type { GuestMemoryView } from './memory.ts';
import { PmemFile } from './pmem_file.ts';

/** KVM's slots for it stand between those for DIMMs and those for memory behind BARs. */
const FIRST_PMEM_MEMSLOT = 272;

/** Memory of a virtio-pmem, which the main thread mapped from its file. */
export interface MappedPmem {
  readonly id: string;
  /** Guest-physical, and bytes. */
  readonly address: number;
  readonly size: number;
  /** Of the file; it stays the main thread's. */
  readonly fd: number;
  /** Whether what the guest stores is to reach the file. */
  readonly lasting: boolean;
}

export interface PmemOptions {
  readonly vm: KvmVm;
  readonly memory: GuestMemoryView;
  readonly poller: Poller;
}

/** Virtio persistent memory, with its files. */
export class Pmems {
  readonly #options: PmemOptions;
  /** By KVM's slot, from the first. */
  readonly #open: (PmemFile | undefined)[] = Array.from({ length: MOST_PMEMS }, () => undefined);

  constructor(options: PmemOptions) {
    this.#options = options;
  }

  /** @throws NemuError DEVICE when there are as many as there can be. */
  requireFree(): number {
    const slot = this.#open.indexOf(undefined);
    if (slot >= 0) return slot;
    throw new NemuError('DEVICE', `A machine has ${MOST_PMEMS} virtio-pmem at most.`, { hint: 'Unplug one first.' });
  }

  /** Gives the memory to the guest. @throws NemuError DEVICE, DISK */
  open({ id, address: start, size, fd, lasting }: MappedPmem): MadeVirtio {
    const { vm, memory, poller } = this.#options;
    const slot = this.requireFree();
    // The mapping's descriptor has the lock, and the path may name another file by now.
    const store = openImageFile({ path: `/proc/self/fd/${fd}`, readOnly: !lasting, poller, unlocked: true });
    // The device tells the guest of a flush that failed.
    const file = new PmemFile(store, { size, labelSize: 0, lasting, failed: () => {} });
    try {
      vm.setMemoryRegion(FIRST_PMEM_MEMSLOT + slot, 0, start, size, memory.hostAddress(start));
    } catch (error) {
      file.close();
      throw error;
    }
    memory.add({ gpa: start, size });
    this.#open[slot] = file;
    return {
      device: new VirtioPmem({ name: id, backend: file, start, size }),
      packed: false,
      settle: (done) => {
        memory.remove({ gpa: start, size });
        vm.setMemoryRegion(FIRST_PMEM_MEMSLOT + slot, 0, start, 0, memory.hostAddress(start));
        // What it holds is lasting when it is out of the machine.
        file.flush(() => {});
        file.close(() => {
          this.#open[slot] = undefined;
          done();
        });
      },
      close: () => {},
    };
  }

  /** What is written is on stable storage, as far as the host can. */
  close(): void {
    for (const [slot, file] of this.#open.entries()) {
      if (!file) continue;
      this.#open[slot] = undefined;
      file.flush(() => {});
      while (file.drain());
      file.close();
    }
  }
}
