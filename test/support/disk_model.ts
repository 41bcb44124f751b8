/** Random work on an image beside a plain array that says what the disk should hold. */
import type { BlockImage } from '../../src/storage/block_image.ts';
import { finish, type Step, wait } from '../../src/storage/task.ts';

type Random = (limit: number) => number;

const SECTOR = 512;

/** Runs a step of an image in place. @throws IoError. */
export const now = (image: BlockImage, step: Step): void => finish(wait(step), () => image.drain());

export class DiskModel {
  readonly bytes: Uint8Array;
  #fill = 1;

  constructor(size: number, from?: Uint8Array) {
    this.bytes = new Uint8Array(size);
    if (from) this.bytes.set(from.subarray(0, size));
  }

  /** One random request, done on the image and on the model. @returns what it was. */
  step(image: BlockImage, random: Random, longest: number): string {
    const sectors = this.bytes.length / SECTOR;
    const length = (1 + random(Math.min(sectors, longest / SECTOR))) * SECTOR;
    const offset = random(sectors - length / SECTOR + 1) * SECTOR;
    const what = random(10);
    if (what < 5) {
      const data = new Uint8Array(length);
      for (let at = 0; at < length; at += SECTOR) data.fill((this.#fill++ % 255) + 1, at, at + SECTOR);
      // In pieces, as a guest's scatter list has them.
      const cut = random(length + 1);
      now(image, (done) => image.write(offset, [data.subarray(0, cut), data.subarray(cut)], done));
      this.bytes.set(data, offset);
      return `write ${offset}+${length}`;
    }
    if (what < 8) {
      this.compare(image, offset, length);
      return `read ${offset}+${length}`;
    }
    if (what === 8) {
      now(image, (done) => image.writeZeroes(offset, length, random(2) === 0, done));
      this.bytes.fill(0, offset, offset + length);
      return `zero ${offset}+${length}`;
    }
    now(image, (done) => image.flush(done));
    return 'flush';
  }

  /** @throws Error that names the first sector that differs. */
  compare(image: BlockImage, offset = 0, length = this.bytes.length): void {
    const got = new Uint8Array(length);
    now(image, (done) => image.read(offset, [got], done));
    if (Buffer.compare(got, this.bytes.subarray(offset, offset + length)) === 0) return;
    const at = got.findIndex((byte, i) => byte !== this.bytes[offset + i]);
    throw new Error(`Byte ${offset + at} is ${got[at]}; it should be ${this.bytes[offset + at]}.`);
  }
}
