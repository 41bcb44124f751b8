/**
 * What a kernel module says of itself: its `.modinfo` section of NUL-terminated `key=value` strings
 * (include/linux/moduleparam.h), found through the ELF-64 section headers (ELF specification, chapter 1).
 */
import { NemuError } from '../client/errors.ts';

export interface ModuleInfo {
  /** Modules that have to be loaded before. */
  depends: string[];
  /** Modules that are wanted before and after, and may be missing: `softdep=pre: a b post: c`. */
  softPre: string[];
  softPost: string[];
  /** Patterns that devices ask for it by, for example `acpi*:QEMU0001:*`. */
  aliases: string[];
}

const EHDR_SIZE = 64;
const SHDR_SIZE = 64;

/**
 * Reads the `.modinfo` of an uncompressed little-endian 64-bit module; none gives empty lists.
 * @throws NemuError MODULE_FORMAT
 */
export function readModuleInfo(name: string, bytes: Uint8Array): ModuleInfo {
  const info: ModuleInfo = { depends: [], softPre: [], softPost: [], aliases: [] };
  for (const entry of modinfoStrings(name, bytes)) {
    const equals = entry.indexOf('=');
    const key = entry.slice(0, equals);
    const value = entry.slice(equals + 1);
    if (key === 'depends') info.depends.push(...value.split(',').filter(Boolean));
    else if (key === 'alias') info.aliases.push(value);
    else if (key === 'softdep') readSoftDependencies(value, info);
  }
  return info;
}

function readSoftDependencies(value: string, info: ModuleInfo): void {
  let list: string[] | undefined;
  for (const word of value.split(/\s+/).filter(Boolean)) {
    if (word === 'pre:') list = info.softPre;
    else if (word === 'post:') list = info.softPost;
    else list?.push(word);
  }
}

function modinfoStrings(name: string, bytes: Uint8Array): string[] {
  const malformed = (what: string) =>
    new NemuError('MODULE_FORMAT', `The kernel module ${name} is not a valid module: ${what}.`, {
      hint: 'Fetch the guest kernel again with "nemu guest rm" and "nemu guest fetch".',
    });
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (buffer.length < EHDR_SIZE || buffer.readUInt32BE(0) !== 0x7f454c46) throw malformed('it has no ELF header');
  // e_ident: ELFCLASS64, ELFDATA2LSB.
  if (buffer[4] !== 2 || buffer[5] !== 1) throw malformed('it is not of the 64-bit little-endian kind');
  const tableAt = Number(buffer.readBigUInt64LE(40));
  const [entrySize, count, namesIndex] = [buffer.readUInt16LE(58), buffer.readUInt16LE(60), buffer.readUInt16LE(62)];
  if (entrySize !== SHDR_SIZE || namesIndex >= count) throw malformed('its section table is damaged');
  if (tableAt + count * SHDR_SIZE > buffer.length) throw malformed('its section table is cut off');
  const section = (index: number): Buffer => {
    const at = tableAt + index * SHDR_SIZE;
    const offset = Number(buffer.readBigUInt64LE(at + 24));
    const size = Number(buffer.readBigUInt64LE(at + 32));
    if (offset + size > buffer.length) throw malformed(`section ${index} lies outside the file`);
    return buffer.subarray(offset, offset + size);
  };
  const names = section(namesIndex);
  const wanted = Buffer.from('.modinfo\0');
  for (let index = 0; index < count; index++) {
    const nameAt = buffer.readUInt32LE(tableAt + index * SHDR_SIZE);
    if (names.subarray(nameAt, nameAt + wanted.length).equals(wanted)) {
      return section(index).toString('latin1').split('\0').filter(Boolean);
    }
  }
  return [];
}
