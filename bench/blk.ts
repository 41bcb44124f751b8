/** virtio-blk from a driver in ring 3 that polls its ring: the same guest and the same images for us and for QEMU. */
import { execFileSync } from 'node:child_process';
import { randomFillSync } from 'node:crypto';
import { closeSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { hostTime } from './cpu_time.ts';
import { type Figure, median } from './figures.ts';
import { compiledGuest } from './micro_guest.ts';
import { nemu, nemuArguments, qemuArguments, Run } from './programs.ts';

const IMAGE_SIZE = 256 << 20;
const KIB = 1024;

interface Work {
  readonly depth: number;
  readonly size: number;
  readonly random: boolean;
  readonly write: boolean;
  readonly count: number;
}

const WORKS: readonly Work[] = [
  { depth: 1, size: 4 * KIB, random: true, write: false, count: 20_000 },
  { depth: 32, size: 4 * KIB, random: true, write: false, count: 100_000 },
  { depth: 32, size: 4 * KIB, random: true, write: true, count: 50_000 },
  { depth: 32, size: 4 * KIB, random: false, write: false, count: 100_000 },
  { depth: 1, size: 128 * KIB, random: false, write: false, count: 5_000 },
  { depth: 32, size: 128 * KIB, random: false, write: false, count: 10_000 },
  { depth: 32, size: 128 * KIB, random: false, write: true, count: 5_000 },
];

const FORMATS = ['raw', 'qcow2'] as const;

export interface Sample {
  /** Requests a second. */
  readonly rate: number;
  /** Microseconds of the host's processors a request. */
  readonly cpu: number;
  readonly notifications: number;
}

/** Starts a guest of bench/guests and reads its report. */
export async function measured(command: string, args: readonly string[], count: number): Promise<Sample> {
  const run = new Run(command, args);
  try {
    let started: { at: bigint; used: number } | undefined;
    for (;;) {
      const output = run.output;
      const from = output.indexOf('<');
      if (from >= 0 && !started) {
        started = { at: process.hrtime.bigint(), used: hostTime(run.child.pid ?? 0) };
      }
      const failed = output.indexOf('!', Math.max(from, 0));
      if (failed >= 0 && failed + 1 < output.length && from < 0)
        throw new Error(`The guest gave up: ${output.subarray(failed).toString('latin1')}`);
      const at = output.indexOf('>', from);
      if (started && at >= 0 && output.length >= at + 13) {
        const seconds = Number(process.hrtime.bigint() - started.at) / 1e9;
        const used = hostTime(run.child.pid ?? 0) - started.used;
        return {
          rate: count / seconds,
          cpu: used / 1000 / count,
          notifications: output.readUInt32LE(at + 9) / count,
        };
      }
      await run.bytes(output.length + 1);
    }
  } finally {
    await run.kill();
  }
}

function images(folder: string): Record<(typeof FORMATS)[number], string> {
  const raw = join(folder, 'disk.raw');
  const qcow2 = join(folder, 'disk.qcow2');
  const fd = openSync(raw, 'w');
  const piece = randomFillSync(Buffer.alloc(4 << 20));
  for (let at = 0; at < IMAGE_SIZE; at += piece.length) writeSync(fd, piece);
  closeSync(fd);
  execFileSync(nemu, ['image', 'convert', '-O', 'qcow2', raw, qcow2], { stdio: 'ignore' });
  return { raw, qcow2 };
}

const qemuDisk = (file: string, format: string) => [
  ...['-object', 'iothread,id=io', '-drive', `file=${file},format=${format},if=none,id=disk,aio=io_uring`],
  ...['-device', 'virtio-blk-pci,drive=disk,iothread=io,disable-legacy=on,addr=5'],
];

export async function blkFigures(folder: string, { runs = 3 } = {}): Promise<Figure[]> {
  const files = images(folder);
  const figures: Figure[] = [];
  for (const [index, work] of WORKS.entries()) {
    const { depth, size, random, write, count } = work;
    const image = join(folder, `blk-${index}.elf`);
    const defines = { DEPTH: depth, SIZE: size, RANDOM: Number(random), WRITE: Number(write), COUNT: count };
    writeFileSync(image, compiledGuest('virtio_blk.c', { ...defines, BLOCKS: IMAGE_SIZE / size }));
    for (const format of FORMATS) {
      const file = files[format];
      const ours: Sample[] = [];
      const theirs: Sample[] = [];
      for (let turn = 0; turn < runs; turn++) {
        ours.push(await measured(nemu, nemuArguments(image, ['--disk', `${file},format=${format}`]), count));
        theirs.push(await measured('qemu-system-x86_64', qemuArguments('q35', image, qemuDisk(file, format)), count));
      }
      const what = `${format}, ${random ? 'random' : 'sequential'} ${write ? 'writes' : 'reads'} of ${size / KIB} KiB, depth ${depth}`;
      const figure = (unit: string, of: (sample: Sample) => number) =>
        figures.push({ suite: 'blk', what, unit, nemu: median(ours.map(of)), qemu: { q35: median(theirs.map(of)) } });
      figure('requests/s', (sample) => sample.rate);
      figure('host CPU µs/request', (sample) => sample.cpu);
      figure('notifications/request', (sample) => sample.notifications);
    }
  }
  return figures;
}
