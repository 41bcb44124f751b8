import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { MachineInput } from '../client/description.ts';
import { findGuest, hostArch } from '../lab/guest.ts';
import { buildInitramfs, busyboxInitramfs, type GuestTask, taskOverlay } from '../lab/initramfs.ts';
import { runFolder } from './paths.ts';

/** Kernel, initrds and command line of a guest that runs our init. */
export type GuestBoot = NonNullable<MachineInput['kernel']> & { readonly name: string };

/** What our init's contract needs, and what keeps a fast boot quiet. `panic=-1`: a panic resets at once. */
const CMDLINE = 'console=ttyS0 quiet panic=-1';

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
}

/**
 * Files and command line to boot a guest that does `task`.
 * @throws NemuError when no kernel was fetched, or a name is not known.
 */
export async function guestBoot(options: GuestBootOptions): Promise<GuestBoot> {
  const cmdline = [CMDLINE, options.append].filter(Boolean).join(' ');
  if (options.initrd.length > 0) {
    return {
      name: 'custom',
      image: options.kernel as string,
      initrd: [...options.initrd],
      cmdline: options.append ?? 'console=ttyS0',
    };
  }
  const overlay = join(runFolder(), 'task.cpio');
  writeFileSync(overlay, taskOverlay(options.task), { mode: 0o600 });
  if (options.isFile) {
    const base = await busyboxInitramfs(hostArch());
    return { name: 'custom', image: options.kernel as string, initrd: [base, overlay], cmdline };
  }
  const guest = await findGuest(options.kernel);
  return {
    name: guest.name,
    image: guest.kernel,
    initrd: [await buildInitramfs({ guest, modules: options.modules ?? [] }), overlay],
    cmdline,
  };
}
