import { expect, test } from 'vitest';
import { Hpet } from '../../../src/devices/hpet.ts';
import { FakeClock, FakeLine } from '../../support/board.ts';

const CAPABILITIES = 0x000;
const CONFIGURATION = 0x010;
const STATUS = 0x020;
const COUNTER = 0x0f0;
const timer = (index: number) => ({ configuration: 0x100 + 0x20 * index, comparator: 0x108 + 0x20 * index });
const LEVEL = 0x002;
const INTERRUPT = 0x004;
const PERIODIC = 0x008;
const SET_ACCUMULATOR = 0x040;
const FORCE_32 = 0x100;
const route = (input: number) => input << 9;

function setUp() {
  const clock = new FakeClock();
  const lines = new Map<number, FakeLine>();
  const line = (gsi: number): FakeLine => {
    const made = lines.get(gsi) ?? new FakeLine();
    lines.set(gsi, made);
    return made;
  };
  const legacy: boolean[] = [];
  const make = () => new Hpet({ clock, routes: 0xff0104, line, legacy: (taken) => legacy.push(taken) });
  const hpet = make();
  const read = (offset: number) => hpet.read(offset, 4);
  const write = (offset: number, value: number) => hpet.write(offset, 4, value >>> 0);
  /** Ticks of 10 ns. */
  const ticks = (count: number) => clock.advance(BigInt(count) * 10n);
  return { clock, line, legacy, make, hpet, read, write, ticks };
}

test("it says what QEMU's says: three timers of 64 bits, 10 ns, legacy replacement, inputs 2, 8, 16 to 23", () => {
  const { read, hpet } = setUp();
  expect(read(CAPABILITIES)).toBe(0x8086a201);
  expect(read(CAPABILITIES + 4)).toBe(10_000_000);
  expect(read(timer(0).configuration)).toBe(0x30);
  expect(read(timer(2).configuration + 4)).toBe(0xff0104);
  expect(read(timer(3).configuration)).toBe(0);
  expect([read(timer(1).comparator), read(timer(1).comparator + 4)]).toEqual([0xffffffff, 0xffffffff]);
  // Parts of a register can be read, and not be written.
  expect([hpet.read(2, 2), hpet.read(3, 1)]).toEqual([0x8086, 0x80]);
  hpet.write(CONFIGURATION, 1, 1);
  expect(read(CONFIGURATION)).toBe(0);
});

test('the counter stands until it is enabled, can be set while it stands, and is read as one value of 64 bits', () => {
  const { read, write, ticks } = setUp();
  ticks(1000);
  expect(read(COUNTER)).toBe(0);
  write(COUNTER, 0xffff_fffe);
  write(COUNTER + 4, 5);
  write(CONFIGURATION, 1);
  expect(read(COUNTER)).toBe(0xffff_fffe);
  ticks(7);
  // The high half belongs to the low one that was read before it.
  expect(read(COUNTER + 4)).toBe(5);
  expect([read(COUNTER), read(COUNTER + 4)]).toEqual([5, 6]);
  write(COUNTER, 0);
  expect(read(COUNTER)).toBe(5);
  write(CONFIGURATION, 0);
  ticks(100);
  expect(read(COUNTER)).toBe(5);
});

test('a one-shot timer raises an edge at its time, once; one whose time is past waits', () => {
  const { line, read, write, ticks } = setUp();
  write(CONFIGURATION, 1);
  write(timer(2).configuration, INTERRUPT | route(20));
  write(timer(2).comparator, 500);
  write(timer(2).comparator + 4, 0);
  ticks(499);
  expect(line(20).edges).toBe(0);
  ticks(1);
  expect([line(20).edges, line(20).level, read(STATUS)]).toEqual([1, false, 0]);
  ticks(100_000);
  expect(line(20).edges).toBe(1);
  write(timer(2).comparator, 400);
  ticks(100_000);
  expect(line(20).edges).toBe(1);
});

test("Linux's periodic timer: the time and then the period, in legacy replacement of the PIT", () => {
  const { legacy, line, read, write, ticks } = setUp();
  write(CONFIGURATION, 3);
  expect(legacy).toEqual([true]);
  write(timer(0).configuration, INTERRUPT | PERIODIC | SET_ACCUMULATOR | FORCE_32);
  write(timer(0).comparator, 1_000_000);
  write(timer(0).comparator, 400_000);
  for (let at = 0; at < 2_000_000; at += 50_000) ticks(50_000);
  // At 1 000 000 and 400 000 after it, and again.
  expect(line(0).edges).toBe(3);
  expect(read(timer(0).comparator)).toBe(2_200_000);
  // It was away for long: no interrupt for each time that was missed, and the beat is kept.
  ticks(4_000_000);
  expect(line(0).edges).toBe(4);
  expect(read(timer(0).comparator)).toBe(6_200_000);
  write(CONFIGURATION, 1);
  expect(legacy).toEqual([true, false]);
});

