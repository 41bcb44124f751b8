/** Disks and their images. */
import { statSync } from 'node:fs';
import * as z from 'zod';
import { diskName, type ThrottleInput } from '../../client/description.ts';
import type { DiskOperationReport, DiskReport } from '../../client/machine_client.ts';
import { diskThrottleNote } from '../../client/notes.ts';
import { blockdevOptions } from '../block_nodes.ts';
import { command } from '../command.ts';
import { deviceNotFound } from '../errors.ts';
import type { Monitor } from '../monitor.ts';
import { imageFacts } from '../qcow2_header.ts';
import { bool, int, none, str } from '../types.ts';
import { jobStatus } from './jobs.ts';

const image = z.strictObject({
  ...{ filename: str, format: str, 'virtual-size': int, 'actual-size': int.optional(), 'dirty-flag': bool.optional() },
  ...{ 'backing-filename': str.optional(), 'full-backing-filename': str.optional() },
});
const limits = { bps: int, bps_rd: int, bps_wr: int, iops: int, iops_rd: int, iops_wr: int };
const bursts = { bps_max: int.optional(), iops_max: int.optional() };
const inserted = z.strictObject({
  ...{
    file: str,
    'node-name': str.optional(),
    ro: bool,
    drv: str,
    backing_file: str.optional(),
    backing_file_depth: int,
    encrypted: bool,
  },
  ...{ detect_zeroes: z.enum(['off', 'on', 'unmap']), ...limits, ...bursts, image },
  ...{ cache: z.strictObject({ writeback: bool, direct: bool, 'no-flush': bool }), write_threshold: int },
});

function fileSize(file: string): number | undefined {
  try {
    return statSync(file).blocks * 512;
  } catch {
    // In the lab a file may be where we cannot see it.
    return undefined;
  }
}

export interface BlockImageInfo {
  readonly nodeName: string;
  readonly file: string;
  readonly format: string;
  readonly size: number;
  readonly readOnly: boolean;
  readonly direct: boolean;
  readonly throttle: ThrottleInput;
}

function insertedOf({ nodeName, file, format, size, readOnly, direct, throttle }: BlockImageInfo) {
  const actual = fileSize(file);
  const { backing, fullBacking, depth } = imageFacts(file, format);
  return {
    ...{ file, 'node-name': nodeName, ro: readOnly, drv: format, backing_file_depth: depth, encrypted: false },
    ...(fullBacking !== undefined && { backing_file: fullBacking }),
    detect_zeroes: 'off' as const,
    ...{ bps: throttle.bps ?? 0, bps_rd: throttle.bpsRead ?? 0, bps_wr: throttle.bpsWrite ?? 0 },
    ...{ iops: throttle.iops ?? 0, iops_rd: throttle.iopsRead ?? 0, iops_wr: throttle.iopsWrite ?? 0 },
    ...(throttle.bpsMax !== undefined && { bps_max: throttle.bpsMax }),
    ...(throttle.iopsMax !== undefined && { iops_max: throttle.iopsMax }),
    image: {
      ...{ filename: file, format, 'virtual-size': size, 'dirty-flag': false },
      ...(actual !== undefined && { 'actual-size': actual }),
      ...(backing !== undefined && { 'backing-filename': backing }),
      ...(fullBacking !== undefined && { 'full-backing-filename': fullBacking }),
    },
    cache: { writeback: true, direct, 'no-flush': false },
    write_threshold: 0,
  };
}

function infoOf({ machine, nodes }: Monitor, disk: DiskReport): BlockImageInfo {
  const described = machine.description.disks.find(({ id }, index) => (id ?? diskName(index)) === disk.name);
  const node = nodes.all.find(({ usedBy }) => usedBy === disk.name);
  return {
    ...{ nodeName: node?.name ?? disk.name, file: disk.file, format: disk.format, size: disk.size },
    ...{ readOnly: disk.readonly, direct: node?.direct ?? described?.cache === 'none', throttle: disk.throttle },
  };
}

const backendPath = (monitor: Monitor, name: string) =>
  `/machine/peripheral/${monitor.names.peer(name)}/virtio-backend`;

export async function queryBlock(monitor: Monitor) {
  return (await monitor.machine.disks()).map((disk) => ({
    ...{ device: monitor.names.peer(disk.name), qdev: backendPath(monitor, disk.name), type: 'unknown' },
    ...{ removable: false, locked: false, inserted: insertedOf(infoOf(monitor, disk)) },
    'io-status': monitor.failedDisks.get(disk.name) ?? ('ok' as const),
  }));
}

