/** Every virtio device against drivers that mean harm. NEMU_FUZZ_SEED=n runs the one batch with that seed. */
import { describe, expect, test } from 'vitest';
import { VirtioBlk } from '../../../src/devices/virtio/blk.ts';
import { VirtioNet } from '../../../src/devices/virtio/net.ts';
import { VirtioRng } from '../../../src/devices/virtio/rng.ts';
import { MemoryDisk, QuietNet } from '../../support/virtio_backends.ts';
import { attack, growth, type Pick, type Prey } from '../../support/virtio_fuzz.ts';

const long = process.env.NEMU_TEST_LONG !== undefined;
const CASES = long ? 1_000_000 : 20_000;
const GROWTH_CASES = long ? 200_000 : 2000;
const MOST_GROWTH = 2 * 2 ** 20;
const TIMEOUT = long ? 1_800_000 : 60_000;

const bytes = (pick: Pick, length: number) => Uint8Array.from({ length }, () => (pick(3) ? 0 : pick(256)));
const need = (what: boolean, why: string) => {
  if (!what) throw new Error(why);
};

function disk(): Prey {
  const backend = new MemoryDisk(65536);
  const policies = ['report', 'stop', 'ignore'] as const;
  let policy = 0;
  const device = new VirtioBlk({ name: 'vda', backend, queues: 2, onError: () => policies[policy] });
  return {
    device,
    request: (pick) => {
      const header = new Uint8Array(16 + (pick(3) ? 0 : 16));
      const view = new DataView(header.buffer);
      view.setUint32(0, pick(16), true);
      view.setUint32(8, pick(140), true);
      if (pick(30) === 0) view.setUint32(12, pick(2 ** 32), true);
      if (header.length > 16) {
        view.setUint32(16, pick(140), true);
        view.setUint32(24, pick(40), true);
        view.setUint32(28, pick(3), true);
      }
      return header;
    },
    disturb: (pick) => {
      backend.hold = pick(2) === 0;
      backend.errno = pick(4) ? 0 : 5;
      policy = pick(3);
      if (pick(2)) backend.complete(pick);
      if (pick(4) === 0) device.retry();
      if (pick(8) === 0) device.resized();
      need(backend.waiting.length <= 4096, 'requests pile up at the disk');
    },
    settle: () => {
      backend.hold = false;
      backend.errno = 0;
      backend.complete();
      need(device.inFlight === 0 && device.heldRequests === 0, 'requests outlive a reset');
    },
    works: (driver) => {
      for (const queue of driver.start()) {
        need(queue.request([Uint8Array.of(4, ...new Array(15).fill(0))], [1]).bytes[0] === 0, 'no flush');
        need(queue.request([new Uint8Array(16)], [512, 1]).bytes[512] === 0, 'no read');
      }
    },
  };
}

function card(): Prey {
  const backends = [0, 1].map(() => new QuietNet({ headerSize: 12, offloads: 0x0f }));
  const device = new VirtioNet({ name: 'net0', backends, mac: Uint8Array.of(2, 0, 0, 0, 0, 1), mtu: 1500 });
  return {
    device,
    request: (pick) =>
      pick(2) ? bytes(pick, 12 + pick(60)) : Uint8Array.of(pick(7), pick(3), ...bytes(pick, pick(14))),
    disturb: (pick) => {
      const backend = backends[pick(2)];
      backend.full = pick(4) === 0;
      if (backend.frames.length < 20) backend.frames.push(new Uint8Array(12 + (pick(4) ? pick(1600) : pick(65_000))));
      if (pick(2)) backend.onReadable?.();
      if (!backend.full) backend.onWritable?.();
      if (pick(10) === 0) device.setLink(pick(2) === 1);
      if (pick(10) === 0) device.announce();
    },
    settle: () => {
      for (const backend of backends) {
        backend.full = false;
        backend.frames.length = 0;
      }
      device.setLink(true);
    },
    works: (driver) => {
      const [rx, tx] = driver.start();
      const { length } = backends[0].sent;
      tx.request([new Uint8Array(12), new Uint8Array(60)], []);
      need(backends[0].sent.length !== length, 'nothing is sent');
      rx.send([], [200]);
      backends[0].frames.push(new Uint8Array(72));
      backends[0].onReadable?.();
      need(rx.collect().length === 1, 'nothing is received');
      const control = driver.queues[driver.queues.length - 1];
      need(control.request([Uint8Array.of(0, 0, 1)], [1]).bytes[0] === 0, 'no control');
    },
  };
}

function entropy(): Prey {
  let filled = 0;
  return {
    device: new VirtioRng('rng', (into) => {
      filled += into.length;
      into.fill(filled & 0xff);
    }),
    request: (pick) => bytes(pick, 8),
    works: (driver) => {
      filled = 0;
      const [queue] = driver.start();
      need(queue.request([], [8]).written === 8, 'no bytes');
    },
  };
}

const PREY: Record<string, () => Prey> = { 'virtio-blk': disk, 'virtio-net': card, 'virtio-rng': entropy };

describe.each(Object.entries(PREY))('%s', (_name, make) => {
  test(`withstands ${CASES} cases`, () => attack(make, CASES), TIMEOUT);

  test('does not grow', () => expect(growth(make, GROWTH_CASES)).toBeLessThan(MOST_GROWTH), TIMEOUT);
});
