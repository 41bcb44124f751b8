/** Network cards that change under a driver: limits by counts, networks that are exchanged, forwarded ports. */
import { createServer } from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import { type NetBackendDescription, netBackendSchema } from '../../../src/client/description.ts';
import { NemuError } from '../../../src/client/errors.ts';
import { parseNetChange } from '../../../src/client/live_change.ts';
import { VirtioNet } from '../../../src/devices/virtio/net.ts';
import { type NetBackend, NetError } from '../../../src/net/backend.ts';
import { SlirpBackend } from '../../../src/net/slirp.ts';
import { slirpLibrary } from '../../../src/net/slirp_library.ts';
import { LiveNets, slirpOf } from '../../../src/vmm/live_nets.ts';
import { MeteredNet, type NetLimits, WaitMeter } from '../../../src/vmm/metered_net.ts';
import { Reactor } from '../../../src/vmm/reactor.ts';
import { freePort } from '../../support/cli.ts';
import { FakeClock } from '../../support/fake_clock.ts';
import { random as seeded } from '../../support/random.ts';
import { QuietNet } from '../../support/virtio_backends.ts';
import { MockDriver } from '../../support/virtio_driver.ts';

const MAC = Uint8Array.of(0x52, 0x54, 0, 0x12, 0x34, 0x56);
const HEADER = new Uint8Array(12);
const frame = (length: number) => new Uint8Array(length).fill(1);

const cleanup: (() => void)[] = [];
afterEach(() => {
  for (const each of cleanup.splice(0).reverse()) each();
});

interface SetUp {
  readonly limits?: NetLimits;
  readonly backends?: NetBackend[];
  readonly open?: (net: NetBackendDescription) => NetBackend[];
}

function setUp(given: SetUp = {}) {
  const backends = given.backends ?? [new QuietNet()];
  const clock = new FakeClock();
  const net = new MeteredNet(backends, clock, given.limits);
  const waits = { rx: new WaitMeter(), tx: new WaitMeter() };
  const device = new VirtioNet({
    ...{ name: 'net0', backends: net.ports, mac: MAC },
    onWait: (direction, ms) => waits[direction].add(ms),
  });
  const nets = new LiveNets({
    open:
      given.open ??
      (() => {
        throw new NemuError('NET', 'There is none.');
      }),
  });
  const description = netBackendSchema.parse({ type: 'user', queues: 1 });
  nets.add('net0', { ...{ net, device, mac: 'x', waits, description }, slirp: slirpOf(backends) });
  const driver = new MockDriver(device, { memory: 2 ** 23 });
  const [rx, tx] = driver.start();
  driver.takeMessages();
  cleanup.push(() => net.close());
  const change = (input: unknown) => nets.change('net0', parseNetChange(input));
  const report = () => nets.report()[0];
  return { backends, clock, net, device, driver, rx, tx, nets, change, report };
}

