import { describe, expect, test } from 'vitest';
import { VirtioMem } from '../../../src/devices/virtio/mem.ts';
import { type DriverQueue, F_VERSION_1, MockDriver, NEEDS_RESET, RINGS } from '../../support/virtio_driver.ts';

const MiB = 2 ** 20;
const GiB = 2 ** 30;
const BLOCK = 2 * MiB;
const START = 8 * GiB;
const INACCESSIBLE = 1n << 1n;
const [PLUG, UNPLUG, UNPLUG_ALL, STATE] = [0, 1, 2, 3];
const [ACK, NACK, BUSY, ERROR] = [0, 1, 2, 3];
const CONFIG = { usable: 32, plugged: 40, requested: 48 } as const;

/** A host that writes down what it is to do, by block. */
class Host {
  readonly log: string[] = [];
  full = false;
  reach = 0;

  plug(offset: number, length: number): boolean {
    if (!this.full) this.log.push(`plug ${offset / BLOCK}+${length / BLOCK}`);
    return !this.full;
  }

  unplug(offset: number, length: number): void {
    this.log.push(`unplug ${offset / BLOCK}+${length / BLOCK}`);
  }

  readable(length: number): void {
    this.reach = length;
  }
}

function setUp({ features = F_VERSION_1 | INACCESSIBLE, requested = 0, size = GiB } = {}) {
  const host = new Host();
  const state = { changed: 0 };
  const device = new VirtioMem({
    ...{ name: 'vm0', backend: host, address: START, size, block: BLOCK, node: 3, requested },
    changed: () => {
      state.changed++;
    },
  });
  const driver = new MockDriver(device, { packed: true, inOrder: true });
  const [queue] = driver.start(features);
  driver.takeMessages();
  return { device, driver, queue, host, state };
}

function bytesOf(type: number, block = 0, count = 1, address = START + block * BLOCK): Uint8Array {
  const view = new DataView(new ArrayBuffer(24));
  view.setUint16(0, type, true);
  view.setBigUint64(8, BigInt(address), true);
  view.setUint16(16, count, true);
  return new Uint8Array(view.buffer);
}

/** @returns the answer's type; of a state request that was acknowledged, 10 and the state. */
function ask(queue: DriverQueue, ...request: Parameters<typeof bytesOf>): number {
  const { bytes, written } = queue.request([bytesOf(...request)], [10]);
  expect(written).toBe(10);
  const view = new DataView(Uint8Array.from(bytes).buffer);
  const type = view.getUint16(0, true);
  return request[0] === STATE && type === ACK ? 10 + view.getUint16(8, true) : type;
}

test('it tells where the region is, and what is wanted', () => {
  const { driver } = setUp({ requested: 64 * MiB });
  expect(driver.config64(0)).toBe(BLOCK);
  expect(driver.config(8, 2)).toBe(3);
  expect(driver.config64(16)).toBe(START);
  expect(driver.config64(24)).toBe(GiB);
  expect(driver.config64(CONFIG.usable)).toBe(320 * MiB);
  expect(driver.config64(CONFIG.plugged)).toBe(0);
  expect(driver.config64(CONFIG.requested)).toBe(64 * MiB);
  for (const wrong of [{ address: 1 }, { size: 3 * MiB }, { block: 3 * MiB }, { requested: 4 * GiB }]) {
    const backend = new Host();
    const options = { name: 'm', backend, address: START, size: GiB, block: BLOCK, node: 0, requested: 0 };
    expect(() => new VirtioMem({ ...options, ...wrong }), JSON.stringify(wrong)).toThrow(/not in blocks/);
  }
});

describe.each(RINGS)('requests, $name', ({ features }) => {
  test('plug and unplug blocks, up to what is asked for', () => {
    const { device, driver, queue, host, state } = setUp({ features: features | INACCESSIBLE, requested: 16 * MiB });
    const before = state.changed;
    expect(ask(queue, PLUG, 2, 5)).toBe(ACK);
    expect(driver.takeMessages()).toEqual([1]);
    expect(driver.config64(CONFIG.plugged)).toBe(10 * MiB);
    expect(ask(queue, PLUG, 20, 4)).toBe(NACK);
    expect(ask(queue, PLUG, 20, 3)).toBe(ACK);
    expect(ask(queue, PLUG, 40)).toBe(NACK);
    expect(ask(queue, UNPLUG, 3, 2)).toBe(ACK);
    expect(host.log).toEqual(['plug 2+5', 'plug 20+3', 'unplug 3+2']);
    expect(device.plugged).toBe(12 * MiB);
    expect(state.changed).toBe(before + 3);
    expect(device.counts).toMatchObject({ plug: 4, unplug: 1, nack: 2, error: 0 });
  });

  test('tell the state of blocks', () => {
    const { queue } = setUp({ features: features | INACCESSIBLE, requested: 64 * MiB });
    ask(queue, PLUG, 4, 4);
    expect(ask(queue, STATE, 4, 4)).toBe(10);
    expect(ask(queue, STATE, 8, 100)).toBe(11);
    expect(ask(queue, STATE, 7, 2)).toBe(12);
    expect(ask(queue, STATE, 0, 65535)).toBe(ERROR);
  });
});

