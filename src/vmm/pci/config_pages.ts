import { CONFIG_SPACE_SIZE } from '../../devices/pci/config_space.ts';

/** Functions that a machine can have at a time. */
const MAX_FUNCTIONS = 512;
const INDEX_WORDS = 0x10000 / 2;
const PAGE_WORDS = CONFIG_SPACE_SIZE / 4;

/**
 * Every function's configuration space in memory that all threads of a machine share, and an index of them by
 * bus and devfn: a vCPU thread answers a guest's read from here. The machine thread alone writes.
 *
 * The first words are the index, two 16-bit numbers a word: 0 for nobody, else the page's number from 1.
 */
export class ConfigPages {
  readonly buffer: SharedArrayBuffer;
  readonly #words: Int32Array;
  readonly #free = Array.from({ length: MAX_FUNCTIONS }, (_, i) => MAX_FUNCTIONS - i);

  constructor(buffer: SharedArrayBuffer = newConfigPages()) {
    this.buffer = buffer;
    this.#words = new Int32Array(buffer);
  }

  /** @returns number of a page for one more function; undefined when all are taken. */
  take(): number | undefined {
    return this.#free.pop();
  }

  give(page: number): void {
    this.page(page).fill(0);
    this.#free.push(page);
  }

  page(page: number): Int32Array {
    return this.#words.subarray(INDEX_WORDS + (page - 1) * PAGE_WORDS, INDEX_WORDS + page * PAGE_WORDS);
  }

  /**
   * Says who is where. vCPUs read meanwhile: a function that stays in its place is there all the time.
   * @param index pages by bus, device and function as 16 bits
   */
  setIndex(index: ReadonlyMap<number, number>): void {
    const wanted = new Map<number, number>();
    for (const [bdf, page] of index) {
      const word = bdf >> 1;
      wanted.set(word, (wanted.get(word) ?? 0) | (page << (16 * (bdf & 1))));
    }
    for (let word = 0; word < INDEX_WORDS; word++) {
      const value = wanted.get(word) ?? 0;
      if (this.#words[word] !== value) Atomics.store(this.#words, word, value);
    }
  }

  /**
   * A configuration read of `size` bytes that stays in its double word.
   * @returns all ones where there is no function.
   */
  read(bdf: number, offset: number, size: number): number {
    return readConfig(this.#words, bdf, offset, size);
  }
}

export const newConfigPages = (): SharedArrayBuffer =>
  new SharedArrayBuffer((INDEX_WORDS + MAX_FUNCTIONS * PAGE_WORDS) * 4);

/** `ConfigPages.read`, for threads that have the words alone. */
export function readConfig(words: Int32Array, bdf: number, offset: number, size: number): number {
  const page = (Atomics.load(words, bdf >> 1) >>> (16 * (bdf & 1))) & 0xffff;
  const value =
    page === 0 ? -1 : Atomics.load(words, INDEX_WORDS + (page - 1) * PAGE_WORDS + (offset >> 2)) >> (8 * (offset & 3));
  return size === 4 ? value >>> 0 : value & (size === 1 ? 0xff : 0xffff);
}
