import { NemuError } from '../../client/errors.ts';
import { isBzImage, planBzImage } from './bzimage.ts';
import { isElf, parseElf } from './elf.ts';
import { planElf64 } from './elf64.ts';
import { unknownKernel } from './identify.ts';
import { findMultibootHeader, planMultiboot1 } from './multiboot1.ts';
import { findPvhEntry, planPvh } from './pvh.ts';

/** Kinds of address ranges that firmware reports (ACPI 6.5, section 15, table 15.1). */
export type E820Type = 'ram' | 'reserved' | 'acpi' | 'nvs' | 'unusable' | 'pmem';

export interface E820Entry {
  /** First guest-physical address. */
  readonly gpa: number;
  /** Length in bytes. */
  readonly size: number;
  readonly type: E820Type;
}

export interface BootRequest {
  readonly kernel: Uint8Array;
  /** The kernel's file name: for messages, and the first word of a Multiboot command line. */
  readonly kernelName: string;
  readonly initrd?: Uint8Array;
  readonly cmdline: string;
  /** What the guest is told about its memory, without overlaps. Everything is placed in its RAM. */
  readonly memoryMap: readonly E820Entry[];
  /** Guest-physical address of the RSDP, or 0 when there are no ACPI tables. */
  readonly rsdp: number;
}

/** Where the boot processor starts. Registers that are left out are 0. */
export interface EntryState {
  /** Long mode with paging by `cr3`, or protected mode with flat 32-bit segments and no paging. */
  readonly mode: 'long64' | 'protected32';
  readonly rip: number;
  readonly rsi?: number;
  readonly rbx?: number;
  readonly rax?: number;
  readonly rsp?: number;
  readonly cr3?: number;
  /** Code is selector 0x10 and data 0x18 in every mode. */
  readonly gdt: { readonly base: number; readonly limit: number };
}

export type BootProtocol = 'bzimage' | 'pvh' | 'elf64' | 'multiboot1';

export interface BootPlan {
  readonly protocol: BootProtocol;
  /** What goes into guest memory, in RAM and without overlaps. The bytes may be views of the request's files. */
  readonly writes: readonly { readonly gpa: number; readonly bytes: Uint8Array }[];
  /** Ranges that must read as zero when the guest starts: fresh memory does, memory of an earlier boot does not. */
  readonly zeroes: readonly { readonly gpa: number; readonly size: number }[];
  readonly entry: EntryState;
  /** Full sentences about what was found odd but good enough. */
  readonly warnings: readonly string[];
}

/**
 * Decides how a kernel file is started, and with what in memory. Pure: reads and writes nothing.
 *
 * The format is found in the file. A bzImage is started by Linux's 64-bit boot protocol. An ELF file with a PVH
 * note is started by it, also when it has a Multiboot header: only PVH tells the kernel where the ACPI tables
 * are. Then come Multiboot 1, and an ELF64 file as it is.
 *
 * @throws NemuError `KERNEL_FORMAT` (not a kernel, or a malformed one), `KERNEL_TRUNCATED`, `KERNEL_TOO_BIG` (for
 * this guest's RAM), `KERNEL_ADDRESS` (wants to be where something else is), `INITRD_TOO_BIG`, `CMDLINE_TOO_LONG`,
 * `CMDLINE_FORMAT`, `MEMORY_MAP` (the machine's fault, not the kernel's).
 */
export function planBoot(request: BootRequest): BootPlan {
  const { kernel, kernelName, cmdline } = request;
  if (cmdline.includes('\0')) {
    throw new NemuError('CMDLINE_FORMAT', 'The kernel command line contains a NUL character, which would end it.');
  }
  if (isBzImage(kernel)) return planBzImage(request);
  const multiboot = findMultibootHeader(kernel);
  if (isElf(kernel)) {
    const elf = parseElf(kernel, kernelName);
    const pvhEntry = findPvhEntry(elf, kernelName);
    if (pvhEntry !== undefined) return planPvh(request, elf, pvhEntry);
    if (multiboot) return planMultiboot1(request, multiboot, elf);
    return planElf64(request, elf);
  }
  if (multiboot) return planMultiboot1(request, multiboot);
  throw unknownKernel(kernel, kernelName);
}
