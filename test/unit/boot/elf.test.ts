import { describe, expect, test } from 'vitest';
import { planBoot } from '../../../src/vmm/boot/plan.ts';
import {
  addressBytes,
  bootRequest,
  buildElf,
  buildMultiboot,
  buildMultibootElf,
  buildPvhElf,
  elfNote,
  GiB,
  MiB,
  pcMemory,
  planFaults,
  planned,
  u32,
  u64,
} from './images.ts';

const refused = (code: string, text: string | RegExp = '') =>
  expect.objectContaining({ code, message: expect.stringMatching(text) });

const cString = (plan: ReturnType<typeof planBoot>, gpa: number) =>
  planned(plan, gpa, 200).toString('latin1').split('\0')[0];

const interpreter = (path: string) => ({ type: 3, bytes: Buffer.from(`${path}\0`) });

describe('ELF64', () => {
  test('is entered in long mode at its entry point, with boot parameters', () => {
    const initrd = new Uint8Array(100).fill(1);
    const segments = [
      { bytes: Uint8Array.of(0x90, 0xf4), paddr: 0x1000000n, memorySize: 0x5000n },
      { bytes: Uint8Array.of(1, 2, 3), paddr: 0x2000000n, vaddr: 0xffffffff82000000n },
    ];
    const request = bootRequest(buildElf({ entry: 0x1000001n, segments }), { initrd });
    const plan = planBoot(request);
    expect(plan.protocol).toBe('elf64');
    expect(plan.entry).toMatchObject({ mode: 'long64', rip: 0x1000001, rsi: 0x7000 });
    expect([...planned(plan, 0x2000000, 3)]).toEqual([1, 2, 3]);
    expect(plan.zeroes).toEqual([{ gpa: 0x1000002, size: 0x4ffe }]);
    expect(planFaults(plan, request)).toEqual([]);
    expect(u32(plan, 0x7000 + 0x202)).toBe(0x53726448);
    expect(u32(plan, 0x7000 + 0x1fe) & 0xffff).toBe(0xaa55);
    expect(planned(plan, 0x7000 + 0x1e8, 1)[0]).toBe(request.memoryMap.length);
    expect(u32(plan, 0x7000 + 0x21c)).toBe(100);
    expect(u64(plan, 0x7000 + 0x70)).toBe(0xe0000n);
    expect(cString(plan, u32(plan, 0x7000 + 0x228))).toBe('console=ttyS0');
  });

  test('a virtual entry point is translated, with a warning', () => {
    const segments = [{ paddr: 0x1000000n, vaddr: 0xffffffff81000000n, bytes: new Uint8Array(64) }];
    const plan = planBoot(bootRequest(buildElf({ entry: 0xffffffff81000010n, segments })));
    expect(plan.entry.rip).toBe(0x1000010);
    expect(plan.warnings).toEqual([expect.stringContaining('0xffffffff81000010')]);
  });

  test('an interpreter that is none does not matter', () => {
    expect(planBoot(bootRequest(buildElf({ segments: [{}, interpreter('/red/herring')] }))).protocol).toBe('elf64');
  });

  test.each([
    ['for AArch64', { machine: 183 }, 'KERNEL_FORMAT', /AArch64.*x86-64/],
    ['for an unknown machine', { machine: 9999 }, 'KERNEL_FORMAT', /number 9999/],
    ['for big-endian PowerPC', { machine: 21, bigEndian: true }, 'KERNEL_FORMAT', /big-endian 64-bit PowerPC/],
    ['an object file', { type: 1 }, 'KERNEL_FORMAT', /object file/],
    ['a core dump', { type: 4 }, 'KERNEL_FORMAT', /core dump/],
    ['a program', { segments: [{}, interpreter('/lib64/ld-linux-x86-64.so.2')] }, 'KERNEL_FORMAT', /program.*ld-linux/],
    ['of 32 bits without more', { bits: 32 as const }, 'KERNEL_FORMAT', /32-bit ELF file without/],
    ['without segments', { segments: [{ type: 2 }] }, 'KERNEL_FORMAT', /nothing to load/],
    ['entered elsewhere', { entry: 0x300000n }, 'KERNEL_FORMAT', /0x300000.*0x100000–0x100000/],
    ['larger in the file', { segments: [{ memorySize: 0n }] }, 'KERNEL_FORMAT', /only 0 in memory/],
    [
      'loaded at a virtual address',
      { segments: [{ paddr: 0xffffffff80000000n }] },
      'KERNEL_ADDRESS',
      /0xffffffff80000000/,
    ],
    ['loaded where no RAM is', { segments: [{ paddr: 0xa0000n }] }, 'KERNEL_ADDRESS', /no RAM/],
    ['loaded over the page tables', { segments: [{ paddr: 0x9000n }] }, 'KERNEL_ADDRESS', /page tables/],
    ['too big', { segments: [{ memorySize: BigInt(GiB) }] }, 'KERNEL_TOO_BIG', /1 GiB of RAM at 0x100000/],
    ['absurdly big', { segments: [{ memorySize: 1n << 63n }] }, 'KERNEL_ADDRESS', /9223372036854775808 bytes/],
    ['with segments over each other', { segments: [{}, {}] }, 'KERNEL_ADDRESS', /overlaps its segment 0/],
  ])('a file %s is refused', (_, options, code, text) => {
    expect(() => planBoot(bootRequest(buildElf(options)))).toThrow(refused(code, text));
  });

  test('a file with thousands of segments is refused', () => {
    const kernel = buildElf({ segments: new Array(300).fill({}) });
    expect(() => planBoot(bootRequest(kernel))).toThrow(refused('KERNEL_FORMAT', /300 program headers/));
  });

  test('an entry point above 4 GiB is refused', () => {
    const kernel = buildElf({ entry: BigInt(4 * GiB), segments: [{ paddr: BigInt(4 * GiB) }] });
    expect(() => planBoot(bootRequest(kernel, { memoryMap: pcMemory(256 * MiB, GiB) }))).toThrow(
      refused('KERNEL_FORMAT', /above 4 GiB/),
    );
  });

  test('a file that is cut off names what is missing', () => {
    const kernel = buildElf({ segments: [{ bytes: new Uint8Array(100) }] });
    const cut = (length: number) => () => planBoot(bootRequest(kernel.subarray(0, length)));
    expect(cut(30)).toThrow(refused('KERNEL_TRUNCATED', /header/));
    expect(cut(60)).toThrow(refused('KERNEL_TRUNCATED', /header/));
    expect(cut(100)).toThrow(refused('KERNEL_TRUNCATED', /program headers/));
    expect(cut(kernel.length - 1)).toThrow(refused('KERNEL_TRUNCATED', /segment would end at byte 220.* 219/));
  });
});

