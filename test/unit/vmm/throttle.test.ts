import { describe, expect, test } from 'vitest';
import { Throttle } from '../../../src/vmm/throttle.ts';
import { FakeClock } from '../../support/fake_clock.ts';
import { random as seeded } from '../../support/random.ts';

const seconds = (clock: FakeClock) => Number(clock.time) / 1e9;

describe('throttling', () => {
  test.each([
    [{ iops: 100 }, 512, 1000, 10],
    [{ bps: 1e6 }, 4096, 1000, 4.096],
    [{ iopsWrite: 50, bps: 1e9 }, 4096, 500, 10],
    // What is larger than a bucket passes at the same rate.
    [{ bps: 1e6 }, 1e6, 20, 20],
  ])('%o: requests of %i bytes', (limits, bytes, count, expected) => {
    const clock = new FakeClock();
    const throttle = new Throttle(clock, limits);
    let done = 0;
    for (let i = 0; i < count; i++) throttle.submit('write', bytes, () => done++);
    while (clock.next());
    expect(done).toBe(count);
    expect(seconds(clock)).toBeGreaterThan(expected * 0.88);
    expect(seconds(clock)).toBeLessThan(expected * 1.05);
  });

  test('a burst passes at once, then the rate holds', () => {
    const clock = new FakeClock();
    const throttle = new Throttle(clock, { iops: 10, iopsMax: 100 });
    let done = 0;
    for (let i = 0; i < 150; i++) throttle.submit('read', 512, () => done++);
    expect(done).toBe(100);
    while (clock.next());
    expect(seconds(clock)).toBeCloseTo(5, 0);
  });

  test('reads do not wait for writes that have a limit of their own; order holds in each', () => {
    const clock = new FakeClock();
    const throttle = new Throttle(clock, { iopsWrite: 1 });
    const log: string[] = [];
    for (let i = 0; i < 5; i++) throttle.submit('write', 512, () => log.push(`w${i}`));
    for (let i = 0; i < 5; i++) throttle.submit('read', 512, () => log.push(`r${i}`));
    while (clock.next());
    expect(log.filter((each) => each[0] === 'r').join(' ')).toBe('r0 r1 r2 r3 r4');
    expect(log.filter((each) => each[0] === 'w').join(' ')).toBe('w0 w1 w2 w3 w4');
    expect(log.indexOf('r4')).toBeLessThan(log.indexOf('w2'));
  });

  test('no limits any more: what waits goes at once', () => {
    const clock = new FakeClock();
    const throttle = new Throttle(clock, { bps: 1 });
    let done = 0;
    for (let i = 0; i < 20; i++) throttle.submit('read', 4096, () => done++);
    expect(done).toBe(1);
    throttle.limits = {};
    expect(done).toBe(20);
    expect(clock.next()).toBe(false);
  });

  test('what waits is let through for once, and counts', () => {
    const clock = new FakeClock();
    const throttle = new Throttle(clock, { iops: 10, iopsMax: 1 });
    let done = 0;
    for (let i = 0; i < 21; i++) throttle.submit('read', 4096, () => done++);
    expect([done, throttle.waiting]).toEqual([1, 20]);
    throttle.release();
    expect([done, throttle.waiting]).toEqual([21, 0]);
    throttle.submit('read', 4096, () => done++);
    while (clock.next());
    expect(done).toBe(22);
    expect(clock.seconds).toBeCloseTo(2.1, 5);
  });

  test('never more than the limits in any window, whatever comes', () => {
    for (let seed = 1; seed <= 50; seed++) {
      const random = seeded(seed);
      const clock = new FakeClock();
      const limits = { iops: 10 + random(200), bps: 50_000 + random(500_000) };
      const throttle = new Throttle(clock, limits);
      const passed: { at: number; bytes: number }[] = [];
      for (let i = 0; i < 300; i++) {
        const bytes = 512 * (1 + random(64));
        throttle.submit(random(2) ? 'read' : 'write', bytes, () => passed.push({ at: seconds(clock), bytes }));
        if (random(4) === 0) clock.time += BigInt(random(50_000_000));
        if (random(3) === 0) clock.next();
      }
      while (clock.next());
      expect(passed.length).toBe(300);
      for (let i = 0; i < passed.length; i += 7) {
        const window = passed.filter(({ at }) => at >= passed[i].at && at < passed[i].at + 1);
        // The bucket may have been empty, and the last request may be larger than what was left.
        expect(window.length).toBeLessThanOrEqual(limits.iops * 1.1 + 2);
        const bytes = window.reduce((sum, each) => sum + each.bytes, 0);
        expect(bytes).toBeLessThanOrEqual(limits.bps * 1.1 + 2 * 32768);
      }
    }
  });
});
