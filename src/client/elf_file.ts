/** The header of ELF files that we write: System V ABI, ELF64, little-endian, x86-64. */

export const EHDR_SIZE = 64;
export const [ET_EXEC, ET_CORE] = [2, 4];
const EM_X86_64 = 62;
const PHDR_SIZE = 56;
const SHDR_SIZE = 64;

/** A table of headers: where it begins in the file, and how many it has. */
export interface ElfTable {
  readonly offset: number;
  readonly count: number;
}

/** @param tables those of the segments, and of the sections with the number of the one that has their names. */
export function elfHeader(
  type: number,
  { segments, sections }: { readonly segments?: ElfTable; readonly sections?: ElfTable & { readonly names: number } },
): Buffer {
  const bytes = Buffer.alloc(EHDR_SIZE);
  // ELF, 64 bits, little-endian, version 1.
  bytes.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1], 0);
  bytes.writeUInt16LE(type, 16);
  bytes.writeUInt16LE(EM_X86_64, 18);
  bytes.writeUInt32LE(1, 20);
  bytes.writeUInt16LE(EHDR_SIZE, 52);
  if (segments) {
    bytes.writeBigUInt64LE(BigInt(segments.offset), 32);
    bytes.writeUInt16LE(PHDR_SIZE, 54);
    bytes.writeUInt16LE(segments.count, 56);
  }
  if (sections) {
    bytes.writeBigUInt64LE(BigInt(sections.offset), 40);
    bytes.writeUInt16LE(SHDR_SIZE, 58);
    bytes.writeUInt16LE(sections.count, 60);
    bytes.writeUInt16LE(sections.names, 62);
  }
  return bytes;
}
