/** What a guest is made of that the engine runs once in a lab before that is saved: src/cli/lab_rehearsal.ts. */
import { readFile } from 'node:fs/promises';
import type { Guest } from './guest.ts';
import { buildInitramfs, concatenateArchives, taskOverlay } from './initramfs.ts';

export interface RehearsalFiles {
  readonly kernel: Buffer;
  readonly initrd: Buffer;
}

/** @param guest a kernel that is here in any case: that of the lab itself. */
export async function rehearsalFiles(guest: Guest): Promise<RehearsalFiles> {
  const base = await buildInitramfs({
    guest,
    modules: ['virtio_pci', 'virtio_blk', 'virtio_console', 'nfit', 'nd_pmem'],
    available: ['virtio_rng'],
  });
  return {
    kernel: await readFile(guest.kernel),
    initrd: concatenateArchives([await readFile(base), taskOverlay({})]),
  };
}