describe('PVH', () => {
  test.each([64, 32] as const)('ELF%i is entered in protected mode with the start info in rbx', (bits) => {
    const initrd = new Uint8Array(9000).fill(3);
    const memoryMap = pcMemory(256 * MiB, GiB);
    const request = bootRequest(buildPvhElf(Uint8Array.of(0x90, 0xf4), 0x200000, bits), { initrd, memoryMap });
    const plan = planBoot(request);
    expect(plan.protocol).toBe('pvh');
    const info = plan.entry.rbx as number;
    expect(plan.entry).toMatchObject({ mode: 'protected32', rip: 0x200000 });
    expect(plan.entry.cr3).toBeUndefined();
    expect(planFaults(plan, request)).toEqual([]);
    expect(u64(plan, plan.entry.gdt.base + 0x10)).toBe(0x00cf9b000000ffffn);
    expect([u32(plan, info), u32(plan, info + 4), u32(plan, info + 12)]).toEqual([0x336ec578, 1, 1]);
    const modules = Number(u64(plan, info + 16));
    expect(u64(plan, modules + 8)).toBe(9000n);
    expect(planned(plan, Number(u64(plan, modules)), 9000).equals(initrd)).toBe(true);
    expect(u64(plan, modules)).toBeLessThan(0x100000000n);
    expect(cString(plan, Number(u64(plan, info + 24)))).toBe('console=ttyS0');
    expect(u64(plan, info + 32)).toBe(0xe0000n);
    expect(u32(plan, info + 48)).toBe(memoryMap.length);
    const map = Number(u64(plan, info + 40));
    const entries = memoryMap.map((_, i) => [u64(plan, map + 24 * i), u64(plan, map + 24 * i + 8)].map(Number));
    expect(entries).toEqual(memoryMap.map(({ gpa, size }) => [gpa, size]));
    expect(u32(plan, map + 24 + 16)).toBe(2);
  });

  test('without an initrd there are no modules', () => {
    const plan = planBoot(bootRequest(buildPvhElf()));
    const info = plan.entry.rbx as number;
    expect([u32(plan, info + 12), u64(plan, info + 16)]).toEqual([0, 0n]);
  });

  test('a note of another owner, of a wrong size or in notes that are cut off', () => {
    const withNotes = (notes: Buffer, align = 4n) =>
      buildElf({ segments: [{}, { type: 4, bytes: notes, paddr: 0n, align }] });
    const plan = (notes: Buffer, align = 4n) => planBoot(bootRequest(withNotes(notes, align)));
    const address = addressBytes(0x100000, 8);
    expect(plan(elfNote('Xem', 18, address)).protocol).toBe('elf64');
    expect(plan(elfNote('Xen', 17, address)).protocol).toBe('elf64');
    expect(plan(elfNote('Xen', 18, address).subarray(0, 20)).protocol).toBe('elf64');
    expect(() => plan(elfNote('Xen', 18, address.subarray(0, 5)))).toThrow(refused('KERNEL_FORMAT', /5 bytes/));
    expect(() => plan(elfNote('Xen', 18, addressBytes(0x99, 4)))).toThrow(refused('KERNEL_FORMAT', /0x99/));
    const both = (align: number) =>
      Buffer.concat([elfNote('GNU', 5, new Uint8Array(12), align), elfNote('Xen', 18, address, align)]);
    expect(plan(both(8), 8n).protocol).toBe('pvh');
    expect(() => plan(Buffer.alloc(2 * MiB))).toThrow(refused('KERNEL_FORMAT', /2097152 bytes of ELF notes/));
  });
});

