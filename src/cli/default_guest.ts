import { createHash } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { ConfigInput, MachineInput } from '../client/description.ts';
import { findGuest, hostArch, listGuests } from '../lab/guest.ts';
import { buildInitramfs, busyboxInitramfs, type GuestTask, taskOverlay } from '../lab/initramfs.ts';
import { cacheFolder, runFolder } from './paths.ts';

/** Kernel, initrds and command line of a guest that runs our init. */
export type GuestBoot = NonNullable<MachineInput['kernel']> & { readonly name: string };

/** What our init's contract needs, and what keeps a fast boot quiet. `panic=-1`: a panic resets at once. */
const CMDLINE = 'console=ttyS0 quiet panic=-1';

/** Memory that is plugged, or that is found plugged at a reset, can leave again. */
const MOVABLE = 'memhp_default_state=online_movable';

export interface GuestBootOptions {
  /** Selector of a fetched kernel (`nemu guest list`), or a kernel file of the user's. */
  readonly kernel?: string;
  readonly isFile: boolean;
  /** The user's initrds: ours is left out when there are any. */
  readonly initrd: readonly string[];
  readonly append?: string;
  readonly task: GuestTask;
  /** Kernel modules that the machine's devices need. */
  readonly modules?: readonly string[];
  /** Modules of devices that may be plugged: they are there, and loaded when one comes. */
  readonly available?: readonly string[];
  /** Modules that may be needed later, where the kernel has them. */
  readonly late?: readonly string[];
  /** Memory can be plugged into the machine. */
  readonly dimms?: boolean;
  /** The files are for later runs too: what dies with this one cannot be among them. */
  readonly keep?: boolean;
}

const tasksFolder = () => join(cacheFolder(), 'tasks');

/** The task's archive, in this run's folder or in one that stays; then its name is its contents'. */
function writeTask(task: GuestTask, keep: boolean): string {
  const bytes = taskOverlay(task);
  const name = keep ? `${createHash('sha256').update(bytes).digest('hex').slice(0, 16)}.cpio` : 'task.cpio';
  const folder = keep ? tasksFolder() : runFolder();
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const path = join(folder, name);
  writeFileSync(path, bytes, { mode: 0o600 });
  return path;
}

/**
 * What a described kernel was made from, when it was made by `guestBoot` with `keep`: then it can be made
 * again for another task.
 */
export async function recordedBoot(
  kernel: NonNullable<ConfigInput['kernel']>,
): Promise<{ kernel: string; isFile: boolean; append: string } | undefined> {
  const { image, initrd, cmdline = '' } = kernel;
  const last = initrd?.at(-1);
  if (image === undefined || last === undefined || dirname(last) !== tasksFolder()) return undefined;
  const guest = (await listGuests()).find((each) => each.kernel === image);
  const append = cmdline.startsWith(CMDLINE) ? cmdline.slice(CMDLINE.length).trim() : cmdline;
  return { kernel: guest?.name ?? image, isFile: guest === undefined, append };
}

/**
 * Files and command line to boot a guest that does `task`.
 * @throws NemuError when no kernel was fetched, or a name is not known.
 */
export async function guestBoot(options: GuestBootOptions): Promise<GuestBoot> {
  const movable = options.dimms && !options.append?.includes('memhp_default_state=') ? MOVABLE : undefined;
  const cmdline = [CMDLINE, movable, options.append].filter(Boolean).join(' ');
  if (options.initrd.length > 0) {
    return {
      name: 'custom',
      image: options.kernel as string,
      initrd: [...options.initrd],
      cmdline: options.append ?? 'console=ttyS0',
    };
  }
  const overlay = writeTask(options.task, options.keep ?? false);
  if (options.isFile) {
    const base = await busyboxInitramfs(hostArch());
    return { name: 'custom', image: options.kernel as string, initrd: [base, overlay], cmdline };
  }
  const guest = await findGuest(options.kernel);
  return {
    name: guest.name,
    image: guest.kernel,
    initrd: [
      await buildInitramfs({
        ...{ guest, modules: options.modules ?? [] },
        ...{ available: options.available ?? [], late: options.late ?? [] },
      }),
      overlay,
    ],
    cmdline,
  };
}
