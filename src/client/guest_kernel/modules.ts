/** The kernel's modules and their symbols, from its memory: include/linux/module.h, kernel/module/kallsyms.c. */
import { NemuError } from '../errors.ts';
import type { AddressSpace } from './address_space.ts';
import { Btf, type Layout } from './btf.ts';
import { type KernelSymbol, KernelSymbols, MAX_NAME, readable } from './kallsyms.ts';

export interface KernelModule {
  readonly name: string;
  /** Where its code is, and how many bytes that has. */
  readonly base: bigint;
  readonly size: number;
  /** struct mod_kallsyms; 0 when it has none. */
  readonly table: bigint;
}

const MAX_BTF = 64 << 20;
const MAX_MODULES = 4096;
const MAX_SYMBOLS = 1 << 17;
const MAX_STRINGS = 16 << 20;
const MODULE_NAME_LENGTH = 56;
/** Elf64_Sym, from elf.h: st_name, st_info, st_other, st_shndx, st_value, st_size. */
const SYMBOL_BYTES = 24;
/** enum module_state: it is there, and is not being loaded or unloaded. */
const MODULE_STATE_LIVE = 0;

/** Where what is read of a module is, in this kernel. */
export interface ModuleLayout {
  readonly state: number;
  readonly list: number;
  readonly name: number;
  readonly base: number;
  readonly size: number;
  readonly kallsyms: number;
  readonly symtab: number;
  readonly count: number;
  readonly strtab: number;
  readonly typetab: number | undefined;
}

/**
 * Reads the kernel's BTF for the layout of its modules; undefined when it has none (CONFIG_DEBUG_INFO_BTF).
 * @throws NemuError ADDRESS, BTF.
 */
export async function readModuleLayout(kernel: KernelSymbols, memory: AddressSpace): Promise<ModuleLayout | undefined> {
  const [start, stop] = [kernel.find('__start_BTF'), kernel.find('__stop_BTF')];
  if (!start || !stop) return undefined;
  const length = Number(stop.address - start.address);
  if (length <= 0 || length > MAX_BTF) throw new NemuError('BTF', `The kernel's types (BTF) have ${length} bytes.`);
  const btf = new Btf(await memory.read(start.address, length));
  const module = btf.struct('module');
  const table = btf.struct('mod_kallsyms');
  // Since 6.4 a module has an array of pieces, its code first; before, core_layout was all of it.
  const piece = btf.struct('module_memory') ?? btf.struct('module_layout');
  const pieces = module?.offset('mem') ?? module?.offset('core_layout');
  if (!module || !table || !piece || pieces === undefined) return undefined;
  const at = (layout: Layout, member: string): number => {
    const offset = layout.offset(member);
    if (offset === undefined) throw new NemuError('BTF', `The kernel's types (BTF) have no "${member}" of a module.`);
    return offset;
  };
  return {
    state: at(module, 'state'),
    list: at(module, 'list'),
    name: at(module, 'name'),
    base: pieces + at(piece, 'base'),
    size: pieces + at(piece, 'size'),
    kallsyms: at(module, 'kallsyms'),
    symtab: at(table, 'symtab'),
    count: at(table, 'num_symtab'),
    strtab: at(table, 'strtab'),
    typetab: table.offset('typetab'),
  };
}

/**
 * Reads which modules are loaded, by address.
 * @param head address of the kernel's `modules`.
 * @throws NemuError ADDRESS.
 */
export async function readModules(head: bigint, layout: ModuleLayout, memory: AddressSpace): Promise<KernelModule[]> {
  const modules: KernelModule[] = [];
  let entry = await memory.u64(head);
  for (let seen = 0; entry !== head && seen < MAX_MODULES; seen++) {
    const module = entry - BigInt(layout.list);
    if ((await memory.u32(module + BigInt(layout.state))) === MODULE_STATE_LIVE) {
      modules.push({
        name: text(await memory.read(module + BigInt(layout.name), MODULE_NAME_LENGTH), 0),
        base: await memory.u64(module + BigInt(layout.base)),
        size: await memory.u32(module + BigInt(layout.size)),
        table: await memory.u64(module + BigInt(layout.kallsyms)),
      });
    }
    entry = await memory.u64(entry);
  }
  return modules.sort((a, b) => (a.base < b.base ? -1 : 1));
}

/**
 * Reads a module's own symbols.
 * @throws NemuError ADDRESS, KALLSYMS.
 */
export async function readModuleSymbols(
  module: KernelModule,
  layout: ModuleLayout,
  memory: AddressSpace,
): Promise<KernelSymbols> {
  return new KernelSymbols(module.table === 0n ? [] : await readSymbols(module.table, layout, memory));
}

async function readSymbols(table: bigint, layout: ModuleLayout, memory: AddressSpace): Promise<KernelSymbol[]> {
  const count = await memory.u32(table + BigInt(layout.count));
  if (count > MAX_SYMBOLS) throw new NemuError('KALLSYMS', `A module has ${count} symbols.`);
  const symtab = await memory.view(await memory.u64(table + BigInt(layout.symtab)), count * SYMBOL_BYTES);
  const strtab = await memory.u64(table + BigInt(layout.strtab));
  const types =
    layout.typetab === undefined
      ? undefined
      : await memory.read(await memory.u64(table + BigInt(layout.typetab)), count);
  // The names lie in the order of the symbols: the last of them ends the table.
  let last = 0;
  for (let i = 0; i < count; i++) last = Math.max(last, symtab.getUint32(i * SYMBOL_BYTES, true));
  if (last > MAX_STRINGS) throw new NemuError('KALLSYMS', `A module's names have ${last} bytes.`);
  const names = await memory.readTo(strtab, last, 512);
  const symbols: KernelSymbol[] = [];
  let characters = 0;
  for (let i = 0; i < count; i++) {
    const at = i * SYMBOL_BYTES;
    const name = text(names, symtab.getUint32(at, true));
    // st_shndx 0: what another module or the kernel has.
    characters += name.length;
    if (characters > MAX_STRINGS) throw new NemuError('KALLSYMS', `A module's names have ${characters} characters.`);
    if (name === '' || symtab.getUint16(at + 6, true) === 0) continue;
    symbols.push({
      type: types ? String.fromCharCode(types[i]) : '?',
      name,
      address: symtab.getBigUint64(at + 8, true),
    });
  }
  return symbols;
}

function text(bytes: Uint8Array, from: number): string {
  const most = bytes.subarray(from, from + MAX_NAME);
  const end = most.indexOf(0);
  return readable(Buffer.from(most.subarray(0, end < 0 ? most.length : end)).toString('latin1'));
}
