/** The power fails at any instant: what was flushed is there, and nothing is damaged. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { BlockImage } from '../../../src/storage/block_image.ts';
import { openImageFile } from '../../../src/storage/image_file.ts';
import { openImage } from '../../../src/storage/open.ts';
import { checkImage } from '../../../src/storage/qcow2/check.ts';
import { type CreateOptions, createImage } from '../../../src/storage/qcow2/create.ts';
import type { Qcow2Image } from '../../../src/storage/qcow2/image.ts';
import { createSnapshot } from '../../../src/storage/qcow2/snapshots.ts';
import { DiskModel } from '../../support/disk_model.ts';
import { PowerLoss, PowerLossFile } from '../../support/power_loss_file.ts';
import { qemuCheck } from '../../support/qemu_img.ts';
import { random as seeded } from '../../support/random.ts';

const SECTOR = 512;
const SIZE = 1 << 20;
const LONG = process.env.NEMU_TEST_LONG !== undefined;
const INSTANTS = LONG ? 1500 : 60;

/** What each sector may hold after the power has failed, as the byte that fills it. */
class Allowed {
  readonly #flushed: number[];
  readonly #since: (number[] | undefined)[] = [];

  constructor(bytes: Uint8Array) {
    this.#flushed = Array.from({ length: bytes.length / SECTOR }, (_, i) => bytes[i * SECTOR]);
  }

  write(sector: number, value: number): void {
    const since = this.#since[sector];
    if (since) since.push(value);
    else this.#since[sector] = [value];
  }

  /** All writes have ended before the flush began, and it has ended. */
  flushed(): void {
    for (const [sector, values] of this.#since.entries()) if (values) this.#flushed[sector] = values.at(-1) as number;
    this.#since.length = 0;
  }

  check(bytes: Uint8Array): void {
    for (const [sector, flushed] of this.#flushed.entries()) {
      const got = bytes.subarray(sector * SECTOR, (sector + 1) * SECTOR);
      const holds = (value: number) => Buffer.compare(got, FILLED[value]) === 0;
      if (holds(flushed) || this.#since[sector]?.some(holds)) continue;
      throw new Error(`Sector ${sector} holds ${got[0]}…; it may hold ${[flushed, ...(this.#since[sector] ?? [])]}.`);
    }
  }
}

const FILLED = Array.from({ length: 256 }, (_, value) => new Uint8Array(SECTOR).fill(value));

/** Bursts of requests at the same time, then a flush now and then, until the power fails. */
function work(image: BlockImage, allowed: Allowed, random: (limit: number) => number): void {
  let fill = 100;
  for (;;) {
    let left = 0;
    const taken = new Set<number>();
    const done = (errno: number) => {
      expect(errno).toBe(0);
      left--;
    };
    for (let i = 1 + random(6); i > 0; i--) {
      const sectors = 1 + random(random(4) === 0 ? 120 : 20);
      const first = random(SIZE / SECTOR - sectors);
      const range = Array.from({ length: sectors }, (_, n) => first + n);
      // Requests at the same time that overlap may end in any order: guests do not do that either.
      if (range.some((sector) => taken.has(sector))) continue;
      for (const sector of range) taken.add(sector);
      left++;
      const zero = random(5) === 0;
      fill = (fill % 250) + 1;
      for (const sector of range) allowed.write(sector, zero ? 0 : fill);
      if (zero) image.writeZeroes(first * SECTOR, sectors * SECTOR, random(2) === 0, done);
      else image.write(first * SECTOR, [new Uint8Array(sectors * SECTOR).fill(fill)], done);
    }
    while (left > 0 && image.drain());
    expect(left).toBe(0);
    if (random(3) > 0) continue;
    left = 1;
    image.flush(done);
    while (left > 0 && image.drain());
    expect(left).toBe(0);
    allowed.flushed();
  }
}

describe('loss of power', () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'nemu-power-'));
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  const shapes: [string, Omit<CreateOptions, 'size'> | undefined, boolean][] = [
    ['qcow2', { clusterSize: 4096 }, false],
    ['qcow2 with clusters of 64 KiB', {}, false],
    ['qcow2 of version 2', { version: 2, clusterSize: 4096 }, false],
    ['qcow2 with tiny clusters', { clusterSize: 512, refcountBits: 64 }, false],
    ['qcow2 with extended L2 entries', { clusterSize: 16384, extendedL2: true }, false],
    ['qcow2 with a snapshot', { clusterSize: 4096 }, true],
    ['raw', undefined, false],
  ];

  for (const [name, options, snapshot] of shapes) {
    test(`${name}: at ${INSTANTS} instants`, { timeout: LONG ? 600_000 : 60_000 }, async () => {
      const path = join(folder, `${name.replaceAll(' ', '-')}.img`);
      const model = new DiskModel(SIZE);
      const first = seeded(1);
      writeFileSync(path, options ? '' : new Uint8Array(SIZE));
      if (options) {
        const file = openImageFile({ path, readOnly: false });
        createImage(file, { size: SIZE, ...options });
        file.close();
      }
      const image = openImage({ path, format: options ? 'qcow2' : 'raw', readOnly: false });
      for (let i = 0; i < 30; i++) model.step(image, first, 60_000);
      if (snapshot) (image as Qcow2Image).finish(createSnapshot((image as Qcow2Image).metadata, 'before'));
      image.close();
      const content = readFileSync(path);
      for (let seed = 1; seed <= INSTANTS; seed++) {
        try {
          await lose(path, content, model.bytes, options, seed);
        } catch (error) {
          throw new Error(`With seed ${seed}: ${(error as Error).stack}`);
        }
      }
    });
  }

  async function lose(
    path: string,
    content: Uint8Array,
    before: Uint8Array,
    options: object | undefined,
    seed: number,
  ): Promise<void> {
    const random = seeded(seed);
    const file = new PowerLossFile(path, content, random);
    const allowed = new Allowed(before);
    const format = options ? 'qcow2' : 'raw';
    const problems: Error[] = [];
    try {
      const image = openImage({
        path,
        format,
        readOnly: false,
        openFile: () => file,
        onProblem: (problem) => problems.push(problem),
      });
      file.failAt = file.requests + 1 + random(1500);
      work(image, allowed, random);
    } catch (error) {
      if (!(error instanceof PowerLoss)) throw problems[0] ?? error;
    }
    writeFileSync(path, file.remains());
    if (options) {
      const damaged = openImage({ path, format, readOnly: true }) as Qcow2Image;
      const report = damaged.finish(checkImage(damaged.metadata, 'none'));
      damaged.close();
      expect(report).toMatchObject({ corruptions: 0 });
    }
    const image = openImage({ path, format, readOnly: false });
    const bytes = new Uint8Array(SIZE);
    let errno = -1;
    image.read(0, [bytes], (result) => {
      errno = result;
    });
    expect(errno).toBe(0);
    allowed.check(bytes);
    image.close();
    if (!options) return;
    const mended = openImage({ path, format, readOnly: true }) as Qcow2Image;
    const report = mended.finish(checkImage(mended.metadata, 'none'));
    mended.close();
    // Version 2 has no mark that says that clusters may be counted and not used.
    const leaks = 'version' in options && options.version === 2 ? expect.any(Number) : 0;
    expect(report).toMatchObject({ corruptions: 0, leaks });
    if (seed % 20 === 0 && leaks === 0) expect(await qemuCheck(path)).toBe('');
  }
});
