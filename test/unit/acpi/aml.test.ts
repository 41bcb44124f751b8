/** AML against encodings worked out by hand from chapter 20 of the specification. */
import { describe, expect, test } from 'vitest';
import * as aml from '../../../src/vmm/acpi/aml.ts';
import { fieldLength, pkgLength } from '../../../src/vmm/acpi/aml_encoding.ts';

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');
/** `5c 'FOO_'` and the like: quoted text is ASCII. */
const bytes = (text: string) =>
  text.replace(/'([^']*)'|\s+/g, (_, quoted?: string) => (quoted ? Buffer.from(quoted).toString('hex') : ''));

describe('lengths', () => {
  test.each([
    [0, '01'],
    [62, '3f'],
    [63, '4104'],
    [64, '4204'],
    [0x0ffd, '4fff'],
    [0x0ffe, '810001'],
    [0xffffc, '8fffff'],
    [0xffffd, 'c1000001'],
    [0xfffffff - 4, 'cfffffff'],
  ])('PkgLength in front of %i bytes is %s', (contents, expected) => {
    expect(hex(pkgLength(contents))).toBe(expected);
  });

  test('a PkgLength says where its end is, at every border', () => {
    const decode = (length: Uint8Array) => {
      const extra = length[0] >> 6;
      if (extra === 0) return length[0];
      return length.slice(1).reduce((sum, byte, i) => sum + byte * 2 ** (8 * i + 4), length[0] & 0x0f);
    };
    const borders = [0, 0x40, 0x1000, 0x100000].flatMap((at) => [-6, -5, -4, -3, -2, -1, 0, 1].map((d) => at + d));
    for (const contents of borders.filter((value) => value >= 0)) {
      const length = pkgLength(contents);
      expect(decode(length)).toBe(contents + length.length);
      expect(length.length - 1).toBe(length[0] >> 6);
    }
  });

  test('what is too long is refused', () => {
    expect(() => pkgLength(2 ** 28 - 4)).toThrow(RangeError);
    expect(() => fieldLength(2 ** 28)).toThrow(RangeError);
    expect(() => fieldLength(-1)).toThrow(RangeError);
  });

  test.each([
    [0, '00'],
    [1, '01'],
    [0x3f, '3f'],
    [0x40, '4004'],
    [0xfff, '4fff'],
    [0x1000, '800001'],
  ])('a field unit of %i bits is %s', (bits, expected) => {
    expect(hex(fieldLength(bits))).toBe(expected);
  });
});

describe('names', () => {
  test.each([
    ['A', "'A___'"],
    ['FOO1', "'FOO1'"],
    ['\\', '5c 00'],
    ['\\_SB', "5c '_SB_'"],
    ['^', '5e 00'],
    ['^^X', "5e 5e 'X___'"],
    ['\\_SB.PCI0', "5c 2e '_SB_PCI0'"],
    ['^A.B', "5e 2e 'A___B___'"],
    ['A.B.C', "2f 03 'A___B___C___'"],
  ])('%s', (name, expected) => {
    expect(hex(aml.path(name))).toBe(bytes(expected));
  });

  test.each(['', '1A', 'ABCDE', 'a', 'A..B', '.A', 'A.', '\\^A', 'A\\', 'A B', Array(256).fill('A').join('.')])(
    '%j is refused',
    (name) => {
      expect(() => aml.path(name)).toThrow(RangeError);
    },
  );
});

describe('data', () => {
  test.each([
    [0, '00'],
    [1, '01'],
    [2, '0a02'],
    [0xff, '0aff'],
    [0x100, '0b0001'],
    [0xffff, '0bffff'],
    [0x10000, '0c00000100'],
    [0xffffffff, '0cffffffff'],
    [0x100000000, '0e0000000001000000'],
    [0xffffffffffffffffn, '0effffffffffffffff'],
  ])('the integer %i is %s', (value, expected) => {
    expect(hex(aml.integer(value))).toBe(expected);
  });

  test.each([-1, 1.5, 2n ** 64n])('%s is no integer of AML', (value) => {
    expect(() => aml.integer(value)).toThrow(RangeError);
  });

  test('strings, ids, buffers, packages', () => {
    expect(hex(aml.string('NEMU'))).toBe(bytes("0d 'NEMU' 00"));
    expect(() => aml.string('ü')).toThrow(RangeError);
    expect(() => aml.string('a\0b')).toThrow(RangeError);
    expect(hex(aml.eisaId('PNP0501'))).toBe('0c41d00501');
    expect(hex(aml.eisaId('PNP0A03'))).toBe('0c41d00a03');
    for (const id of ['PNP050', 'pnp0501', 'PNP05O1', 'ACPI0007']) expect(() => aml.eisaId(id)).toThrow(RangeError);
    expect(hex(aml.uuid('33DB4D5B-1FF7-401C-9657-7441C03DD766'))).toBe(
      '1113' + '0a10' + '5b4ddb33f71f1c4096577441c03dd766',
    );
    expect(() => aml.uuid('33DB4D5B')).toThrow(RangeError);
    expect(hex(aml.buffer(Uint8Array.of(1, 2)))).toBe('1105' + '0a02' + '0102');
    expect(hex(aml.buffer(Uint8Array.of(1), 16))).toBe('1104' + '0a10' + '01');
    expect(() => aml.buffer(Uint8Array.of(1, 2), 1)).toThrow(RangeError);
    expect(hex(aml.packageOf(0, aml.string('A'), aml.path('B')))).toBe(bytes("12 0a 03 00 0d 'A' 00 'B___'"));
    expect(hex(aml.packageOf(...Array(256).fill(0))).slice(0, 12)).toBe('1345100b0001');
  });
});

