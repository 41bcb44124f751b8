/** Modules, from what a guest's memory says of its types and its lists: whatever that is. */
import { describe, expect, test } from 'vitest';
import { NemuError } from '../../../src/client/errors.ts';
import { AddressSpace } from '../../../src/client/guest_kernel/address_space.ts';
import { Btf } from '../../../src/client/guest_kernel/btf.ts';
import { KernelSymbols } from '../../../src/client/guest_kernel/kallsyms.ts';
import { readModuleLayout, readModuleSymbols, readModules } from '../../../src/client/guest_kernel/modules.ts';
import { random as seeded } from '../../support/random.ts';

const KERNEL = 0xffffffff80000000n;
const BTF_AT = 0x1000;
const HEAD = 0x8000;

type Members = readonly (readonly [name: string, type: number, offset: number])[];

/** A BTF of an int, a pointer to it, and structures, which are types 3 and on. */
function btf(structs: readonly (readonly [name: string, size: number, members: Members])[]): Buffer {
  let strings = '\0';
  const string = (text: string) => {
    if (text === '') return 0;
    strings += `${text}\0`;
    return strings.length - text.length - 1;
  };
  const types: number[] = [string('int'), 1 << 24, 4, 32, 0, 2 << 24, 1];
  for (const [name, size, members] of structs) {
    types.push(string(name), ((4 << 24) | members.length) >>> 0, size);
    for (const [member, type, offset] of members) types.push(string(member), type, offset * 8);
  }
  const header = Buffer.alloc(24);
  header.writeUInt16LE(0xeb9f, 0);
  header.writeUInt8(1, 2);
  header.writeUInt32LE(24, 4);
  header.writeUInt32LE(types.length * 4, 12);
  header.writeUInt32LE(types.length * 4, 16);
  header.writeUInt32LE(strings.length, 20);
  return Buffer.concat([header, Buffer.from(new Uint32Array(types).buffer), Buffer.from(strings, 'latin1')]);
}

const TABLE: Members = [
  ['symtab', 2, 0],
  ['num_symtab', 1, 8],
  ['strtab', 2, 16],
  ['typetab', 2, 24],
];
/** From 6.4 on; the members of an anonymous structure (type 3) are the module's own. */
const NEW = btf([
  ['', 64, [['name', 1, 8]]],
  ['module_memory', 16, [['base', 2, 0], ['size', 1, 8]]],
  ['mod_kallsyms', 32, TABLE],
  ['module', 256, [['state', 1, 0], ['list', 1, 8], ['', 3, 16], ['mem', 4, 96], ['kallsyms', 2, 200]]],
]); // biome-ignore format: a table
const OLD = btf([
  ['module_layout', 16, [['base', 2, 0], ['size', 1, 8]]],
  ['mod_kallsyms', 32, TABLE],
  ['module', 256, [['state', 1, 0], ['list', 1, 8], ['name', 1, 24], ['core_layout', 3, 96], ['kallsyms', 2, 200]]],
]); // biome-ignore format: a table

class Guest {
  readonly ram = Buffer.alloc(4 << 20);
  readonly #types: Buffer;

  constructor(types: Buffer) {
    this.#types = types;
    this.ram.writeBigUInt64LE(0x201003n, 0x200000 + 511 * 8);
    this.ram.writeBigUInt64LE(0x202003n, 0x201000 + 510 * 8);
    this.ram.writeBigUInt64LE(0x83n, 0x202000);
    types.copy(this.ram, BTF_AT);
    const pointer = (value: number, at: number) => this.ram.writeBigUInt64LE(KERNEL + BigInt(value), at);
    // The list: head, a module that is there, and one that is just being loaded (MODULE_STATE_COMING, 1).
    pointer(0xa008, HEAD);
    pointer(0xb008, 0xa008);
    pointer(HEAD, 0xb008);
    this.ram.writeUInt32LE(1, 0xb000);
    this.ram.write('virtio_blk', 0xa018);
    pointer(0x300000, 0xa000 + 96);
    this.ram.writeUInt32LE(0x2000, 0xa000 + 104);
    pointer(0xc000, 0xa000 + 200);
    pointer(0xd000, 0xc000);
    this.ram.writeUInt32LE(4, 0xc008);
    pointer(0xe000, 0xc010);
    pointer(0xf000, 0xc018);
    this.ram.write('\0first\0second\0printk\0', 0xe000);
    this.ram.write('?tTU', 0xf000);
    const symbol = (index: number, name: number, section: number, value: number) => {
      this.ram.writeUInt32LE(name, 0xd000 + index * 24);
      this.ram.writeUInt16LE(section, 0xd006 + index * 24);
      if (value) pointer(value, 0xd008 + index * 24);
    };
    symbol(1, 1, 1, 0x300000);
    symbol(2, 7, 1, 0x300100);
    symbol(3, 14, 0, 0);
  }

