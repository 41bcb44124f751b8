import { NemuError } from '../../client/errors.ts';
import type { E820Entry } from './plan.ts';
import { bytesText, range } from './text.ts';

interface Range {
  readonly gpa: number;
  /** First address behind the range. */
  readonly end: number;
}

interface Claim extends Range {
  readonly what: string;
}

export interface Placement {
  readonly size: number;
  /** A power of two. */
  readonly align: number;
  /** Lowest address of the first byte. */
  readonly min?: number;
  /** Highest address of the last byte. */
  readonly max?: number;
  readonly from: 'bottom' | 'top';
}

const alignUp = (value: number, align: number) => Math.ceil(value / align) * align;
const alignDown = (value: number, align: number) => Math.floor(value / align) * align;

/** Guest RAM as a loader fills it: nothing is put outside of it, and nothing over something else. */
export class GuestLayout {
  /** RAM, lowest first, touching entries joined. */
  readonly ram: readonly Range[];
  /** First address behind all RAM. */
  readonly end: number;
  /** Bytes of RAM. */
  readonly ramSize: number;
  readonly #claims: Claim[] = [];

  /** @throws NemuError `MEMORY_MAP` when entries overlap or are not addresses. */
  constructor(memoryMap: readonly E820Entry[]) {
    const sorted = [...memoryMap].sort((a, b) => a.gpa - b.gpa);
    const ram: { gpa: number; end: number }[] = [];
    let last = 0;
    for (const { gpa, size, type } of sorted) {
      const end = gpa + size;
      if (!Number.isSafeInteger(gpa) || !Number.isSafeInteger(end) || gpa < last || size <= 0) {
        throw new NemuError('MEMORY_MAP', `The memory map's ${type} entry at ${gpa} of ${size} bytes is invalid.`);
      }
      last = end;
      if (type !== 'ram') continue;
      if (ram.at(-1)?.end === gpa) ram[ram.length - 1].end = end;
      else ram.push({ gpa, end });
    }
    this.ram = ram;
    this.end = ram.at(-1)?.end ?? 0;
    this.ramSize = ram.reduce((sum, { gpa, end }) => sum + end - gpa, 0);
  }

  /** Whether a range is wholly RAM. */
  isRam(gpa: number, size: number): boolean {
    return this.ram.some((each) => gpa >= each.gpa && gpa + size <= each.end);
  }

  /** What already is in a range, if anything. */
  occupant(gpa: number, size: number): string | undefined {
    const claim = this.#claims.find((each) => gpa < each.end && gpa + size > each.gpa);
    return claim && `${claim.what} at ${range(claim.gpa, claim.end - claim.gpa)}`;
  }

  isFree(gpa: number, size: number): boolean {
    return this.isRam(gpa, size) && this.occupant(gpa, size) === undefined;
  }

  /** Takes a range for `what`. Callers have checked it when it comes from a file. */
  claim(gpa: number, size: number, what: string): void {
    if (size === 0) return;
    if (!this.isRam(gpa, size)) {
      throw new NemuError(
        'MEMORY_MAP',
        `There is no RAM at ${range(gpa, size)} for ${what}: the guest's RAM is ${this.describe()}.`,
      );
    }
    const occupant = this.occupant(gpa, size);
    if (occupant) throw new NemuError('MEMORY_MAP', `${what} at ${range(gpa, size)} would overwrite ${occupant}.`);
    this.#claims.push({ gpa, end: gpa + size, what });
    this.#claims.sort((a, b) => a.gpa - b.gpa);
  }

  /** A free place, or undefined. Does not take it. */
  find({ size, align, min = 0, max = Number.MAX_SAFE_INTEGER, from }: Placement): number | undefined {
    const gaps = this.#gaps();
    if (from === 'top') gaps.reverse();
    for (const gap of gaps) {
      const low = alignUp(Math.max(gap.gpa, min), align);
      const high = alignDown(Math.min(gap.end, max + 1) - size, align);
      if (low <= high) return from === 'bottom' ? low : high;
    }
    return undefined;
  }

  /** RAM in words, for messages. */
  describe(): string {
    const shown = this.ram.slice(0, 4).map(({ gpa, end }) => range(gpa, end - gpa));
    if (this.ram.length > shown.length) shown.push('…');
    return `${bytesText(this.ramSize)} (${shown.join(', ')})`;
  }

  #gaps(): Range[] {
    const gaps: Range[] = [];
    for (const { gpa, end } of this.ram) {
      let start = gpa;
      for (const claim of this.#claims) {
        if (claim.end <= start || claim.gpa >= end) continue;
        if (claim.gpa > start) gaps.push({ gpa: start, end: claim.gpa });
        start = claim.end;
      }
      if (start < end) gaps.push({ gpa: start, end });
    }
    return gaps;
  }
}
