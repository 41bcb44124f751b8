import { expect, test } from 'vitest';
import { residenceOf } from '../../../src/vmm/residence.ts';

const mapping = (from: number, to: number, rss: number, huge = 0) =>
  [
    `${from.toString(16)}-${to.toString(16)} rw-p 00000000 00:00 0 `,
    `Size:           ${(to - from) / 1024} kB`,
    `Rss:            ${rss} kB`,
    `AnonHugePages:  ${huge} kB`,
    'VmFlags: rd wr mr mw me dc nr',
  ].join('\n');

test('each range has what its mappings hold', () => {
  const base = 0x7f00_0000_0000;
  const smaps = [
    mapping(base - 0x1000, base, 4),
    mapping(base, base + 0x10000, 32, 16),
    mapping(base + 0x10000, base + 0x20000, 8),
    mapping(base + 0x100000, base + 0x120000, 0),
  ].join('\n');
  expect(
    residenceOf(
      base,
      [
        { address: 0x100000, size: 0x20000 },
        { address: 0, size: 0x20000 },
      ],
      smaps,
    ),
  ).toEqual([
    { address: 0, size: 0x20000, resident: 40 << 10, huge: 16 << 10 },
    { address: 0x100000, size: 0x20000, resident: 0, huge: 0 },
  ]);
});

test('a mapping of several ranges is shared out', () => {
  const base = 0x10_0000_0000;
  const ranges = [
    { address: 0, size: 0x30000 },
    { address: 0x30000, size: 0x10000 },
  ];
  const found = residenceOf(base, ranges, mapping(base, base + 0x40000, 64));
  expect(found.map(({ resident }) => resident)).toEqual([48 << 10, 16 << 10]);
});