describe('Multiboot 1', () => {
  test('a flat image says its own addresses', () => {
    const initrd = new Uint8Array(5000).fill(9);
    const code = Uint8Array.of(0x90, 0xf4);
    const memoryMap = pcMemory(256 * MiB, GiB);
    const request = bootRequest(buildMultiboot({ code, base: 0x200000, bss: 0x3000 }), { initrd, memoryMap });
    const plan = planBoot(request);
    expect(plan.protocol).toBe('multiboot1');
    const info = plan.entry.rbx as number;
    expect(plan.entry).toMatchObject({ mode: 'protected32', rip: 0x200020, rax: 0x2badb002 });
    expect([...planned(plan, plan.entry.rip, 2)]).toEqual([...code]);
    expect(plan.zeroes).toEqual([{ gpa: 0x200022, size: 0x3000 }]);
    expect(planFaults(plan, request)).toEqual([]);
    expect(u32(plan, info)).toBe(0b1001001101);
    expect(u32(plan, info + 4)).toBe(639);
    expect(u32(plan, info + 8)).toBe(255 * 1024);
    expect(cString(plan, u32(plan, info + 16))).toBe('/boot/test-kernel console=ttyS0');
    expect(cString(plan, u32(plan, info + 64))).toBe('nemu');
    expect(u32(plan, info + 20)).toBe(1);
    const module = u32(plan, info + 24);
    const start = u32(plan, module);
    expect([start, u32(plan, module + 4)]).toEqual([0x204000, 0x204000 + 5000]);
    expect(cString(plan, u32(plan, module + 8))).toBe('');
    expect(planned(plan, start, 5000).equals(initrd)).toBe(true);
    const [length, map] = [u32(plan, info + 44), u32(plan, info + 48)];
    expect(length).toBe(24 * memoryMap.length);
    expect([0, 4, 12].map((at) => u32(plan, map + at))).toEqual([20, 0, 0x9fc00]);
    expect(u64(plan, map + 24 * 4 + 4)).toBe(BigInt(4 * GiB));
    expect(u32(plan, map + 24 + 20)).toBe(2);
  });

  test.each([32, 64] as const)('an ELF%i file is loaded by its program headers', (bits) => {
    const request = bootRequest(buildMultibootElf(bits));
    const plan = planBoot(request);
    expect(plan.protocol).toBe('multiboot1');
    expect(plan.entry).toMatchObject({ mode: 'protected32', rip: 0x10000c });
    expect(u32(plan, (plan.entry.rbx as number) + 20)).toBe(0);
    expect(planFaults(plan, request)).toEqual([]);
  });

  test('PVH comes first, because it names the RSDP', () => {
    const pvh = buildPvhElf();
    const header = buildMultiboot().subarray(0, 12);
    expect(planBoot(bootRequest(Buffer.concat([pvh, Buffer.alloc(-pvh.length & 3), header]))).protocol).toBe('pvh');
  });

  test('the header counts in the first 8192 bytes, on a boundary, with a right checksum', () => {
    const flat = buildMultiboot();
    const behind = (offset: number) => planBoot(bootRequest(Buffer.concat([Buffer.alloc(offset), flat])));
    expect(behind(0).protocol).toBe('multiboot1');
    expect(() => behind(2)).toThrow(refused('KERNEL_FORMAT'));
    expect(behind(8192 - 32).protocol).toBe('multiboot1');
    expect(() => behind(8192 - 28)).toThrow(refused('KERNEL_FORMAT'));
    expect(() => planBoot(bootRequest(buildMultiboot({ checksum: 1 })))).toThrow(refused('KERNEL_FORMAT'));
  });

  test('a wish for a video mode is not fulfilled, with a warning; unknown requirements are refused', () => {
    expect(planBoot(bootRequest(buildMultiboot({ requirements: 7 }))).warnings).toEqual([
      expect.stringContaining('video mode'),
    ]);
    expect(() => planBoot(bootRequest(buildMultiboot({ requirements: 8 })))).toThrow(refused('KERNEL_FORMAT', /0x8/));
  });

  test.each([
    ['load_addr above header_addr', { load: 0x100004 }, 'KERNEL_FORMAT', /load_addr/],
    ['load_addr before the file', { load: 0xffffc }, 'KERNEL_FORMAT', /4 bytes before/],
    ['load_end_addr below', { loadEnd: 0x100000 }, 'KERNEL_FORMAT', /load_end_addr/],
    ['load_end_addr behind the file', { loadEnd: 0x101000 }, 'KERNEL_TRUNCATED', /4096 bytes/],
    ['bss_end_addr below', { bssEnd: 0x100001 }, 'KERNEL_FORMAT', /bss_end_addr/],
    ['entry_addr elsewhere', { entry: 0x300000 }, 'KERNEL_FORMAT', /entry_addr/],
    ['a BSS larger than RAM', { bssEnd: 0xfffffff0 }, 'KERNEL_TOO_BIG', /4 GiB of RAM/],
  ])('%s is refused', (_, addresses, code, text) => {
    expect(() => planBoot(bootRequest(buildMultiboot({ addresses })))).toThrow(refused(code, text));
  });

  test('a header without addresses needs an ELF file', () => {
    const header = Buffer.from(buildMultiboot().subarray(0, 12));
    header.writeUInt32LE(0, 4);
    header.writeUInt32LE(-0x1badb002 >>> 0, 8);
    expect(() => planBoot(bootRequest(header))).toThrow(refused('KERNEL_FORMAT', /should be an ELF file/));
  });
});
