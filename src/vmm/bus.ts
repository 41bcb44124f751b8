import { NemuError } from '../client/errors.ts';
import type { Region } from '../devices/device.ts';

export type AddressSpace = 'pio' | 'mmio';

/** How often the guest used a region, by direction. */
export interface RegionCounters {
  readonly space: AddressSpace;
  readonly name: string;
  readonly base: number;
  readonly size: number;
  reads: number;
  writes: number;
}

interface Mapping extends RegionCounters {
  readonly end: number;
  readonly region: Region;
}

const hex = (value: number) => `0x${value.toString(16)}`;
const range = (mapping: { base: number; size: number }) =>
  `${hex(mapping.base)}-${hex(mapping.base + mapping.size - 1)}`;

/** All ones of an access of `size` bytes: what an empty bus answers. */
const floating = (size: number) => (size === 1 ? 0xff : size === 2 ? 0xffff : 0xffffffff);

/**
 * Port or memory addresses to device regions. Lookup is by binary search with the last hit tried first.
 * Values are unsigned numbers of up to 32 bits; `readBytes` and `writeBytes` take any length.
 */
export class Bus {
  readonly space: AddressSpace;
  #mappings: Mapping[] = [];
  #last: Mapping | undefined;
  /** Accesses that no region answered. */
  unclaimed = { reads: 0, writes: 0, lastAddress: 0 };

  constructor(space: AddressSpace) {
    this.space = space;
  }

  /**
   * Maps a region at `base`.
   * @returns the function that takes it off again.
   * @throws NemuError `BUS_OVERLAP` that names both regions and their ranges.
   */
  insert(base: number, region: Region): () => void {
    const mapping: Mapping = {
      space: this.space,
      name: region.name,
      base,
      size: region.size,
      end: base + region.size,
      region,
      reads: 0,
      writes: 0,
    };
    const other = this.#overlapping(base, mapping.end);
    if (other) {
      throw new NemuError(
        'BUS_OVERLAP',
        `${region.name} at ${this.space} ${range(mapping)} overlaps ${other.name} at ${range(other)}.`,
        { hint: 'Give one of the two devices another address.' },
      );
    }
    this.#mappings = [...this.#mappings, mapping].sort((a, b) => a.base - b.base);
    return () => {
      this.#mappings = this.#mappings.filter((each) => each !== mapping);
      this.#last = undefined;
    };
  }

  /** Whether no region answers at any of these addresses. */
  isFree(base: number, size: number): boolean {
    return this.#overlapping(base, base + size) === undefined;
  }

  #overlapping(base: number, end: number): Mapping | undefined {
    return this.#mappings.find((each) => each.base < end && base < each.end);
  }

  #find(address: number): Mapping | undefined {
    const last = this.#last;
    if (last !== undefined && address >= last.base && address < last.end) return last;
    let low = 0;
    let high = this.#mappings.length - 1;
    while (low <= high) {
      const middle = (low + high) >> 1;
      const mapping = this.#mappings[middle];
      if (address < mapping.base) high = middle - 1;
      else if (address >= mapping.end) low = middle + 1;
      else {
        this.#last = mapping;
        return mapping;
      }
    }
    return undefined;
  }

  /** @param size 1, 2 or 4. */
  read(address: number, size: number): number {
    const mapping = this.#find(address);
    if (mapping === undefined || address + size > mapping.end) return this.#readSplit(mapping, address, size);
    mapping.reads++;
    return mapping.region.read(address - mapping.base, size);
  }

  /** @param size 1, 2 or 4. */
  write(address: number, size: number, value: number): void {
    const mapping = this.#find(address);
    if (mapping === undefined || address + size > mapping.end) {
      this.#writeSplit(mapping, address, size, value);
      return;
    }
    mapping.writes++;
    mapping.region.write(address - mapping.base, size, value);
  }

  /** An access that leaves its region is made of bytes, each for whom it falls to. */
  #readSplit(mapping: Mapping | undefined, address: number, size: number): number {
    if (mapping === undefined && this.#nextBase(address) >= address + size) {
      this.unclaimed.reads++;
      this.unclaimed.lastAddress = address;
      return floating(size);
    }
    let value = 0;
    for (let i = 0; i < size; i++) {
      const owner = this.#find(address + i);
      let byte = 0xff;
      if (owner) {
        owner.reads++;
        byte = owner.region.read(address + i - owner.base, 1);
      }
      value |= byte << (8 * i);
    }
    return value >>> 0;
  }

  #writeSplit(mapping: Mapping | undefined, address: number, size: number, value: number): void {
    if (mapping === undefined && this.#nextBase(address) >= address + size) {
      this.unclaimed.writes++;
      this.unclaimed.lastAddress = address;
      return;
    }
    for (let i = 0; i < size; i++) {
      const owner = this.#find(address + i);
      if (!owner) continue;
      owner.writes++;
      owner.region.write(address + i - owner.base, 1, (value >>> (8 * i)) & 0xff);
    }
  }

  #nextBase(address: number): number {
    for (const mapping of this.#mappings) if (mapping.base >= address) return mapping.base;
    return Number.POSITIVE_INFINITY;
  }

  /** A read of any length, as naturally sized pieces, low address first. */
  readBytes(address: number, into: Uint8Array): void {
    for (let i = 0; i < into.length; ) {
      const size = pieceSize(into.length - i);
      const value = this.read(address + i, size);
      for (let k = 0; k < size; k++) into[i + k] = value >>> (8 * k);
      i += size;
    }
  }

  /** A write of any length, as naturally sized pieces, low address first. */
  writeBytes(address: number, from: Uint8Array): void {
    for (let i = 0; i < from.length; ) {
      const size = pieceSize(from.length - i);
      let value = 0;
      for (let k = 0; k < size; k++) value |= from[i + k] << (8 * k);
      this.write(address + i, size, value >>> 0);
      i += size;
    }
  }

  /** `rep ins`: `into.length / size` reads of one address. */
  readRepeated(address: number, size: number, into: Uint8Array): void {
    const mapping = this.#find(address);
    if (mapping?.region.readMany && address + size <= mapping.end) {
      mapping.reads += into.length / size;
      mapping.region.readMany(address - mapping.base, size, into);
      return;
    }
    for (let i = 0; i + size <= into.length; i += size) this.readBytes(address, into.subarray(i, i + size));
  }

  /** `rep outs`: `from.length / size` writes to one address. */
  writeRepeated(address: number, size: number, from: Uint8Array): void {
    const mapping = this.#find(address);
    if (mapping?.region.writeMany && address + size <= mapping.end) {
      mapping.writes += from.length / size;
      mapping.region.writeMany(address - mapping.base, size, from);
      return;
    }
    for (let i = 0; i + size <= from.length; i += size) this.writeBytes(address, from.subarray(i, i + size));
  }

  /** Copies of the counters of every mapped region, by address. */
  counters(): RegionCounters[] {
    return this.#mappings.map(({ space, name, base, size, reads, writes }) => ({
      space,
      name,
      base,
      size,
      reads,
      writes,
    }));
  }
}

const pieceSize = (left: number) => (left >= 4 ? 4 : left >= 2 ? 2 : 1);
