import { statSync } from 'node:fs';
import type { BlockImage } from '../block_image.ts';
import { backingPath } from '../open.ts';
import { readBitmaps } from '../qcow2/bitmaps.ts';
import { COMPATIBLE, INCOMPATIBLE } from '../qcow2/format.ts';
import { Qcow2Image } from '../qcow2/image.ts';
import { readSnapshots } from '../qcow2/snapshots.ts';
import { backingOf } from './chain.ts';

/** What there is to say of an image, in the terms of `qemu-img info --output=json`. */
export interface ImageInfo {
  readonly filename: string;
  readonly format: string;
  readonly 'virtual-size': number;
  /** Bytes that the file takes on the host. */
  readonly 'actual-size': number;
  readonly 'cluster-size'?: number;
  readonly 'dirty-flag': boolean;
  readonly 'backing-filename'?: string;
  readonly 'backing-filename-format'?: string;
  readonly 'full-backing-filename'?: string;
  readonly snapshots?: readonly SnapshotInfo[];
  readonly 'format-specific'?: { readonly type: 'qcow2'; readonly data: Qcow2Info };
}

interface SnapshotInfo {
  readonly id: string;
  readonly name: string;
  readonly 'vm-state-size': number;
  readonly 'date-sec': number;
  readonly 'date-nsec': number;
  readonly 'vm-clock-sec': number;
  readonly 'vm-clock-nsec': number;
  readonly icount?: number;
}

interface Qcow2Info {
  readonly compat: '0.10' | '1.1';
  readonly 'compression-type': string;
  readonly 'lazy-refcounts'?: boolean;
  readonly 'refcount-bits': number;
  readonly corrupt?: boolean;
  readonly 'extended-l2'?: boolean;
  readonly bitmaps?: readonly { flags: string[]; name: string; granularity: number }[];
}

const BITMAP_FLAGS = ['in-use', 'auto'];

/** One image; those below it are asked on their own. */
export function imageInfo(image: BlockImage): ImageInfo {
  const common = {
    filename: image.path,
    format: image.format,
    'virtual-size': image.size,
    'actual-size': statSync(image.path).blocks * 512,
  };
  if (!(image instanceof Qcow2Image)) return { ...common, 'dirty-flag': false };
  const { metadata } = image;
  const { header, geometry } = metadata;
  const snapshots = image.finish(readSnapshots(metadata));
  const bitmaps = image.finish(readBitmaps(metadata));
  const v3 = header.version === 3;
  return {
    ...common,
    'cluster-size': geometry.clusterSize,
    'dirty-flag': (header.incompatible & INCOMPATIBLE.DIRTY) !== 0n,
    ...(header.backing !== undefined && {
      'backing-filename': header.backing,
      'full-backing-filename': fullName(image.path, header.backing),
      ...(header.backingFormat !== undefined && { 'backing-filename-format': header.backingFormat }),
    }),
    ...(snapshots.length > 0 && {
      snapshots: snapshots.map(({ id, name, vmStateSize, date, vmClock, icount }) => ({
        id,
        name,
        'vm-state-size': vmStateSize,
        'date-sec': Math.floor(date / 1000),
        'date-nsec': (date % 1000) * 1e6,
        'vm-clock-sec': Number(vmClock / 1_000_000_000n),
        'vm-clock-nsec': Number(vmClock % 1_000_000_000n),
        ...(icount !== undefined && icount < 1n << 63n && { icount: Number(icount) }),
      })),
    }),
    'format-specific': {
      type: 'qcow2',
      data: {
        compat: v3 ? '1.1' : '0.10',
        'compression-type': header.compression,
        ...(v3 && { 'lazy-refcounts': (header.compatible & COMPATIBLE.LAZY_REFCOUNTS) !== 0n }),
        'refcount-bits': geometry.refcountBits,
        ...(v3 && { corrupt: (header.incompatible & INCOMPATIBLE.CORRUPT) !== 0n, 'extended-l2': geometry.extendedL2 }),
        ...(bitmaps.length > 0 && {
          bitmaps: bitmaps.map(({ name, granularity, flags }) => ({
            flags: BITMAP_FLAGS.filter((_, bit) => flags & (1 << bit)),
            name,
            granularity,
          })),
        }),
      },
    },
  };
}

function fullName(path: string, backing: string): string {
  try {
    return backingPath(path, backing);
  } catch {
    return backing;
  }
}

/** The image and all below it, topmost first. */
export function chainOf(image: BlockImage): BlockImage[] {
  const below = backingOf(image);
  return [image, ...(below ? chainOf(below) : [])];
}
