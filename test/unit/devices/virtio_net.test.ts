import { describe, expect, test } from 'vitest';
import { PCI, PCI_COMMAND_MASTER, PCI_COMMAND_MEMORY } from '../../../src/devices/pci/config_space.ts';
import { VirtioNet } from '../../../src/devices/virtio/net.ts';
import { random } from '../../support/random.ts';
import { QuietNet } from '../../support/virtio_backends.ts';
import {
  type DriverOptions,
  F_RING_RESET,
  F_VERSION_1,
  MockDriver,
  NEEDS_RESET,
  RING_FEATURES,
  RINGS,
} from '../../support/virtio_driver.ts';

const F_GUEST_CSUM = 1n << 1n;
const F_GUEST_OFFLOADS = 1n << 2n;
const F_MTU = 1n << 3n;
const F_GUEST_TSO4 = 1n << 7n;
const F_GUEST_TSO6 = 1n << 8n;
const F_GUEST_ECN = 1n << 9n;
const F_MRG_RXBUF = 1n << 15n;
const F_STATUS = 1n << 16n;
const F_CTRL_VQ = 1n << 17n;
const F_CTRL_RX = 1n << 18n;
const F_GUEST_ANNOUNCE = 1n << 21n;
const F_MQ = 1n << 22n;
const F_CTRL_MAC = 1n << 23n;
const BASE = F_VERSION_1 | F_RING_RESET | F_STATUS | F_CTRL_VQ | F_CTRL_RX | F_CTRL_MAC | F_GUEST_ANNOUNCE;

const MAC = Uint8Array.of(0x52, 0x54, 0, 0x12, 0x34, 0x56);
const HEADER = 12;
const OK = 0;
const ERR = 1;

const frame = (length: number, seed = 1) => {
  const pick = random(seed);
  return Uint8Array.from({ length }, () => pick(256));
};

interface SetUp {
  readonly features?: bigint;
  readonly backends?: QuietNet[];
  readonly mtu?: number;
  readonly which?: number[];
  readonly size?: number;
  readonly options?: DriverOptions;
}

function setUp(given: SetUp = {}) {
  const backends = given.backends ?? [new QuietNet()];
  const device = new VirtioNet({
    name: 'net0',
    backends,
    mac: MAC,
    ...(given.mtu !== undefined && { mtu: given.mtu }),
  });
  const driver = new MockDriver(device, { packed: true, inOrder: true, memory: 2 ** 22, ...given.options });
  driver.start(given.features ?? BASE, given.which, given.size === undefined ? {} : { size: given.size });
  driver.takeMessages();
  const [rx, tx] = driver.queues;
  const control = driver.queues[driver.queues.length - 1];
  const arrive = (bytes: Uint8Array, pair = 0) => {
    backends[pair].frames.push(bytes);
    backends[pair].onReadable?.();
  };
  const command = (group: number, number: number, ...data: Uint8Array[]) =>
    control.request([Uint8Array.of(group, number), ...data], [1]).bytes[0];
  return { device, driver, backend: backends[0], backends, rx, tx, control, arrive, command };
}

/** The twelve bytes before a received frame: nothing to do, in so many buffers. */
const receivedHeader = (buffers: number) => Uint8Array.of(...new Array(10).fill(0), buffers, 0);
const word = (value: number) => Uint8Array.of(value & 0xff, value >> 8);