const histogram = z.strictObject({ boundaries: z.array(int), bins: z.array(int) });
const statistics = z.strictObject({
  ...{ rd_bytes: int, wr_bytes: int, unmap_bytes: int, rd_operations: int, wr_operations: int },
  ...{ flush_operations: int, unmap_operations: int, rd_total_time_ns: int, wr_total_time_ns: int },
  ...{ flush_total_time_ns: int, unmap_total_time_ns: int, wr_highest_offset: int, rd_merged: int, wr_merged: int },
  ...{ unmap_merged: int, failed_rd_operations: int, failed_wr_operations: int, failed_flush_operations: int },
  ...{ failed_unmap_operations: int, invalid_rd_operations: int, invalid_wr_operations: int },
  ...{ invalid_flush_operations: int, invalid_unmap_operations: int, account_invalid: bool, account_failed: bool },
  timed_stats: z.array(
    z.strictObject({
      ...{ interval_length: int, min_rd_latency_ns: int, max_rd_latency_ns: int, avg_rd_latency_ns: int },
      ...{ min_wr_latency_ns: int, max_wr_latency_ns: int, avg_wr_latency_ns: int, min_flush_latency_ns: int },
      ...{ max_flush_latency_ns: int, avg_flush_latency_ns: int },
      ...{ avg_rd_queue_depth: z.number(), avg_wr_queue_depth: z.number() },
    }),
  ),
  ...{ rd_latency_histogram: histogram, wr_latency_histogram: histogram, flush_latency_histogram: histogram },
});

const NS_PER_US = 1000;

function statisticsOf({
  operations,
  latencyBoundsUs,
}: Pick<DiskReport, 'operations' | 'latencyBoundsUs'>): z.input<typeof statistics> {
  const { read, write, flush, discard } = operations;
  const latency = (of: DiskOperationReport) => ({
    boundaries: latencyBoundsUs.map((bound) => bound * NS_PER_US),
    bins: [...of.latency],
  });
  const ns = (of: DiskOperationReport) => Math.round(of.totalUs * NS_PER_US);
  const none = { wr_highest_offset: 0, rd_merged: 0, wr_merged: 0, unmap_merged: 0 };
  const invalid = { invalid_rd_operations: 0, invalid_wr_operations: 0 };
  return {
    ...{ rd_bytes: read.bytes, wr_bytes: write.bytes, unmap_bytes: discard.bytes },
    ...{ rd_operations: read.requests, wr_operations: write.requests },
    ...{ flush_operations: flush.requests, unmap_operations: discard.requests },
    ...{ rd_total_time_ns: ns(read), wr_total_time_ns: ns(write) },
    ...{ flush_total_time_ns: ns(flush), unmap_total_time_ns: ns(discard), ...none },
    ...{ failed_rd_operations: read.failed, failed_wr_operations: write.failed },
    ...{ failed_flush_operations: flush.failed, failed_unmap_operations: discard.failed },
    ...{ ...invalid, invalid_flush_operations: 0, invalid_unmap_operations: 0 },
    ...{ account_invalid: false, account_failed: true, timed_stats: [] },
    ...{ rd_latency_histogram: latency(read), wr_latency_histogram: latency(write) },
    flush_latency_histogram: latency(flush),
  };
}

const NOTHING = { requests: 0, bytes: 0, failed: 0, totalUs: 0, latency: [] };
const NO_STATISTICS = statisticsOf({
  operations: { read: NOTHING, write: NOTHING, flush: NOTHING, discard: NOTHING, writeZeroes: NOTHING },
  latencyBoundsUs: [],
});

/** What each node did: those of disks, and those that no disk has, which did nothing. */
async function queryNodeStats(monitor: Monitor) {
  const ofDisks = (await queryBlockStats(monitor)).map(({ 'node-name': name, stats }) => ({
    'node-name': name,
    stats,
  }));
  const others = monitor.nodes.all.filter(({ name }) => !ofDisks.some((each) => each['node-name'] === name));
  return [...ofDisks, ...others.map(({ name }) => ({ 'node-name': name, stats: NO_STATISTICS }))];
}

export async function queryBlockStats(monitor: Monitor) {
  return (await monitor.machine.disks()).map((disk) => ({
    ...{ device: monitor.names.peer(disk.name), 'node-name': infoOf(monitor, disk).nodeName },
    ...{ qdev: backendPath(monitor, disk.name), stats: statisticsOf(disk) },
  }));
}

