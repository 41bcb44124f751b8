/** Every virtio device against drivers that mean harm. NEMU_FUZZ_SEED=n runs the one batch with that seed. */
import { describe, expect, test } from 'vitest';
import { VirtioBalloon } from '../../../src/devices/virtio/balloon.ts';
import { VirtioBlk } from '../../../src/devices/virtio/blk.ts';
import { VirtioConsole } from '../../../src/devices/virtio/console.ts';
import { VirtioMem } from '../../../src/devices/virtio/mem.ts';
import { VirtioNet } from '../../../src/devices/virtio/net.ts';
import { VirtioPmem } from '../../../src/devices/virtio/pmem.ts';
import { VirtioRng } from '../../../src/devices/virtio/rng.ts';
import { FakeChannel } from '../../support/board.ts';
import { MemoryDisk, QuietNet } from '../../support/virtio_backends.ts';
import { attack, growth, type Pick, type Prey } from '../../support/virtio_fuzz.ts';

const long = process.env.NEMU_TEST_LONG !== undefined;
const CASES = long ? 400_000 : 20_000;
const GROWTH_CASES = long ? 80_000 : 2000;
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

function balloon(): Prey {
  let discarded = 0;
  const device = new VirtioBalloon({
    name: 'balloon',
    backend: {
      discard: (gpa, length) => {
        discarded += length;
        need(gpa % 4096 === 0 && length % 4096 === 0 && length > 0, 'a discard is not of pages');
        need(gpa >= 0 && gpa + length <= 2 ** 18, 'a discard is not of RAM');
      },
    },
    deflateOnOom: true,
  });
  return {
    device,
    request: (pick) => (pick(2) ? Uint8Array.of(pick(64), 0, 0, 0, pick(64), 0, 0, 0) : bytes(pick, 1 + pick(60))),
    disturb: (pick) => {
      if (pick(2)) device.refreshStats();
      if (pick(4) === 0) device.setTarget(pick(1000) * 4096);
    },
    works: (driver) => {
      const [inflate, deflate, statistics] = driver.start();
      discarded = 0;
      inflate.request([Uint8Array.of(50, 0, 0, 0)], []);
      need(discarded === 4096, 'no page is given back');
      deflate.request([Uint8Array.of(50, 0, 0, 0)], []);
      statistics.send([Uint8Array.of(4, 0, 1, 0, 0, 0, 0, 0, 0, 0)], []);
      need(device.stats().freeMemory === 1, 'no statistics');
      need(device.refreshStats() && statistics.collect().length === 1, 'statistics are not asked for');
    },
  };
}

function terminal(): Prey {
  class Channel extends FakeChannel {
    room = 0;

    override write(bytes: Uint8Array): number {
      const taken = Math.min(this.room, bytes.length);
      this.room -= taken;
      return taken;
    }
  }
  const channels = [new Channel(), new Channel()];
  const device = new VirtioConsole({
    name: 'console',
    ports: [{ channel: channels[0] }, { channel: channels[1], name: 'org.example.agent' }],
  });
  return {
    device,
    request: (pick) =>
      pick(3) ? Uint8Array.of(pick(3), 0, 0, 0, pick(8), 0, pick(10) ? 1 : 0, 0) : bytes(pick, 1 + pick(60)),
    disturb: (pick) => {
      const channel = channels[pick(2)];
      if (channel.input.length < 1000) for (let i = pick(100); i > 0; i--) channel.input.push(i);
      channel.room = pick(3) ? pick(1000) : 2 ** 24;
      if (pick(2)) channel.onReadable?.();
      channel.onWritable?.();
      if (pick(4) === 0) device.setOpen(pick(2), pick(2) === 1);
      if (pick(8) === 0) device.resize(0, pick(300), pick(100));
    },
    settle: () => {
      for (const [id, channel] of channels.entries()) {
        channel.input.length = 0;
        channel.room = 2 ** 24;
        device.setOpen(id, true);
      }
    },
    works: (driver) => {
      const [receive, transmit, , control] = driver.start();
      const { room } = channels[0];
      transmit.request([Uint8Array.of(1, 2, 3)], []);
      need(channels[0].room === room - 3, 'nothing is sent');
      control.request([Uint8Array.of(0, 0, 0, 0, 6, 0, 1, 0)], []);
      channels[0].input.push(1, 2);
      channels[0].onReadable?.();
      if (!device.guestOpen(0)) throw new Error('the port is not open');
      need(receive.request([], [10]).written === 2, 'nothing is received');
    },
  };
}

