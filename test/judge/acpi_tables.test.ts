/** iasl takes every table apart, finds nothing wrong, and puts it together to the same bytes. */
import { describe, expect, test } from 'vitest';
import { buildAcpi } from '../../src/vmm/acpi/tables.ts';
import { boards, fullBoard, listedTables } from '../unit/acpi/boards.ts';
import { compileFields, hasIasl, judgeTable, NEEDS_IASL } from './iasl.ts';

const BASE = 0xe0000;

/** A table without what a compiler signs itself: checksum, creator and the creator's revision. */
function unsigned(table: Uint8Array): string {
  const copy = Buffer.from(table);
  const name = copy.toString('latin1', 0, 4);
  if (name !== 'FACS') {
    copy[9] = 0;
    copy.fill(0, 28, 36);
  }
  return copy.toString('hex');
}

describe.skipIf(!hasIasl)(`iasl (${NEEDS_IASL})`, () => {
  test.each(boards)('%s', (_, board) => {
    const image = buildAcpi(board, BASE);
    expect([...image.tables.keys()]).toEqual(['FACS', 'DSDT', ...listedTables(board), 'XSDT']);
    for (const table of image.tables.values()) {
      const { complaints, recompiled } = judgeTable(table);
      expect(complaints).toEqual([]);
      expect(unsigned(recompiled)).toBe(unsigned(table));
    }
  });

  test('the RSDP, which it compiles but does not take apart', () => {
    const image = buildAcpi(fullBoard(1), BASE);
    const rsdp = Buffer.from(image.bytes.subarray(image.rsdp - BASE, image.rsdp - BASE + 36));
    const theirs = compileFields(`
      Signature : "RSD PTR "
      Checksum : 00
      Oem ID : "NEMU  "
      Revision : 02
      RSDT Address : 00000000
      Length : 00000024
      XSDT Address : ${rsdp.readBigUInt64LE(24).toString(16).padStart(16, '0')}
      Extended Checksum : 00
      Reserved : 000000
    `);
    expect(rsdp.toString('hex')).toBe(Buffer.from(theirs).toString('hex'));
  });

  test('a fault is found: the judge is awake', () => {
    const madt = Buffer.from(buildAcpi(fullBoard(1), BASE).tables.get('APIC')!);
    madt[40] ^= 1;
    expect(judgeTable(madt).complaints).not.toEqual([]);
  });
});
