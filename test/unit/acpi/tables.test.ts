import { describe, expect, test } from 'vitest';
import { buildAcpi } from '../../../src/vmm/acpi/tables.ts';
import { bareBoard, boards, fullBoard, listedTables, processors } from './boards.ts';

const BASE = 0xe0000;
const sum = (bytes: Uint8Array) => bytes.reduce((total, byte) => (total + byte) & 0xff, 0);
const signature = (bytes: Buffer) => bytes.toString('latin1', 0, 4);

/** Follows the tables as a guest does: from the RSDP, by addresses alone. */
function walk(image: ReturnType<typeof buildAcpi>) {
  const memory = Buffer.from(image.bytes);
  const at = (gpa: number, length: number) => memory.subarray(gpa - BASE, gpa - BASE + length);
  const tableAt = (gpa: number) => at(gpa, at(gpa, 8).readUInt32LE(4));
  const rsdp = at(image.rsdp, 36);
  const xsdt = tableAt(Number(rsdp.readBigUInt64LE(24)));
  const listed = Array.from({ length: (xsdt.length - 36) / 8 }, (_, i) =>
    tableAt(Number(xsdt.readBigUInt64LE(36 + 8 * i))),
  );
  const fadt = listed.find((each) => signature(each) === 'FACP') as Buffer;
  const facsAddress = fadt.readUInt32LE(36);
  const facs = at(facsAddress, 64);
  const dsdt = tableAt(fadt.readUInt32LE(40));
  const madt = listed.find((each) => signature(each) === 'APIC') as Buffer;
  return { rsdp, xsdt, listed, fadt, facs, facsAddress, dsdt, madt };
}

/** Entries of a MADT, as [type, bytes]. */
function madtEntries(madt: Buffer): [number, Buffer][] {
  const entries: [number, Buffer][] = [];
  for (let at = 44; at < madt.length; at += madt[at + 1]) {
    expect(madt[at + 1]).toBeGreaterThan(1);
    entries.push([madt[at], madt.subarray(at, at + madt[at + 1])]);
  }
  return entries;
}

describe.each(boards)('%s', (_, board) => {
  const image = buildAcpi(board, BASE);
  const { rsdp, xsdt, listed, facs, facsAddress, dsdt, fadt, madt } = walk(image);

  test('all tables are where the RSDP leads, with right checksums', () => {
    expect(rsdp.toString('latin1', 0, 8)).toBe('RSD PTR ');
    expect(image.rsdp % 16).toBe(0);
    expect([sum(rsdp.subarray(0, 20)), sum(rsdp)]).toEqual([0, 0]);
    expect([xsdt, ...listed, dsdt].map(signature)).toEqual(['XSDT', ...listedTables(board), 'DSDT']);
    for (const table of [xsdt, ...listed, dsdt]) {
      expect(sum(table)).toBe(0);
      expect(table.toString('latin1', 10, 16)).toBe('NEMU  ');
    }
    expect(signature(facs)).toBe('FACS');
    expect(facsAddress % 64).toBe(0);
  });

  test('they fit the BIOS area', () => {
    expect(image.bytes.length).toBeLessThan(0x20000);
    expect(() => buildAcpi(board, BASE, image.bytes.length - 1)).toThrow(RangeError);
  });

  test('both forms of each address agree', () => {
    expect(fadt.readBigUInt64LE(132)).toBe(0n);
    expect(fadt.readBigUInt64LE(140)).toBe(BigInt(fadt.readUInt32LE(40)));
    for (const [legacy, extended, length] of [
      [56, 148, 88],
      [64, 172, 89],
      [76, 208, 91],
      [80, 220, 92],
    ]) {
      expect(fadt[extended]).toBe(1);
      expect(fadt[extended + 1]).toBe(fadt[length] * 8);
      expect(fadt.readBigUInt64LE(extended + 4)).toBe(BigInt(fadt.readUInt32LE(legacy)));
    }
  });

  test('every processor has one MADT entry', () => {
    const found = madtEntries(madt).flatMap(([type, entry]) => {
      if (type === 0) return [{ uid: entry[2], apicId: entry[3], flags: entry.readUInt32LE(4) }];
      if (type === 9) {
        return [{ uid: entry.readUInt32LE(12), apicId: entry.readUInt32LE(4), flags: entry.readUInt32LE(8) }];
      }
      return [];
    });
    expect(found).toEqual(board.cpus.map(({ uid, apicId, online }) => ({ uid, apicId, flags: online ? 1 : 2 })));
  });
});