describe('limits of a network card', () => {
  test.each([
    [{ pps: 100 }, 60, 500, 5],
    [{ ppsTx: 100, ppsRx: 1 }, 60, 200, 2],
    [{ bps: 1e6 }, 1500, 2000, 3],
    [{ bpsTx: 1e6, pps: 1e9 }, 1500, 2000, 3],
  ])('%o: %i-byte packets that are sent wait in the queue of the guest, none is lost', (limits, bytes, count, time) => {
    const { backends, clock, tx, report } = setUp({ limits });
    const [quiet] = backends as QuietNet[];
    let sent = 0;
    for (let done = 0; done < count; ) {
      for (let i = 0; i < 50; i++) tx.add([HEADER, frame(bytes)], []);
      tx.kick();
      let back = tx.collect().length;
      while (back < 50 && clock.next()) back += tx.collect().length;
      done += back;
      sent += quiet.sent.splice(0).length;
    }
    expect(sent).toBe(count);
    expect(clock.seconds).toBeGreaterThan(time * 0.88);
    expect(clock.seconds).toBeLessThan(time * 1.05);
    const { tx: told } = report();
    expect(told).toMatchObject({ packets: count, bytes: count * bytes, dropped: 0, errors: 0 });
    expect(told.waited).toBeGreaterThan(0);
    expect(told.wait.reduce((sum, each) => sum + each, 0)).toBe(count);
  });

  test('packets that are received stay with the back end', () => {
    const { backends, clock, rx, report } = setUp({ limits: { ppsRx: 10, ppsMax: 20 } });
    const [quiet] = backends as QuietNet[];
    for (let i = 0; i < 100; i++) rx.add([], [200]);
    rx.kick();
    for (let i = 0; i < 100; i++) quiet.frames.push(frame(60));
    quiet.onReadable?.();
    expect(rx.collect().length).toBe(20);
    expect(quiet.frames.length).toBe(80);
    expect(report()).toMatchObject({ rx: { packets: 20, throttled: true }, tx: { throttled: false } });
    // It may say so again: that changes nothing.
    quiet.onReadable?.();
    expect(rx.collect().length).toBe(0);
    let received = 20;
    while (clock.next()) received += rx.collect().length;
    expect(received).toBe(100);
    expect(clock.seconds).toBeCloseTo(8, 0);
  });

  test('are lifted at once, and one direction does not wait for the other', () => {
    const { backends, tx, rx, change, report } = setUp({ limits: { ppsTx: 10, ppsMax: 1 } });
    const [quiet] = backends as QuietNet[];
    for (let i = 0; i < 30; i++) tx.add([HEADER, frame(60)], []);
    tx.kick();
    expect(quiet.sent.length).toBe(1);
    rx.send([], [200]);
    quiet.frames.push(frame(60));
    quiet.onReadable?.();
    expect(rx.collect().length).toBe(1);
    expect(report().tx.throttled).toBe(true);
    expect(change({ action: 'throttle', limits: {} })).toMatchObject({ throttle: {}, tx: { throttled: false } });
    expect(quiet.sent.length).toBe(30);
    expect(tx.collect().length).toBe(30);
  });

  test('never more than the limits in any window, whatever comes', () => {
    for (let seed = 1; seed <= 20; seed++) {
      const random = seeded(seed);
      const limits = { pps: 20 + random(200), bps: 20_000 + random(100_000) };
      const { backends, clock, rx, tx } = setUp({ limits });
      const [quiet] = backends as QuietNet[];
      const passed: { at: number; bytes: number }[] = [];
      const look = () => {
        for (const { length } of quiet.sent.splice(0)) passed.push({ at: clock.seconds, bytes: length });
        for (const { written } of rx.collect()) passed.push({ at: clock.seconds, bytes: written - 12 });
        tx.collect();
      };
      for (let i = 0; i < 120; i++) {
        const bytes = 60 + random(1400);
        if (random(2)) tx.send([HEADER, frame(bytes)], []);
        else {
          rx.send([], [1600]);
          quiet.frames.push(frame(bytes));
          quiet.onReadable?.();
        }
        look();
        if (random(4) === 0) clock.time += BigInt(random(50_000_000));
        if (random(3) === 0 && clock.next()) look();
      }
      while (clock.next()) look();
      expect(passed.length).toBe(120);
      for (const { at } of passed.filter((_, i) => i % 5 === 0)) {
        const window = passed.filter((each) => each.at >= at && each.at < at + 1);
        expect(window.length).toBeLessThanOrEqual(limits.pps * 1.1 + 2);
        // A received packet is weighed after it was taken.
        const bytes = window.reduce((sum, each) => sum + each.bytes, 0);
        expect(bytes).toBeLessThanOrEqual(limits.bps * 1.1 + 3 * 1500);
      }
    }
  });
});

