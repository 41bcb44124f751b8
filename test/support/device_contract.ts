/** What every device promises, whatever it is (shared/DESIGN.md, "One contract suite"). */
import { describe, expect, test } from 'vitest';
import type { Device, Region } from '../../src/devices/device.ts';
import { Bus } from '../../src/vmm/bus.ts';
import type { FakeClock } from './board.ts';
import { random } from './random.ts';

export interface Subject {
  readonly device: Device;
  /** Everything that a guest can reach of it. */
  readonly regions: readonly Region[];
  /** Lets time pass and things happen between accesses. */
  readonly disturb?: (pick: (limit: number) => number) => void;
  /** What is saved goes with the time of saving. */
  readonly clock?: FakeClock;
  /** Fields of the saved state that a reset leaves as they are, as batteries and strapping do. */
  readonly keeps?: readonly string[];
}

const ACCESSES = process.env.NEMU_TEST_LONG ? 500_000 : 10_000;
const JUNK = [undefined, null, -1, 2 ** 53, Number.NaN, 1.5, 'x', '', [], [256], [null], {}, true] as const;

/** Runs the contract over a device. `make` gives a new one, just reset. */
export function deviceContract(name: string, make: () => Subject): void {
  describe(name, () => {
    test('any access at any place of any width is answered, in its width', () => {
      const subject = make();
      fuzz(subject, random(1), ACCESSES);
    });

    test('a reset leads to where it started', () => {
      const subject = make();
      const fresh = plain(subject);
      fuzz(subject, random(2), 2000);
      subject.device.reset();
      expect(plain(subject)).toEqual(fresh);
      subject.device.reset();
      expect(plain(subject)).toEqual(fresh);
    });

    test('what was saved is restored, into the same device and into a new one', () => {
      const subject = make();
      for (let round = 0; round < 20; round++) {
        fuzz(subject, random(100 + round), 200);
        const saved = JSON.parse(JSON.stringify(subject.device.save()));
        const now = subject.clock?.now() ?? 0n;
        expect(subject.device.save()).toEqual(saved);
        fuzz(subject, random(200 + round), 200);
        subject.clock?.set(now);
        subject.device.restore(saved);
        expect(JSON.parse(JSON.stringify(subject.device.save()))).toEqual(saved);
        const other = make();
        other.clock?.set(now);
        other.device.restore(saved);
        expect(JSON.parse(JSON.stringify(other.device.save()))).toEqual(saved);
      }
    });

    test('a state that is none is refused with a sentence, or taken whole', () => {
      const subject = make();
      fuzz(subject, random(3), 500);
      const saved = JSON.parse(JSON.stringify(subject.device.save()));
      const now = subject.clock?.now() ?? 0n;
      for (const state of [...JUNK, { ...saved, kind: 'another' }, { ...saved, version: 999 }]) {
        expect(() => subject.device.restore(state)).toThrow(Error);
      }
      for (const mutated of mutations(saved)) {
        try {
          subject.device.restore(mutated);
        } catch (error) {
          // A TypeError or RangeError is a check that is missing.
          expect((error as Error).name, `${(error as Error).stack} for ${JSON.stringify(mutated)}`).toMatch(
            /^(Error|RingError)$/,
          );
        }
        // Whatever it is now, it still works.
        fuzz(subject, random(4), 20);
        subject.device.save();
      }
      subject.clock?.set(now);
      subject.device.restore(saved);
      expect(JSON.parse(JSON.stringify(subject.device.save()))).toEqual(saved);
    });
  });
}

/** The saved state without what a reset keeps. */
function plain({ device, keeps = [] }: Subject): unknown {
  const state = JSON.parse(JSON.stringify(device.save()));
  for (const field of keeps) delete state[field];
  return state;
}

function fuzz({ regions, disturb }: Subject, pick: (limit: number) => number, accesses: number): void {
  const bus = new Bus('mmio');
  const bases: number[] = [];
  let next = 0x1000;
  for (const region of regions) {
    bases.push(next);
    bus.insert(next, region);
    next += region.size + 64;
  }
  for (let i = 0; i < accesses; i++) {
    const which = pick(regions.length);
    const size = [1, 2, 4][pick(3)];
    // Now and then across an edge of the region.
    const address = bases[which] - 3 + pick(regions[which].size + 3);
    const most = 2 ** (8 * size);
    if (pick(2)) {
      const value = bus.read(address, size);
      if (!(Number.isInteger(value) && value >= 0 && value < most)) {
        throw new Error(`${regions[which].name}: a read of ${size} bytes at ${address - bases[which]} gave ${value}.`);
      }
    } else {
      const extreme = [0, 1, most - 1, most / 2, 0xff];
      bus.write(address, size, pick(3) ? pick(most) : extreme[pick(extreme.length)] % most);
    }
    if (pick(16) === 0) disturb?.(pick);
  }
}

/** The state with one field, however deep, replaced by something that it is not. */
function* mutations(state: unknown, rebuild: (value: unknown) => unknown = (value) => value): Generator<unknown> {
  if (Array.isArray(state)) {
    const first = state[0];
    if (state.length > 0) {
      yield* mutations(first, (value) => rebuild([value, ...state.slice(1)]));
      yield rebuild(state.slice(1));
      yield rebuild([...state, ...state]);
    }
  } else if (typeof state === 'object' && state !== null) {
    for (const [key, value] of Object.entries(state)) {
      yield* mutations(value, (replaced) => rebuild({ ...state, [key]: replaced }));
    }
  }
  for (const junk of JUNK) yield rebuild(junk);
}
