/** Guest virtual memory, through the guest's own page tables: Intel SDM volume 3, 4.5 (4- and 5-level paging). */
import { NemuError } from '../errors.ts';

const PRESENT = 1n;
const PAGE_SIZE_BIT = 1n << 7n;
const ADDRESS_MASK = 0x000ffffffffff000n;
const PAGE = 4096;
/** What is read at once of a large page. */
const PIECE = 64 << 10;
const CACHED_PAGES = 1024;

/** Reads guest-physical memory. */
export type ReadPhysical = (address: number, length: number) => Promise<Uint8Array>;

/** One step of a walk. */
export interface WalkStep {
  readonly level: 'PML5' | 'PML4' | 'PDPT' | 'PD' | 'PT';
  /** Guest-physical address of the entry. */
  readonly address: number;
  readonly entry: bigint;
}

export interface Walk {
  readonly steps: readonly WalkStep[];
  /** Where it leads; undefined when an entry is not present. */
  readonly physical: number | undefined;
  /** Bytes of the page: 4 KiB, 2 MiB or 1 GiB. */
  readonly pageSize: number;
}

const LEVELS = ['PT', 'PD', 'PDPT', 'PML4', 'PML5'] as const;

/** An address space of the guest as it was when its pages were read: a copy, for one look. */
export class AddressSpace {
  readonly #read: ReadPhysical;
  readonly #root: number;
  readonly #levels: number;
  /** By address and length. */
  readonly #pages = new Map<string, Uint8Array>();

  /** @param root guest-physical address of the top table: CR3 without its low 12 bits. */
  constructor(read: ReadPhysical, root: number, levels: 4 | 5) {
    this.#read = read;
    this.#root = root;
    this.#levels = levels;
  }

  async #page(address: number, length = PAGE): Promise<Uint8Array> {
    const key = `${address}+${length}`;
    const known = this.#pages.get(key);
    if (known) return known;
    const page = await this.#read(address, length);
    if (this.#pages.size >= CACHED_PAGES) this.#pages.clear();
    this.#pages.set(key, page);
    return page;
  }

  /** @throws NemuError ADDRESS for one that is not canonical, and when a table is not in RAM. */
  async walk(virtual: bigint): Promise<Walk> {
    const address = BigInt.asUintN(64, virtual);
    const bits = 12 + 9 * this.#levels;
    if (BigInt.asUintN(64, BigInt.asIntN(bits, address)) !== address) {
      const text = `0x${address.toString(16)}`;
      throw new NemuError(
        'ADDRESS',
        `${text} is no address with ${this.#levels}-level paging: its bits from ${bits - 1} on differ.`,
      );
    }
    const steps: WalkStep[] = [];
    let table = this.#root;
    for (let level = this.#levels - 1; level >= 0; level--) {
      const shift = BigInt(12 + 9 * level);
      const at = Number((address >> shift) & 0x1ffn) * 8;
      const page = await this.#page(table);
      const entry = new DataView(page.buffer, page.byteOffset).getBigUint64(at, true);
      steps.push({ level: LEVELS[level], address: table + at, entry });
      const pageSize = 2 ** Number(shift);
      if (!(entry & PRESENT)) return { steps, physical: undefined, pageSize };
      if (level === 0 || (level <= 2 && entry & PAGE_SIZE_BIT)) {
        const mask = (1n << shift) - 1n;
        return { steps, physical: Number((entry & ADDRESS_MASK & ~mask) | (address & mask)), pageSize };
      }
      table = Number(entry & ADDRESS_MASK);
    }
    throw new Error('A walk ends at its last level.');
  }

  /** @throws NemuError ADDRESS for what is not mapped, or not in RAM. */
  async read(virtual: bigint, length: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(length);
    for (let done = 0; done < length; ) {
      const address = virtual + BigInt(done);
      const { physical, pageSize } = await this.walk(address);
      if (physical === undefined) {
        throw new NemuError(
          'ADDRESS',
          `The guest's address 0x${BigInt.asUintN(64, address).toString(16)} is not mapped.`,
        );
      }
      const unit = Math.min(pageSize, PIECE);
      const inPage = physical % unit;
      const count = Math.min(unit - inPage, length - done);
      const page = await this.#page(physical - inPage, unit);
      bytes.set(page.subarray(inPage, inPage + count), done);
      done += count;
    }
    return bytes;
  }

  /** Reads `length` bytes, and after them up to `more`, as far as their pages are mapped. */
  async readTo(virtual: bigint, length: number, more: number): Promise<Uint8Array> {
    const end = virtual + BigInt(length);
    const left = PAGE - Number(BigInt.asUintN(64, end) & 0xfffn);
    const mapped =
      left >= more || (await this.walk(end + BigInt(left))).physical === undefined ? Math.min(left, more) : more;
    return this.read(virtual, length + mapped);
  }

  async view(virtual: bigint, length: number): Promise<DataView> {
    return new DataView((await this.read(virtual, length)).buffer);
  }

  async u64(virtual: bigint): Promise<bigint> {
    return (await this.view(virtual, 8)).getBigUint64(0, true);
  }

  async u32(virtual: bigint): Promise<number> {
    return (await this.view(virtual, 4)).getUint32(0, true);
  }
}
