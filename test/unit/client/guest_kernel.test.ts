/** What a guest says of its kernel is a guest's word: whatever it is, it ends soon, with data or a sentence. */
import { describe, expect, test } from 'vitest';
import { NemuError } from '../../../src/client/errors.ts';
import { AddressSpace } from '../../../src/client/guest_kernel/address_space.ts';
import { readKernelSymbols } from '../../../src/client/guest_kernel/kallsyms.ts';
import { readKernelLog } from '../../../src/client/guest_kernel/printk.ts';
import { VmcoreInfo } from '../../../src/client/guest_kernel/vmcoreinfo.ts';
import { random as seeded } from '../../support/random.ts';

const KERNEL = 0xffffffff80000000n;

function note(lines: Record<string, string | number>): Uint8Array {
  const text = Buffer.from(
    Object.entries(lines)
      .map(([key, value]) => `${key}=${value}\n`)
      .join(''),
  );
  const bytes = Buffer.alloc(12 + 12 + text.length);
  bytes.writeUInt32LE(11, 0);
  bytes.writeUInt32LE(text.length, 4);
  bytes.write('VMCOREINFO', 12);
  text.copy(bytes, 24);
  return bytes;
}

/** Guest memory of one 2 MiB page at the kernel's address; the tables are at 0x200000. */
class Guest {
  readonly ram = Buffer.alloc(4 << 20);

  constructor() {
    const entry = (at: number, value: bigint) => this.ram.writeBigUInt64LE(value, at);
    entry(0x200000 + 511 * 8, 0x201003n);
    entry(0x201000 + 510 * 8, 0x202003n);
    // The first page of 2 MiB is the kernel's image at physical 0.
    entry(0x202000, 0x83n);
  }

  space(): AddressSpace {
    return new AddressSpace(
      async (address, length) => {
        if (address + length > this.ram.length) throw new NemuError('ADDRESS', 'There is no RAM.');
        return this.ram.subarray(address, address + length);
      },
      0x200000,
      4,
    );
  }
}

const LAYOUT = {
  OSRELEASE: '6.12.0',
  'SYMBOL(prb)': (KERNEL + 0x1000n).toString(16),
  'SIZE(printk_ringbuffer)': 96,
  'OFFSET(printk_ringbuffer.desc_ring)': 0,
  'OFFSET(printk_ringbuffer.text_data_ring)': 48,
  'OFFSET(atomic_long_t.counter)': 0,
  'OFFSET(prb_desc_ring.count_bits)': 0,
  'OFFSET(prb_desc_ring.descs)': 8,
  'OFFSET(prb_desc_ring.infos)': 16,
  'OFFSET(prb_desc_ring.head_id)': 24,
  'OFFSET(prb_desc_ring.tail_id)': 32,
  'OFFSET(prb_data_ring.size_bits)': 0,
  'OFFSET(prb_data_ring.data)': 8,
  'SIZE(prb_desc)': 24,
  'OFFSET(prb_desc.state_var)': 0,
  'OFFSET(prb_desc.text_blk_lpos)': 8,
  'OFFSET(prb_data_blk_lpos.begin)': 0,
  'OFFSET(prb_data_blk_lpos.next)': 8,
  'SIZE(printk_info)': 88,
  'OFFSET(printk_info.seq)': 0,
  'OFFSET(printk_info.ts_nsec)': 8,
  'OFFSET(printk_info.text_len)': 16,
  'SYMBOL(kallsyms_num_syms)': (KERNEL + 0x10000n).toString(16),
  'SYMBOL(kallsyms_relative_base)': (KERNEL + 0x10008n).toString(16),
  'SYMBOL(kallsyms_offsets)': (KERNEL + 0x10010n).toString(16),
  'SYMBOL(kallsyms_names)': (KERNEL + 0x11000n).toString(16),
  'SYMBOL(kallsyms_token_index)': (KERNEL + 0x12000n).toString(16),
  'SYMBOL(kallsyms_token_table)': (KERNEL + 0x13000n).toString(16),
};

/** A ring of four descriptors with three messages, the last of which wraps. */
function withLog({ ram }: Guest): void {
  const ring = 0x2000;
  ram.writeBigUInt64LE(KERNEL + BigInt(ring), 0x1000);
  ram.writeUInt32LE(2, ring);
  ram.writeBigUInt64LE(KERNEL + 0x3000n, ring + 8);
  ram.writeBigUInt64LE(KERNEL + 0x4000n, ring + 16);
  ram.writeBigUInt64LE((2n << 62n) | 6n, ring + 24);
  ram.writeBigUInt64LE((2n << 62n) | 4n, ring + 32);
  ram.writeUInt32LE(7, ring + 48);
  ram.writeBigUInt64LE(KERNEL + 0x5000n, ring + 56);
  const put = (id: number, begin: number, next: number, at: number, text: string, level: number) => {
    const index = id % 4;
    ram.writeBigUInt64LE((2n << 62n) | BigInt(id), 0x3000 + index * 24);
    ram.writeBigUInt64LE(BigInt(begin), 0x3008 + index * 24);
    ram.writeBigUInt64LE(BigInt(next), 0x3010 + index * 24);
    ram.writeBigUInt64LE(BigInt(id), 0x4000 + index * 88);
    ram.writeBigUInt64LE(BigInt(id) * 1_000_000n, 0x4008 + index * 88);
    ram.writeUInt16LE(text.length, 0x4010 + index * 88);
    ram.writeUInt8(level << 5, 0x4013 + index * 88);
    ram.write(text, 0x5000 + at + 8);
  };
  put(4, 176, 200, 48, 'the first', 6);
  put(5, 200, 224, 72, 'a warning', 4);
  // 232 to 256 is the end of the ring of 128 bytes: a text of more stands at its start.
  put(6, 232, 280, 0, 'wrapped', 6);
}

