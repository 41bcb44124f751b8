/** A kernel's symbols as an ELF file without contents, for gdb: System V ABI, ELF64. */
import { EHDR_SIZE, ET_EXEC, elfHeader } from '../client/elf_file.ts';

export interface FileSymbol {
  /** As in nm(1): `T` text, and so on; lower case for a local one. */
  readonly type: string;
  readonly name: string;
  readonly address: bigint;
}

const [SHDR, SYM] = [64, 24];
const [SHT_SYMTAB, SHT_STRTAB, SHT_NOBITS] = [2, 3, 8];
const [SHF_WRITE, SHF_ALLOC, SHF_EXECINSTR] = [1, 2, 4];
const [STB_LOCAL, STB_GLOBAL] = [0, 1];
const [STT_OBJECT, STT_FUNC] = [1, 2];
const SHN_ABS = 0xfff1;
/** Below it is no kernel: symbols of per-CPU data are offsets. */
const KERNEL_HALF = 1n << 63n;
/** What the last symbol of a run may have, where nothing follows it closely. */
const LAST = 0x1000n;
const GAP = 1n << 30n;
/** Section numbers from here on have another meaning. */
const MAX_SECTIONS = 0xff00 - 8;

const isCode = (type: string) => /[tw]/i.test(type);

interface Run {
  readonly code: boolean;
  readonly start: bigint;
  end: bigint;
}

/** Sections that do not overlap: text and data in the order of the symbols. */
function runsOf(symbols: readonly FileSymbol[]): Run[] {
  const runs: Run[] = [];
  for (const { type, address } of symbols) {
    const last = runs.at(-1);
    const code = isCode(type);
    const far = last !== undefined && address - last.end > GAP;
    if (last && !far && (last.code === code || runs.length >= MAX_SECTIONS)) {
      last.end = address + LAST;
      continue;
    }
    if (last && !far) last.end = address;
    runs.push({ code, start: address, end: address + LAST });
  }
  return runs.filter(({ start, end }) => end > start);
}

/** @param all symbols with run-time addresses. @returns the file: a section of each kind for each stretch of addresses. */
export function symbolFile(all: readonly FileSymbol[]): Buffer {
  const symbols = [...all].sort((a, b) => (a.address < b.address ? -1 : a.address > b.address ? 1 : 0));
  const runs = runsOf(symbols.filter(({ address }) => address >= KERNEL_HALF));
  const names = ['', '.text', '.data', '.symtab', '.strtab', '.shstrtab'];
  const nameText = Buffer.from(names.map((name) => `${name}\0`).join(''));
  const nameAt = (name: string) => nameText.indexOf(`\0${name}\0`) + 1;

  // Local symbols stand before the others.
  const locals = symbols.filter(({ type }) => type !== type.toUpperCase());
  const ordered = [...locals, ...symbols.filter(({ type }) => type === type.toUpperCase())];
  const table = Buffer.alloc(SYM * (ordered.length + 1));
  const strings: string[] = ['\0'];
  let stringAt = 1;
  for (const [index, { type, name, address }] of ordered.entries()) {
    const at = SYM * (index + 1);
    const binding = index < locals.length ? STB_LOCAL : STB_GLOBAL;
    table.writeUInt32LE(stringAt, at);
    table[at + 4] = (binding << 4) | (isCode(type) ? STT_FUNC : STT_OBJECT);
    table.writeUInt16LE(sectionOf(runs, address), at + 6);
    table.writeBigUInt64LE(BigInt.asUintN(64, address), at + 8);
    strings.push(`${name}\0`);
    stringAt += Buffer.byteLength(name) + 1;
  }
  const stringTable = Buffer.from(strings.join(''));

  const sections = runs.length + 4;
  const parts = [table, stringTable, nameText];
  const offsets = parts.map(
    (_, index) => EHDR_SIZE + parts.slice(0, index).reduce((sum, part) => sum + part.length, 0),
  );
  const headersAt = Math.ceil((offsets[2] + nameText.length) / 8) * 8;
  const headers = Buffer.alloc(SHDR * sections);
  const header = (index: number, name: string, words: readonly (number | bigint)[]) => {
    const at = SHDR * index;
    const [type, flags, address, offset, size, link, info, align, entry] = words;
    headers.writeUInt32LE(nameAt(name), at);
    headers.writeUInt32LE(Number(type), at + 4);
    for (const [i, value] of [flags, address, offset, size].entries()) {
      headers.writeBigUInt64LE(BigInt(value), at + 8 + 8 * i);
    }
    headers.writeUInt32LE(Number(link), at + 40);
    headers.writeUInt32LE(Number(info), at + 44);
    headers.writeBigUInt64LE(BigInt(align), at + 48);
    headers.writeBigUInt64LE(BigInt(entry), at + 56);
  };
  for (const [index, { code, start, end }] of runs.entries()) {
    const flags = SHF_ALLOC | (code ? SHF_EXECINSTR : SHF_WRITE);
    header(index + 1, code ? '.text' : '.data', [SHT_NOBITS, flags, start, EHDR_SIZE, end - start, 0, 0, 1, 0]);
  }
  const [symtab, strtab, shstrtab] = [1, 2, 3].map((each) => runs.length + each);
  header(symtab, '.symtab', [SHT_SYMTAB, 0, 0, offsets[0], table.length, strtab, locals.length + 1, 8, SYM]);
  header(strtab, '.strtab', [SHT_STRTAB, 0, 0, offsets[1], stringTable.length, 0, 0, 1, 0]);
  header(shstrtab, '.shstrtab', [SHT_STRTAB, 0, 0, offsets[2], nameText.length, 0, 0, 1, 0]);

  const start = elfHeader(ET_EXEC, { sections: { offset: headersAt, count: sections, names: shstrtab } });
  const padding = Buffer.alloc(headersAt - offsets[2] - nameText.length);
  return Buffer.concat([start, ...parts, padding, headers]);
}

function sectionOf(runs: readonly Run[], address: bigint): number {
  let low = 0;
  let high = runs.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (runs[middle].start <= address) low = middle + 1;
    else high = middle;
  }
  const run = runs[low - 1];
  return run && address < run.end ? low : SHN_ABS;
}
