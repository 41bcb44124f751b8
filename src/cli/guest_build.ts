/** `nemu guest build`: a root file system that a guest installs for us. */
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { NemuError } from '../client/errors.ts';
import { fetchGuest } from '../lab/guest.ts';
import { findRootImage, packParcel, publishRootImage, ROOT_PACKAGES, rootImages } from '../lab/root_image.ts';
import { createEmpty } from '../storage/tools/create.ts';
import { EXIT } from './exit_codes.ts';
import { ProgressLine } from './progress.ts';
import { run } from './run.ts';
import type { RunOptions } from './run_options.ts';

export interface BuildOptions {
  readonly name?: string;
  readonly size: number;
  readonly include: readonly string[];
  readonly on: RunOptions['on'];
  readonly verbose?: boolean;
}

const INSTALL = 'mkdir /parcel && tar -x -f /dev/vdb -C /parcel && exec sh /parcel/install.sh debian';

/**
 * Builds Debian into an image in the cache. What was downloaded stays there, so that a build which was ended
 * goes on from there; a half-made image does not stay.
 * @returns the exit status; the image's path is printed.
 */
export async function buildDebian(options: BuildOptions, defaults: RunOptions): Promise<number> {
  const name = options.name ?? 'debian';
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/.test(name)) {
    throw new NemuError('USAGE', `"${name}" is no name for an image.`, {
      hint: 'It starts with a letter or digit and has letters, digits, dots, dashes and underscores, 63 at most.',
    });
  }
  const there = await findRootImage(name);
  if (there) {
    throw new NemuError('GUEST_EXISTS', `There is an image "${name}" already: ${there}.`, {
      hint: `Give another --name, or remove it with what was changed in it: nemu guest rm ${name}`,
    });
  }
  await mkdir(rootImages(), { recursive: true });
  const folder = await mkdtemp(join(rootImages(), '.build-'));
  const remove = () => rm(folder, { recursive: true, force: true });
  const line = new ProgressLine();
  const interrupted = () => void remove().then(() => process.exit(EXIT.INTERRUPTED));
  process.on('SIGINT', interrupted).on('SIGTERM', interrupted);
  try {
    const guest = await fetchGuest();
    const packages = [...ROOT_PACKAGES, ...options.include];
    const parcel = await packParcel(packages, guest, folder, ({ text, fraction }) => line.show(text, fraction));
    line.done();
    const image = join(folder, 'root.qcow2');
    createEmpty({ path: image, format: 'qcow2', size: options.size });
    process.stderr.write(`nemu: a guest installs ${parcel.packages} packages; without KVM that takes some minutes\n`);
    const status = await run(undefined, ['sh', '-c', INSTALL], {
      ...defaults,
      on: options.on,
      memory: '1536M',
      net: ['none'],
      disk: [image, `file=${parcel.path.replaceAll(',', ',,')},format=raw,readonly=on`],
      ...(options.verbose && { verbose: true }),
    });
    if (status !== 0) {
      throw new NemuError('GUEST_BUILD', `The guest could not install Debian (status ${status}).`, {
        hint: 'What it said is above; --verbose shows its kernel too.',
      });
    }
    const path = await publishRootImage(name, image);
    process.stdout.write(`${path}\n`);
    process.stderr.write(`nemu: boot it with: nemu run --root ${name}\n`);
    return 0;
  } finally {
    line.done();
    process.off('SIGINT', interrupted).off('SIGTERM', interrupted);
    await remove();
  }
}
