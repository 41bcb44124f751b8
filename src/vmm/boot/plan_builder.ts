import { NemuError } from '../../client/errors.ts';
import { GuestLayout } from './guest_layout.ts';
import type { BootPlan, BootProtocol, BootRequest, EntryState } from './plan.ts';
import { bytesText, hex, range } from './text.ts';

/**
 * What a loader puts below 640 KiB. The BIOS data area (below 0x500), the first megabyte's upper part and the
 * place of the ACPI tables (0xe0000–0xfffff) stay untouched.
 */
export const GDT = 0x500;
export const START_INFO = 0x6000;
export const ZERO_PAGE = 0x7000;
const STACK = 0x8000;
const PAGE_TABLES = 0x9000;
export const CMDLINE = 0x20000;
export const MULTIBOOT_INFO = 0x30000;

const PAGE = 0x1000;
/** Longest command line of formats that name no limit, without the final NUL. */
const CMDLINE_MAX = MULTIBOOT_INFO - CMDLINE - 1;
export const LAST_32BIT = 0xffffffff;

/** Flat segments at selectors 0x10 and 0x18 (Intel SDM volume 3, section 3.4.5). */
const CODE64 = 0x00af9b000000ffffn;
const CODE32 = 0x00cf9b000000ffffn;
const DATA = 0x00cf93000000ffffn;

const PAGE_PRESENT = 1n;
const PAGE_WRITABLE = 2n;
const PAGE_LARGE = 1n << 7n;

/** Collects a boot plan piece by piece. Every piece is checked against RAM and against the pieces before it. */
export class PlanBuilder {
  readonly layout: GuestLayout;
  readonly #request: BootRequest;
  readonly #writes: { gpa: number; bytes: Uint8Array }[] = [];
  readonly #zeroes: { gpa: number; size: number }[] = [];
  readonly #warnings: string[] = [];

  constructor(request: BootRequest) {
    this.#request = request;
    this.layout = new GuestLayout(request.memoryMap);
    this.reserve(0, GDT, 'the BIOS data area');
  }

  warn(sentence: string): void {
    this.#warnings.push(sentence);
  }

  /** Puts data of ours at an address of ours. */
  put(gpa: number, bytes: Uint8Array, what: string): void {
    this.layout.claim(gpa, bytes.length, what);
    if (bytes.length > 0) this.#writes.push({ gpa, bytes });
  }

  /** Writes into a range that `reserve` took before. */
  fill(gpa: number, bytes: Uint8Array): void {
    this.#writes.push({ gpa, bytes });
  }

  /** Sets a range aside without writing to it. */
  reserve(gpa: number, size: number, what: string): void {
    this.layout.claim(gpa, size, what);
  }

  /**
   * Loads a piece of the kernel where the kernel wants it.
   * @param memorySize bytes in memory; what is more than `bytes` reads as zero.
   * @throws NemuError `KERNEL_TOO_BIG`, `KERNEL_ADDRESS`
   */
  load(gpa: number, bytes: Uint8Array, memorySize: number, what: string): void {
    if (memorySize === 0) return;
    const { kernelName } = this.#request;
    if (!this.layout.isRam(gpa, memorySize)) {
      if (gpa < this.layout.end && gpa + memorySize > this.layout.end) {
        throw new NemuError(
          'KERNEL_TOO_BIG',
          `${kernelName} needs ${bytesText(memorySize)} of RAM at ${hex(gpa)} for ${what}, but the guest's RAM is ${this.layout.describe()}.`,
          { hint: 'Give the guest more memory, for example --memory 1G.' },
        );
      }
      throw new NemuError(
        'KERNEL_ADDRESS',
        `${kernelName} wants ${what} at ${range(gpa, memorySize)}, where the guest has no RAM: it has ${this.layout.describe()}.`,
        {
          hint: 'Physical load addresses (p_paddr) must lie in RAM: link the kernel for them, or give the guest more memory.',
        },
      );
    }
    const occupant = this.layout.occupant(gpa, memorySize);
    if (occupant) {
      throw new NemuError(
        'KERNEL_ADDRESS',
        `${kernelName} wants ${what} at ${range(gpa, memorySize)}, which overlaps ${occupant}.`,
        { hint: 'Link the kernel to 1 MiB (0x100000) or above.' },
      );
    }
    this.put(gpa, bytes.subarray(0, memorySize), what);
    if (memorySize > bytes.length) {
      this.reserve(gpa + bytes.length, memorySize - bytes.length, what);
      this.#zeroes.push({ gpa: gpa + bytes.length, size: memorySize - bytes.length });
    }
  }

