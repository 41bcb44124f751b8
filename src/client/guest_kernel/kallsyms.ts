/** The kernel's symbols, from its own compressed table in memory: scripts/kallsyms.c, kernel/kallsyms.c. */
import { NemuError } from '../errors.ts';
import type { AddressSpace } from './address_space.ts';
import type { VmcoreInfo } from './vmcoreinfo.ts';

export interface KernelSymbol {
  /** As in nm(1): `T` text, `D` data, `B` zeroed data, `R` read-only; lower case for a local one. */
  readonly type: string;
  readonly name: string;
  readonly address: bigint;
}

/** No symbol has more bytes: between two that are further apart there is nothing. */
const LARGEST = 1n << 30n;
const MAX_SYMBOLS = 1 << 22;
const TOKENS = 256;
/** Characters of a name (KSYM_NAME_LEN) and of all names, tokens of all names, and bytes of all tokens. */
export const MAX_NAME = 512;
const MAX_CHARACTERS = 1 << 27;
const MAX_TOKENS = 1 << 26;
const TOKEN_TABLE = 8192;

export class KernelSymbols {
  /** By address. */
  readonly #all: readonly KernelSymbol[];
  readonly #byName = new Map<string, KernelSymbol>();

  constructor(symbols: KernelSymbol[]) {
    this.#all = symbols.sort((a, b) => (a.address < b.address ? -1 : a.address > b.address ? 1 : 0));
    for (const symbol of symbols) if (!this.#byName.has(symbol.name)) this.#byName.set(symbol.name, symbol);
  }

  /** By address. */
  get all(): readonly KernelSymbol[] {
    return this.#all;
  }

  get size(): number {
    return this.#all.length;
  }

  find(name: string): KernelSymbol | undefined {
    return this.#byName.get(name);
  }

  /** Symbols whose names hold the text. */
  search(text: string, most = 50): KernelSymbol[] {
    const found: KernelSymbol[] = [];
    for (const symbol of this.#all) {
      if (!symbol.name.includes(text)) continue;
      found.push(symbol);
      if (found.length === most) break;
    }
    return found;
  }

  /**
   * `name+0x12` for an address; undefined outside.
   * @param end where the last symbol ends; unknown, none are in it.
   */
  describe(address: bigint, end?: bigint): string | undefined {
    const all = this.#all;
    let low = 0;
    let high = all.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (all[middle].address <= address) low = middle + 1;
      else high = middle;
    }
    const symbol = all[low - 1];
    if (!symbol || (low === all.length && (end === undefined || address >= end))) return undefined;
    const offset = address - symbol.address;
    // Symbols of per-CPU data are offsets from 0: the last of them does not reach up to the kernel.
    const next = all[low];
    if (offset > 0n && next && next.address - symbol.address > LARGEST) return undefined;
    return offset === 0n ? symbol.name : `${symbol.name}+0x${offset.toString(16)}`;
  }
}

/**
 * Reads all symbols. Kernels from 6.0 on say where their tables are.
 * @throws NemuError VMCOREINFO, ADDRESS, KALLSYMS.
 */
export async function readKernelSymbols(info: VmcoreInfo, memory: AddressSpace): Promise<KernelSymbols> {
  const count = await memory.u32(info.symbol('kallsyms_num_syms'));
  if (count === 0 || count > MAX_SYMBOLS) throw damaged(`there are ${count} of them`);
  const tokens = await readTokens(info, memory);
  const base = await memory.u64(info.symbol('kallsyms_relative_base'));
  const offsets = await memory.view(info.symbol('kallsyms_offsets'), count * 4);
  // CONFIG_KALLSYMS_ABSOLUTE_PERCPU: what is not negative is absolute, the others count down from the base.
  // Kernels without it (from 6.15 on) count up, and have no image of 2 GiB.
  const counted = Array.from({ length: count }, (_, i) => offsets.getInt32(i * 4, true)).some((offset) => offset < 0);
  // The names end where the markers, one for 256 names, begin; their bytes are read as they are needed.
  const names = new ByteStream(memory, info.symbol('kallsyms_names'));
  const symbols: KernelSymbol[] = [];
  let total = 0;
  let characters = 0;
  for (let i = 0; i < count; i++) {
    let length = await names.byte();
    if (length & 0x80) length = (length & 0x7f) | ((await names.byte()) << 7);
    total += length;
    if (length > MAX_NAME || total > MAX_TOKENS) throw damaged(`name ${i} has ${length} tokens`);
    let name = '';
    for (let k = 0; k < length && name.length <= MAX_NAME; k++) {
      // Most bytes are there: a promise for each would take most of the time.
      const byte = names.byte();
      name += tokens[typeof byte === 'number' ? byte : await byte];
    }
    if (name.length > MAX_NAME) throw damaged(`name ${i} is longer than ${MAX_NAME}`);
    characters += name.length;
    if (characters > MAX_CHARACTERS) throw damaged(`the first ${i} names have ${characters} characters`);
    const offset = offsets.getInt32(i * 4, true);
    const address = !counted ? base + BigInt(offset) : offset >= 0 ? BigInt(offset) : base - 1n - BigInt(offset);
    symbols.push({ type: name[0] ?? '?', name: readable(name.slice(1)), address: BigInt.asUintN(64, address) });
  }
  return new KernelSymbols(symbols);
}

async function readTokens(info: VmcoreInfo, memory: AddressSpace): Promise<string[]> {
  const index = await memory.view(info.symbol('kallsyms_token_index'), TOKENS * 2);
  const table = await memory.read(info.symbol('kallsyms_token_table'), TOKEN_TABLE);
  return Array.from({ length: TOKENS }, (_, i) => {
    const start = index.getUint16(i * 2, true);
    const end = table.indexOf(0, start);
    if (start >= TOKEN_TABLE || end < 0) throw damaged(`token ${i} is at ${start}`);
    return Buffer.from(table.subarray(start, end)).toString('latin1');
  });
}

/** Bytes from an address on, read a page at a time. */
class ByteStream {
  readonly #memory: AddressSpace;
  #next: bigint;
  #piece: Uint8Array = new Uint8Array(0);
  #at = 0;

  constructor(memory: AddressSpace, from: bigint) {
    this.#memory = memory;
    this.#next = from;
  }

  byte(): number | Promise<number> {
    return this.#at < this.#piece.length ? this.#piece[this.#at++] : this.#refill();
  }

  async #refill(): Promise<number> {
    const length = 4096 - Number(this.#next & 0xfffn);
    this.#piece = await this.#memory.read(this.#next, length);
    this.#next += BigInt(length);
    this.#at = 1;
    return this.#piece[0];
  }
}

/** What a guest says may go to a terminal: it has printable characters alone. */
export const readable = (text: string): string => text.replaceAll(/[^\x20-\x7e]/g, '?');

const damaged = (why: string) => new NemuError('KALLSYMS', `The kernel's symbols cannot be read: ${why}.`);