  readonly symbols = (): KernelSymbols => {
    const at = (name: string, address: number) => ({ type: 'D', name, address: KERNEL + BigInt(address) });
    return new KernelSymbols([
      at('modules', HEAD),
      at('__start_BTF', BTF_AT),
      at('__stop_BTF', BTF_AT + this.#types.length),
    ]);
  };

  space(): AddressSpace {
    const read = async (address: number, length: number) => {
      if (address + length > this.ram.length) throw new NemuError('ADDRESS', 'There is no RAM.');
      return this.ram.subarray(address, address + length);
    };
    return new AddressSpace(read, 0x200000, 4);
  }
}

async function look(guest: Guest) {
  const layout = await readModuleLayout(guest.symbols(), guest.space());
  if (!layout) return [];
  const modules = await readModules(KERNEL + BigInt(HEAD), layout, guest.space());
  return Promise.all(
    modules.map(async (module) => ({ module, symbols: await readModuleSymbols(module, layout, guest.space()) })),
  );
}

describe("the kernel's modules from its memory", () => {
  test.each([
    ['from 6.4 on', NEW],
    ['before', OLD],
  ])('those that are there, and their own symbols: %s', async (_, types) => {
    const [{ module, symbols }, ...more] = await look(new Guest(types));
    expect(more).toEqual([]);
    expect(module).toMatchObject({ name: 'virtio_blk', base: KERNEL + 0x300000n, size: 0x2000 });
    expect(symbols.size).toBe(2);
    expect(symbols.find('first')).toEqual({ type: 't', name: 'first', address: KERNEL + 0x300000n });
    expect(symbols.describe(KERNEL + 0x300010n, KERNEL + 0x302000n)).toBe('first+0x10');
    expect(symbols.describe(KERNEL + 0x301fffn, KERNEL + 0x302000n)).toBe('second+0x1eff');
  });

  test('a kernel without BTF has none', async () => {
    expect(await readModuleLayout(new KernelSymbols([]), new Guest(NEW).space())).toBeUndefined();
  });

  test('types that are none', () => {
    const wrong = Buffer.from(NEW);
    wrong.writeUInt32LE(31 << 24, 24 + 4);
    for (const bytes of [Buffer.alloc(0), Buffer.alloc(100), NEW.subarray(0, 80), wrong]) {
      expect(() => new Btf(bytes)).toThrow(/BTF.* cannot be read/);
    }
  });

  test('structures within each other end', () => {
    const within: Members = Array.from({ length: 40 }, (_, index): Members[number] => ['', 3 + (index % 3), 0]);
    const types = new Btf(
      btf([
        ['module', 64, within],
        ['', 64, within],
        ['', 64, within],
      ]),
    );
    expect(types.struct('module')?.offset('state')).toBeUndefined();
  });

  test('names have an end, and are printable', async () => {
    const guest = new Guest(NEW);
    guest.ram.fill(0x1b, 0xe000, 0xf000);
    const [{ symbols }] = await look(guest);
    for (const { name } of symbols.all) expect(name).toMatch(/^\?{1,512}$/);
  });

  test('memory that lies', { timeout: 60_000 }, async () => {
    for (let seed = 1; seed <= 400; seed++) {
      const random = seeded(seed);
      const guest = new Guest(random(2) ? NEW : OLD);
      for (let i = 1 + random(12); i > 0; i--) {
        const [from, length] = [[BTF_AT, NEW.length], [HEAD, 0x4000], [0xc000, 32], [0xd000, 96]][random(4)]; // biome-ignore format: pairs
        guest.ram[from + random(length)] = random(256);
      }
      const since = performance.now();
      await look(guest).catch((error: unknown) => {
        if (!(error instanceof NemuError)) throw new Error(`With seed ${seed}: ${(error as Error).stack}`);
      });
      expect(performance.now() - since, `seed ${seed}`).toBeLessThan(5000);
    }
  });
});