describe('the link and the losses', () => {
  test('are told by direction', () => {
    const { backends, change, driver, rx, tx, report } = setUp();
    const [quiet] = backends as QuietNet[];
    expect(change({ action: 'link', up: false })).toMatchObject({ link: false });
    expect(driver.config(6, 2) & 1).toBe(0);
    rx.add([], [50]);
    rx.kick();
    quiet.frames.push(frame(60));
    quiet.onReadable?.();
    tx.request([HEADER, frame(60)], []);
    change({ action: 'link', up: true });
    tx.request([HEADER, frame(5)], []);
    quiet.lost.rxDropped = 3;
    quiet.lost.txErrors = 2;
    const { rx: received, tx: sent } = report();
    expect(received).toMatchObject({ packets: 0, dropped: 4, errors: 0 });
    expect(sent).toMatchObject({ packets: 0, dropped: 1, errors: 3 });
  });
});

describe('another network', () => {
  test('takes what is sent from then on; what was lost before is still told', () => {
    const next = new QuietNet({ headerSize: 12, offloads: 0x0f });
    const { backends, change, rx, tx, report } = setUp({ open: () => [next] });
    const [first] = backends as QuietNet[];
    first.lost.rxDropped = 5;
    tx.request([HEADER, frame(60)], []);
    next.frames.push(Uint8Array.of(...HEADER, ...frame(61)));
    rx.send([], [200]);
    expect(change({ action: 'backend', backend: { type: 'tap', ifname: 'tap7' } })).toMatchObject({ type: 'tap' });
    // What it had ready comes without being asked for.
    expect(rx.collect().map(({ written }) => written)).toEqual([73]);
    expect(first.onReadable).toBeUndefined();
    tx.request([HEADER, frame(62)], []);
    expect([first.sent.length, next.sent.map(({ length }) => length)]).toEqual([1, [74]]);
    expect(report()).toMatchObject({ ifname: 'tap7', rx: { packets: 1, dropped: 5 }, tx: { packets: 2, bytes: 122 } });
  });

  test('a driver that leaves checksums to a tap need not know that the next network has no use for them', () => {
    const next = new QuietNet();
    const { change, tx } = setUp({
      backends: [new QuietNet({ headerSize: 12, offloads: 0x0f })],
      open: () => [next],
    });
    change({ action: 'backend', backend: { type: 'user' } });
    // A UDP datagram whose checksum is that of its pseudo header so far (RFC 768): 10.0.2.15 to 10.0.2.2, 9 bytes.
    const datagram = Uint8Array.of(0, 68, 0, 67, 0, 9, 0, 0, 0x41);
    const pseudo = 0x0a00 + 0x020f + 0x0a00 + 0x0202 + 17 + 9;
    datagram[6] = pseudo >> 8;
    datagram[7] = pseudo & 0xff;
    const packet = Uint8Array.of(...new Uint8Array(34), ...datagram);
    const header = Uint8Array.of(1, 0, 0, 0, 0, 0, 34, 0, 6, 0, 0, 0);
    tx.request([header, packet], []);
    const [sent] = next.sent;
    expect(sent.length).toBe(43);
    let sum = 0x0a00 + 0x020f + 0x0a00 + 0x0202 + 17 + 9;
    for (let i = 34; i < 43; i += 2) sum += (sent[i] << 8) | (sent[i + 1] ?? 0);
    while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
    expect(sum).toBe(0xffff);
    // Where a checksum is not in the packet, nothing is written.
    for (const [start, offset] of [
      [60, 0],
      [42, 0],
      [0xffff, 0xffff],
    ]) {
      tx.request(
        [Uint8Array.of(1, 0, 0, 0, 0, 0, start & 0xff, start >> 8, offset & 0xff, offset >> 8, 0, 0), packet],
        [],
      );
      expect(next.sent.at(-1)).toEqual(packet);
    }
  });

  test('that cannot be had leaves the card where it is', () => {
    const { backends, change, tx, nets } = setUp();
    expect(() => change({ action: 'backend', backend: { type: 'tap' } })).toThrow('There is none.');
    expect(() => change({ action: 'backend', backend: { type: 'tap', queues: 2 } })).toThrow('1 pairs of queues');
    expect(() => change({ action: 'backend', backend: { type: 'user', ifname: 'x' } })).toThrow('ifname=');
    expect(() => change({ action: 'forward', add: [{ hostPort: 1, guestPort: 1 }] })).toThrow('forwards no ports');
    expect(() => nets.change('net1', parseNetChange({ action: 'link', up: true }))).toThrow('no network card "net1"');
    tx.request([HEADER, frame(60)], []);
    expect((backends as QuietNet[])[0].sent.length).toBe(1);
  });
});

