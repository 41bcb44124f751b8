import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { symbolFile } from '../../../src/gdb/symbol_file.ts';

const BASE = 0xffffffff9a000000n;
const SYMBOLS = [
  { type: 'A', name: 'percpu', address: 0x1000n },
  { type: 'T', name: 'startup_64', address: BASE },
  { type: 't', name: 'helper', address: BASE + 0x40n },
  { type: 'T', name: 'schedule', address: BASE + 0x80n },
  { type: 'R', name: 'linux_banner', address: BASE + 0x2000n },
  { type: 'd', name: 'counter', address: BASE + 0x2100n },
  { type: 'T', name: 'start_kernel', address: BASE + 0x5000n },
];

test('is an ELF file with a section for each stretch of code and data', () => {
  const file = symbolFile(SYMBOLS.toReversed());
  expect(file.subarray(0, 4).toString('latin1')).toBe('\x7fELF');
  // One empty, three stretches, three tables.
  expect(file.readUInt16LE(60)).toBe(7);
  expect(symbolFile([]).readUInt16LE(60)).toBe(4);
});

test('gdb finds functions and data by address and by name', ({ skip }) => {
  if (!existsSync('/usr/bin/gdb')) return skip('It needs gdb.');
  const folder = mkdtempSync(join(tmpdir(), 'nemu-symbols-'));
  try {
    const path = join(folder, 'kallsyms');
    writeFileSync(path, symbolFile(SYMBOLS));
    const commands = [
      ...['info symbol 0xffffffff9a000084', 'info symbol 0xffffffff9a000040', 'info symbol 0xffffffff9a002108'],
      ...['info symbol 0xffffffff9a005001', 'info address schedule', 'p &linux_banner', 'p &start_kernel'],
    ];
    const words = [
      '-nx',
      '-batch',
      '-ex',
      'set architecture i386:x86-64',
      '-ex',
      `symbol-file ${path}`,
      ...commands.flatMap((each) => ['-ex', each]),
    ];
    const output = execFileSync('gdb', words, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
    for (const text of [
      ...['schedule + 4 in section .text', 'helper in section .text', 'counter + 8 in section .data'],
      ...['start_kernel + 1 in section .text', '"schedule" is at 0xffffffff9a000080', '0xffffffff9a002000'],
      '0xffffffff9a005000 <start_kernel>',
    ]) {
      expect(output).toContain(text);
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
});
