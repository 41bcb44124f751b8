import type { DiskDescription } from '../client/description.ts';
import { NemuError } from '../client/errors.ts';
import type { DiskChange, MediumChange } from '../client/live_change.ts';
import type { DiskReport } from '../client/machine_client.ts';
import { formatSize } from '../client/sizes.ts';
import type { VirtioBlk } from '../devices/virtio/blk.ts';
import type { BlockImage } from '../storage/block_image.ts';
import { isSameFile } from '../storage/lock.ts';
import { finish, type Task, wait } from '../storage/task.ts';
import { asNemuError } from './backend_error.ts';
import { LATENCY_BUCKETS } from './latency.ts';
import type { MeteredImage } from './metered_image.ts';
import type { ThrottleLimits } from './throttle.ts';

const SECTOR = 512;

/** A disk of the machine: what it was asked to be, its image as it is now, and the device. */
interface LiveDisk {
  readonly image: MeteredImage;
  readonly device: VirtioBlk;
  /** With the present medium's file and format. */
  description: DiskDescription;
}

export interface LiveDisksOptions {
  /** @throws NemuError DISK */
  readonly open: (disk: DiskDescription) => BlockImage;
  readonly fault: (disk: string, text: string) => void;
}

/** The disks of a machine and what can be changed of them while the guest runs. */
export class LiveDisks {
  readonly #options: LiveDisksOptions;
  readonly #disks = new Map<string, LiveDisk>();

  constructor(options: LiveDisksOptions) {
    this.#options = options;
  }

  add(name: string, disk: LiveDisk): void {
    this.#disks.set(name, disk);
  }

  /** It was taken out. */
  remove(name: string): void {
    this.#disks.delete(name);
  }

  /** The disk whose medium a file is. */
  holderOf(file: string): string | undefined {
    return [...this.#disks].find(([, { description }]) => isSameFile(description.file, file))?.[0];
  }

  report(): DiskReport[] {
    return [...this.#disks].map(([name, disk]) => report(name, disk));
  }

  /** @throws NemuError DISK for a name that is none. */
  throttle(name: string, limits: ThrottleLimits): undefined {
    this.#find(name).image.limits = limits;
    return undefined;
  }

  /** @throws NemuError DISK or CHANGE with the reason; then nothing was touched. */
  change(name: string, change: DiskChange): DiskReport {
    const disk = this.#find(name);
    if (change.action === 'resize') this.#resize(name, disk, change.size, change.shrink);
    else this.#exchange(name, disk, change);
    return report(name, disk);
  }

  #find(name: string): LiveDisk {
    const found = this.#disks.get(name);
    if (found) return found;
    throw new NemuError('DISK', `There is no disk "${name}".`, {
      hint: `There are ${[...this.#disks.keys()].join(', ') || 'none'}.`,
    });
  }

  #resize(name: string, { image, device }: LiveDisk, size: number | undefined, shrink: boolean): void {
    if (size === undefined) {
      // A block device, or a file that another program has made larger.
      if (image.image.refreshSize()) device.resized();
      return;
    }
    const before = image.size;
    const refuse = (message: string, hint?: string) => new NemuError('CHANGE', message, hint ? { hint } : {});
    if (size % SECTOR !== 0) {
      throw refuse(`${name} cannot have ${size} bytes: a disk has whole sectors of ${SECTOR} bytes.`);
    }
    if (image.readOnly) throw refuse(`${name} is read-only: its image cannot be given another size.`);
    if (size < before) {
      if (!shrink) {
        throw refuse(
          `${name} has ${formatSize(before)}; with ${formatSize(size)} all that is behind would be lost.`,
          'Make the guest’s file systems and partitions smaller first, then ask for it with shrink: true.',
        );
      }
    }
    try {
      image.quiesce();
      // They may be for what is behind the end.
      if (size < before) requireNoneHeld(name, device);
      run(image.image, image.image.resize(size));
    } catch (cause) {
      throw asNemuError('DISK', cause, `${name} could not be given ${formatSize(size)}`);
    }
    device.resized();
  }

  #exchange(name: string, disk: LiveDisk, { file, format }: MediumChange): void {
    const { image, device, description } = disk;
    requireNoneHeld(name, device);
    // Whether it can be written was said to the driver once and for all: the new medium has to be the same.
    const next = { ...description, file, format };
    const opened = this.#options.open(next);
    try {
      image.quiesce();
      requireNoneHeld(name, device);
      if (!image.readOnly)
        run(
          image.image,
          wait((done) => image.image.flush(done)),
        );
    } catch (cause) {
      opened.close();
      throw asNemuError(
        'DISK',
        cause,
        `The medium of ${name} stays: what was written to it cannot be put on stable storage`,
      );
    }
    const before = image.exchange(opened);
    disk.description = next;
    device.resized();
    try {
      before.close();
    } catch (error) {
      this.#options.fault(name, `${before.path} was not closed properly: ${(error as Error).message}`);
    }
  }

  /** The machine goes on: requests that failed and stopped it are tried again. */
  resumed(): void {
    for (const { device } of this.#disks.values()) device.retry();
  }
}

function report(name: string, { image, description }: LiveDisk): DiskReport {
  return {
    ...{ name, file: description.file, format: image.image.format, probed: description.format === undefined },
    ...{ readonly: image.readOnly, size: image.size, throttle: image.limits, throttled: image.waiting },
    latencyBoundsUs: LATENCY_BUCKETS,
    operations: image.statistics(),
  };
}

/** @throws NemuError CHANGE for a disk whose failed requests are for what is there now. */
function requireNoneHeld(name: string, { heldRequests }: VirtioBlk): void {
  if (heldRequests === 0) return;
  const requests = `${heldRequests} ${heldRequests === 1 ? 'request' : 'requests'}`;
  throw new NemuError('CHANGE', `${requests} of ${name} failed, and will be tried again when the machine goes on.`, {
    hint: 'Make them possible and resume the machine, then try again.',
  });
}

/** Runs a task on an image that is at rest. */
const run = (image: BlockImage, task: Task): void => finish(task, () => image.drain());