describe.each(RINGS)('frames, $name', ({ features }) => {
  const start = (extra = 0n, more: SetUp = {}) => setUp({ ...more, features: features | BASE | extra });

  test('are sent without their header, and their buffers come back', () => {
    const { backend, driver, tx } = start();
    for (const length of [14, 60, 1514, 65_000]) {
      const bytes = frame(length, length);
      const { written } = tx.request([new Uint8Array(HEADER), bytes.subarray(0, 10), bytes.subarray(10)], []);
      expect(written).toBe(0);
      expect(backend.sent.pop()).toEqual(bytes);
    }
    expect(driver.takeMessages().every((vector) => vector === 2)).toBe(true);
    const bytes = frame(100);
    tx.request([Uint8Array.of(...new Uint8Array(HEADER), ...bytes)], []);
    expect(backend.sent.pop()).toEqual(bytes);
  });

  test('are received into one buffer each', () => {
    const { driver, rx, arrive } = start();
    for (let i = 0; i < 5; i++) rx.add([], [HEADER, 1514]);
    rx.kick();
    for (const length of [60, 1514, 14]) {
      const bytes = frame(length, length);
      arrive(bytes);
      expect(driver.takeMessages()).toEqual([1]);
      const [returned, ...more] = rx.collect();
      expect(more).toEqual([]);
      expect(returned.bytes).toEqual(Uint8Array.of(...receivedHeader(1), ...bytes));
    }
  });

  test('are received into as many buffers as they take, when these can be merged', () => {
    const { rx, arrive, device } = start(F_MRG_RXBUF);
    for (let i = 0; i < 40; i++) rx.add([], [500]);
    rx.kick();
    for (const length of [60, 488, 489, 1514, 9000]) {
      const bytes = frame(length, length);
      arrive(bytes);
      const returned = rx.collect();
      const count = Math.ceil((length + HEADER) / 500);
      expect(returned.length).toBe(count);
      expect(Buffer.concat(returned.map((each) => each.bytes))).toEqual(Buffer.concat([receivedHeader(count), bytes]));
    }
    expect(device.counters).toMatchObject({ rxFrames: 5, rxDropped: 0 });
  });

  test('wait for buffers, in order', () => {
    const { backend, rx, arrive } = start(F_MRG_RXBUF);
    rx.send([], [300]);
    for (let i = 0; i < 4; i++) arrive(frame(400, i));
    expect(rx.collect()).toEqual([]);
    rx.send([], [300]);
    expect(rx.collect().length).toBe(2);
    const rest: Uint8Array[] = [];
    for (let i = 0; i < 6; i++) {
      rx.send([], [300]);
      rest.push(...rx.collect().map((each) => each.bytes));
    }
    expect(Buffer.concat(rest)).toEqual(
      Buffer.concat([1, 2, 3].flatMap((seed) => [receivedHeader(2), frame(400, seed)])),
    );
    expect(backend.frames).toEqual([]);
  });
});

