/** Disks that change under a driver: real images in files, and the machine's loop. */
import { mkdtempSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { diskSchema } from '../../../src/client/description.ts';
import { NemuError } from '../../../src/client/errors.ts';
import { parseDiskChange } from '../../../src/client/live_change.ts';
import { VirtioBlk } from '../../../src/devices/virtio/blk.ts';
import { StorageError } from '../../../src/storage/error.ts';
import { openImage } from '../../../src/storage/open.ts';
import { createEmpty } from '../../../src/storage/tools/create.ts';
import { attachDevices } from '../../../src/vmm/attach.ts';
import { LiveDisks } from '../../../src/vmm/live_disks.ts';
import type { MachineClock } from '../../../src/vmm/machine_clock.ts';
import { MeteredImage } from '../../../src/vmm/metered_image.ts';
import { Reactor } from '../../../src/vmm/reactor.ts';
import type { ThrottleLimits } from '../../../src/vmm/throttle.ts';
import { FakeClock } from '../../support/fake_clock.ts';
import { type DriverQueue, MockDriver } from '../../support/virtio_driver.ts';

const MIB = 1 << 20;
const [IN, OUT] = [0, 1];
const [OK, IOERR] = [0, 1];

let folder: string;
const cleanup: (() => void)[] = [];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'nemu-live-disks-'));
});
afterEach(() => {
  for (const each of cleanup.splice(0)) each();
  rmSync(folder, { recursive: true, force: true });
});

function file(name: string, format: 'raw' | 'qcow2', size: number, fill?: number): string {
  const path = join(folder, name);
  if (format === 'qcow2') createEmpty({ path, format, size });
  else writeFileSync(path, new Uint8Array(size).fill(fill ?? 0));
  return path;
}

function header(type: number, sector: number): Uint8Array {
  const bytes = new Uint8Array(16);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, type, true);
  view.setBigUint64(8, BigInt(sector), true);
  return bytes;
}

interface SetUp {
  readonly readonly?: boolean;
  readonly limits?: ThrottleLimits;
  readonly stopOnError?: boolean;
}

function setUp(path: string, given: SetUp = {}) {
  const reactor = new Reactor();
  const faults: string[] = [];
  const disks = new LiveDisks({
    open: (disk) => {
      try {
        return openImage({ path: disk.file, format: disk.format, readOnly: disk.readonly, poller: reactor });
      } catch (cause) {
        throw cause instanceof StorageError ? new NemuError('DISK', cause.message) : cause;
      }
    },
    fault: (_, text) => faults.push(text),
  });
  const description = diskSchema.parse({ file: path, readonly: given.readonly ?? false });
  const clock = new FakeClock();
  const open = openImage({ path, readOnly: description.readonly, poller: reactor });
  const image = new MeteredImage(open, clock, given.limits);
  const device = new VirtioBlk({
    name: 'vda',
    backend: image,
    ...(given.stopOnError && { onError: () => 'stop' as const }),
  });
  disks.add('vda', { image, device, description });
  const driver = new MockDriver(device, { memory: 2 ** 22 });
  const [queue] = driver.start();
  driver.takeMessages();
  cleanup.push(() => {
    image.close();
    reactor.close();
  });
  const change = (input: unknown) => disks.change('vda', parseDiskChange(input));
  /** Until the queue has everything back. */
  const settle = () => {
    const returned = queue.collect();
    for (let turns = 0; queue.outstanding.size > 0 && turns < 1000; turns++) {
      reactor.wait(20);
      returned.push(...queue.collect());
    }
    return returned;
  };
  const write = (sector: number, bytes: Uint8Array) => {
    queue.send([header(OUT, sector), bytes], [1]);
    return settle()[0].bytes[0];
  };
  const read = (sector: number) => {
    queue.send([header(IN, sector)], [512, 1]);
    const { bytes } = settle()[0];
    return { status: bytes[512], first: bytes[0] };
  };
  return { disks, device, driver, queue, clock, change, settle, write, read, image, faults, reactor };
}

const send = (queue: DriverQueue, sector: number, byte: number) =>
  queue.send([header(OUT, sector), new Uint8Array(512).fill(byte)], [1]);