describe('objects and statements', () => {
  test('scopes, devices, names and methods wrap what is in them', () => {
    expect(hex(aml.scope('\\_SB', aml.device('CPU0', aml.name('_UID', 3))))).toBe(
      bytes("10 14 5c '_SB_' 5b82 0c 'CPU0' 08 '_UID' 0a03"),
    );
    expect(hex(aml.method('_STA', {}, aml.returnValue(15)))).toBe(bytes("14 09 '_STA' 00 a4 0a0f"));
    expect(hex(aml.method('M', { args: 2, serialized: true, syncLevel: 3 }))).toBe(bytes("14 06 'M___' 3a"));
    expect(() => aml.method('M', { args: 8 })).toThrow(RangeError);
  });

  test('objects of other tables', () => {
    expect(hex(aml.external('\\_SB.XMTH', aml.OBJECT.method, 2))).toBe(bytes("15 5c 2e '_SB_XMTH' 08 02"));
  });

  test('regions and fields', () => {
    expect(hex(aml.operationRegion('PRST', aml.SPACE.systemIo, 0xcd8, 12))).toBe(bytes("5b80 'PRST' 01 0b d80c 0a0c"));
    const units = [{ offset: 4 }, { name: 'CPEN', bits: 1 }, { skip: 7 }, { offset: 8 }, { name: 'CDAT', bits: 32 }];
    expect(hex(aml.field('PRST', { access: 'byte', update: 'writeAsZeros' }, ...units))).toBe(
      bytes("5b81 16 'PRST' 41 00 20 'CPEN' 01 00 07 00 18 'CDAT' 20"),
    );
    expect(hex(aml.field('R', { access: 'dword', lock: true }, { name: 'A', bits: 64 }))).toBe(
      bytes("5b81 0c 'R___' 13 'A___' 4004"),
    );
    expect(() => aml.field('R', { access: 'any' }, { name: 'A', bits: 32 }, { offset: 2 })).toThrow(RangeError);
  });

  test('mutexes, waiting and events', () => {
    expect(hex(aml.mutex('CPLK'))).toBe(bytes("5b01 'CPLK' 00"));
    expect(hex(aml.acquire('CPLK'))).toBe(bytes("5b23 'CPLK' ffff"));
    expect(hex(aml.acquire('CPLK', 0x1234))).toBe(bytes("5b23 'CPLK' 3412"));
    expect(hex(aml.release('CPLK'))).toBe(bytes("5b27 'CPLK'"));
    expect(() => aml.acquire('CPLK', 0x10000)).toThrow(RangeError);
  });

  test('expressions and control flow', () => {
    const { local, arg } = aml;
    expect(hex(aml.store(1, local(0)))).toBe('700160');
    expect(hex(aml.add(arg(0), 2, local(1)))).toBe('72680a0261');
    expect(hex(aml.add(arg(0), 2))).toBe('72680a0200');
    expect(hex(aml.derefOf(aml.index(local(7), 1)))).toBe('8388670100');
    expect(hex(aml.lNotEqual(local(0), 0))).toBe('92936000');
    expect(hex(aml.ifThen(aml.lEqual(arg(6), 1), aml.notify('CPU0', 1)))).toBe(bytes("a0 0a 936e01 86 'CPU0' 01"));
    expect(hex(aml.elseThen(aml.breakLoop))).toBe('a102a5');
    expect(hex(aml.whileDo(1, aml.call('M', 2, local(0))))).toBe(bytes("a2 09 01 'M___' 0a02 60"));
    expect(() => local(8)).toThrow(RangeError);
    expect(() => arg(7)).toThrow(RangeError);
  });
});
