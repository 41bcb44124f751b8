import { expect, test } from 'vitest';
import { VirtioBlk } from '../../../src/devices/virtio/blk.ts';
import type { VirtioDevice } from '../../../src/devices/virtio/device.ts';
import { VirtioMmio } from '../../../src/devices/virtio/mmio.ts';
import { VirtioNet } from '../../../src/devices/virtio/net.ts';
import { VirtioRng } from '../../../src/devices/virtio/rng.ts';
import { FakeMemory } from '../../support/board.ts';
import { deviceContract } from '../../support/device_contract.ts';
import { MemoryDisk, QuietNet } from '../../support/virtio_backends.ts';

const MIB = 2 ** 20;
const [DESC, AVAIL, USED, DATA] = [0x1000, 0x2000, 0x3000, 0x4000];
const QUEUE_SIZE = 4;

/** A driver of one queue, as the specification has it start a device (section 4.2.3). */
function started() {
  const memory = new FakeMemory(MIB);
  const edges = { count: 0 };
  const rng = new VirtioMmio(new VirtioRng('rng', (into) => into.fill(0xa5)), {
    memory,
    interrupt: () => {
      edges.count++;
    },
  });
  const read = (offset: number) => rng.read(offset, 4);
  const write = (offset: number, value: number) => rng.write(offset, 4, value);
  for (const status of [0, 1, 3]) write(0x70, status);
  write(0x24, 1);
  write(0x20, 1);
  write(0x70, 11);
  expect(read(0x70)).toBe(11);
  write(0x30, 0);
  expect(read(0x44)).toBe(0);
  expect(read(0x34)).toBeGreaterThanOrEqual(QUEUE_SIZE);
  write(0x38, QUEUE_SIZE);
  for (const [offset, address] of [
    [0x80, DESC],
    [0x90, AVAIL],
    [0xa0, USED],
  ]) {
    write(offset, address);
    write(offset + 4, 0);
  }
  write(0x44, 1);
  write(0x70, 15);
  expect([read(0x44), read(0x70)]).toEqual([1, 15]);
  const words = (at: number, length: number) => {
    const bytes = memory.slice(at, length) as Uint8Array;
    return new DataView(bytes.buffer, bytes.byteOffset, length);
  };
  let next = 0;
  /** Asks for `length` random bytes. */
  const offer = (length: number) => {
    const slot = next % QUEUE_SIZE;
    const descriptor = words(DESC + 16 * slot, 16);
    descriptor.setBigUint64(0, BigInt(DATA + 0x100 * slot), true);
    descriptor.setUint32(8, length, true);
    descriptor.setUint16(12, 2, true);
    const available = words(AVAIL, 4 + 2 * QUEUE_SIZE);
    available.setUint16(4 + 2 * slot, slot, true);
    available.setUint16(2, ++next, true);
    return slot;
  };
  const used = () => words(USED, 4).getUint16(2, true);
  return { rng, read, write, edges, memory, offer, used };
}

test('what it is, and what of it is not there', () => {
  const { read, rng } = started();
  expect([0x00, 0x04, 0x08, 0x0c].map(read)).toEqual([0x74726976, 2, 4, 0x554d4551]);
  // Shared memory regions have no length and no place.
  expect([0xb0, 0xb4, 0xb8, 0xbc].map(read)).toEqual(Array(4).fill(0xffffffff));
  // Registers that are only written, and widths that registers do not have.
  expect([0x38, 0x50, 0x64, 0xc0, 0xfe].map((offset) => rng.read(offset & ~3, 4))).toEqual([0, 0, 0, 0, 0]);
  expect([rng.read(0, 1), rng.read(0, 2), rng.read(2, 4)]).toEqual([0, 0, 0]);
});

test('a buffer is filled when the driver rings; one edge for each time the status goes up', () => {
  const { write, read, edges, memory, offer, used } = started();
  const slot = offer(16);
  expect(used()).toBe(0);
  write(0x50, 0);
  expect([used(), edges.count, read(0x60)]).toEqual([1, 1, 1]);
  expect(memory.slice(DATA + 0x100 * slot, 17)).toEqual(Uint8Array.of(...Array(16).fill(0xa5), 0));
  offer(8);
  write(0x50, 0);
  expect([used(), edges.count]).toEqual([2, 1]);
  write(0x64, 1);
  expect(read(0x60)).toBe(0);
  offer(8);
  write(0x50, 0);
  expect([used(), edges.count, read(0x60)]).toEqual([3, 2, 1]);
  // Rings for queues that do not exist are nobody's.
  write(0x50, 77);
});

test('a queue that is in use keeps its registers; made unready or reset, it is as new', () => {
  for (const stop of [
    (write: (offset: number, value: number) => void) => write(0x44, 0),
    (write: (offset: number, value: number) => void) => write(0xc0, 1),
  ]) {
    const { write, read, offer, used, edges } = started();
    write(0x80, 0xdead000);
    write(0x38, 2);
    offer(4);
    write(0x50, 0);
    expect(used()).toBe(1);
    stop(write);
    expect([read(0x44), read(0xc0)]).toEqual([0, 0]);
    offer(4);
    write(0x50, 0);
    expect([used(), edges.count]).toEqual([1, 1]);
  }
});

test('a reset of the device through its status', () => {
  const { write, read } = started();
  write(0x70, 0);
  expect([read(0x70), read(0x44), read(0x60)]).toEqual([0, 0, 0]);
});

test('an address above 4 GiB is one', () => {
  const { write, rng, read } = started();
  write(0x70, 0);
  write(0xa4, 5);
  write(0xa0, 0x80000000);
  expect(rng.state.queues[0].device).toBe(0x5_8000_0000);
  expect(read(0xa0)).toBe(0);
});

test("the device's configuration is read in any width; each queue has its doorbell", () => {
  const net = new VirtioMmio(
    new VirtioNet({ name: 'net0', backends: [new QuietNet()], mac: Uint8Array.of(0x52, 0x54, 0, 0x12, 0x34, 0x56) }),
    { memory: new FakeMemory(MIB), interrupt: () => {} },
  );
  expect([net.read(0x100, 1), net.read(0x102, 2), net.read(0x102, 4)]).toEqual([0x52, 0x1200, 0x56341200]);
  expect(net.doorbells.map(({ offset, value }) => [offset, value])).toEqual([
    [0x50, 0],
    [0x50, 1],
    [0x50, 2],
  ]);
});

const MAC = Uint8Array.of(0x52, 0x54, 0, 0x12, 0x34, 0x56);
const devices: readonly (readonly [string, () => VirtioDevice])[] = [
  ['virtio-blk', () => new VirtioBlk({ name: 'vda', backend: new MemoryDisk(MIB), queues: 2 })],
  ['virtio-net', () => new VirtioNet({ name: 'net0', backends: [new QuietNet(), new QuietNet()], mac: MAC })],
  ['virtio-rng', () => new VirtioRng('rng', (into) => into.fill(7))],
];
for (const packed of [false, true]) {
  for (const [name, make] of devices) {
    deviceContract(`${name} in memory, ${packed ? 'packed' : 'split'}`, () => {
      const device = new VirtioMmio(make(), { memory: new FakeMemory(MIB), interrupt: () => {}, packed });
      return { device, regions: [device] };
    });
  }
}
