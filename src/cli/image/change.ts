import { parseSize } from '../../client/description.ts';
import { NemuError } from '../../client/errors.ts';
import { formatSize } from '../../client/sizes.ts';
import { StorageError } from '../../storage/error.ts';
import { openImageFile } from '../../storage/image_file.ts';
import { backingPath, openImage } from '../../storage/open.ts';
import { type Preallocation, preallocate } from '../../storage/qcow2/create.ts';
import { Qcow2Image } from '../../storage/qcow2/image.ts';
import { applySnapshot, createSnapshot, deleteSnapshot, readSnapshots } from '../../storage/qcow2/snapshots.ts';
import { commitImage, rebaseImage } from '../../storage/tools/change.ts';
import { imageFormat } from '../../storage/tools/create.ts';
import { imageInfo } from '../../storage/tools/info.ts';
import { formatOptions, type LookOptions, noteProgress, open, openQcow2, print } from './common.ts';
import { snapshotTable } from './look.ts';

export async function resize(
  file: string,
  text: string,
  options: LookOptions & { shrink?: boolean; preallocation: string },
): Promise<void> {
  const { preallocation } = formatOptions(`preallocation=${options.preallocation}`) as { preallocation: Preallocation };
  const image = open(file, options, false);
  const before = image.size;
  try {
    const amount = parseSize(text.replace(/^[+-]/, ''));
    const wanted = text.startsWith('+') ? before + amount : text.startsWith('-') ? before - amount : amount;
    const size = Math.ceil(wanted / 512) * 512;
    if (size <= 0) throw new NemuError('USAGE', `${file} has ${formatSize(before)}; it cannot have ${text}.`);
    if (size < before && !options.shrink) {
      throw new NemuError('USAGE', `${file} has ${formatSize(before)}: with ${formatSize(size)} the rest is lost.`, {
        hint: 'Make what is on it smaller first, and then give --shrink.',
      });
    }
    if (image instanceof Qcow2Image) {
      image.finish(image.resize(size));
      if (preallocation !== 'off' && size > before) image.finish(preallocate(image.metadata, preallocation, before));
    } else {
      image.close();
      const raw = openImageFile({ path: file, readOnly: false });
      try {
        if (!raw.growable) throw new StorageError(`${file} is a device, whose size is its own.`);
        raw.truncate(size, () => {});
        if (preallocation !== 'off' && size > before) raw.fallocate(0, before, size - before, () => {});
      } finally {
        raw.close();
      }
    }
    process.stdout.write(`${file}: ${formatSize(before)} → ${formatSize(size)}\n`);
  } finally {
    image.close();
  }
}

export async function snapshot(
  file: string,
  options: LookOptions & { list?: boolean; create?: string; apply?: string; delete?: string },
): Promise<void> {
  const { create: made, apply, delete: removed } = options;
  const wanted = [made, apply, removed].filter((name) => name !== undefined);
  if (wanted.length > 1)
    throw new NemuError('USAGE', 'Only one of --create, --apply and --delete can be done at a time.');
  if (wanted.length === 0) {
    const image = open(file, options, true);
    try {
      const { snapshots = [] } = imageInfo(image);
      print(options.json, snapshots, () =>
        snapshots.length > 0 ? snapshotTable(snapshots) : `${file} has no snapshots.`,
      );
    } finally {
      image.close();
    }
    return;
  }
  const image = openQcow2(file, options, 'snapshots');
  try {
    const { metadata } = image;
    if (made !== undefined) image.finish(createSnapshot(metadata, made));
    if (apply !== undefined) image.finish(applySnapshot(metadata, apply));
    if (removed !== undefined) image.finish(deleteSnapshot(metadata, removed));
    if (options.json)
      print(
        true,
        image.finish(readSnapshots(metadata)).map(({ id, name }) => ({ id, name })),
        () => '',
      );
  } finally {
    image.close();
  }
}

export async function rebase(
  file: string,
  options: LookOptions & { backing?: string; backingFormat?: string; unsafe?: boolean },
): Promise<void> {
  if (options.backing === undefined) {
    throw new NemuError('USAGE', 'nemu image rebase needs --backing FILE.', { hint: 'For none, give --backing "".' });
  }
  const backing = options.backing === '' ? undefined : options.backing;
  const format = imageFormat(options.backingFormat);
  const image = openImage({
    path: file,
    format: imageFormat(options.format),
    readOnly: false,
    alone: options.unsafe ?? false,
  });
  const progress = noteProgress(`rebasing ${file}`);
  try {
    if (!(image instanceof Qcow2Image))
      throw new StorageError(`${file} is ${image.format}, which has no backing image.`);
    if (options.unsafe) {
      image.finish(image.rename(backing, format));
      return;
    }
    const below =
      backing === undefined ? undefined : openImage({ path: backingPath(file, backing), format, readOnly: true });
    try {
      await rebaseImage(image, { backing, format: format ?? below?.format, below, progress: progress.report });
    } finally {
      below?.close();
    }
  } finally {
    progress.done();
    image.close();
  }
}

export async function commit(file: string, options: LookOptions & { keep?: boolean }): Promise<void> {
  const image = openQcow2(file, options, 'backing image');
  const progress = noteProgress(`committing ${file}`);
  try {
    await commitImage(image, options.keep ?? false, progress.report);
  } finally {
    progress.done();
    image.close();
  }
}
