/** ELF executables, both classes, little endian (System V gABI, "Object Files" and "Program Loading"). */
import { NemuError } from '../../client/errors.ts';
import { struct } from '../../ffi/struct.ts';
import type { PlanBuilder } from './plan_builder.ts';
import { hex, range } from './text.ts';

const Elf32_Ehdr = struct(
  'Elf32_Ehdr',
  {
    e_ident0: 'u32',
    e_class: 'u8',
    e_data: 'u8',
    e_version_ident: 'u8',
    e_osabi: 'u8',
    e_pad: 'u64',
    e_type: 'u16',
    e_machine: 'u16',
    e_version: 'u32',
    e_entry: 'u32',
    e_phoff: 'u32',
    e_shoff: 'u32',
    e_flags: 'u32',
    e_ehsize: 'u16',
    e_phentsize: 'u16',
    e_phnum: 'u16',
    e_shentsize: 'u16',
    e_shnum: 'u16',
    e_shstrndx: 'u16',
  },
  52,
);

const Elf64_Ehdr = struct('Elf64_Ehdr', {
  ...Elf32_Ehdr.fields,
  e_entry: 'u64',
  e_phoff: 'u64',
  e_shoff: 'u64',
});

const Elf32_Phdr = struct('Elf32_Phdr', {
  p_type: 'u32',
  p_offset: 'u32',
  p_vaddr: 'u32',
  p_paddr: 'u32',
  p_filesz: 'u32',
  p_memsz: 'u32',
  p_flags: 'u32',
  p_align: 'u32',
});

const Elf64_Phdr = struct('Elf64_Phdr', {
  p_type: 'u32',
  p_flags: 'u32',
  p_offset: 'u64',
  p_vaddr: 'u64',
  p_paddr: 'u64',
  p_filesz: 'u64',
  p_memsz: 'u64',
  p_align: 'u64',
});

export const elfLayouts = [Elf32_Ehdr, Elf64_Ehdr, Elf32_Phdr, Elf64_Phdr];

const ELFMAG = 0x464c457f;
const ELFCLASS32 = 1;
const ELFCLASS64 = 2;
const ELFDATA2MSB = 2;
const ET_EXEC = 2;
const ET_DYN = 3;
const EM_386 = 3;
const EM_X86_64 = 62;
const PT_LOAD = 1;
const PT_INTERP = 3;
const PT_NOTE = 4;
/** More than any kernel has; a file with more is not one. */
const MAX_SEGMENTS = 256;

const ET_NAMES: Record<number, string> = { 1: 'an object file or kernel module (ET_REL)', 4: 'a core dump (ET_CORE)' };
const EM_NAMES: Record<number, string> = {
  2: 'SPARC',
  4: 'Motorola 68000',
  8: 'MIPS',
  15: 'PA-RISC',
  20: '32-bit PowerPC',
  21: '64-bit PowerPC',
  22: 'IBM S/390',
  40: '32-bit Arm',
  43: '64-bit SPARC',
  50: 'Itanium',
  94: 'Xtensa',
  183: 'AArch64',
  189: 'MicroBlaze',
  195: 'ARC',
  243: 'RISC-V',
  247: 'BPF',
  252: 'C-SKY',
  258: 'LoongArch',
};

export interface ElfSegment {
  /** Number of its program header. */
  readonly index: number;
  readonly vaddr: bigint;
  readonly paddr: bigint;
  readonly bytes: Uint8Array;
  /** Bytes in memory, at least those in the file. */
  readonly memorySize: bigint;
  readonly align: bigint;
}

export interface Elf {
  readonly bits: 32 | 64;
  readonly entry: bigint;
  readonly load: readonly ElfSegment[];
  readonly notes: readonly ElfSegment[];
}

export const isElf = (file: Uint8Array): boolean =>
  file.length >= 4 && new DataView(file.buffer, file.byteOffset, 4).getUint32(0, true) === ELFMAG;

