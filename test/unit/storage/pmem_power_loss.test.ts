/** The power fails at any instant: what a guest flushed of its persistent memory is there, and labels that it wrote. */
import { describe, expect, test } from 'vitest';
import { AcpiNvdimm } from '../../../src/devices/acpi_nvdimm.ts';
import { HINT_STRIDE, NvdimmHints } from '../../../src/devices/nvdimm_hints.ts';
import { PmemFile } from '../../../src/vmm/pmem_file.ts';
import { FakeMemory } from '../../support/board.ts';
import { PowerLoss, PowerLossFile } from '../../support/power_loss_file.ts';
import { random as seeded } from '../../support/random.ts';

const LINE = 512;
const SIZE = 64 * LINE;
const LABELS = 8 * LINE;
const INSTANTS = process.env.NEMU_TEST_LONG ? 5000 : 300;
const PAGE = 0;
const SET_LABELS = 6;
const SLOT = 3;

/** What a line may hold after the power has failed: what was there at the last flush, or anything since. */
class Allowed {
  readonly #lines = Array.from({ length: (SIZE + LABELS) / LINE }, () => new Set([0]));
  readonly #last: number[] = this.#lines.map(() => 0);

  store(line: number, value: number): void {
    this.#lines[line].add(value);
    this.#last[line] = value;
  }

  /** What a flush that begins now will have made lasting once it is done. */
  begin(): () => void {
    const then = [...this.#last];
    return () => {
      for (const [line, value] of then.entries()) {
        const values = [...this.#lines[line]];
        this.#lines[line] = new Set(values.slice(values.indexOf(value)));
      }
    };
  }

  check(bytes: Uint8Array): void {
    for (const [line, values] of this.#lines.entries()) {
      const got = bytes.subarray(line * LINE, (line + 1) * LINE);
      const holds = [...values].some((value) => got.every((byte) => byte === value));
      if (!holds) throw new Error(`Line ${line} holds ${got[0]}…; it may hold ${[...values]}.`);
    }
  }
}

function setUp(file: PowerLossFile) {
  const pmem = new PmemFile(file, { size: SIZE, labelSize: LABELS, lasting: true, failed: () => {} });
  const memory = new FakeMemory(4096);
  const exit = { held: false };
  const hold = () => {
    exit.held = true;
    return () => {
      exit.held = false;
    };
  };
  const dsm = new AcpiNvdimm({
    ...{ memory, fit: () => new Uint8Array(0), nvdimm: () => pmem, hold },
    ...{ notify: () => {}, fitRead: () => {}, fault: () => {} },
  });
  const hints = new NvdimmHints({ slots: 4, hold, flush: (_, done) => pmem.flush(done) });
  /** The vCPU waits in its exit. */
  const complete = () => {
    while (exit.held) if (!file.drain()) throw new Error('The vCPU waits for nothing.');
  };
  return { pmem, memory, dsm, hints, complete };
}

function work(file: PowerLossFile, allowed: Allowed, random: (limit: number) => number): void {
  const { memory, dsm, hints, complete } = setUp(file);
  for (let value = 1; ; value = (value % 255) + 1) {
    if (random(4) === 0) {
      // A label: lasting as soon as the call comes back.
      const line = random(LABELS / LINE);
      for (const [i, word] of [1, 1, SET_LABELS, line * LINE, LINE].entries()) {
        memory.view.setUint32(PAGE + 4 * i, word, true);
      }
      memory.bytes.fill(value, PAGE + 20, PAGE + 20 + LINE);
      allowed.store(SIZE / LINE + line, value);
      const lasting = allowed.begin();
      dsm.write(0, 4, PAGE);
      complete();
      expect(memory.view.getUint32(PAGE + 4, true)).toBe(0);
      lasting();
      continue;
    }
    for (let i = random(20); i > 0; i--) {
      // A store of the guest is in the page cache at once.
      const line = random(SIZE / LINE);
      allowed.store(line, value);
      file.write(line * LINE, [new Uint8Array(LINE).fill(value)], () => {});
    }
    if (random(2)) continue;
    const lasting = allowed.begin();
    hints.write(SLOT * HINT_STRIDE);
    complete();
    lasting();
  }
}

describe('loss of power', () => {
  test(`at ${INSTANTS} instants, what was flushed and what was labelled is there`, { timeout: 120_000 }, () => {
    for (let seed = 1; seed <= INSTANTS; seed++) {
      const random = seeded(seed);
      const file = new PowerLossFile('pm.img', new Uint8Array(SIZE + LABELS), random);
      const allowed = new Allowed();
      file.failAt = 1 + random(400);
      expect(() => work(file, allowed, random), `seed ${seed}`).toThrow(PowerLoss);
      try {
        allowed.check(file.remains());
      } catch (error) {
        throw new Error(`With seed ${seed}: ${(error as Error).message}`);
      }
    }
  });

  test('without the flush something is lost: the judge is awake', () => {
    const lost = Array.from({ length: 50 }, (_, seed) => {
      const file = new PowerLossFile('pm.img', new Uint8Array(SIZE), seeded(seed + 1));
      file.write(0, [new Uint8Array(SIZE).fill(7)], () => {});
      while (file.drain());
      return file.remains().some((byte) => byte !== 7);
    });
    expect(lost).toContain(true);
  });
});

describe('a file of persistent memory', () => {
  test('flushes that come while one runs share the next, which begins after they came', () => {
    const file = new PowerLossFile('pm.img', new Uint8Array(SIZE), seeded(1));
    const pmem = new PmemFile(file, { size: SIZE, labelSize: 0, lasting: true, failed: () => {} });
    const done: number[] = [];
    for (let i = 0; i < 5; i++) pmem.flush(() => done.push(i));
    expect(file.requests).toBe(1);
    expect(pmem.drain()).toBe(true);
    expect(done).toEqual([0]);
    while (pmem.drain());
    expect([done, file.requests, pmem.flushes]).toEqual([[0, 1, 2, 3, 4], 2, 5]);
  });

  test('is closed when nothing is under way', () => {
    const file = new PowerLossFile('pm.img', new Uint8Array(SIZE), seeded(1));
    const pmem = new PmemFile(file, { size: SIZE, labelSize: 0, lasting: true, failed: () => {} });
    const log: string[] = [];
    pmem.flush(() => log.push('flushed'));
    pmem.close(() => log.push('closed'));
    expect(log).toEqual([]);
    file.drain();
    file.onBurst?.(false);
    expect(log).toEqual(['flushed', 'closed']);
  });

  test('a flush that fails is told, with its errno', () => {
    const failures: string[] = [];
    const file = new PowerLossFile('pm.img', new Uint8Array(SIZE), seeded(1));
    file.sync = (done) => done(5);
    const pmem = new PmemFile(file, {
      ...{ size: SIZE, labelSize: 0, lasting: true },
      failed: (errno) => failures.push(errno),
    });
    let result = -1;
    pmem.flush((errno) => {
      result = errno;
    });
    expect([result, failures, pmem.flushes, pmem.failure]).toEqual([5, ['EIO'], 0, 'EIO']);
  });
});
