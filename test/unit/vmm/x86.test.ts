import { describe, expect, test } from 'vitest';
import { type CpuidEntry, guestCpuid } from '../../../src/vmm/x86/cpuid.ts';
import { apicIdOf } from '../../../src/vmm/x86/topology.ts';

const entry = (leaf: number, index: number, registers: Partial<CpuidEntry>): CpuidEntry => ({
  function: leaf,
  index,
  flags: 0,
  eax: 0,
  ebx: 0,
  ecx: 0,
  edx: 0,
  ...registers,
});
const INTEL = entry(0, 0, { eax: 0x1f, ebx: 0x756e6547 });
const AMD = entry(0, 0, { eax: 0x10, ebx: 0x68747541 });
const find = (entries: CpuidEntry[], leaf: number, index = 0) =>
  entries.find((each) => each.function === leaf && each.index === index);

test('APIC ids give each level its own bits', () => {
  const topology = { sockets: 2, cores: 3, threads: 2 };
  expect(Array.from({ length: 12 }, (_, i) => apicIdOf(i, topology))).toEqual([0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13]);
});

describe('CPUID', () => {
  const topology = { sockets: 2, cores: 4, threads: 2 };

  test('leaf 1 has the APIC id, the count of a package, and x2APIC', () => {
    const leaf = find(guestCpuid([INTEL, entry(1, 0, { ebx: 0x00100800, ecx: 1 << 27 })], topology, 9, true), 1);
    expect(leaf?.ebx).toBe(0x09080800);
    expect((leaf?.ecx ?? 0) & (1 << 21)).not.toBe(0);
    expect((leaf?.ecx ?? 0) & (1 << 24)).not.toBe(0);
    expect((leaf?.ecx ?? 0) & (1 << 27)).toBe(0);
    expect((leaf?.edx ?? 0) & (1 << 28)).not.toBe(0);
  });

  test('leaf 4: threads share the first levels, a package the third', () => {
    const caches = [entry(4, 0, { eax: 0x121 }), entry(4, 3, { eax: 0x163 }), entry(4, 4, {})];
    const out = guestCpuid([INTEL, ...caches], topology, 0, false);
    expect(((find(out, 4, 0)?.eax ?? 0) >>> 14) & 0xfff).toBe(1);
    expect(((find(out, 4, 3)?.eax ?? 0) >>> 14) & 0xfff).toBe(7);
    expect((find(out, 4, 3)?.eax ?? 0) >>> 26).toBe(3);
    expect(find(out, 4, 4)?.eax).toBe(0);
  });

  test.each([0xb, 0x1f])('leaf 0x%s: thread, core and end', (leaf) => {
    const out = guestCpuid([INTEL, entry(leaf, 0, {})], topology, 10, false);
    expect([find(out, leaf, 0), find(out, leaf, 1), find(out, leaf, 2)]).toMatchObject([
      { eax: 1, ebx: 2, ecx: 0x100, edx: 10 },
      { eax: 3, ebx: 8, ecx: 0x201, edx: 10 },
      { eax: 0, ebx: 0, ecx: 2, edx: 10 },
    ]);
  });

  test('AMD tells cores by its extended leaves', () => {
    const extended = [0x80000001, 0x80000008, 0x8000001e].map((leaf) => entry(leaf, 0, {}));
    const out = guestCpuid([AMD, ...extended], topology, 11, false);
    expect(find(out, 0x80000008)?.ecx).toBe((3 << 12) | 7);
    expect(find(out, 0x8000001e)).toMatchObject({ eax: 11, ebx: (1 << 8) | 1, ecx: 1 });
    expect((find(out, 0x80000001)?.ecx ?? 0) & (1 << 22)).not.toBe(0);
  });

  test('an AMD processor that ends early gets the leaves for caches and nodes', () => {
    const old = [
      AMD,
      entry(0x80000000, 0, { eax: 0x8000000a, ebx: 0x68747541 }),
      // 64 KiB of 2 ways and lines of 64 bytes twice; 512 KiB of 16 ways; 16 MiB of 16 ways.
      entry(0x80000005, 0, { ecx: 0x40020140, edx: 0x40020140 }),
      entry(0x80000006, 0, { ecx: 0x02008140, edx: 0x00808140 }),
    ];
    const out = guestCpuid(old, topology, 9, false);
    expect(find(out, 0x80000000)?.eax).toBe(0x8000001e);
    const caches = [0, 1, 2, 3].map((index) => find(out, 0x8000001d, index) as CpuidEntry);
    const bytes = ({ ebx, ecx }: CpuidEntry) => ((ebx >>> 22) + 1) * ((ebx & 0xfff) + 1) * (ecx + 1);
    expect(caches.map(bytes)).toEqual([64, 64, 512, 16384].map((kib) => kib * 1024));
    expect(caches.map(({ eax }) => eax & 0x1f)).toEqual([1, 2, 3, 3]);
    expect(caches.map(({ eax }) => (eax >>> 5) & 7)).toEqual([1, 1, 2, 3]);
    // Threads share the first two levels, a package the third.
    expect(caches.map(({ eax }) => ((eax >>> 14) & 0xfff) + 1)).toEqual([2, 2, 2, 8]);
    expect(find(out, 0x8000001d, 4)?.eax).toBe(0);
    expect(find(out, 0x8000001e)).toMatchObject({ eax: 9, ecx: 1 });
  });
});