function truncated(name: string, what: string, end: number | bigint, length: number): NemuError {
  return new NemuError(
    'KERNEL_TRUNCATED',
    `${name} is an ELF file cut off: ${what} would end at byte ${end}, but the file has ${length}.`,
    { hint: 'Copy, download or build the file again.' },
  );
}

/**
 * Reads the headers of an executable for this machine.
 * @throws NemuError `KERNEL_FORMAT`, `KERNEL_TRUNCATED`
 */
export function parseElf(file: Uint8Array, name: string): Elf {
  const view = new DataView(file.buffer, file.byteOffset, file.length);
  if (file.length < Elf32_Ehdr.size) throw truncated(name, 'its header', Elf32_Ehdr.size, file.length);
  const { e_class, e_data } = Elf32_Ehdr.on(view);
  if (e_data === ELFDATA2MSB) {
    // In this byte order `e_machine` reads the other way round.
    const machine = view.getUint16(18, false);
    throw wrongMachine(name, EM_NAMES[machine] ?? `a machine (number ${machine})`, 'big-endian ');
  }
  if (e_class !== ELFCLASS32 && e_class !== ELFCLASS64) {
    throw new NemuError('KERNEL_FORMAT', `${name} is an ELF file of an unknown class, ${e_class}.`);
  }
  const bits = e_class === ELFCLASS64 ? 64 : 32;
  if (bits === 64 && file.length < Elf64_Ehdr.size) throw truncated(name, 'its header', Elf64_Ehdr.size, file.length);
  const header = bits === 64 ? Elf64_Ehdr.on(view) : Elf32_Ehdr.on(view);
  const { e_machine, e_type, e_phnum, e_phentsize } = header;
  if (e_machine !== EM_X86_64 && e_machine !== EM_386) {
    throw wrongMachine(name, EM_NAMES[e_machine] ?? `a machine (number ${e_machine})`, '');
  }
  if (e_type !== ET_EXEC && e_type !== ET_DYN) {
    throw new NemuError(
      'KERNEL_FORMAT',
      `${name} is an ELF file, but ${ET_NAMES[e_type] ?? `of type ${e_type}`}, not an executable.`,
    );
  }
  const phdr = bits === 64 ? Elf64_Phdr : Elf32_Phdr;
  if (e_phnum === 0 || e_phnum > MAX_SEGMENTS || e_phentsize !== phdr.size) {
    throw new NemuError(
      'KERNEL_FORMAT',
      `${name} is an ELF file with ${e_phnum} program headers of ${e_phentsize} bytes: expected 1 to ${MAX_SEGMENTS} of ${phdr.size}.`,
    );
  }
  const phoff = BigInt(header.e_phoff);
  const phend = phoff + BigInt(e_phnum * e_phentsize);
  if (phend > file.length) throw truncated(name, 'its program headers', phend, file.length);

  const load: ElfSegment[] = [];
  const notes: ElfSegment[] = [];
  for (let index = 0; index < e_phnum; index++) {
    const fields = phdr.on(view, Number(phoff) + index * e_phentsize);
    const { p_type } = fields;
    if (p_type !== PT_LOAD && p_type !== PT_NOTE && p_type !== PT_INTERP) continue;
    const segment = readSegment(file, name, index, fields);
    if (p_type === PT_INTERP) refuseProgram(segment, name);
    else if (p_type === PT_NOTE) notes.push(segment);
    else if (segment.memorySize > 0n) load.push(segment);
  }
  if (load.length === 0) throw new NemuError('KERNEL_FORMAT', `${name} is an ELF file that has nothing to load.`);
  return { bits, entry: BigInt(header.e_entry), load, notes };
}

function wrongMachine(name: string, machine: string, order: string): NemuError {
  return new NemuError('KERNEL_FORMAT', `${name} is an ELF file for ${order}${machine}, but this guest is x86-64.`, {
    hint: 'Use a kernel built for x86-64.',
  });
}