let missing: string | undefined;
try {
  slirpLibrary();
} catch (error) {
  missing = (error as Error).message;
}

describe.skipIf(missing)(`forwarded ports${missing ? ` (${missing})` : ''}`, () => {
  function user() {
    const reactor = new Reactor();
    cleanup.push(() => reactor.close());
    const clock = { now: () => process.hrtime.bigint(), timer: () => ({ armAt: () => {}, cancel: () => {} }) };
    const open = ({ hostForwards }: NetBackendDescription): NetBackend[] => {
      try {
        return [new SlirpBackend({ hostForwards: hostForwards as never }, reactor, clock)];
      } catch (cause) {
        throw cause instanceof NetError ? new NemuError('NET', cause.message) : cause;
      }
    };
    return setUp({ backends: open(netBackendSchema.parse({ type: 'user' })), open });
  }

  /** Whether somebody listens at a port of this host. */
  const listens = (port: number) =>
    new Promise<boolean>((resolve) => {
      const server = createServer().once('error', () => resolve(true));
      server.listen(port, '127.0.0.1', () => server.close(() => resolve(false)));
    });

  test('come and go', async () => {
    const { change, report } = user();
    const [a, b] = [await freePort(), await freePort()];
    change({ action: 'forward', add: [{ hostPort: a, guestPort: 22 }] });
    expect(report().hostForwards).toMatchObject([{ protocol: 'tcp', hostAddress: '127.0.0.1', hostPort: a }]);
    expect([await listens(a), await listens(b)]).toEqual([true, false]);
    change({ action: 'forward', add: [{ hostPort: b, guestPort: 23 }], remove: [{ hostPort: a }] });
    expect([await listens(a), await listens(b)]).toEqual([false, true]);
    expect(() => change({ action: 'forward', remove: [{ hostPort: a }] })).toThrow(
      `does not forward tcp 127.0.0.1:${a}`,
    );
    expect(report().hostForwards.length).toBe(1);
  });

  test('are all as they were when one of them cannot be had', async () => {
    const { change, report } = user();
    const [a, b] = [await freePort(), await freePort()];
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    cleanup.push(() => server.close());
    const { port: taken } = server.address() as { port: number };
    change({ action: 'forward', add: [{ hostPort: a, guestPort: 22 }] });
    const before = report().hostForwards;
    const add = [
      { hostPort: b, guestPort: 23 },
      { hostPort: taken, guestPort: 24 },
    ];
    expect(() => change({ action: 'forward', add, remove: [{ hostPort: a }] })).toThrow('cannot be forwarded');
    expect(report().hostForwards).toEqual(before);
    expect([await listens(a), await listens(b)]).toEqual([true, false]);
    const hostForwards = [{ hostPort: a, guestPort: 25 }, ...add];
    expect(() => change({ action: 'backend', backend: { type: 'user', hostForwards } })).toThrow('cannot be forwarded');
    expect(report().hostForwards).toEqual(before);
    expect([await listens(a), await listens(b)]).toEqual([true, false]);
    // A network that forwards the same port takes it over.
    change({ action: 'backend', backend: { type: 'user', hostForwards: hostForwards.slice(0, 2) } });
    expect(report().hostForwards).toMatchObject([{ guestPort: 25 }, { guestPort: 23 }]);
    expect([await listens(a), await listens(b)]).toEqual([true, true]);
  });
});
