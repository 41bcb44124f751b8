/** `nemu image`: makes, changes and looks at disk images. */
import { existsSync, renameSync, rmSync, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import type { Command } from 'commander';
import { parseSize } from '../client/description.ts';
import { NemuError } from '../client/errors.ts';
import { didYouMean } from '../client/suggest.ts';
import { SystemError } from '../ffi/libc.ts';
import type { BlockImage } from '../storage/block_image.ts';
import { StorageError } from '../storage/error.ts';
import { openImageFile } from '../storage/image_file.ts';
import { backingPath, openImage } from '../storage/open.ts';
import { type CheckReport, checkImage, type Repair } from '../storage/qcow2/check.ts';
import { PREALLOCATIONS, type Preallocation, preallocate } from '../storage/qcow2/create.ts';
import { openMetadata, Qcow2Image } from '../storage/qcow2/image.ts';
import { applySnapshot, createSnapshot, deleteSnapshot, readSnapshots } from '../storage/qcow2/snapshots.ts';
import { finish, IoError } from '../storage/task.ts';
import { type ChainExtent, extents } from '../storage/tools/chain.ts';
import { commitImage, compareDisks, rebaseImage } from '../storage/tools/change.ts';
import { copyDisk } from '../storage/tools/convert.ts';
import { createEmpty, type FormatOptions, imageFormat } from '../storage/tools/create.ts';
import { chainOf, type ImageInfo, imageInfo } from '../storage/tools/info.ts';
import type { Progress } from '../storage/tools/progress.ts';
import { parseKeyValues } from './options.ts';
import { ProgressLine } from './progress.ts';
import { table } from './report.ts';

const EXAMPLES = {
  create: `
Examples:
  nemu image create disk.qcow2 20G
  nemu image create -b base.qcow2 overlay.qcow2          # as large as base.qcow2
  nemu image create -o cluster_size=2M,preallocation=metadata big.qcow2 1T
  nemu image create -f raw disk.img 1G

Options of qcow2 (-o): cluster_size=64k, compat=1.1|0.10, refcount_bits=16, lazy_refcounts=on|off,
extended_l2=on|off, compression_type=zlib|zstd, preallocation=off|metadata|falloc|full.`,
  convert: `
Examples:
  nemu image convert disk.img disk.qcow2                 # the format is that of the name's end
  nemu image convert -c -o compression_type=zstd disk.qcow2 small.qcow2
  nemu image convert -O raw disk.qcow2 /dev/vg/disk
  nemu image convert --snapshot before disk.qcow2 then.qcow2`,
  check: `
Exit status: 0 all is well, 1 the check could not be done, 2 the image is damaged, 3 clusters have leaked.`,
  compare: `
Exit status: 0 they hold the same, 1 they differ, 2 they could not be compared.`,
};

/** What a damaged or different image ends with, as `qemu-img` does. */
const DAMAGED = 2;
const LEAKED = 3;
const DIFFERENT = 1;

export function addImage(nemu: Command): void {
  const image = nemu.command('image').description('disk images: raw and qcow2');

  image
    .command('create')
    .description('makes an empty image')
    .argument('<file>')
    .argument('[size]', "like 512M, 20G or 1T; the backing image's without one")
    .option('-f, --format <format>', "qcow2 or raw; by the name's end without one, else qcow2")
    .option('-b, --backing <file>', 'the image holds what differs from this one')
    .option('-F, --backing-format <format>', 'its format')
    .option('-o, --options <list>', 'options of the format')
    .option('-u, --unchecked', 'does not look at the backing file')
    .option('--json', 'print what was made as JSON')
    .addHelpText('after', EXAMPLES.create)
    .action(action(create));

  image
    .command('info')
    .description('what an image is')
    .argument('<file>')
    .option('-f, --format <format>')
    .option('--backing-chain', 'and all images below it')
    .option('-U, --force-share', 'also while a machine is writing it')
    .option('--json', 'print JSON, in the terms of qemu-img')
    .action(action(info));

  image
    .command('convert')
    .description('copies a disk into a new image')
    .argument('<source>')
    .argument('<target>')
    .option('-f, --format <format>', "the source's format")
    .option('-O, --output-format <format>', "the target's; by the name's end without one, else qcow2")
    .option('-o, --options <list>', "options of the target's format")
    .option('-c, --compress', 'packs each cluster (qcow2)')
    .option('-B, --backing <file>', 'the target holds what differs from this one')
    .option('-F, --backing-format <format>', 'its format')
    .option('-l, --snapshot <name>', 'the disk as it was at a snapshot')
    .option('-p, --progress', 'a progress bar, which is there in a terminal anyway')
    .addHelpText('after', EXAMPLES.convert)
    .action(action(convert));

  image
    .command('resize')
    .description('gives an image another size')
    .argument('<file>')
    .argument('<size>', 'like 20G; +5G and -5G are from what it is')
    .option('-f, --format <format>')
    .option('--shrink', 'what is behind the new end is to be lost')
    .option('--preallocation <kind>', 'for what is new: off, metadata, falloc or full', 'off')
    .action(action(resize));

  image
    .command('snapshot')
    .description('lists, makes, goes back to or deletes the snapshots in an image')
    .argument('<file>')
    .option('-l, --list', 'lists them; so it is without another option')
    .option('-c, --create <name>', 'keeps the disk as it is now')
    .option('-a, --apply <name>', 'puts the disk back; what it is now is lost')
    .option('-d, --delete <name>', 'forgets one')
    .option('-f, --format <format>')
    .option('--json', 'print the list as JSON')
    .action(action(snapshot));

  image
    .command('check')
    .description('looks for damage, and repairs it')
    .argument('<file>')
    .option('-r, --repair <what>', 'leaks: give lost clusters back; all: mend tables too')
    .option('-f, --format <format>')
    .option('--json', 'print JSON, in the terms of qemu-img')
    .addHelpText('after', EXAMPLES.check)
    .action(action(check));

  image
    .command('map')
    .description("where the disk's bytes are: in which file, and where")
    .argument('<file>')
    .option('-f, --format <format>')
    .option('-U, --force-share', 'also while a machine is writing it')
    .option('--json', 'print JSON, in the terms of qemu-img')
    .action(action(map));

  image
    .command('compare')
    .description('do two images hold the same')
    .argument('<first>')
    .argument('<second>')
    .option('-f, --format <format>', "the first one's format")
    .option('-F, --second-format <format>', "the second one's")
    .option('-s, --strict', 'sizes have to be the same too')
    .addHelpText('after', EXAMPLES.compare)
    .action(async (...args: Parameters<typeof compare>) => {
      try {
        await compare(...args);
      } catch (error) {
        process.exitCode = DAMAGED;
        process.stderr.write(`nemu: ${messageOf(translated(error))}\n`);
      }
    });

  image
    .command('rebase')
    .description('puts an image on another backing image')
    .argument('<file>')
    .option('-b, --backing <file>', 'the new one; "" for none, so that the image holds all')
    .option('-F, --backing-format <format>', 'its format')
    .option('-f, --format <format>')
    .option('-u, --unsafe', 'changes the name alone: the new one holds the same as the old')
    .action(action(rebase));

  image
    .command('commit')
    .description('writes what an image holds into its backing image')
    .argument('<file>')
    .option('-f, --format <format>')
    .option('-d, --keep', 'the image keeps what it holds')
    .action(action(commit));
}

/** A command of ours, whose errors are sentences. */
function action<A extends unknown[]>(run: (...args: A) => Promise<void>): (...args: A) => Promise<void> {
  return async (...args) => {
    try {
      await run(...args);
    } catch (error) {
      throw translated(error);
    }
  };
}

function translated(error: unknown): unknown {
  if (error instanceof StorageError) {
    return new NemuError('IMAGE', error.message, {
      ...(error.hint !== undefined && { hint: error.hint }),
      cause: error,
    });
  }
  if (error instanceof IoError || error instanceof SystemError) {
    return new NemuError('IMAGE', error.message, { cause: error });
  }
  const { code, path } = error as NodeJS.ErrnoException;
  if (code && path) return new NemuError('IMAGE', `${path}: ${(error as Error).message}`, { cause: error });
  return error;
}

const messageOf = (error: unknown): string =>
  error instanceof NemuError ? [error.text, error.hint].filter(Boolean).join('\n') : String((error as Error).stack);

const OPTION_KEYS = {
  cluster_size: { kind: 'text', field: 'clusterSize' },
  compat: { kind: 'text', field: 'version' },
  refcount_bits: { kind: 'number', field: 'refcountBits' },
  lazy_refcounts: { kind: 'switch', field: 'lazyRefcounts' },
  extended_l2: { kind: 'switch', field: 'extendedL2' },
  compression_type: { kind: 'text', field: 'compression' },
  preallocation: { kind: 'text' },
} as const;

/** `-o cluster_size=64k,…`. */
function formatOptions(text: string | undefined): FormatOptions {
  if (text === undefined) return {};
  const raw = parseKeyValues('--options', text, OPTION_KEYS);
  const one = (key: string, values: Record<string, unknown>) => {
    const value = raw[key];
    if (value === undefined) return;
    if (!Object.hasOwn(values, String(value))) {
      const near = didYouMean(String(value), Object.keys(values));
      throw new NemuError('USAGE', `--options: "${value}" is not one of ${Object.keys(values).join(', ')}.`, {
        ...(near && { hint: `Did you mean ${near}?` }),
      });
    }
    raw[key] = values[String(value)];
  };
  one('version', { '0.10': 2, v2: 2, '1.1': 3, v3: 3 });
  one('compression', { zlib: 'zlib', zstd: 'zstd' });
  one('preallocation', Object.fromEntries(PREALLOCATIONS.map((kind) => [kind, kind])));
  if (raw.clusterSize !== undefined) raw.clusterSize = parseSize(String(raw.clusterSize));
  return raw as FormatOptions;
}

/** What is not said is what the name's end says. */
function formatOf(given: string | undefined, path: string): 'raw' | 'qcow2' {
  return imageFormat(given) ?? (/\.(img|raw|iso)$/i.test(path) || path.startsWith('/dev/') ? 'raw' : 'qcow2');
}

const noteProgress = (what: string): { report: Progress; done: () => void } => {
  const line = new ProgressLine();
  // A log needs no bars.
  return {
    report: (done, total) => line.terminal && line.show(what, total > 0 ? done / total : 1),
    done: () => line.done(),
  };
};

async function create(
  file: string,
  size: string | undefined,
  options: {
    format?: string;
    backing?: string;
    backingFormat?: string;
    options?: string;
    unchecked?: boolean;
    json?: boolean;
  },
): Promise<void> {
  const format = formatOf(options.format, file);
  const bytes = createEmpty({
    path: file,
    format,
    size: size === undefined ? undefined : parseSize(size),
    backing: options.backing,
    backingFormat: imageFormat(options.backingFormat),
    unchecked: options.unchecked ?? false,
    ...formatOptions(options.options),
  });
  print(options.json, { filename: file, format, 'virtual-size': bytes }, () => `${file}: ${format}, ${human(bytes)}`);
}

interface LookOptions {
  format?: string;
  json?: boolean;
  forceShare?: boolean;
}

function open(path: string, options: LookOptions, readOnly: boolean): BlockImage {
  return openImage({ path, format: imageFormat(options.format), readOnly, unlocked: options.forceShare ?? false });
}

function openQcow2(path: string, options: LookOptions, what: string): Qcow2Image {
  const image = open(path, options, false);
  if (image instanceof Qcow2Image) return image;
  image.close();
  throw new StorageError(`${path} is ${image.format}, which has no ${what}.`, 'Convert it: nemu image convert');
}

async function info(file: string, options: LookOptions & { backingChain?: boolean }): Promise<void> {
  const image = openImage({
    path: file,
    format: imageFormat(options.format),
    readOnly: true,
    unlocked: options.forceShare ?? false,
    alone: !options.backingChain,
  });
  try {
    const infos = options.backingChain ? chainOf(image).map(imageInfo) : [imageInfo(image)];
    print(options.json, options.backingChain ? infos : infos[0], () => infos.map(describe).join('\n\n'));
  } finally {
    image.close();
  }
}

function describe(info: ImageInfo): string {
  const lines = [
    `image: ${info.filename}`,
    `file format: ${info.format}`,
    `virtual size: ${human(info['virtual-size'])} (${info['virtual-size']} bytes)`,
    `disk size: ${human(info['actual-size'])}`,
  ];
  if (info['cluster-size']) lines.push(`cluster_size: ${info['cluster-size']}`);
  if (info['backing-filename'] !== undefined) {
    const full = info['full-backing-filename'];
    lines.push(
      `backing file: ${info['backing-filename']}${full === info['backing-filename'] ? '' : ` (actual path: ${full})`}`,
    );
    if (info['backing-filename-format']) lines.push(`backing file format: ${info['backing-filename-format']}`);
  }
  if (info['dirty-flag']) lines.push('not closed: its clusters are counted anew when it is next written');
  const data = info['format-specific']?.data;
  if (data) {
    lines.push('format specific information:');
    for (const [name, value] of Object.entries(data)) {
      if (Array.isArray(value)) {
        for (const each of value)
          lines.push(`    bitmap: ${each.name} (${each.granularity} bytes; ${each.flags.join(', ') || 'no flags'})`);
      } else lines.push(`    ${name.replaceAll('-', ' ')}: ${value}`);
    }
  }
  if (info.snapshots) lines.push('snapshots:', snapshotTable(info.snapshots));
  return lines.join('\n');
}

const snapshotTable = (snapshots: NonNullable<ImageInfo['snapshots']>): string =>
  table(
    ['id', 'name', 'state', 'date'],
    snapshots.map((each) => [
      each.id,
      each.name,
      human(each['vm-state-size']),
      new Date(each['date-sec'] * 1000).toISOString().replace('T', ' ').slice(0, 19),
    ]),
  );

async function convert(
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
    process.exit(130);
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

async function resize(
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
    if (size <= 0) throw new NemuError('USAGE', `${file} has ${human(before)}; it cannot have ${text}.`);
    if (size < before && !options.shrink) {
      throw new NemuError('USAGE', `${file} has ${human(before)}: with ${human(size)} the rest is lost.`, {
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
    process.stdout.write(`${file}: ${human(before)} → ${human(size)}\n`);
  } finally {
    image.close();
  }
}

async function snapshot(
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

async function check(file: string, options: LookOptions & { repair?: string }): Promise<void> {
  const { repair = 'none' } = options;
  if (!['none', 'leaks', 'all'].includes(repair)) {
    throw new NemuError('USAGE', `--repair: "${repair}" is neither leaks nor all.`);
  }
  const handle = openImageFile({ path: file, readOnly: repair === 'none' });
  const progress = noteProgress(`checking ${file}`);
  let report: CheckReport;
  try {
    const run = <T>(task: Parameters<typeof finish<T>>[0]) => finish(task, () => handle.drain());
    const metadata = run(openMetadata(handle, repair === 'none'));
    report = run(checkImage(metadata, repair as Repair, progress.report));
    if (repair !== 'none') {
      run(metadata.settle());
      // What is left is what a second look finds.
      const after = run(checkImage(metadata, 'none'));
      report = { ...report, corruptions: after.corruptions, leaks: after.leaks };
    }
  } finally {
    progress.done();
    handle.close();
  }
  print(
    options.json,
    {
      filename: file,
      format: 'qcow2',
      'check-errors': 0,
      'image-end-offset': report.imageEnd,
      'total-clusters': report.totalClusters,
      'allocated-clusters': report.allocatedClusters,
      'fragmented-clusters': report.fragmentedClusters,
      'compressed-clusters': report.compressedClusters,
      ...(report.corruptions > 0 && { corruptions: report.corruptions }),
      ...(report.leaks > 0 && { leaks: report.leaks }),
      ...(report.corruptionsFixed > 0 && { 'corruptions-fixed': report.corruptionsFixed }),
      ...(report.leaksFixed > 0 && { 'leaks-fixed': report.leaksFixed }),
    },
    () => describeCheck(report),
  );
  if (report.corruptions > 0) process.exitCode = DAMAGED;
  else if (report.leaks > 0) process.exitCode = LEAKED;
}

function describeCheck(report: CheckReport): string {
  const { allocatedClusters: allocated, totalClusters: total, fragmentedClusters, compressedClusters } = report;
  const share = (part: number, of: number) => `${((part / Math.max(1, of)) * 100).toFixed(2)} %`;
  const lines = [...report.problems];
  if (report.corruptionsFixed > 0) lines.push(`${report.corruptionsFixed} errors were repaired.`);
  if (report.leaksFixed > 0) lines.push(`${report.leaksFixed} leaked clusters were given back.`);
  if (report.corruptions > 0) lines.push(`${report.corruptions} errors are in the image: data may be lost.`);
  if (report.leaks > 0) lines.push(`${report.leaks} clusters have leaked: space is lost, and no data.`);
  if (report.corruptions + report.leaks === 0) lines.push('No errors are in the image.');
  lines.push(
    `${allocated} of ${total} clusters are allocated (${share(allocated, total)}), ${share(fragmentedClusters, allocated)} fragmented, ${share(compressedClusters, allocated)} compressed`,
    `Image end offset: ${report.imageEnd}`,
  );
  return lines.join('\n');
}

async function map(file: string, options: LookOptions): Promise<void> {
  const image = open(file, options, true);
  try {
    const found = [...extents(image)];
    if (options.json) {
      const lines = found.map(({ start, length, depth, present, zero, data, compressed, offset }) =>
        JSON.stringify({
          start,
          length,
          depth,
          present,
          zero,
          data,
          compressed,
          ...(offset !== undefined && { offset }),
        }),
      );
      process.stdout.write(`[${lines.join(',\n')}]\n`);
      return;
    }
    const hex = (value: number) => `0x${value.toString(16)}`;
    const row = ({ start, length, offset, path }: ChainExtent) => [
      hex(start),
      hex(length),
      offset === undefined ? 'compressed' : hex(offset),
      path,
    ];
    const rows = found.filter(({ data, zero }) => data && !zero).map(row);
    process.stdout.write(`${table(['offset', 'length', 'mapped to', 'file'], rows)}\n`);
  } finally {
    image.close();
  }
}

async function compare(
  first: string,
  second: string,
  options: { format?: string; secondFormat?: string; strict?: boolean },
): Promise<void> {
  const a = open(first, options, true);
  const progress = noteProgress(`comparing ${first}`);
  try {
    const b = openImage({ path: second, format: imageFormat(options.secondFormat), readOnly: true });
    try {
      const difference = await compareDisks(a, b, options.strict ?? false, progress.report);
      progress.done();
      if (!difference) process.stdout.write('Images are identical.\n');
      else if (difference.sizes) {
        process.stdout.write(`Images differ in size: ${difference.sizes[0]} and ${difference.sizes[1]} bytes.\n`);
      } else process.stdout.write(`Content mismatch at offset ${difference.offset}!\n`);
      if (difference) process.exitCode = DIFFERENT;
    } finally {
      b.close();
    }
  } finally {
    progress.done();
    a.close();
  }
}

async function rebase(
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

async function commit(file: string, options: LookOptions & { keep?: boolean }): Promise<void> {
  const image = openQcow2(file, options, 'backing image');
  const progress = noteProgress(`committing ${file}`);
  try {
    await commitImage(image, options.keep ?? false, progress.report);
  } finally {
    progress.done();
    image.close();
  }
}

function print(json: boolean | undefined, value: unknown, text: () => string): void {
  process.stdout.write(json ? `${JSON.stringify(value, null, 4)}\n` : `${text()}\n`);
}

function human(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${Number(value.toFixed(2))} ${units[unit]}`;
}