test('timer 1 takes the interrupt of the RTC in legacy replacement, timer 2 keeps its route', () => {
  const { line, write, ticks } = setUp();
  write(CONFIGURATION, 3);
  for (const index of [1, 2]) {
    write(timer(index).configuration, INTERRUPT | FORCE_32 | route(17));
    write(timer(index).comparator, 10);
  }
  ticks(10);
  expect([line(8).edges, line(17).edges]).toEqual([1, 1]);
});

test('a level stays until it is acknowledged, and leaves with the timer that is switched off', () => {
  const { line, read, write, ticks } = setUp();
  write(CONFIGURATION, 1);
  write(timer(1).configuration, LEVEL | INTERRUPT | route(18));
  write(timer(1).comparator, 100);
  write(timer(1).comparator + 4, 0);
  ticks(100);
  expect([line(18).level, read(STATUS)]).toEqual([true, 2]);
  write(STATUS, 5);
  expect(line(18).level).toBe(true);
  write(STATUS, 2);
  expect([line(18).level, read(STATUS)]).toEqual([false, 0]);
  write(timer(1).comparator, 1000);
  ticks(900);
  expect(line(18).level).toBe(true);
  write(timer(1).configuration, route(18));
  expect([line(18).level, read(STATUS)]).toEqual([false, 0]);
});

test('the status is set without an interrupt too, and the interrupt comes when it is allowed', () => {
  const { line, read, write, ticks } = setUp();
  write(CONFIGURATION, 1);
  write(timer(0).configuration, LEVEL | route(16));
  write(timer(0).comparator, 50);
  write(timer(0).comparator + 4, 0);
  ticks(50);
  expect([line(16).level, read(STATUS)]).toEqual([false, 1]);
  write(timer(0).configuration, LEVEL | INTERRUPT | route(16));
  expect(line(16).level).toBe(true);
});

test('a timer of 32 bits comes again each time the counter goes round', () => {
  const { line, read, write, ticks } = setUp();
  write(CONFIGURATION, 1);
  write(timer(0).configuration, INTERRUPT | FORCE_32 | route(19));
  write(timer(0).comparator, 1000);
  expect(read(timer(0).comparator + 4)).toBe(0);
  ticks(1000);
  expect(line(19).edges).toBe(1);
  ticks(2 ** 32 - 1);
  expect(line(19).edges).toBe(1);
  ticks(1);
  expect(line(19).edges).toBe(2);
});

test('a period of no ticks, and one of a few, do not keep the machine busy', () => {
  const { line, write, ticks } = setUp();
  write(CONFIGURATION, 1);
  for (const [index, period] of [0, 1, 9_999].entries()) {
    write(timer(index).configuration, INTERRUPT | PERIODIC | SET_ACCUMULATOR | FORCE_32 | route(16 + index));
    write(timer(index).comparator, 10);
    write(timer(index).comparator, period);
  }
  for (let at = 0; at < 1_000_000; at += 100) ticks(100);
  expect(line(16).edges).toBe(1);
  expect(line(17).edges).toBeLessThanOrEqual(101);
  expect(line(18).edges).toBeLessThanOrEqual(101);
  expect(line(17).edges).toBeGreaterThan(90);
});

test('what was saved goes on where it was, in another one', () => {
  const { clock, line, make, hpet, write, ticks } = setUp();
  write(CONFIGURATION, 1);
  write(timer(1).configuration, LEVEL | INTERRUPT | route(18));
  write(timer(1).comparator, 100);
  write(timer(1).comparator + 4, 0);
  write(timer(2).configuration, INTERRUPT | PERIODIC | SET_ACCUMULATOR | FORCE_32 | route(20));
  write(timer(2).comparator, 60_000);
  write(timer(2).comparator, 50_000);
  ticks(40_000);
  const saved = JSON.parse(JSON.stringify(hpet.save()));
  hpet.reset();
  expect(line(18).level).toBe(false);
  clock.advance(12_345n);
  const other = make();
  other.restore(saved);
  expect([other.read(COUNTER, 4), line(18).level]).toEqual([40_000, true]);
  ticks(19_999);
  expect(line(20).edges).toBe(0);
  ticks(1);
  ticks(50_000);
  expect(line(20).edges).toBe(2);
  for (const broken of [
    { ...saved, counter: '18446744073709551616' },
    { ...saved, timers: saved.timers.slice(1) },
    { ...saved, configuration: 4 },
    { ...saved, timers: saved.timers.map((each: object) => ({ ...each, period: -1 })) },
  ]) {
    expect(() => make().restore(broken)).toThrow(/state field/);
  }
});