function pmem(): Prey {
  const waiting: ((errno: number) => void)[] = [];
  let hold = false;
  return {
    device: new VirtioPmem({
      name: 'pmem',
      backend: {
        flush: (done) => {
          if (hold) waiting.push(done);
          else done(0);
        },
      },
      start: 2 ** 32,
      size: 2 ** 21,
    }),
    request: (pick) => Uint8Array.of(pick(4) ? 0 : pick(3), 0, 0, 0),
    disturb: (pick) => {
      hold = pick(2) === 0;
      need(waiting.length <= 1, 'flushes pile up');
      if (pick(2)) waiting.shift()?.(pick(2) * 5);
    },
    settle: () => {
      hold = false;
      for (let done = waiting.shift(); done; done = waiting.shift()) done(0);
    },
    works: (driver) => {
      const [queue] = driver.start();
      need(queue.request([new Uint8Array(4)], [4]).bytes[0] === 0, 'no flush');
    },
  };
}

function memory(): Prey {
  const [address, size, block] = [2 ** 32, 2 ** 30, 2 ** 21];
  const plugged = new Set<number>();
  let full = false;
  const blocks = (offset: number, length: number) => {
    need(offset % block === 0 && length % block === 0 && length > 0, 'a range is not of blocks');
    need(offset >= 0 && offset + length <= size, 'a range is not of the region');
    return Array.from({ length: length / block }, (_, index) => offset / block + index);
  };
  const device = new VirtioMem({
    ...{ name: 'vm0', address, size, block, node: 0, requested: 2 ** 26 },
    backend: {
      plug: (offset, length) => {
        const all = blocks(offset, length);
        need(!all.some((each) => plugged.has(each)), 'a block is plugged twice');
        if (!full) for (const each of all) plugged.add(each);
        return !full;
      },
      unplug: (offset, length) => {
        for (const each of blocks(offset, length)) need(plugged.delete(each), 'a block is unplugged twice');
      },
      readable: (length) => need(length >= 0 && length <= size && length % block === 0, 'a reach is not of blocks'),
    },
  });
  const ask = (type: number, at: number, count: number) => {
    const view = new DataView(new ArrayBuffer(24));
    view.setUint16(0, type, true);
    view.setBigUint64(8, BigInt(at), true);
    view.setUint16(16, count, true);
    return new Uint8Array(view.buffer);
  };
  return {
    device,
    request: (pick) => {
      const near = address + block * pick(520) + (pick(20) ? 0 : pick(block));
      const at = pick(20) ? near : [0, address - block, 2 ** 53, 2 ** 64 - 2 ** 21][pick(4)];
      return ask(pick(10) ? [0, 0, 1, 3][pick(4)] : pick(6), at, pick(10) ? pick(8) : pick(0x10000));
    },
    disturb: (pick) => {
      full = pick(4) === 0;
      if (pick(4) === 0) device.request(block * pick(513));
      if (pick(20) === 0) device.systemReset();
      need(device.plugged === plugged.size * block, 'the plugged size is not that of the blocks');
      need(device.usable >= device.requested, 'what is asked for is not usable');
    },
    settle: () => {
      full = false;
      device.request(2 ** 26);
    },
    works: (driver) => {
      const [queue] = driver.start();
      need(queue.request([ask(2, 0, 0)], [10]).bytes[0] === 0 && plugged.size === 0, 'nothing can be unplugged');
      need(queue.request([ask(0, address, 2)], [10]).bytes[0] === 0 && plugged.size === 2, 'nothing can be plugged');
      need(driver.config64(40) === 2 * block, 'the plugged size is not told');
    },
  };
}

const PREY: Record<string, () => Prey> = {
  'virtio-blk': disk,
  'virtio-net': card,
  'virtio-rng': entropy,
  'virtio-balloon': balloon,
  'virtio-console': terminal,
  'virtio-pmem': pmem,
  'virtio-mem': memory,
};

describe.each(Object.entries(PREY))('%s', (_name, make) => {
  test(`withstands ${CASES} cases`, () => attack(make, CASES), TIMEOUT);

  test('does not grow', () => expect(growth(make, GROWTH_CASES)).toBeLessThan(MOST_GROWTH), TIMEOUT);
});