/** Three symbols of two tokens. */
function withSymbols({ ram }: Guest): void {
  const tokens = Array.from({ length: 256 }, (_, i) =>
    i === 1 ? 'Tstart' : i === 2 ? '_kernel' : String.fromCharCode(i),
  );
  let at = 0;
  for (const [i, token] of tokens.entries()) {
    ram.writeUInt16LE(at, 0x12000 + i * 2);
    ram.write(`${token}\0`, 0x13000 + at, 'latin1');
    at += token.length + 1;
  }
  ram.writeUInt32LE(3, 0x10000);
  ram.writeBigUInt64LE(KERNEL, 0x10008);
  ram.writeInt32LE(0x100, 0x10010);
  ram.writeInt32LE(-0x1001, 0x10014);
  ram.writeInt32LE(-0x2001, 0x10018);
  ram.set([2, 0x44, 0x78, 1, 1, 2, 1, 2], 0x11000);
}

describe('the kernel from its memory', () => {
  test('its log, with a text that wraps', async () => {
    const guest = new Guest();
    withLog(guest);
    const log = await readKernelLog(new VmcoreInfo(note(LAYOUT)), guest.space());
    expect(log.map(({ text, level }) => [text, level])).toEqual([
      ['the first', 6],
      ['a warning', 4],
      ['wrapped', 6],
    ]);
    expect(log[1]).toMatchObject({ sequence: 5n, time: 5_000_000n });
  });

  test('its symbols: absolute ones, and those counted down from the base', async () => {
    const guest = new Guest();
    withSymbols(guest);
    const symbols = await readKernelSymbols(new VmcoreInfo(note(LAYOUT)), guest.space());
    expect(symbols.find('x')).toEqual({ type: 'D', name: 'x', address: 0x100n });
    expect(symbols.find('start')).toMatchObject({ type: 'T', address: KERNEL + 0x1000n });
    expect(symbols.describe(KERNEL + 0x1010n)).toBe('start+0x10');
    expect(symbols.describe(1n)).toBeUndefined();
    // Between per-CPU data, which is counted from 0, and the kernel there is nothing.
    expect(symbols.describe(0x100n)).toBe('x');
    expect(symbols.describe(0xffff888000000000n)).toBeUndefined();
  });

  test('an address that is none', async () => {
    const space = new Guest().space();
    await expect(space.walk(KERNEL)).resolves.toMatchObject({ physical: 0 });
    for (const address of [0x0000ffff80000000n, 0x1234ffff80000000n, 0x0000800000000000n]) {
      await expect(space.read(address, 4)).rejects.toThrow('is no address with 4-level paging');
    }
  });

  test('a note that is none', () => {
    for (const bytes of [new Uint8Array(0), new Uint8Array(12).fill(255), new Uint8Array(40).fill(1)]) {
      expect(() => new VmcoreInfo(bytes)).toThrow(NemuError);
    }
    expect(() => new VmcoreInfo(note({})).symbol('prb')).toThrow(/does not say where prb is/);
    expect(() => new VmcoreInfo(note({ 'SYMBOL(prb)': 'xyz' })).symbol('prb')).toThrow(NemuError);
  });

  test('memory that changes under us, or lies', { timeout: 60_000 }, async () => {
    const keys = Object.keys(LAYOUT) as (keyof typeof LAYOUT)[];
    for (let seed = 1; seed <= 400; seed++) {
      const random = seeded(seed);
      const guest = new Guest();
      withLog(guest);
      withSymbols(guest);
      for (let i = 1 + random(20); i > 0; i--) guest.ram[random(0x16000)] = random(256);
      const layout: Record<string, string | number> = { ...LAYOUT };
      if (random(3) === 0) layout[keys[random(keys.length)]] = [0, -1, 2 ** 31, 4096, 'ffffffffffffffff'][random(5)];
      const since = performance.now();
      for (const read of [readKernelLog, readKernelSymbols]) {
        await read(new VmcoreInfo(note(layout)), guest.space()).catch((error: unknown) => {
          if (!(error instanceof NemuError)) throw new Error(`With seed ${seed}: ${(error as Error).stack}`);
        });
      }
      expect(performance.now() - since, `seed ${seed}`).toBeLessThan(5000);
    }
  });
});