describe('receiving', () => {
  test('a frame that its buffer cannot hold is dropped, and the buffer stays for the next', () => {
    const { device, driver, rx, arrive } = setUp();
    rx.send([], [HEADER + 100]);
    arrive(frame(101));
    expect(rx.collect()).toEqual([]);
    expect(device.counters).toMatchObject({ rxFrames: 0, rxErrors: 1 });
    arrive(frame(100));
    expect(rx.collect()[0].bytes.subarray(HEADER)).toEqual(frame(100));
    expect(driver.faults).toEqual([]);
  });

  test('a frame that all buffers of the queue cannot hold is dropped', () => {
    const { device, rx, arrive } = setUp({ features: BASE | F_MRG_RXBUF, size: 4 });
    for (let i = 0; i < 4; i++) rx.send([], [100]);
    arrive(frame(1000));
    arrive(frame(50));
    expect(device.counters).toMatchObject({ rxFrames: 1, rxErrors: 1 });
    expect(rx.collect()[0].bytes.subarray(HEADER)).toEqual(frame(50));
  });

  test('a buffer that cannot hold a header needs a reset', () => {
    const { driver, rx, arrive } = setUp();
    rx.send([], [HEADER - 1]);
    arrive(frame(60));
    expect(driver.status & NEEDS_RESET).toBe(NEEDS_RESET);
  });

  test('the queue can be reset while a frame waits in part of its buffers', () => {
    const { driver, rx, arrive } = setUp({ features: BASE | F_MRG_RXBUF });
    rx.send([], [100]);
    arrive(frame(150));
    expect(driver.resetQueue(0)).toBe(true);
    const again = driver.setUpQueue(0);
    again.send([], [100]);
    again.send([], [100]);
    expect(again.collect().length).toBe(2);
    expect(rx.collect()).toEqual([]);
  });

  test('a frame that comes while bus mastering is off waits', () => {
    const { driver, rx, arrive } = setUp();
    rx.send([], [200]);
    // As a kernel that starts another one leaves it.
    driver.pci.config.write(PCI.COMMAND, 2, PCI_COMMAND_MEMORY);
    arrive(frame(60));
    expect(rx.collect()).toEqual([]);
    driver.pci.config.write(PCI.COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    expect(rx.collect().length).toBe(1);
    expect(driver.faults).toEqual([]);
  });

  test('a reset forgets what waits', () => {
    const { driver, rx, arrive } = setUp();
    arrive(frame(60));
    driver.start(BASE);
    driver.queues[0].send([], [200]);
    expect(driver.queues[0].collect()).toEqual([]);
    expect(rx.collect()).toEqual([]);
    arrive(frame(70));
    expect(driver.queues[0].collect()[0].written).toBe(82);
  });

  test('frames longer than the MTU do not reach a driver that agreed on it (section 5.1.4.1)', () => {
    const { device, driver, rx, arrive } = setUp({ features: BASE | F_MTU, mtu: 1000 });
    expect(driver.config(10, 2)).toBe(1000);
    rx.send([], [4000]);
    arrive(frame(1000 + 14 + 4 + 1));
    expect(rx.collect()).toEqual([]);
    expect(device.counters.rxErrors).toBe(1);
    arrive(frame(1000 + 14));
    expect(rx.collect().length).toBe(1);
    const other = setUp({ mtu: 1000 });
    other.rx.send([], [4000]);
    other.arrive(frame(2000));
    expect(other.rx.collect().length).toBe(1);
  });
});

describe('sending', () => {
  test('what is shorter than a header is dropped', () => {
    const { backend, device, tx } = setUp();
    tx.request([new Uint8Array(HEADER - 1)], []);
    tx.request([new Uint8Array(HEADER)], []);
    expect(device.counters).toMatchObject({ txFrames: 0, txErrors: 2 });
    expect(backend.sent).toEqual([]);
  });

  test('a frame waits while the back end has no room, and those behind it', () => {
    const { backend, device, driver, tx } = setUp();
    backend.full = true;
    for (let i = 0; i < 5; i++) tx.send([new Uint8Array(HEADER), frame(60, i)], []);
    expect(tx.collect()).toEqual([]);
    driver.takeMessages();
    backend.full = false;
    backend.onWritable?.();
    expect(backend.sent).toEqual([0, 1, 2, 3, 4].map((seed) => frame(60, seed)));
    expect(tx.collect().length).toBe(5);
    expect(driver.takeMessages()).toEqual([2]);
    expect(device.counters).toMatchObject({ txFrames: 5, txDropped: 0 });
    backend.full = true;
    tx.send([new Uint8Array(HEADER), frame(60)], []);
    driver.resetQueue(1);
    backend.full = false;
    backend.onWritable?.();
    expect(backend.sent.length).toBe(5);
    driver.setUpQueue(1).request([new Uint8Array(HEADER), frame(61)], []);
    expect(backend.sent[5]).toEqual(frame(61));
  });

  test('a header goes along to a back end that has use for it', () => {
    const { backend, tx } = setUp({ backends: [new QuietNet({ headerSize: 12, offloads: 0x0f })] });
    const header = Uint8Array.of(1, 1, 54, 0, 160, 5, 34, 0, 16, 0, 0, 0);
    tx.request([header, frame(3000)], []);
    expect(backend.sent[0]).toEqual(Uint8Array.of(...header, ...frame(3000)));
  });
});

describe('the link', () => {
  test('goes down and up, and the driver is told', () => {
    const { backend, device, driver, rx, tx, arrive } = setUp();
    expect(driver.config(6, 2)).toBe(1);
    const before = driver.generation;
    device.setLink(false);
    device.setLink(false);
    expect(driver.takeMessages()).toEqual([0]);
    expect(driver.generation).not.toBe(before);
    expect(driver.config(6, 2)).toBe(0);
    rx.send([], [200]);
    arrive(frame(60));
    tx.request([new Uint8Array(HEADER), frame(60)], []);
    expect(rx.collect()).toEqual([]);
    expect(backend.sent).toEqual([]);
    expect(device.counters).toMatchObject({ rxDropped: 1, txDropped: 1 });
    device.setLink(true);
    expect(driver.config(6, 2)).toBe(1);
    arrive(frame(60));
    expect(rx.collect().length).toBe(1);
    device.setLink(false);
    driver.start(BASE);
    expect(driver.config(6, 2)).toBe(0);
  });
});

describe('the control queue', () => {
  test('sets the address, until a reset', () => {
    const { driver, command } = setUp();
    const address = () => [0, 1, 2, 3, 4, 5].map((i) => driver.config(i, 1));
    expect(address()).toEqual([...MAC]);
    expect(command(1, 1, Uint8Array.of(2, 0, 0, 0, 0, 1))).toBe(OK);
    expect(address()).toEqual([2, 0, 0, 0, 0, 1]);
    expect(command(1, 1, new Uint8Array(5))).toBe(ERR);
    expect(command(1, 2, new Uint8Array(6))).toBe(ERR);
    driver.start(BASE);
    expect(address()).toEqual([...MAC]);
  });

  test('has tables of addresses', () => {
    const { command } = setUp();
    const table = (count: number, bytes = count * 6) =>
      Uint8Array.of(count & 0xff, count >> 8, 0, 0, ...new Uint8Array(bytes));
    expect(command(1, 0, table(0), table(2))).toBe(OK);
    expect(command(1, 0, table(700), table(700))).toBe(OK);
    expect(command(1, 0, table(2, 11), new Uint8Array(0 + 1))).toBe(ERR);
    expect(command(1, 0)).toBe(ERR);
  });

  test('takes the modes of reception and VLANs', () => {
    const { command } = setUp();
    for (let mode = 0; mode < 6; mode++) {
      expect(command(0, mode, Uint8Array.of(1))).toBe(OK);
      expect(command(0, mode, Uint8Array.of(0))).toBe(OK);
      expect(command(0, mode)).toBe(ERR);
    }
    expect(command(0, 6, Uint8Array.of(1))).toBe(ERR);
    expect(command(2, 0, word(100))).toBe(OK);
    expect(command(2, 1, word(100))).toBe(OK);
    expect(command(2, 2, word(100))).toBe(ERR);
    expect(command(2, 0, Uint8Array.of(1))).toBe(ERR);
  });

  test('acknowledges an announcement', () => {
    const { device, driver, command } = setUp();
    device.announce();
    expect(driver.takeMessages()).toEqual([0]);
    expect(driver.config(6, 2)).toBe(3);
    expect(command(3, 0)).toBe(OK);
    expect(driver.config(6, 2)).toBe(1);
    expect(command(3, 1)).toBe(ERR);
  });

  test('answers what is unknown or too short with an error', () => {
    const { driver, control, command } = setUp();
    expect(command(9, 0)).toBe(ERR);
    expect(command(6, 0, new Uint8Array(100))).toBe(ERR);
    expect(control.request([Uint8Array.of(1)], [1]).bytes[0]).toBe(ERR);
    expect(control.request([], [1]).bytes[0]).toBe(ERR);
    expect(control.request([Uint8Array.of(1, 0)], []).written).toBe(0);
    expect(driver.faults).toEqual([]);
  });

  test('is queue 2 for a driver that uses one pair only (section 5.1.2)', () => {
    const { driver } = setUp({ features: BASE, backends: [new QuietNet(), new QuietNet()], which: [0, 1, 2] });
    expect(driver.queues[2].request([Uint8Array.of(0, 0), Uint8Array.of(1)], [1]).bytes[0]).toBe(OK);
  });
});

describe('pairs of queues', () => {
  const multi = (pairs: number) =>
    setUp({ features: BASE | F_MQ, backends: Array.from({ length: pairs }, () => new QuietNet()) });

  test('are used as the driver says', () => {
    const { device, driver, command } = multi(4);
    expect(driver.config(8, 2)).toBe(4);
    expect(device.pairs).toBe(1);
    expect(command(4, 0, word(3))).toBe(OK);
    expect(device.pairs).toBe(3);
    expect(command(4, 0, word(0))).toBe(ERR);
    expect(command(4, 0, word(5))).toBe(ERR);
    expect(command(4, 1, word(2))).toBe(ERR);
    expect(command(4, 0, Uint8Array.of(1))).toBe(ERR);
    expect(device.pairs).toBe(3);
    driver.start(BASE | F_MQ);
    expect(device.pairs).toBe(1);
  });

  test('frames of a back end whose pair is not used go to one that is', () => {
    const { driver, arrive, command, backends } = multi(2);
    const [first, , second] = driver.queues;
    for (let i = 0; i < 4; i++) {
      first.send([], [200]);
      second.send([], [200]);
    }
    arrive(frame(60, 1), 0);
    arrive(frame(60, 2), 1);
    expect(first.collect().map(({ bytes }) => bytes.subarray(HEADER))).toEqual([frame(60, 1), frame(60, 2)]);
    expect(second.collect()).toEqual([]);
    expect(command(4, 0, word(2))).toBe(OK);
    arrive(frame(60, 3), 1);
    expect(second.collect().map(({ bytes }) => bytes.subarray(HEADER))).toEqual([frame(60, 3)]);
    driver.queues[3].request([new Uint8Array(HEADER), frame(60, 4)], []);
    expect(backends[1].sent).toEqual([frame(60, 4)]);
  });

  test('what waits goes to the pair that is its own by then', () => {
    const { driver, arrive, command } = multi(2);
    const [, , second] = driver.queues;
    // A driver fills the queues of all pairs, and then says how many it uses.
    second.send([], [200]);
    arrive(frame(60, 5), 1);
    expect(second.collect()).toEqual([]);
    expect(command(4, 0, word(2))).toBe(OK);
    expect(second.collect().map(({ bytes }) => bytes.subarray(HEADER))).toEqual([frame(60, 5)]);
  });

  test('a frame waits for the pair that it goes to', () => {
    const { driver, arrive } = multi(2);
    arrive(frame(60, 2), 1);
    driver.queues[0].send([], [200]);
    expect(driver.queues[0].collect().length).toBe(1);
  });
});

describe('offloads', () => {
  const tap = () => new QuietNet({ headerSize: 12, offloads: 0x0f });

  test('are offered when the back end has them', () => {
    const all = F_GUEST_CSUM | F_GUEST_TSO4 | F_GUEST_TSO6 | F_GUEST_ECN | F_GUEST_OFFLOADS;
    expect(setUp({ backends: [tap()] }).driver.offered & all).toBe(all);
    expect(setUp().driver.offered & all).toBe(0n);
  });

  test('are set as the driver accepts them, without those whose base it leaves out', () => {
    const accepted = (features: bigint) => setUp({ backends: [tap()], features: BASE | features }).backend.accepted;
    expect(accepted(0n)).toBe(0);
    expect(accepted(F_GUEST_CSUM)).toBe(1);
    expect(accepted(F_GUEST_CSUM | F_GUEST_TSO4 | F_GUEST_TSO6 | F_GUEST_ECN)).toBe(0xf);
    expect(accepted(F_GUEST_TSO4 | F_GUEST_TSO6 | F_GUEST_ECN)).toBe(0);
    expect(accepted(F_GUEST_CSUM | F_GUEST_ECN)).toBe(1);
  });

  test('change by command, within what was negotiated', () => {
    const set = (features: bigint) => {
      const bytes = new Uint8Array(8);
      new DataView(bytes.buffer).setBigUint64(0, features, true);
      return bytes;
    };
    const { backend, command } = setUp({
      backends: [tap()],
      features: BASE | F_GUEST_OFFLOADS | F_GUEST_CSUM | F_GUEST_TSO4,
    });
    expect(command(5, 0, set(F_GUEST_CSUM))).toBe(OK);
    expect(backend.accepted).toBe(1);
    expect(command(5, 0, set(F_GUEST_CSUM | F_GUEST_TSO4))).toBe(OK);
    expect(backend.accepted).toBe(3);
    expect(command(5, 0, set(F_GUEST_CSUM | F_GUEST_TSO6))).toBe(ERR);
    expect(command(5, 0, set(1n << 60n))).toBe(ERR);
    expect(command(5, 1, set(0n))).toBe(ERR);
    expect(command(5, 0, new Uint8Array(7))).toBe(ERR);
    expect(backend.accepted).toBe(3);
    expect(setUp({ backends: [tap()] }).command(5, 0, set(0n))).toBe(ERR);
  });
});

test('what a snapshot has of it is what the driver has set', () => {
  const { driver, device, command } = setUp({
    features: (BASE | F_MQ) & ~RING_FEATURES,
    backends: [new QuietNet(), new QuietNet()],
  });
  command(1, 1, Uint8Array.of(2, 0, 0, 0, 0, 1));
  command(4, 0, word(2));
  device.announce();
  driver.pci.restore(JSON.parse(JSON.stringify(driver.pci.save())));
  expect(driver.config(0, 1)).toBe(2);
  expect(driver.config(6, 2)).toBe(3);
  expect(device.pairs).toBe(2);
  expect(driver.queues[1].request([new Uint8Array(HEADER), frame(60)], []).written).toBe(0);
});
