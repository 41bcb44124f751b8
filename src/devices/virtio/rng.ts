import type { VirtioDevice, VirtioHost } from './device.ts';
import { sliceViews, type VirtQueue } from './queue.ts';

/** Bytes that one buffer gets: a device may give less than was asked for (section 5.4.6.1). */
const MAX_BYTES = 65536;

/** virtio entropy device (virtio 1.2, section 5.4). */
export class VirtioRng implements VirtioDevice {
  readonly name: string;
  readonly type = 4;
  readonly classCode = 0x00ff00;
  readonly features = 0n;
  readonly queueSizes = [8];
  readonly configSize = 0;
  readonly #fill: (into: Uint8Array) => void;
  #host: VirtioHost | undefined;
  #queue: VirtQueue | undefined;

  /** @param fill puts random bytes into the whole array. */
  constructor(name: string, fill: (into: Uint8Array) => void) {
    this.name = name;
    this.#fill = fill;
  }

  readConfig(): number {
    return 0;
  }

  writeConfig(): void {}

  attach(host: VirtioHost): void {
    this.#host = host;
  }

  start(_features: bigint, [queue]: readonly (VirtQueue | undefined)[]): void {
    this.#queue = queue;
  }

  queueChanged(_index: number, queue: VirtQueue | undefined): void {
    this.#queue = queue;
  }

  stop(): void {
    this.#queue = undefined;
  }

  notify(): void {
    const queue = this.#queue;
    if (!queue) return;
    do {
      queue.disableNotification();
      for (let chain = queue.pop(); chain; chain = queue.pop()) {
        for (const view of sliceViews(chain.writable, 0, MAX_BYTES)) this.#fill(view);
        queue.push(chain, Math.min(chain.writeLength, MAX_BYTES));
      }
    } while (queue.enableNotification());
    this.#host?.interrupt(0);
  }
}
