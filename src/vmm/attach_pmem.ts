import { VirtioPmem } from '../devices/virtio/pmem.ts';
import type { Poller } from '../storage/file_queue.ts';
import { openImageFile } from '../storage/image_file.ts';
import type { MadeVirtio } from './attach.ts';
import type { KvmVm } from './kvm.ts';
import type { GuestMemoryView } from './memory.ts';
import { PmemFile } from './pmem_file.ts';

/** KVM's slots for it stand between those for DIMMs and those for memory behind BARs. */
const FIRST_PMEM_MEMSLOT = 272;

/** Memory of a virtio-pmem of the start, which the main thread mapped from its file. */
export interface BootPmem {
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
  readonly pmems: readonly BootPmem[];
  readonly vm: KvmVm;
  readonly memory: GuestMemoryView;
  readonly poller: Poller;
}

/** Virtio persistent memory, with its files. */
export interface Pmems {
  make(id: string): MadeVirtio;
  /** What is written is on stable storage, as far as the host can. */
  close(): void;
}

export function attachPmems({ pmems, vm, memory, poller }: PmemOptions): Pmems {
  const files = pmems.map(({ fd, size, lasting }) => {
    // The mapping's descriptor has the lock, and the path may name another file by now.
    const store = openImageFile({ path: `/proc/self/fd/${fd}`, readOnly: !lasting, poller, unlocked: true });
    // The device tells the guest of a flush that failed.
    return new PmemFile(store, { size, labelSize: 0, lasting, failed: () => {} });
  });
  for (const [index, { address, size }] of pmems.entries()) {
    vm.setMemoryRegion(FIRST_PMEM_MEMSLOT + index, 0, address, size, memory.hostAddress(address));
    memory.add({ gpa: address, size });
  }
  return {
    make: (id) => {
      const index = pmems.findIndex((each) => each.id === id);
      const { address: start, size } = pmems[index];
      return {
        device: new VirtioPmem({ name: id, backend: files[index], start, size }),
        packed: false,
        settle: (done) => done(),
        close: () => {},
      };
    },
    close: () => {
      for (const file of files) {
        file.flush(() => {});
        while (file.drain());
        file.close();
      }
    },
  };
}