describe.each(['raw', 'qcow2'] as const)('the size of a %s disk', (format) => {
  test('grows, and the driver is told and can use it', () => {
    const path = file('disk', format, MIB);
    const { change, driver, write, read } = setUp(path);
    expect(write(2048, new Uint8Array(512).fill(7))).toBe(IOERR);
    driver.takeMessages();
    expect(change({ action: 'resize', size: '2M' })).toMatchObject({ size: 2 * MIB, format, probed: true });
    expect(driver.takeMessages()).toEqual([0]);
    expect(driver.config64(0)).toBe((2 * MIB) / 512);
    expect(read(4095)).toEqual({ status: OK, first: 0 });
    expect(write(4095, new Uint8Array(512).fill(7))).toBe(OK);
    expect(read(4095)).toEqual({ status: OK, first: 7 });
    if (format === 'raw') expect(statSync(path).size).toBe(2 * MIB);
  });

  test('shrinks only when that is meant', () => {
    const { change, driver, read, write } = setUp(file('disk', format, 2 * MIB));
    expect(write(0, new Uint8Array(512).fill(9))).toBe(OK);
    driver.takeMessages();
    expect(() => change({ action: 'resize', size: MIB })).toThrow(/all that is behind would be lost/);
    expect(driver.takeMessages()).toEqual([]);
    expect(driver.config64(0)).toBe((2 * MIB) / 512);
    change({ action: 'resize', size: MIB, shrink: true });
    expect(driver.config64(0)).toBe(MIB / 512);
    expect(read(2048).status).toBe(IOERR);
    expect(read(0)).toEqual({ status: OK, first: 9 });
  });

  test('changes while requests are under way: they are done first', () => {
    const { change, queue, settle, read } = setUp(file('disk', format, MIB));
    for (let i = 0; i < 32; i++) send(queue, i, i + 1);
    change({ action: 'resize', size: '4M' });
    expect(settle().map(({ bytes }) => bytes[0])).toEqual(new Array(32).fill(OK));
    for (const i of [0, 31]) expect(read(i)).toEqual({ status: OK, first: i + 1 });
  });

  test('what does not go is said, and nothing is touched', () => {
    const path = file('disk', format, MIB);
    const { disks, change, driver } = setUp(path, { readonly: true });
    expect(() => change({ action: 'resize', size: '2M' })).toThrow('vda is read-only');
    expect(() => change({ action: 'resize', size: 1000 })).toThrow(/whole sectors/);
    expect(() => change({ action: 'resize', size: '0' })).toThrow(/size takes more than 0 \(.*\), not "0"\./);
    expect(() => change({ action: 'resize', size: 'huge' })).toThrow(/size/);
    expect(() => disks.change('vdb', parseDiskChange({ action: 'resize' }))).toThrow('There is no disk "vdb"');
    expect(driver.takeMessages()).toEqual([]);
  });
});

test('a file that another program has made larger is as large when that is asked', () => {
  const path = file('disk', 'raw', MIB);
  const { change, driver } = setUp(path);
  change({ action: 'resize' });
  expect(driver.takeMessages()).toEqual([]);
  writeFileSync(path, new Uint8Array(MIB), { flag: 'a' });
  expect(change({ action: 'resize' })).toMatchObject({ size: 2 * MIB });
  expect(driver.takeMessages()).toEqual([0]);
});

