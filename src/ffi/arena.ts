import { MAP_ANONYMOUS, MAP_PRIVATE, mmap, munmap, PROT_READ, PROT_WRITE, viewOf } from './libc.ts';
import type { Accessor, Fields, Layout } from './struct.ts';

const PAGE = 4096;

/** Memory at an address that stays: what the kernel is handed must not be moved by the collector. */
export interface Pinned {
  /** Address for system calls. */
  readonly address: number;
  readonly view: DataView;
  readonly bytes: Uint8Array;
}

/**
 * Anonymous memory for structures that the kernel reads and writes. Blocks live as long as the arena; the
 * thread that made the arena owns it.
 */
export class Arena {
  readonly #address: number;
  readonly #buffer: ArrayBuffer;
  #used = 0;

  /** @param size in bytes, rounded up to whole pages. */
  constructor(size: number) {
    const length = Math.ceil(size / PAGE) * PAGE;
    this.#address = mmap(0, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    this.#buffer = viewOf(this.#address, length);
  }

  alloc(size: number, align = 8): Pinned {
    const offset = Math.ceil(this.#used / align) * align;
    if (offset + size > this.#buffer.byteLength) {
      throw new RangeError(`Arena of ${this.#buffer.byteLength} bytes is full: ${size} more were asked for.`);
    }
    this.#used = offset + size;
    return {
      address: this.#address + offset,
      view: new DataView(this.#buffer, offset, size),
      bytes: new Uint8Array(this.#buffer, offset, size),
    };
  }

  /** One structure of `layout`, zeroed. */
  struct<F extends Fields>(layout: Layout<F>): Pinned & { readonly fields: Accessor<F> } {
    const block = this.alloc(layout.size, Math.max(8, layout.align));
    return { ...block, fields: layout.on(block.view) };
  }

  /** Unmaps everything. No block of the arena may be touched afterwards. */
  free(): void {
    munmap(this.#address, this.#buffer.byteLength);
  }
}