/** Some kernels name an interpreter too, but none in a folder of libraries. */
function refuseProgram({ bytes }: ElfSegment, name: string): void {
  const interpreter = Buffer.from(bytes.subarray(0, 100)).toString('latin1').split('\0')[0];
  if (!/^\/(usr\/)?lib/.test(interpreter)) return;
  throw new NemuError(
    'KERNEL_FORMAT',
    `${name} is not a kernel: it is a program that runs on one (it names ${interpreter.replace(/[^\x20-\x7e]/g, '?')} to load it).`,
  );
}

type Phdr = ReturnType<typeof Elf32_Phdr.on> | ReturnType<typeof Elf64_Phdr.on>;

function readSegment(file: Uint8Array, name: string, index: number, fields: Phdr): ElfSegment {
  const offset = BigInt(fields.p_offset);
  const size = BigInt(fields.p_filesz);
  if (offset + size > file.length)
    throw truncated(name, `program header ${index}'s segment`, offset + size, file.length);
  const memorySize = BigInt(fields.p_memsz);
  if (fields.p_type === PT_LOAD && memorySize < size) {
    throw new NemuError(
      'KERNEL_FORMAT',
      `${name} has a segment (program header ${index}) of ${size} bytes in the file, but only ${memorySize} in memory.`,
    );
  }
  return {
    index,
    vaddr: BigInt(fields.p_vaddr),
    paddr: BigInt(fields.p_paddr),
    bytes: file.subarray(Number(offset), Number(offset + size)),
    memorySize,
    align: BigInt(fields.p_align),
  };
}

/** Beyond what an x86 processor can address: such a physical address is a virtual one in the wrong place. */
const PHYSICAL_LIMIT = 1n << 52n;

/**
 * Loads every segment at its physical address.
 * @returns the first address behind the kernel.
 * @throws NemuError `KERNEL_ADDRESS`, `KERNEL_TOO_BIG`
 */
export function loadSegments(plan: PlanBuilder, elf: Elf, name: string): number {
  let end = 0;
  for (const { index, paddr, bytes, memorySize } of elf.load) {
    if (paddr + memorySize > PHYSICAL_LIMIT) {
      throw new NemuError(
        'KERNEL_ADDRESS',
        `${name} wants its segment ${index} of ${memorySize} bytes at the physical address ${hex(paddr)}, which no machine has.`,
        { hint: 'Its p_paddr fields seem to hold virtual addresses: set load addresses in the linker script (AT).' },
      );
    }
    plan.load(Number(paddr), bytes, Number(memorySize), `its segment ${index}`);
    end = Math.max(end, Number(paddr + memorySize));
  }
  return end;
}

/**
 * Physical address of an entry point. One that lies in a segment's virtual addresses only is translated.
 * @throws NemuError `KERNEL_FORMAT` when it is in no segment, or above 4 GiB.
 */
export function physicalEntry(plan: PlanBuilder, elf: Elf, entry: bigint, name: string): number {
  const contains = (start: bigint, { memorySize }: ElfSegment) => entry >= start && entry < start + memorySize;
  let physical = elf.load.some((each) => contains(each.paddr, each)) ? entry : undefined;
  if (physical === undefined) {
    const segment = elf.load.find((each) => contains(each.vaddr, each));
    if (segment) {
      physical = entry - segment.vaddr + segment.paddr;
      plan.warn(
        `${name} has a virtual address, ${hex(entry)}, as its entry point: it is started at the physical one, ${hex(physical)}.`,
      );
    }
  }
  if (physical === undefined) {
    const segments = elf.load.slice(0, 4).map(({ paddr, memorySize }) => range(Number(paddr), Number(memorySize)));
    throw new NemuError(
      'KERNEL_FORMAT',
      `${name} has its entry point at ${hex(entry)}, outside of what it loads (${segments.join(', ')}${elf.load.length > 4 ? ', …' : ''}).`,
    );
  }
  if (physical > 0xffffffffn) {
    throw new NemuError('KERNEL_FORMAT', `${name} has its entry point at ${hex(physical)}, above 4 GiB.`, {
      hint: 'The first page tables map 4 GiB: link the entry point below.',
    });
  }
  return Number(physical);
}
