/** `nemu image create` and `convert`: new images. */
import { existsSync, renameSync, rmSync, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { parseSize } from '../../client/description.ts';
import { NemuError } from '../../client/errors.ts';
import { formatSize } from '../../client/sizes.ts';
import type { BlockImage } from '../../storage/block_image.ts';
import { StorageError } from '../../storage/error.ts';
import { openImageFile } from '../../storage/image_file.ts';
import { openImage } from '../../storage/open.ts';
import { Qcow2Image } from '../../storage/qcow2/image.ts';
import { copyDisk } from '../../storage/tools/convert.ts';
import { createEmpty, imageFormat } from '../../storage/tools/create.ts';
import { EXIT } from '../exit_codes.ts';
import { formatOf, formatOptions, noteProgress, print } from './common.ts';

export async function create(
  file: string,
  size: string | undefined,
  options: {
    format?: string;
    backing?: string;
    backingFormat?: string;
    options?: string;
    unchecked?: boolean;
    force?: boolean;
    json?: boolean;
  },
): Promise<void> {
  const format = formatOf(options.format, file);
  if (!options.force) refuseIfThere(file);
  const bytes = createEmpty({
    path: file,
    format,
    size: size === undefined ? undefined : parseSize(size),
    backing: options.backing,
    backingFormat: imageFormat(options.backingFormat),
    unchecked: options.unchecked ?? false,
    ...formatOptions(options.options),
  });
  print(
    options.json,
    { filename: file, format, 'virtual-size': bytes },
    () => `${file}: ${format}, ${formatSize(bytes)}`,
  );
}

/** A disk is lost as easily as a name is mistyped. @throws StorageError */
function refuseIfThere(file: string): void {
  const found = statSync(file, { throwIfNoEntry: false });
  if (!found?.isFile() || found.size === 0) return;
  throw new StorageError(`${file} is there already, with ${formatSize(found.size)}.`, '--force replaces it.');
}

export async function convert(
  source: string,
  target: string,
  options: {
    format?: string;
    outputFormat?: string;
    options?: string;
    compress?: boolean;
    backing?: string;
    backingFormat?: string;
    snapshot?: string;
  },
): Promise<void> {
  const format = formatOf(options.outputFormat, target);
  if (options.compress && format !== 'qcow2') throw new NemuError('USAGE', `--compress: ${format} has no compression.`);
  const from = openSource(source, options.format, options.snapshot);
  // A copy that is cut off leaves what was there; a device is written where it is.
  const device = existsSync(target) && !statSync(target).isFile();
  const path = device ? target : join(dirname(target), `.${basename(target)}.${process.pid}.part`);
  const progress = noteProgress(`converting ${source}`);
  const remove = () => !device && rmSync(path, { force: true });
  const interrupted = () => {
    progress.done();
    remove();
    process.exit(EXIT.INTERRUPTED);
  };
  process.on('SIGINT', interrupted).on('SIGTERM', interrupted);
  try {
    if (existsSync(target) && !device) openImageFile({ path: target, readOnly: false }).close();
    if (!device) {
      createEmpty({
        path,
        format,
        size: from.size,
        backing: options.backing,
        backingFormat: imageFormat(options.backingFormat),
        ...formatOptions(options.options),
      });
    }
    const to = openImage({ path, format, readOnly: false });
    try {
      if (to.size < from.size) {
        throw new StorageError(`${target} has ${to.size} bytes, less than the ${from.size} of ${source}.`);
      }
      await copyDisk(from, to, { compress: options.compress ?? false, progress: progress.report });
    } finally {
      to.close();
    }
    if (!device) renameSync(path, target);
  } catch (error) {
    remove();
    throw error;
  } finally {
    progress.done();
    from.close();
    process.off('SIGINT', interrupted).off('SIGTERM', interrupted);
  }
}

/** A disk to copy from, as it is or as it was at a snapshot. */
function openSource(path: string, format: string | undefined, snapshot: string | undefined): BlockImage {
  const image = openImage({ path, format: imageFormat(format), readOnly: true });
  if (snapshot === undefined) return image;
  try {
    if (!(image instanceof Qcow2Image)) throw new StorageError(`${path} is ${image.format}, which has no snapshots.`);
    image.finish(image.lookAt(snapshot));
    return image;
  } catch (error) {
    image.close();
    throw error;
  }
}
