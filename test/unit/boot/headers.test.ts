/** Our layouts against the C headers of this machine. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { bootParamsLayout, SETUP_HEADER_LIMIT } from '../../../src/vmm/boot/boot_params.ts';
import { elfLayouts } from '../../../src/vmm/boot/elf.ts';

const needed = ['/usr/bin/gcc', '/usr/include/elf.h', '/usr/include/x86_64-linux-gnu/asm/bootparam.h'];
const missing = needed.filter((path) => !existsSync(path));

/** Fields that are no C fields of that name: parts of `e_ident`. */
const OURS = new Set(['e_ident0', 'e_class', 'e_data', 'e_version_ident', 'e_osabi', 'e_pad']);
const IN_BOOT_PARAMS = new Set(['acpi_rsdp_addr', 'ext_ramdisk_image', 'ext_ramdisk_size', 'e820_entries']);

test.skipIf(missing.length > 0)(`boot parameters and ELF headers agree with C (needs ${needed.join(', ')})`, () => {
  const expected: Record<string, number> = {};
  const lines: string[] = [];
  const say = (name: string, expression: string, ours: number) => {
    expected[name] = ours;
    lines.push(`printf("${name} %zu\\n", (size_t)(${expression}));`);
  };
  for (const layout of elfLayouts) {
    say(layout.name, `sizeof(${layout.name})`, layout.size);
    for (const [field, offset] of Object.entries(layout.offsets)) {
      if (!OURS.has(field)) say(`${layout.name}.${field}`, `offsetof(${layout.name}, ${field})`, offset);
    }
  }
  say('boot_params', 'sizeof(struct boot_params)', bootParamsLayout.size);
  for (const [field, offset] of Object.entries(bootParamsLayout.offsets)) {
    const member = IN_BOOT_PARAMS.has(field) ? field : `hdr.${field}`;
    say(member, `offsetof(struct boot_params, ${member})`, offset);
  }
  say('edd_mbr_sig_buffer', 'offsetof(struct boot_params, edd_mbr_sig_buffer)', SETUP_HEADER_LIMIT);
  say('e820_table', 'offsetof(struct boot_params, e820_table)', 0x2d0);
  say('boot_e820_entry', 'sizeof(struct boot_e820_entry)', 20);
  say('E820_MAX_ENTRIES_ZEROPAGE', 'E820_MAX_ENTRIES_ZEROPAGE', 128);

  const folder = mkdtempSync(join(tmpdir(), 'nemu-boot-'));
  try {
    const headers = ['asm/bootparam.h', 'elf.h', 'stddef.h', 'stdio.h'].map((name) => `#include <${name}>`);
    writeFileSync(join(folder, 'a.c'), [...headers, 'int main(void) {', ...lines, 'return 0; }'].join('\n'));
    execFileSync('gcc', ['-o', join(folder, 'a'), join(folder, 'a.c')], { stdio: ['ignore', 'inherit', 'inherit'] });
    const output = execFileSync(join(folder, 'a'), { encoding: 'utf8' }).trim().split('\n');
    const found = Object.fromEntries(output.map((line) => [line.split(' ')[0], Number(line.split(' ')[1])]));
    expect(expected).toEqual(found);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
