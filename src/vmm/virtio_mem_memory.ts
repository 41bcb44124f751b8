import type { MemBackend } from '../devices/virtio/mem.ts';
import { backendOf, type RamBackend } from './discard.ts';
import type { KvmVm } from './kvm.ts';
import { discardRam, type GuestMemoryView, type MemoryHandle } from './memory.ts';
import { MiB, type VirtioMemRegion } from './memory_layout.ts';

/** KVM's slots for these regions, far behind all others; a host has 32 764 of them (KVM_CAP_NR_MEMSLOTS). */
const FIRST_MEMSLOT = 4096;
/** Slots of one region: each costs KVM a look at its list, and each that has no plugged block the guest cannot touch. */
const SLOTS = 256;
/** What Linux takes memory in; a finer slot would be of no use to it. */
const LEAST_SLOT = 128 * MiB;

/** What regions need of the machine. */
export interface RegionHost {
  readonly vm: Pick<KvmVm, 'setMemoryRegion'>;
  readonly memory: Pick<GuestMemoryView, 'add' | 'remove' | 'hostAddress'>;
  readonly handle: MemoryHandle;
  /** Gives memory back to the host. A test has another. */
  readonly discard?: typeof discardRam;
}

/**
 * The memory of a virtio-mem device, which the main thread has mapped all along, empty. KVM's slots follow what is
 * plugged in pieces of 128 MiB or more: where none of a piece is, an access of the guest meets nothing. Devices reach
 * what is plugged alone. What is unplugged the host has back.
 */
export class VirtioMemMemory implements MemBackend {
  readonly backend: RamBackend;
  readonly #region: VirtioMemRegion;
  readonly #host: RegionHost;
  readonly #firstSlot: number;
  /** Bytes that one slot of KVM spans. */
  readonly #span: number;
  /** By slot: bytes in it that are plugged, and whether KVM has it. */
  readonly #plugged: Float64Array;
  readonly #mapped: Uint8Array;
  /** Bytes from the start that the guest may read, plugged or not. */
  #reach = 0;

  /** @param index which set of KVM's slots it has. */
  constructor(region: VirtioMemRegion, index: number, host: RegionHost) {
    const { size, block, description } = region;
    this.#region = region;
    this.#host = host;
    this.backend = backendOf({ ...description, share: false });
    this.#firstSlot = FIRST_MEMSLOT + index * SLOTS;
    this.#span = 2 ** Math.ceil(Math.log2(Math.max(LEAST_SLOT, block, size / SLOTS)));
    this.#plugged = new Float64Array(Math.ceil(size / this.#span));
    this.#mapped = new Uint8Array(this.#plugged.length);
  }

  get memslots(): { readonly used: number; readonly all: number } {
    return { used: this.#mapped.reduce((sum, each) => sum + each, 0), all: this.#mapped.length };
  }

  plug(offset: number, length: number): boolean {
    const { address } = this.#region;
    this.#account(offset, length, 1);
    try {
      this.#follow(offset, length);
    } catch {
      // The driver hears that the host is busy, and may come again.
      this.#account(offset, length, -1);
      this.#follow(offset, length);
      return false;
    }
    this.#host.memory.add({ gpa: address + offset, size: length });
    return true;
  }

  unplug(offset: number, length: number): void {
    const { memory, handle, discard = discardRam } = this.#host;
    const gpa = this.#region.address + offset;
    memory.remove({ gpa, size: length });
    this.#account(offset, length, -1);
    this.#follow(offset, length);
    discard(handle, this.backend, gpa, length);
  }

  readable(length: number): void {
    if (length === this.#reach) return;
    const most = Math.max(length, this.#reach);
    this.#reach = length;
    this.#follow(0, most);
  }

  /** Nothing of it is the guest's any more. */
  close(): void {
    const { memory, handle, discard = discardRam } = this.#host;
    const { address: gpa, size } = this.#region;
    memory.remove({ gpa, size });
    this.#plugged.fill(0);
    this.#reach = 0;
    this.#follow(0, size);
    discard(handle, this.backend, gpa, size);
  }

  #account(offset: number, length: number, sign: 1 | -1): void {
    const end = offset + length;
    for (let at = offset; at < end; ) {
      const slot = Math.floor(at / this.#span);
      const next = Math.min(end, (slot + 1) * this.#span);
      this.#plugged[slot] += sign * (next - at);
      at = next;
    }
  }

  /** Gives KVM the slots of a range that it is to have, and takes the others. */
  #follow(offset: number, length: number): void {
    const { address, size } = this.#region;
    const { vm, memory } = this.#host;
    const last = Math.ceil((offset + length) / this.#span);
    for (let slot = Math.floor(offset / this.#span); slot < last; slot++) {
      const start = slot * this.#span;
      const wanted = this.#plugged[slot] > 0 || start < this.#reach ? 1 : 0;
      if (wanted === this.#mapped[slot]) continue;
      const gpa = address + start;
      const bytes = wanted ? Math.min(this.#span, size - start) : 0;
      vm.setMemoryRegion(this.#firstSlot + slot, 0, gpa, bytes, memory.hostAddress(gpa));
      this.#mapped[slot] = wanted;
    }
  }
}
