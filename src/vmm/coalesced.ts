import { KVM_COALESCED_MMIO_PAGE_OFFSET, kvm_coalesced_mmio, kvm_coalesced_mmio_ring } from '../ffi/kvm/common.ts';
import type { Bus } from './bus.ts';
import type { Processors } from './processors.ts';

const PAGE = 4096;
/** Entries that fit in the ring's page. */
const ENTRIES = Math.floor((PAGE - kvm_coalesced_mmio_ring.size) / kvm_coalesced_mmio.size);
const at = kvm_coalesced_mmio.offsets;

/**
 * Port writes that KVM gathered instead of leaving the kernel. The machine thread is the ring's only
 * consumer; KVM fills it from any vCPU, in order.
 */
export class CoalescedRing {
  writes = 0;
  drains = 0;
  readonly #pio: Bus;
  readonly #view: DataView;
  /** `first` (ours) and `last` (KVM's), read by Atomics because KVM writes them meanwhile. */
  readonly #positions: Uint32Array;

  constructor(processors: Processors, pio: Bus) {
    this.#pio = pio;
    const mapping = processors.runMapping();
    const offset = mapping.byteOffset + KVM_COALESCED_MMIO_PAGE_OFFSET * PAGE;
    this.#view = new DataView(mapping.buffer, offset, PAGE);
    this.#positions = new Uint32Array(mapping.buffer, offset, 2);
  }

  /** Replays what is there. */
  drain(): void {
    let first = Atomics.load(this.#positions, 0);
    let last = Atomics.load(this.#positions, 1);
    if (first === last) return;
    this.drains++;
    while (first !== last) {
      const entry = kvm_coalesced_mmio_ring.size + first * kvm_coalesced_mmio.size;
      const port = this.#view.getUint32(entry + at.phys_addr, true);
      const size = this.#view.getUint32(entry + at.len, true);
      const value =
        size === 1
          ? this.#view.getUint8(entry + at.data)
          : size === 2
            ? this.#view.getUint16(entry + at.data, true)
            : this.#view.getUint32(entry + at.data, true);
      this.#pio.write(port, size, value);
      this.writes++;
      first = (first + 1) % ENTRIES;
      Atomics.store(this.#positions, 0, first);
      last = Atomics.load(this.#positions, 1);
    }
  }
}