/** @returns the machine's name of a disk, if there is one of this name or path. */
export async function findDisk(monitor: Monitor, name: string): Promise<string | undefined> {
  const own = monitor.names.own(name.replace(/\/virtio-backend$/, ''));
  return (await monitor.machine.disks()).find((each) => each.name === own)?.name;
}

/** A disk as it is, by the machine's name. @throws QmpError when it went meanwhile. */
export async function reportOf(monitor: Monitor, name: string): Promise<DiskReport> {
  const found = (await monitor.machine.disks()).find((each) => each.name === name);
  if (found) return found;
  throw deviceNotFound(monitor.names.peer(name));
}

/** @returns the machine's name of the disk that is on a node. */
export async function diskOfNode(monitor: Monitor, node: string): Promise<string | undefined> {
  return (await monitor.machine.disks()).find((disk) => infoOf(monitor, disk).nodeName === node)?.name;
}

export const BLOCK = [
  command({
    name: 'query-block',
    summary: 'disks and their images',
    args: none,
    returns: z.array(
      z.strictObject({
        ...{ device: str, qdev: str.optional(), type: str, removable: bool, locked: bool },
        ...{ inserted: inserted.optional(), 'io-status': z.enum(['ok', 'failed', 'nospace']).optional() },
      }),
    ),
    run: queryBlock,
  }),
  command({
    name: 'query-blockstats',
    summary: 'what each disk did',
    args: z.strictObject({ 'query-nodes': bool.optional() }),
    returns: z.array(
      z.strictObject({ device: str.optional(), qdev: str.optional(), 'node-name': str.optional(), stats: statistics }),
    ),
    run: (monitor, { 'query-nodes': nodes }) => (nodes ? queryNodeStats(monitor) : queryBlockStats(monitor)),
  }),
  command({
    name: 'query-named-block-nodes',
    summary: 'images: of disks, and those that `blockdev-add` made',
    args: z.strictObject({ flat: bool.optional() }),
    returns: z.array(inserted),
    run: async (monitor) => {
      const disks = (await monitor.machine.disks()).map((disk) => infoOf(monitor, disk));
      const others = monitor.nodes.all
        .filter(({ name }) => !disks.some(({ nodeName }) => nodeName === name))
        .map(({ name, driver, filename, readOnly, direct }) => ({
          ...{ nodeName: name, file: filename, format: driver as string, size: imageFacts(filename, driver).size },
          ...{ readOnly, direct },
          throttle: {},
        }));
      return [...disks, ...others].map(insertedOf);
    },
  }),
  command({
    name: 'query-block-jobs',
    summary: 'long operations on images: none',
    args: none,
    returns: z.array(
      z.strictObject({
        ...{ type: str, device: str, len: int, offset: int, busy: bool, paused: bool, speed: int, ready: bool },
        ...{ 'io-status': z.enum(['ok', 'failed', 'nospace']), status: jobStatus, error: str.optional() },
        ...{ 'auto-finalize': bool, 'auto-dismiss': bool },
      }),
    ),
    run: () => [],
  }),
  command({
    name: 'blockdev-add',
    summary: 'opens a file, or an image in a file, for a disk',
    changes: true,
    args: blockdevOptions,
    returns: none,
    run: ({ nodes }, options) => {
      nodes.add(options);
      return {};
    },
  }),
  command({
    name: 'blockdev-del',
    summary: 'closes what `blockdev-add` opened',
    changes: true,
    args: z.strictObject({ 'node-name': str }),
    returns: none,
    run: ({ nodes }, args) => {
      nodes.delete(args['node-name']);
      return {};
    },
  }),
  command({
    name: 'block_set_io_throttle',
    summary: "a disk's limits on requests and bytes in a second; 0 for none",
    changes: true,
    args: z.strictObject({ device: str.optional(), id: str.optional(), ...limits, ...bursts }),
    returns: none,
    run: async (monitor, { device, id, ...given }) => {
      const disk = await findDisk(monitor, id ?? device ?? '');
      if (disk === undefined) throw deviceNotFound(id ?? device ?? '');
      const wanted = {
        ...{ bps: given.bps, bpsRead: given.bps_rd, bpsWrite: given.bps_wr, bpsMax: given.bps_max },
        ...{ iops: given.iops, iopsRead: given.iops_rd, iopsWrite: given.iops_wr, iopsMax: given.iops_max },
      };
      const set = Object.fromEntries(Object.entries(wanted).filter(([, limit]) => limit));
      const before = await reportOf(monitor, disk);
      await monitor.machine.throttle(disk, set);
      await monitor.did(diskThrottleNote(before, set));
      return {};
    },
  }),
];
