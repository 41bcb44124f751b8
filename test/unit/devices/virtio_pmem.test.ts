import { describe, expect, test } from 'vitest';
import { VirtioPmem } from '../../../src/devices/virtio/pmem.ts';
import { F_RING_RESET, F_VERSION_1, MockDriver, NEEDS_RESET, RINGS } from '../../support/virtio_driver.ts';

const FLUSH = new Uint8Array(4);
const OK = [0, 0, 0, 0];
const EIO = [1, 0, 0, 0];
const GIB = 2 ** 30;

function setUp(features = F_VERSION_1 | F_RING_RESET) {
  const waiting: ((errno: number) => void)[] = [];
  const state = { hold: false, errno: 0, flushes: 0 };
  const device = new VirtioPmem({
    name: 'pmem',
    backend: {
      flush: (done) => {
        state.flushes++;
        if (state.hold) waiting.push(done);
        else done(state.errno);
      },
    },
    start: 8 * GIB,
    size: 3 * GIB,
  });
  const driver = new MockDriver(device, { packed: true, inOrder: true });
  const [queue] = driver.start(features);
  driver.takeMessages();
  return { device, driver, queue, waiting, state };
}

test('it tells where the memory is', () => {
  const { driver } = setUp();
  expect(driver.config64(0)).toBe(8 * GIB);
  expect(driver.config64(8)).toBe(3 * GIB);
  expect(() => new VirtioPmem({ name: 'p', backend: { flush: () => {} }, start: -1, size: 1 })).toThrow(/no range/);
});

describe.each(RINGS)('flushes, $name', ({ features }) => {
  test('are answered with what came of them', () => {
    const { driver, queue, state } = setUp(features);
    expect([...queue.request([FLUSH], [4]).bytes]).toEqual(OK);
    expect(driver.takeMessages()).toEqual([1]);
    state.errno = 5;
    expect([...queue.request([FLUSH], [4]).bytes]).toEqual(EIO);
    expect([...queue.request([Uint8Array.of(1, 0, 0, 0)], [4]).bytes]).toEqual(EIO);
    expect(state.flushes).toBe(2);
  });

  test('that come while one runs share the next', () => {
    const { device, driver, queue, state, waiting } = setUp(features);
    state.hold = true;
    for (let i = 0; i < 5; i++) queue.send([FLUSH], [4]);
    expect(state.flushes).toBe(1);
    waiting.shift()?.(0);
    expect(queue.collect().length).toBe(1);
    expect(driver.takeMessages()).toEqual([1]);
    expect(state.flushes).toBe(2);
    waiting.shift()?.(0);
    expect(queue.collect().length).toBe(4);
    expect(device.inFlight).toBe(0);
  });

  test('of before a reset are nobody’s', () => {
    const { driver, queue, state, waiting } = setUp(features | F_RING_RESET);
    state.hold = true;
    queue.send([FLUSH], [4]);
    driver.start(features);
    const [again] = driver.queues;
    again.send([FLUSH], [4]);
    waiting.shift()?.(0);
    expect(queue.collect()).toEqual([]);
    expect(again.collect()).toEqual([]);
    waiting.shift()?.(0);
    expect(again.collect().length).toBe(1);
    expect(driver.faults).toEqual([]);
  });
});

test('a request without room for its answer needs a reset', () => {
  const { driver, queue } = setUp();
  queue.send([FLUSH], [3]);
  expect(driver.status & NEEDS_RESET).toBe(NEEDS_RESET);
});
