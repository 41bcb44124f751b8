import { Arena } from '../ffi/arena.ts';
import type { KvmVm } from './kvm.ts';

const PAGE = 4096;
/** KVM fills whole words of so many bits. */
const WORD = 64;

/** Bytes of one memslot, in pages that were written to. */
export interface DirtySlot {
  readonly address: number;
  readonly size: number;
  readonly dirty: number;
}

/** Bits that are set. */
export function countBits(bitmap: Uint32Array): number {
  let count = 0;
  for (let word of bitmap) {
    word -= (word >>> 1) & 0x55555555;
    word = (word & 0x33333333) + ((word >>> 2) & 0x33333333);
    count += Math.imul((word + (word >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
  }
  return count;
}

/**
 * What the guest's processors have written to since `logDirtyPages(true)` or the last call. What devices write is not
 * among it: KVM does not see that.
 */
export function takeDirtyPages(vm: Pick<KvmVm, 'memslots' | 'dirtyLog'>): DirtySlot[] {
  const slots = [...vm.memslots];
  const words = (size: number) => Math.ceil(size / PAGE / WORD);
  const bytes = Math.max(1, ...slots.map(([, { size }]) => words(size))) * (WORD / 8);
  const arena = new Arena(bytes);
  try {
    const { address: bitmap, bytes: pages } = arena.alloc(bytes);
    return slots.map(([slot, { gpa: address, size }]) => {
      vm.dirtyLog(slot, bitmap);
      return {
        address,
        size,
        dirty: countBits(new Uint32Array(pages.buffer, pages.byteOffset, words(size) * 2)) * PAGE,
      };
    });
  } finally {
    arena.free();
  }
}
