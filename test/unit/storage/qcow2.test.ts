/** QCOW2 images of every shape, under random work, beside an array that says what they should hold. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openImageFile } from '../../../src/storage/image_file.ts';
import { openImage } from '../../../src/storage/open.ts';
import { checkImage } from '../../../src/storage/qcow2/check.ts';
import { type CreateOptions, createImage } from '../../../src/storage/qcow2/create.ts';
import type { Qcow2Image } from '../../../src/storage/qcow2/image.ts';
import { applySnapshot, createSnapshot, deleteSnapshot, readSnapshots } from '../../../src/storage/qcow2/snapshots.ts';
import { DiskModel } from '../../support/disk_model.ts';
import { qemuCheck } from '../../support/qemu_img.ts';
import { random as seeded } from '../../support/random.ts';

const MIB = 1 << 20;
const LONG = process.env.NEMU_TEST_LONG !== undefined;

const SHAPES: [name: string, options: Omit<CreateOptions, 'size'>][] = [
  ['version 3', {}],
  ['version 2', { version: 2 }],
  ['clusters of 512 bytes', { clusterSize: 512 }],
  ['clusters of 2 MiB', { clusterSize: 2 * MIB }],
  ['extended L2 entries', { extendedL2: true }],
  ['extended L2 entries in clusters of 16 KiB', { extendedL2: true, clusterSize: 16384 }],
  ['lazy refcounts', { lazyRefcounts: true }],
  ['refcounts of 1 bit', { refcountBits: 1, clusterSize: 4096 }],
  ['refcounts of 64 bits', { refcountBits: 64, clusterSize: 512 }],
  ['preallocated metadata', { preallocation: 'metadata' }],
];

describe('qcow2', () => {
  let folder: string;
  let count = 0;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'nemu-qcow2-'));
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  const newPath = () => join(folder, `disk${count++}.qcow2`);
  const create = (options: CreateOptions, path = newPath()): string => {
    writeFileSync(path, '');
    const file = openImageFile({ path, readOnly: false });
    createImage(file, options);
    file.close();
    return path;
  };
  const open = (path: string, readOnly = false) => openImage({ path, readOnly }) as Qcow2Image;
  const check = async (path: string) => {
    const image = open(path, true);
    const report = image.finish(checkImage(image.metadata, 'none'));
    image.close();
    expect(report).toMatchObject({ corruptions: 0, leaks: 0, problems: [] });
    expect(await qemuCheck(path)).toEqual('');
  };

  for (const [name, options] of SHAPES) {
    for (const based of [false, true]) {
      if (based && options.preallocation) continue;
      test(`${name}${based ? ' over a backing image' : ''}: holds what was written, and checks clean`, async () => {
        const size = (options.clusterSize ?? 65536) < 4096 ? 2 * MIB : 16 * MIB;
        const seed = (count + 1) * 7919;
        const random = seeded(seed);
        let base: DiskModel | undefined;
        let backing: string | undefined;
        if (based) {
          backing = create({ size: size / 2 });
          base = new DiskModel(size / 2);
          const image = open(backing);
          for (let i = 0; i < 60; i++) base.step(image, random, 200_000);
          image.close();
        }
        const path = create({ size, ...options, ...(backing && { backing, backingFormat: 'qcow2' }) });
        const model = new DiskModel(size, base?.bytes);
        try {
          for (let round = 0; round < (LONG ? 40 : 3); round++) {
            const image = open(path);
            for (let i = 0; i < 150; i++) model.step(image, random, random(4) === 0 ? MIB : 20_000);
            model.compare(image);
            image.close();
            await check(path);
          }
        } catch (error) {
          throw new Error(`With seed ${seed}: ${(error as Error).stack}`);
        }
        const image = open(path, true);
        model.compare(image);
        image.close();
        if (backing && base) {
          const below = open(backing, true);
          base.compare(below);
          below.close();
        }
      });
    }
  }

  test.each([
    ['version 3', {}],
    ['version 2', { version: 2 as const }],
    ['extended L2', { extendedL2: true }],
  ])('snapshots of %s images are kept, come back, and go', async (_, options) => {
    const random = seeded(42);
    const size = 8 * MIB;
    const path = create({ size, clusterSize: 16384, ...options });
    const model = new DiskModel(size);
    const kept = new Map<string, Uint8Array>();
    for (const name of ['a', 'b', 'c']) {
      const image = open(path);
      for (let i = 0; i < 60; i++) model.step(image, random, 100_000);
      image.finish(createSnapshot(image.metadata, name));
      for (let i = 0; i < 10; i++) model.step(image, random, 100_000);
      image.close();
      kept.set(name, model.bytes.slice());
      await check(path);
      // The ten steps after the snapshot are not in it: it is compared with what it held.
      const again = open(path);
      again.finish(applySnapshot(again.metadata, name));
      const then = new DiskModel(size);
      then.bytes.set(readAll(again, size));
      kept.set(name, then.bytes.slice());
      model.bytes.set(then.bytes);
      again.close();
      await check(path);
    }
    let image = open(path);
    for (let i = 0; i < 60; i++) model.step(image, random, 100_000);
    image.finish(applySnapshot(image.metadata, 'a'));
    model.bytes.set(kept.get('a') as Uint8Array);
    model.compare(image);
    image.close();
    await check(path);
    image = open(path);
    image.finish(deleteSnapshot(image.metadata, 'b'));
    for (let i = 0; i < 60; i++) model.step(image, random, 100_000);
    model.compare(image);
    image.close();
    await check(path);
    image = open(path);
    expect(image.finish(readSnapshots(image.metadata)).map(({ name }) => name)).toEqual(['a', 'c']);
    image.finish(applySnapshot(image.metadata, 'c'));
    model.bytes.set(kept.get('c') as Uint8Array);
    model.compare(image);
    for (const name of ['a', 'c']) image.finish(deleteSnapshot(image.metadata, name));
    model.compare(image);
    image.close();
    await check(path);
  });

  test('a disk grows and shrinks, and what comes to light is zeros', async () => {
    const path = create({ size: MIB + 512 });
    let image = open(path);
    const model = new DiskModel(MIB + 512);
    const random = seeded(3);
    for (let i = 0; i < 80; i++) model.step(image, random, 300_000);
    image.finish(image.resize(4 * MIB));
    const larger = new DiskModel(4 * MIB, model.bytes);
    larger.compare(image);
    for (let i = 0; i < 80; i++) larger.step(image, random, 300_000);
    image.finish(image.resize(MIB));
    image.finish(image.resize(8 * MIB));
    const last = new DiskModel(8 * MIB, larger.bytes.subarray(0, MIB));
    last.compare(image);
    image.close();
    await check(path);
    image = open(path, true);
    last.compare(image);
    image.close();
  });
});

function readAll(image: Qcow2Image, size: number): Uint8Array {
  const bytes = new Uint8Array(size);
  image.finish(
    (function* () {
      yield (done) => image.read(0, [bytes], done);
    })(),
  );
  return bytes;
}