test('the FADT says where the ICH9 is, and what is not there', () => {
  const { fadt } = walk(buildAcpi(fullBoard(1), BASE));
  expect(fadt.length).toBe(276);
  expect([56, 64, 76, 80].map((at) => fadt.readUInt32LE(at))).toEqual([0x600, 0x604, 0x608, 0x620]);
  expect([88, 89, 91, 92].map((at) => fadt[at])).toEqual([4, 2, 4, 16]);
  expect(fadt.readUInt16LE(46)).toBe(9);
  expect(fadt.readUInt32LE(48)).toBe(0);
  expect([fadt.readUInt16LE(96) > 100, fadt.readUInt16LE(98) > 1000]).toEqual([true, true]);
  expect(fadt[108]).toBe(0x32);
  expect([fadt[116], fadt[117], fadt.readBigUInt64LE(120), fadt[128]]).toEqual([1, 8, 0xcf9n, 6]);
  const flags = fadt.readUInt32LE(112);
  const bit = (n: number) => (flags >>> n) & 1;
  expect({
    powerButtonIsControlMethod: bit(4),
    sleepButtonIsControlMethod: bit(5),
    timer32Bits: bit(8),
    resetRegister: bit(10),
    hardwareReduced: bit(20),
  }).toEqual({
    powerButtonIsControlMethod: 0,
    sleepButtonIsControlMethod: 1,
    timer32Bits: 0,
    resetRegister: 1,
    hardwareReduced: 0,
  });
});

test('boot architecture flags follow the board', () => {
  const flags = (board: typeof bareBoard) => walk(buildAcpi(board, BASE)).fadt.readUInt16LE(109);
  expect(flags(fullBoard(1))).toBe(0b000111);
  expect(flags({ ...fullBoard(1), i8042: false })).toBe(0b000101);
  expect(flags(bareBoard)).toBe(0b100100);
});

test('interrupts: the IOAPIC, the timer on input 2, a level-triggered SCI, NMI on LINT1', () => {
  const entries = madtEntries(walk(buildAcpi(bareBoard, BASE)).madt).slice(1);
  expect(entries.map(([, entry]) => entry.toString('hex'))).toEqual([
    '010c00000000c0fe00000000',
    '020a0000020000000000',
    '020a0009090000000d00',
    '0406ff000001',
  ]);
});

test('an APIC id that eight bits do not hold is an x2APIC entry, with its own NMI entry', () => {
  const cpus = processors(3, (uid) => 253 + uid);
  const entries = madtEntries(walk(buildAcpi({ ...bareBoard, cpus }, BASE)).madt);
  expect(entries.map(([type]) => type)).toEqual([0, 0, 9, 1, 2, 2, 4, 10]);
  expect(entries[7][1].toString('hex')).toBe('0a0c0000ffffffff01000000');
});

test('only devices that exist are described', () => {
  const names = (board: typeof bareBoard) => Buffer.from(buildAcpi(board, BASE).tables.get('DSDT')!).toString('latin1');
  const ids = ['COM1', 'COM4', 'RTC_', 'KBD_', 'FWCF', 'PEVT'];
  expect(ids.filter((id) => names(bareBoard).includes(id))).toEqual([]);
  expect(ids.filter((id) => names(fullBoard(1)).includes(id))).toEqual(ids);
  expect(names(bareBoard)).toContain('_S5_');
  expect(names(fullBoard(254))).toContain('C0FD');
});
