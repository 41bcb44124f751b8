/** A guest's memory and registers as an ELF core file, which crash(8), makedumpfile(8) and gdb read (System V ABI, ELF64). */
import { EHDR_SIZE, ET_CORE, elfHeader } from '../client/elf_file.ts';

export interface CoreRange {
  /** Guest-physical. */
  readonly address: number;
  readonly size: number;
}

const PHDR = 56;
const [PT_LOAD, PT_NOTE, NT_PRSTATUS] = [1, 4, 1];
const PAGE = 4096;

/** Registers of elf_prstatus, in the order of user_regs_struct (asm/user_64.h). */
const PR_REG = [
  ...['r15', 'r14', 'r13', 'r12', 'rbp', 'rbx', 'r11', 'r10', 'r9', 'r8', 'rax', 'rcx', 'rdx', 'rsi', 'rdi'],
  ...['orig_rax', 'rip', 'cs', 'rflags', 'rsp', 'ss', 'fs_base', 'gs_base', 'ds', 'es', 'fs', 'gs'],
];
const PRSTATUS = { SIZE: 336, PID: 32, REG: 112 } as const;

const align = (value: number, to: number) => Math.ceil(value / to) * to;

/** An ELF note; names and contents stand at multiples of 4. */
export function note(name: string, type: number, content: Uint8Array): Buffer {
  const text = Buffer.from(`${name}\0`);
  const bytes = Buffer.alloc(12 + align(text.length, 4) + align(content.length, 4));
  bytes.writeUInt32LE(text.length, 0);
  bytes.writeUInt32LE(content.length, 4);
  bytes.writeUInt32LE(type, 8);
  text.copy(bytes, 12);
  bytes.set(content, 12 + align(text.length, 4));
  return bytes;
}

/** What a vCPU was doing. @param registers hexadecimal, by name; those that are not known are 0. */
export function prstatus(cpu: number, registers: Readonly<Record<string, string>>): Buffer {
  const bytes = Buffer.alloc(PRSTATUS.SIZE);
  bytes.writeUInt32LE(cpu + 1, PRSTATUS.PID);
  for (const [index, name] of PR_REG.entries()) {
    bytes.writeBigUInt64LE(BigInt.asUintN(64, BigInt(registers[name] ?? 0)), PRSTATUS.REG + 8 * index);
  }
  return note('CORE', NT_PRSTATUS, bytes);
}

/** Everything before the memory itself, which follows range by range from `dataOffset` on. */
export function coreHeader(
  ranges: readonly CoreRange[],
  notes: readonly Uint8Array[],
): { readonly bytes: Buffer; readonly dataOffset: number } {
  const text = Buffer.concat(notes);
  const noteOffset = EHDR_SIZE + PHDR * (ranges.length + 1);
  const dataOffset = align(noteOffset + text.length, PAGE);
  const bytes = Buffer.alloc(dataOffset);
  bytes.set(elfHeader(ET_CORE, { segments: { offset: EHDR_SIZE, count: ranges.length + 1 } }));
  const segment = (index: number, type: number, offset: number, address: number, size: number) => {
    const at = EHDR_SIZE + PHDR * index;
    bytes.writeUInt32LE(type, at);
    const fields = [offset, address, address, size, type === PT_NOTE ? 0 : size, 0];
    for (const [i, value] of fields.entries()) bytes.writeBigUInt64LE(BigInt(value), at + 8 + 8 * i);
  };
  segment(0, PT_NOTE, noteOffset, 0, text.length);
  let offset = dataOffset;
  for (const [index, { address, size }] of ranges.entries()) {
    segment(index + 1, PT_LOAD, offset, address, size);
    offset += size;
  }
  text.copy(bytes, noteOffset);
  return { bytes, dataOffset };
}
