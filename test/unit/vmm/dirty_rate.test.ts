/** How fast a guest writes: KVM's bitmaps counted, and one measurement at a time. */
import { expect, test } from 'vitest';
import { viewOf } from '../../../src/ffi/libc.ts';
import { countBits, type DirtySlot, takeDirtyPages } from '../../../src/vmm/dirty_pages.ts';
import { DirtyRate } from '../../../src/vmm/dirty_rate.ts';
import { random } from '../../support/random.ts';

const PAGE = 4096;
const GiB = 2 ** 30;

test('bits are counted as one by one', () => {
  const below = random(1);
  for (let round = 0; round < 200; round++) {
    const words = Uint32Array.from({ length: round % 9 }, () => below(2 ** 32));
    const slow = [...words].reduce((sum, word) => sum + word.toString(2).replaceAll('0', '').length, 0);
    expect(countBits(words)).toBe(slow);
  }
  expect(countBits(Uint32Array.of(0xffffffff, 0x80000000, 1))).toBe(34);
});

test("each memslot's bitmap is its own: none has what the one before left", () => {
  const memslots = new Map([
    [0, { flags: 0, gpa: 0, size: GiB, hostAddress: 0 }],
    [3, { flags: 0, gpa: 4 * GiB, size: 3 * PAGE, hostAddress: 0 }],
  ]);
  const dirtyLog = (slot: number, address: number) => {
    const bitmap = new Uint8Array(viewOf(address, slot === 0 ? GiB / PAGE / 8 : 8));
    bitmap.fill(slot === 0 ? 0xff : 0);
    if (slot === 3) bitmap[0] = 0b101;
  };
  expect(takeDirtyPages({ memslots, dirtyLog })).toEqual([
    { address: 0, size: GiB, dirty: GiB },
    { address: 4 * GiB, size: 3 * PAGE, dirty: 2 * PAGE },
  ]);
  expect(takeDirtyPages({ memslots: new Map(), dirtyLog })).toEqual([]);
});

const ranges = async () => [
  { address: 0, size: GiB, resident: 0, huge: 0 },
  { dimm: 'vm0', address: 4 * GiB, size: GiB, resident: 0, huge: 0 },
];

test('slots are added up by the range that they are in; what is no RAM counts for nothing', async () => {
  const slots: DirtySlot[] = [
    { address: 0, size: GiB / 2, dirty: 2 * PAGE },
    { address: GiB / 2, size: GiB / 2, dirty: PAGE },
    { address: 4 * GiB, size: GiB, dirty: 5 * PAGE },
    { address: 8 * GiB, size: PAGE, dirty: PAGE },
  ];
  const rate = new DirtyRate(async (on) => (on ? [] : slots), ranges);
  const report = await rate.measure(10);
  expect(report.milliseconds).toBeGreaterThanOrEqual(9);
  expect(report.ranges).toEqual([
    { address: 0, size: GiB, dirty: 3 * PAGE },
    { dimm: 'vm0', address: 4 * GiB, size: GiB, dirty: 5 * PAGE },
  ]);
});

test('measurements take turns, also after one that failed', async () => {
  const log: boolean[] = [];
  let fails = true;
  const rate = new DirtyRate(async (on) => {
    log.push(on);
    if (!on && fails) throw new Error('The machine was closed.');
    return [];
  }, ranges);
  const first = rate.measure(20);
  const second = rate.measure(10);
  await expect(first).rejects.toThrow('closed');
  fails = false;
  await second;
  expect(log).toEqual([true, false, true, false]);
});

test('what could not be switched on for all memory is switched off for all', async () => {
  const log: boolean[] = [];
  const rate = new DirtyRate(async (on) => {
    log.push(on);
    throw new Error(on ? 'KVM_SET_USER_MEMORY_REGION slot 1: ENOMEM' : 'KVM_GET_DIRTY_LOG slot 1: ENOENT');
  }, ranges);
  await expect(rate.measure(10)).rejects.toThrow('ENOMEM');
  expect(log).toEqual([true, false]);
});

test('a time that is none is refused before anything is switched on', async () => {
  const rate = new DirtyRate(() => Promise.reject(new Error('asked')), ranges);
  for (const time of [0, -1, 9, 60_001, Number.NaN, Number.POSITIVE_INFINITY]) {
    await expect(rate.measure(time)).rejects.toThrow(/cannot be watched for .* ms/);
  }
});
