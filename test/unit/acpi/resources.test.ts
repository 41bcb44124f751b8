import { expect, test } from 'vitest';
import * as r from '../../../src/vmm/acpi/resources.ts';

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');

test('small items', () => {
  expect(hex(r.io(0x3f8, 8))).toBe('4701f803f8030108');
  expect(hex(r.io(0x100, 0x10, { last: 0x3f0, alignment: 0x10 }))).toBe('47010001f0031010');
  expect(hex(r.irqNoFlags(4))).toBe('221000');
  expect(hex(r.irqNoFlags(3, 15))).toBe('220880');
  expect(hex(r.irq({ trigger: 'level', polarity: 'low', shared: true }, 9))).toBe('23000218');
  expect(hex(r.irq({ wake: true }, 8))).toBe('23000121');
  expect(() => r.irqNoFlags(16)).toThrow(RangeError);
  expect(() => r.io(0x10000, 1)).toThrow(RangeError);
  expect(() => r.io(0, 256)).toThrow(RangeError);
});

test('large items', () => {
  expect(hex(r.memory32Fixed(0xfed00000, 0x400, false))).toBe('86090000' + '0000d0fe' + '00040000');
  expect(hex(r.interrupt({ trigger: 'level', shared: true }, 5, 10))).toBe('890a000902' + '05000000' + '0a000000');
  expect(hex(r.interrupt({ producer: true, polarity: 'low' }, 20))).toBe('890600060114000000');
  expect(hex(r.busNumbers({ min: 0, max: 0xff }))).toBe(
    '880d00' + '020c00' + '0000' + '0000' + 'ff00' + '0000' + '0001',
  );
  expect(hex(r.ioSpace('word', { min: 0xd00, max: 0xffff }))).toBe(
    '880d00' + '010c03' + '0000' + '000d' + 'ffff' + '0000' + '00f3',
  );
  expect(hex(r.memorySpace('dword', { min: 0xc0000000, max: 0xfebfffff, caching: 'prefetchable' }))).toBe(
    '871700' + '000c07' + '00000000' + '000000c0' + 'ffffbffe' + '00000000' + '0000c03e',
  );
  expect(hex(r.memorySpace('qword', { min: 0x100000000, max: 0x1ffffffff, writable: false, consumer: true }))).toBe(
    '8a2b00' +
      '000d00' +
      '00'.repeat(8) +
      '0000000001000000' +
      'ffffffff01000000' +
      '00'.repeat(8) +
      '0000000001000000',
  );
  // Movable: shorter than its range.
  expect(hex(r.ioSpace('word', { min: 0, max: 0xff, length: 0x10 })).slice(6, 12)).toBe('010003');
  expect(hex(r.register(0x7f, 0, 0, 0n))).toBe(`820c00${'7f000000'}${'00'.repeat(8)}`);
});

test('ranges that cannot be are refused', () => {
  expect(() => r.busNumbers({ min: 1, max: 0 })).toThrow(RangeError);
  expect(() => r.busNumbers({ min: 0, max: 1, length: 3 })).toThrow(RangeError);
  expect(() => r.memorySpace('dword', { min: 0, max: 0x100000000 })).toThrow(RangeError);
});

test('a template is a buffer that ends with an end tag', () => {
  expect(hex(r.resourceTemplate(r.irqNoFlags(4)))).toBe('1108' + '0a05' + '221000' + '7900');
});