describe('the medium', () => {
  test('changes: what was written before is in the old one, what comes goes to the new one', () => {
    const [first, second] = [file('first', 'raw', MIB), file('second', 'qcow2', 3 * MIB)];
    const { change, driver, queue, settle, write, read, faults } = setUp(first);
    for (let i = 0; i < 16; i++) send(queue, i, 0x11);
    expect(change({ action: 'medium', file: second })).toMatchObject({ file: second, format: 'qcow2', size: 3 * MIB });
    expect(settle().every(({ bytes }) => bytes[0] === OK)).toBe(true);
    expect(driver.config64(0)).toBe((3 * MIB) / 512);
    expect(readFileSync(first)[15 * 512]).toBe(0x11);
    expect(read(0)).toEqual({ status: OK, first: 0 });
    expect(write(6000, new Uint8Array(512).fill(0x22))).toBe(OK);
    // The old one is free, and comes back.
    change({ action: 'medium', file: first, format: 'raw' });
    expect(read(0)).toEqual({ status: OK, first: 0x11 });
    const image = openImage({ path: second, readOnly: true });
    const bytes = new Uint8Array(512);
    image.read(6000 * 512, [bytes], () => {});
    expect(bytes[0]).toBe(0x22);
    image.close();
    expect(faults).toEqual([]);
  });

  test('requests that wait at a limit are for the old one', () => {
    const [first, second] = [file('first', 'raw', MIB), file('second', 'raw', MIB)];
    const { change, queue, settle, image } = setUp(first, { limits: { iops: 1 } });
    for (let i = 0; i < 8; i++) send(queue, i, 0x33);
    expect(image.waiting).toBe(7);
    change({ action: 'medium', file: second });
    expect(settle().length).toBe(8);
    expect([readFileSync(first)[7 * 512], readFileSync(second)[7 * 512]]).toEqual([0x33, 0]);
  });

  test('stays when the new one cannot be had: missing, in use, or not to be written', () => {
    const [first, second] = [file('first', 'raw', MIB, 1), file('second', 'raw', MIB, 2)];
    const { change, driver, read, disks } = setUp(first);
    const other = openImage({ path: second, readOnly: true });
    for (const [path, why] of [
      [join(folder, 'nothing'), /cannot be opened \(ENOENT\)/],
      [second, /in use/],
      [first, /in use/],
      [folder, /is a folder/],
    ] as const) {
      expect(() => change({ action: 'medium', file: path })).toThrow(why);
    }
    expect(driver.takeMessages()).toEqual([]);
    expect(disks.report()).toMatchObject([{ file: first, size: MIB }]);
    expect(read(0)).toEqual({ status: OK, first: 1 });
    other.close();
    change({ action: 'medium', file: second });
    expect(read(0)).toEqual({ status: OK, first: 2 });
  });

  test('of a disk that is only read may be one that others read too', () => {
    const [first, second] = [file('first', 'raw', MIB, 1), file('second', 'raw', MIB, 2)];
    const { change, read, write } = setUp(first, { readonly: true });
    const other = openImage({ path: second, readOnly: true });
    expect(change({ action: 'medium', file: second })).toMatchObject({ readonly: true });
    expect(read(0)).toEqual({ status: OK, first: 2 });
    expect(write(0, new Uint8Array(512))).toBe(IOERR);
    other.close();
  });

  test('stays while failed requests wait for it', () => {
    const [first, second] = [file('first', 'raw', MIB), file('second', 'raw', MIB)];
    const { change, queue, device, image } = setUp(first, { stopOnError: true });
    // The guessed format of the first is held: nobody writes the head of another one.
    queue.send([header(OUT, 0), Uint8Array.of(0x51, 0x46, 0x49, 0xfb, ...new Uint8Array(508))], [1]);
    expect(device.heldRequests).toBe(1);
    expect(() => change({ action: 'medium', file: second })).toThrow('1 request of vda failed');
    expect(() => change({ action: 'resize', size: 512, shrink: true })).toThrow('1 request of vda failed');
    expect(change({ action: 'resize', size: '2M' })).toMatchObject({ size: 2 * MIB });
    expect(image.size).toBe(2 * MIB);
    // Nothing of the second is held.
    openImage({ path: second, readOnly: false }).close();
  });
});

test('a file that another disk of the machine has is said to be that', () => {
  const reactor = new Reactor();
  const clock = new FakeClock() as unknown as MachineClock;
  const { disk, disks, close } = attachDevices({ reactor, clock, fault: () => {}, failed: () => {} });
  cleanup.push(() => {
    close();
    reactor.close();
  });
  const image = file('twice.img', 'raw', MIB);
  const link = join(folder, 'link.img');
  symlinkSync(image, link);
  const make = (path: string, name: string, readonly = false) => disk(diskSchema.parse({ file: path, readonly }), name);
  make(image, 'vda');
  for (const path of [image, link]) {
    expect(() => make(path, 'vdb')).toThrow(`The disk image ${path} is in use: it is vda of this machine.`);
  }
  make(file('other.img', 'raw', MIB), 'vdb');
  expect(() => disks.change('vdb', parseDiskChange({ action: 'medium', file: image }))).toThrow('it is vda of this');
  // Who only reads is welcome to a reader.
  const shared = file('shared.img', 'raw', MIB);
  make(shared, 'vdc', true);
  make(shared, 'vdd', true);
  expect(() => make(shared, 'vde')).toThrow('it is vdc of this machine');
});