test('what no driver may ask is an error', () => {
  const { device, queue, host } = setUp({ requested: 512 * MiB });
  expect(ask(queue, PLUG, 0, 8)).toBe(ACK);
  const wrong: Parameters<typeof bytesOf>[] = [
    [PLUG, 7, 2],
    [PLUG, 0, 1],
    [UNPLUG, 7, 2],
    [UNPLUG, 8, 1],
    [PLUG, 10, 0],
    [UNPLUG, 0, 0],
    [PLUG, 0, 1, START + 20 * BLOCK + 4096],
    [PLUG, 0, 1, START - BLOCK],
    [PLUG, 0, 1, 2 ** 64 - BLOCK],
    [UNPLUG, 0, 65535, 2 ** 64 - BLOCK],
    // The end of the usable region, 768 MiB.
    [PLUG, 384, 1],
    [PLUG, 383, 2],
    [STATE, 384, 1],
    [4],
    [0xffff],
  ];
  for (const request of wrong) expect(ask(queue, ...request), String(request)).toBe(ERROR);
  expect(device.counts.error).toBe(wrong.length);
  expect(ask(queue, PLUG, 383, 1)).toBe(ACK);
  expect(host.log).toEqual(['plug 0+8', 'plug 383+1']);
});

test('a host without room is busy', () => {
  const { device, queue, host } = setUp({ requested: 64 * MiB });
  host.full = true;
  expect(ask(queue, PLUG, 0, 4)).toBe(BUSY);
  expect(device.plugged).toBe(0);
  host.full = false;
  expect(ask(queue, PLUG, 0, 4)).toBe(ACK);
  expect(device.counts.busy).toBe(1);
});

test('another size is told, and the usable region grows with it', () => {
  const { device, driver, queue } = setUp();
  device.request(512 * MiB);
  expect(driver.takeMessages()).toEqual([0]);
  expect(driver.config64(CONFIG.requested)).toBe(512 * MiB);
  expect(driver.config64(CONFIG.usable)).toBe(768 * MiB);
  device.request(512 * MiB);
  expect(driver.takeMessages()).toEqual([]);
  expect(ask(queue, PLUG, 300, 10)).toBe(ACK);
  device.request(0);
  // It does not shrink under blocks that are plugged.
  expect(driver.config64(CONFIG.usable)).toBe(768 * MiB);
  expect(ask(queue, UNPLUG, 300, 5)).toBe(ACK);
  expect(ask(queue, UNPLUG_ALL)).toBe(ACK);
  expect(device.plugged).toBe(0);
  expect(driver.config64(CONFIG.usable)).toBe(256 * MiB);
  for (const wrong of [-BLOCK, 1, 2 * GiB, Number.NaN]) expect(() => device.request(wrong)).toThrow(/not in blocks/);
});

test('blocks outlive a reset of the device, and not one of the machine', () => {
  const { device, driver, queue, host } = setUp({ requested: 64 * MiB });
  ask(queue, PLUG, 0, 2);
  ask(queue, PLUG, 6, 3);
  const [again] = driver.start(F_VERSION_1 | INACCESSIBLE);
  expect(device.plugged).toBe(10 * MiB);
  expect(ask(again, STATE, 6, 3)).toBe(10);
  expect(host.log).toEqual(['plug 0+2', 'plug 6+3']);
  device.systemReset();
  expect(device.plugged).toBe(0);
  expect(device.requested).toBe(64 * MiB);
  expect(host.log.slice(2)).toEqual(['unplug 0+2', 'unplug 6+3']);
});

test('a driver of before UNPLUGGED_INACCESSIBLE may read what is usable', () => {
  const { device, driver, host } = setUp({ features: F_VERSION_1 });
  expect(host.reach).toBe(256 * MiB);
  device.request(128 * MiB);
  expect(host.reach).toBe(384 * MiB);
  driver.start(F_VERSION_1 | INACCESSIBLE);
  expect(host.reach).toBe(0);
});

test('its state comes back, and other numbers do not', () => {
  const { device, queue } = setUp({ requested: 64 * MiB });
  ask(queue, PLUG, 0, 2);
  ask(queue, PLUG, 6, 3);
  const saved = JSON.parse(JSON.stringify(device.save()));
  const other = setUp();
  other.device.restore(saved);
  expect(other.device.save()).toEqual(saved);
  expect(other.device.plugged).toBe(10 * MiB);
  expect(other.host.log).toEqual(['plug 0+2', 'plug 6+3']);
  const wrong = [
    { ...saved, requested: 1 },
    { ...saved, requested: 2 * GiB },
    { ...saved, usable: 0 },
    { ...saved, runs: [[500, 100]] },
    { ...saved, runs: [[-1, 2]] },
    { ...saved, runs: [[0, 0]] },
    { ...saved, runs: 3 },
    undefined,
  ];
  for (const state of wrong) expect(() => other.device.restore(state), JSON.stringify(state)).toThrow();
  expect(other.device.plugged).toBe(10 * MiB);
});

test('a request that is too short, or has no room for its answer, needs a reset', () => {
  for (const [bytes, room] of [
    [23, 10],
    [24, 9],
  ]) {
    const { driver, queue } = setUp();
    queue.send([new Uint8Array(bytes)], [room]);
    expect(driver.status & NEEDS_RESET).toBe(NEEDS_RESET);
  }
});