  /**
   * Puts the command line in place, with its final NUL.
   * @param max bytes that the kernel takes, without the NUL.
   * @returns its address.
   * @throws NemuError `CMDLINE_TOO_LONG`
   */
  putCmdline(text: string, max = CMDLINE_MAX): number {
    const limit = Math.min(max, CMDLINE_MAX);
    const bytes = Buffer.from(`${text}\0`, 'utf8');
    if (bytes.length - 1 > limit) {
      throw new NemuError(
        'CMDLINE_TOO_LONG',
        `The kernel command line has ${bytes.length - 1} bytes, but ${this.#request.kernelName} takes ${limit} at most.`,
        { hint: 'Shorten it (--append), or move settings into the initrd.' },
      );
    }
    this.put(CMDLINE, bytes, 'the command line');
    return CMDLINE;
  }

  /**
   * Finds a place for the initrd and puts it there. Call it when everything with a fixed address is in place.
   * @param maxima highest addresses of the last byte, the one to prefer first.
   * @returns where it is; undefined without one.
   * @throws NemuError `INITRD_TOO_BIG`
   */
  putInitrd(
    maxima: readonly number[],
    from: 'bottom' | 'top',
    min = 0x100000,
  ): { gpa: number; size: number } | undefined {
    const { initrd } = this.#request;
    if (!initrd) return undefined;
    if (initrd.length === 0) {
      this.warn('The initrd is empty: the kernel is started without one.');
      return undefined;
    }
    for (const max of maxima) {
      const gpa = this.layout.find({ size: initrd.length, align: PAGE, min, max, from });
      if (gpa === undefined) continue;
      this.put(gpa, initrd, 'the initrd');
      return { gpa, size: initrd.length };
    }
    const highest = Math.max(...maxima);
    const limit = highest < this.layout.end ? `, and this kernel takes an initrd below ${hex(highest + 1)} only` : '';
    throw new NemuError(
      'INITRD_TOO_BIG',
      `The initrd of ${bytesText(initrd.length)} does not fit beside the kernel: the guest's RAM is ${this.layout.describe()}${limit}.`,
      { hint: 'Give the guest more memory, for example --memory 1G, or use a smaller initrd.' },
    );
  }

  /** Segments, an identity map of the first 4 GiB and a stack page, for an entry in long mode. */
  putLongMode(): Pick<EntryState, 'mode' | 'cr3' | 'rsp' | 'gdt'> {
    const gdt = this.#putGdt(CODE64);
    // One page of each upper level and four directories of 2 MiB pages: pages of 1 GiB need not exist in a vCPU.
    const tables = Buffer.alloc(6 * PAGE);
    const link = (gpa: number) => BigInt(gpa) | PAGE_PRESENT | PAGE_WRITABLE;
    tables.writeBigUInt64LE(link(PAGE_TABLES + PAGE), 0);
    for (let i = 0; i < 4; i++) tables.writeBigUInt64LE(link(PAGE_TABLES + (2 + i) * PAGE), PAGE + 8 * i);
    for (let i = 0; i < 2048; i++) tables.writeBigUInt64LE(link(i * 0x200000) | PAGE_LARGE, 2 * PAGE + 8 * i);
    this.put(PAGE_TABLES, tables, 'the first page tables');
    return { mode: 'long64', cr3: PAGE_TABLES, rsp: this.#reserveStack(), gdt };
  }

  /** Flat 32-bit segments and a stack page, for an entry in protected mode. */
  putProtectedMode(): Pick<EntryState, 'mode' | 'rsp' | 'gdt'> {
    return { mode: 'protected32', gdt: this.#putGdt(CODE32), rsp: this.#reserveStack() };
  }

  #putGdt(code: bigint): EntryState['gdt'] {
    const gdt = Buffer.alloc(32);
    gdt.writeBigUInt64LE(code, 0x10);
    gdt.writeBigUInt64LE(DATA, 0x18);
    this.put(GDT, gdt, 'the segment descriptors');
    return { base: GDT, limit: gdt.length - 1 };
  }

  #reserveStack(): number {
    this.reserve(STACK, PAGE, 'the first stack');
    return STACK + PAGE;
  }

  finish(protocol: BootProtocol, entry: EntryState): BootPlan {
    return { protocol, entry, writes: this.#writes, zeroes: this.#zeroes, warnings: this.#warnings };
  }
}
