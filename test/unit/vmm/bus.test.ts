import { expect, test } from 'vitest';
import type { Region } from '../../../src/devices/device.ts';
import { Bus } from '../../../src/vmm/bus.ts';

/** A region of RAM-like registers that remembers every access. */
function registers(name: string, size: number) {
  const bytes = new Uint8Array(size);
  const log: string[] = [];
  const region: Region = {
    name,
    size,
    read(offset, width) {
      log.push(`r${width}@${offset}`);
      let value = 0;
      for (let i = 0; i < width; i++) value |= bytes[offset + i] << (8 * i);
      return value >>> 0;
    },
    write(offset, width, value) {
      log.push(`w${width}@${offset}=${value.toString(16)}`);
      for (let i = 0; i < width; i++) bytes[offset + i] = value >>> (8 * i);
    },
  };
  return { region, log, bytes };
}

test('an access goes to the region that has the address, with its offset', () => {
  const bus = new Bus('pio');
  const a = registers('a', 8);
  const b = registers('b', 4);
  bus.insert(0x3f8, a.region);
  bus.insert(0x70, b.region);
  bus.write(0x3fa, 1, 0xc7);
  bus.write(0x72, 2, 0xbeef);
  expect(bus.read(0x3fa, 1)).toBe(0xc7);
  expect(bus.read(0x70, 4)).toBe(0xbeef0000);
  expect(a.log).toEqual(['w1@2=c7', 'r1@2']);
  expect(b.log).toEqual(['w2@2=beef', 'r4@0']);
});

test('nobody there reads as all ones, and is counted', () => {
  const bus = new Bus('pio');
  bus.insert(0x10, registers('a', 4).region);
  expect([bus.read(0x80, 1), bus.read(0x80, 2), bus.read(0x80, 4)]).toEqual([0xff, 0xffff, 0xffffffff]);
  bus.write(0x80, 1, 0);
  expect(bus.unclaimed).toMatchObject({ reads: 3, writes: 1, lastAddress: 0x80 });
});

test('an access over the end of a region is made of bytes', () => {
  const bus = new Bus('mmio');
  const a = registers('a', 4);
  const b = registers('b', 2);
  a.bytes.set([1, 2, 3, 4]);
  b.bytes.set([5, 6]);
  bus.insert(0x1000, a.region);
  bus.insert(0x1004, b.region);
  expect(bus.read(0x1002, 4)).toBe(0x06050403);
  expect(bus.read(0x1005, 4)).toBe(0xffffff06);
  expect(bus.read(0xffe, 4)).toBe(0x0201ffff);
  bus.write(0x1003, 2, 0x0908);
  expect([...a.bytes, ...b.bytes]).toEqual([1, 2, 3, 8, 9, 6]);
});

test('accesses of eight and of odd length are split by size, low address first', () => {
  const bus = new Bus('mmio');
  const a = registers('a', 16);
  bus.insert(2 ** 40, a.region);
  bus.writeBytes(2 ** 40, Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8));
  bus.writeBytes(2 ** 40 + 8, Uint8Array.of(9, 10, 11));
  expect(a.log).toEqual(['w4@0=4030201', 'w4@4=8070605', 'w2@8=a09', 'w1@10=b']);
  const back = new Uint8Array(11);
  bus.readBytes(2 ** 40, back);
  expect([...back]).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
});

test('string I/O repeats one address, or goes through the region in one piece', () => {
  const bus = new Bus('pio');
  const a = registers('a', 1);
  bus.insert(0x50, a.region);
  bus.writeRepeated(0x50, 1, Uint8Array.of(1, 2, 3));
  expect(a.log).toEqual(['w1@0=1', 'w1@0=2', 'w1@0=3']);
  const pieces: number[][] = [];
  bus.insert(0x60, { ...registers('b', 1).region, writeMany: (_, __, from) => pieces.push([...from]) });
  bus.writeRepeated(0x60, 1, Uint8Array.of(4, 5));
  expect(pieces).toEqual([[4, 5]]);
  expect(bus.counters().find(({ name }) => name === 'b')?.writes).toBe(2);
});

test('an overlap is refused with both names and ranges; a region can be taken off again', () => {
  const bus = new Bus('pio');
  const remove = bus.insert(0x3f8, registers('com1', 8).region);
  expect(() => bus.insert(0x3ff, registers('other', 2).region)).toThrow(
    'other at pio 0x3ff-0x400 overlaps com1 at 0x3f8-0x3ff.',
  );
  expect(bus.read(0x3f8, 1)).toBe(0);
  remove();
  expect(bus.read(0x3f8, 1)).toBe(0xff);
  bus.insert(0x3ff, registers('other', 2).region);
});
