import { NemuError } from '../../client/errors.ts';
import { formatSize } from '../../client/sizes.ts';
import { table } from '../../client/text_table.ts';
import { openImageFile } from '../../storage/image_file.ts';
import { openImage } from '../../storage/open.ts';
import { type CheckReport, checkImage, type Repair } from '../../storage/qcow2/check.ts';
import { openMetadata } from '../../storage/qcow2/open.ts';
import { finish } from '../../storage/task.ts';
import { type ChainExtent, extents } from '../../storage/tools/chain.ts';
import { compareDisks } from '../../storage/tools/change.ts';
import { imageFormat } from '../../storage/tools/create.ts';
import { chainOf, type ImageInfo, imageInfo } from '../../storage/tools/info.ts';
import { type LookOptions, noteProgress, open, print } from './common.ts';

/** What a damaged or different image ends with, as `qemu-img` does. */
export const DAMAGED = 2;
const LEAKED = 3;
const DIFFERENT = 1;

export async function info(file: string, options: LookOptions & { backingChain?: boolean }): Promise<void> {
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
    `virtual size: ${formatSize(info['virtual-size'])} (${info['virtual-size']} bytes)`,
    `disk size: ${formatSize(info['actual-size'])}`,
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

export const snapshotTable = (snapshots: NonNullable<ImageInfo['snapshots']>): string =>
  table(
    ['id', 'name', 'state', 'date'],
    snapshots.map((each) => [
      each.id,
      each.name,
      formatSize(each['vm-state-size']),
      new Date(each['date-sec'] * 1000).toISOString().replace('T', ' ').slice(0, 19),
    ]),
  );

export async function check(file: string, options: LookOptions & { repair?: string }): Promise<void> {
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

export async function map(file: string, options: LookOptions): Promise<void> {
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

export async function compare(
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
