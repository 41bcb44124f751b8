import { expect, test } from 'vitest';
import { Paced } from '../../../src/vmm/paced.ts';
import { FakeClock } from '../../support/fake_clock.ts';

test('the first is told at once, then the newest once a second', () => {
  const clock = new FakeClock();
  const told: [number, number][] = [];
  const paced = new Paced<number>(clock, (value) => told.push([clock.seconds, value]));
  for (let value = 0; value < 1000; value++) paced.say(value);
  expect(told).toEqual([[0, 0]]);
  clock.next();
  expect(told).toEqual([
    [0, 0],
    [1, 999],
  ]);
  expect(clock.next()).toBe(false);
  clock.time = 5_000_000_000n;
  paced.say(7);
  paced.say(8);
  paced.close();
  clock.next();
  expect(told.slice(2)).toEqual([[5, 7]]);
});
