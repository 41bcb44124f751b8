import { describe, expect, test } from 'vitest';
import type { ByteChannel } from '../../../src/devices/device.ts';
import { VirtioConsole } from '../../../src/devices/virtio/console.ts';
import { random } from '../../support/random.ts';
import { F_RING_RESET, F_VERSION_1, MockDriver, NEEDS_RESET, RINGS } from '../../support/virtio_driver.ts';

const F_SIZE = 1n << 0n;
const F_MULTIPORT = 1n << 1n;
const BASE = F_VERSION_1 | F_RING_RESET | F_SIZE;

const [READY, ADD, , PORT_READY, CONSOLE, RESIZE, OPEN, NAME] = [0, 1, 2, 3, 4, 5, 6, 7];

/** Takes so many bytes as a test lets it. */
class Line implements ByteChannel {
  written: number[] = [];
  input: number[] = [];
  room = Number.POSITIVE_INFINITY;
  onReadable?: () => void;
  onWritable?: () => void;

  get readable(): boolean {
    return this.input.length > 0;
  }

  read(): number {
    return this.input.shift() ?? -1;
  }

  write(bytes: Uint8Array): number {
    const taken = Math.min(bytes.length, this.room);
    for (const byte of bytes.subarray(0, taken)) this.written.push(byte);
    this.room -= taken;
    return taken;
  }

  arrive(text: string): void {
    this.input.push(...Buffer.from(text));
    this.onReadable?.();
  }

  get text(): string {
    return Buffer.from(this.written).toString();
  }
}

const text = (words: string) => Uint8Array.from(Buffer.from(words));

function setUp(features = BASE | F_MULTIPORT) {
  const lines = [new Line(), new Line(), new Line()];
  const opened: [number, boolean][] = [];
  const onGuestOpen = (id: number) => (open: boolean) => void opened.push([id, open]);
  const device = new VirtioConsole({
    name: 'console',
    ports: [
      { channel: lines[0], onGuestOpen: onGuestOpen(0) },
      { channel: lines[1], name: 'org.example.agent', onGuestOpen: onGuestOpen(1) },
      { channel: lines[2], name: 'com2', console: true, open: false, onGuestOpen: onGuestOpen(2) },
    ],
    columns: 100,
    rows: 30,
  });
  const driver = new MockDriver(device, { packed: true, inOrder: true });
  driver.start(features);
  driver.takeMessages();
  const { queues } = driver;
  /** Messages that came since, as id, event, value and what follows. */
  const heard = () =>
    queues[2].collect().map(({ bytes }) => {
      const view = new DataView(bytes.buffer);
      const more = bytes.subarray(8);
      const event = view.getUint16(4, true);
      return [
        view.getUint32(0, true),
        event,
        view.getUint16(6, true),
        ...(event === RESIZE ? [view.getUint16(8, true), view.getUint16(10, true)] : []),
        ...(event === NAME ? [Buffer.from(more).toString()] : []),
      ];
    });
  const say = (id: number, event: number, value: number) => {
    const bytes = new Uint8Array(8);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, id, true);
    view.setUint16(4, event, true);
    view.setUint16(6, value, true);
    queues[3].request([bytes], []);
  };
  const room = (count: number) => {
    for (let i = 0; i < count; i++) queues[2].send([], [64]);
  };
  return { device, driver, lines, opened, queues, heard, say, room };
}

/** All ports ready and open, nothing left to be heard. */
function open(features?: bigint) {
  const all = setUp(features);
  all.room(20);
  all.say(0, READY, 1);
  for (const id of [0, 1, 2]) {
    all.say(id, PORT_READY, 1);
    all.say(id, OPEN, 1);
  }
  all.heard();
  all.driver.takeMessages();
  return all;
}

describe('ports', () => {
  test('are made known one after the other', () => {
    const { driver, heard, say, room } = setUp();
    expect(driver.config(4, 4)).toBe(3);
    expect(driver.queues.length).toBe(8);
    room(12);
    expect(heard()).toEqual([]);
    say(0, READY, 1);
    expect(heard()).toEqual([
      [0, ADD, 1],
      [1, ADD, 1],
      [2, ADD, 1],
    ]);
    say(0, PORT_READY, 1);
    expect(heard()).toEqual([
      [0, CONSOLE, 1],
      [0, RESIZE, 0, 100, 30],
      [0, OPEN, 1],
    ]);
    say(1, PORT_READY, 1);
    expect(heard()).toEqual([
      [1, NAME, 1, 'org.example.agent'],
      [1, OPEN, 1],
    ]);
    say(2, PORT_READY, 1);
    expect(heard()).toEqual([
      [2, CONSOLE, 1],
      [2, RESIZE, 0, 100, 30],
      [2, NAME, 1, 'com2'],
    ]);
    say(0, READY, 0);
    say(0, PORT_READY, 0);
    say(99, PORT_READY, 1);
    say(99, OPEN, 1);
    say(0, 77, 1);
    expect(heard()).toEqual([]);
    expect(driver.faults).toEqual([]);
  });

  test('messages wait for room, and do not pile up', () => {
    const { device, heard, say, room } = setUp();
    for (let i = 0; i < 100; i++) {
      say(0, READY, 1);
      for (const id of [0, 1, 2]) say(id, PORT_READY, 1);
      device.setOpen(1, i % 2 === 1);
    }
    room(2);
    expect(heard().length).toBe(2);
    room(30);
    expect(heard().length).toBe(9);
    device.setOpen(1, false);
    device.setOpen(1, true);
    device.setOpen(1, true);
    expect(heard()).toEqual([
      [1, OPEN, 0],
      [1, OPEN, 1],
    ]);
  });

  test('are open at the guest’s end when it says so', () => {
    const { device, driver, opened, say } = setUp();
    expect(device.guestOpen(1)).toBe(false);
    say(1, OPEN, 1);
    expect(device.guestOpen(1)).toBe(true);
    say(1, OPEN, 1);
    say(1, OPEN, 0);
    say(2, OPEN, 1);
    driver.reset();
    expect(opened).toEqual([
      [1, true],
      [1, false],
      [2, true],
      [2, false],
    ]);
    expect(() => device.setOpen(3, true)).toThrow(/no port 3/);
  });

  test('there is one, and it is open, for a driver that knows no others', () => {
    const { device, driver, lines, queues } = setUp(BASE);
    expect(device.guestOpen(0)).toBe(true);
    queues[0].send([], [10]);
    lines[0].arrive('hello');
    expect(queues[0].collect()[0].bytes).toEqual(text('hello'));
    queues[1].request([text('world')], []);
    expect(lines[0].text).toBe('world');
    driver.takeMessages();
    device.resize(0, 132, 50);
    expect(driver.takeMessages()).toEqual([0]);
    expect([driver.config(0, 2), driver.config(2, 2)]).toEqual([132, 50]);
    queues[3].send([Uint8Array.of(0, 0, 0, 0, 0, 0, 1, 0)], []);
    expect(queues[3].collect()).toEqual([]);
  });

  test('terminals are told of a new size', () => {
    const { device, driver, heard } = open();
    device.resize(0, 132, 50);
    expect(driver.takeMessages()).toEqual([3]);
    device.resize(2, 90, 20);
    // A port that is no terminal has no size.
    device.resize(1, 10, 10);
    driver.takeMessages();
    expect(heard()).toEqual([
      [0, RESIZE, 0, 132, 50],
      [2, RESIZE, 0, 90, 20],
    ]);
    expect([driver.config(0, 2), driver.config(2, 2)]).toEqual([132, 50]);
  });
});

describe.each(RINGS)('bytes, $name', ({ features }) => {
  const start = () => open(features | F_SIZE | F_MULTIPORT | F_RING_RESET);

  test('go both ways, each port its own', () => {
    const { device, lines, queues } = start();
    device.setOpen(2, true);
    for (const [id, receive] of [
      [0, 0],
      [1, 4],
      [2, 6],
    ]) {
      queues[receive].send([], [5, 5]);
      queues[receive].send([], [5, 5]);
      lines[id].arrive(`this is port ${id}`);
      expect(queues[receive].collect().map(({ bytes }) => Buffer.from(bytes).toString())).toEqual([
        'this is po',
        `rt ${id}`,
      ]);
      queues[receive + 1].request([text('port '), text(`${id} says`)], []);
      expect(lines[id].text).toBe(`port ${id} says`);
    }
  });

  test('wait in the channel until the guest has room and is there', () => {
    const { lines, queues, say } = start();
    lines[1].arrive('abcdef');
    expect(lines[1].input.length).toBe(6);
    queues[4].send([], [4]);
    expect(Buffer.from(queues[4].collect()[0].bytes).toString()).toBe('abcd');
    expect(lines[1].input.length).toBe(2);
    say(1, OPEN, 0);
    queues[4].send([], [4]);
    lines[1].arrive('g');
    expect(queues[4].collect()).toEqual([]);
    say(1, OPEN, 1);
    expect(Buffer.from(queues[4].collect()[0].bytes).toString()).toBe('efg');
  });

  test('wait in the guest until the channel has room', () => {
    const { device, driver, lines, queues } = start();
    const [line] = lines;
    line.room = 5;
    queues[1].send([text('hello ')], []);
    queues[1].send([text('world')], []);
    expect(line.text).toBe('hello');
    expect(queues[1].collect()).toEqual([]);
    line.room = 3;
    line.onWritable?.();
    expect(queues[1].collect().length).toBe(1);
    expect(line.text).toBe('hello wo');
    // What has gone does not go again after a snapshot.
    driver.pci.restore(JSON.parse(JSON.stringify(driver.pci.save())));
    line.room = 100;
    line.onWritable?.();
    expect(line.text).toBe('hello world');
    expect(queues[1].collect().length).toBe(1);
    expect(device.guestOpen(0)).toBe(true);
    line.room = 0;
    queues[1].send([text('lost')], []);
    expect(queues[1].collect()).toEqual([]);
    device.setOpen(0, false);
    expect(queues[1].collect().length).toBe(1);
    queues[1].request([text('lost too')], []);
    expect(line.text).toBe('hello world');
  });

  test('come whole and in order through any back pressure', () => {
    const { driver, lines, queues } = start();
    const [line] = lines;
    const pick = random(4711);
    const mark = driver.allocated;
    let sent = '';
    let received = '';
    let given = '';
    for (let round = 0; round < 2000; round++) {
      if (queues[1].outstanding.size === 0 && queues[0].outstanding.size === 0) driver.release(mark);
      if (pick(2) && queues[1].outstanding.size < 8) {
        const words = `<${round}>`.repeat(1 + pick(20));
        sent += words;
        queues[1].send([text(words.slice(0, 2)), text(words.slice(2))], []);
      }
      if (pick(2) && queues[0].outstanding.size < 8) queues[0].send([], [1 + pick(30)]);
      if (pick(2)) {
        const words = `[${round}]`;
        given += words;
        line.arrive(words);
      }
      line.room = pick(60);
      line.onWritable?.();
      queues[1].collect();
      for (const { bytes } of queues[0].collect()) received += Buffer.from(bytes).toString();
      // Buffers that the device holds stand in the way of taking the memory back.
      if (driver.allocated > 900_000) {
        line.room = 1e6;
        line.onWritable?.();
        queues[1].collect();
        while (queues[0].outstanding.size > 0) {
          given += '.';
          line.arrive('.');
          for (const { bytes } of queues[0].collect()) received += Buffer.from(bytes).toString();
        }
      }
    }
    line.room = Number.POSITIVE_INFINITY;
    line.onWritable?.();
    expect(line.text).toBe(sent);
    expect(given.startsWith(received)).toBe(true);
    expect(received.length + line.input.length).toBe(given.length);
    expect(driver.faults).toEqual([]);
  });
});

test('a restored guest hears who is at this end now', () => {
  const { device, driver, heard, room } = open();
  room(10);
  const saved = JSON.parse(JSON.stringify(driver.pci.save()));
  driver.pci.restore(saved);
  expect(heard()).toEqual([]);
  device.setOpen(1, false);
  expect(heard()).toEqual([[1, OPEN, 0]]);
  driver.pci.restore(JSON.parse(JSON.stringify(driver.pci.save())));
  device.setOpen(1, true);
  heard();
  const before = JSON.parse(JSON.stringify(driver.pci.save()));
  before.virtio.device.ports[1].hostOpen = false;
  driver.pci.restore(before);
  expect(heard()).toEqual([[1, OPEN, 1]]);
});

test('an emergency needs no queue', () => {
  const { driver, lines } = setUp();
  driver.reset();
  for (const byte of text('oops')) driver.setConfig(8, 4, byte);
  expect(lines[0].text).toBe('oops');
});

test('a queue is reset while it holds a part of a buffer', () => {
  const { driver, lines, queues } = open();
  lines[0].room = 2;
  queues[1].send([text('four')], []);
  expect(driver.resetQueue(1)).toBe(true);
  const again = driver.setUpQueue(1);
  lines[0].room = 100;
  lines[0].onWritable?.();
  again.request([text('more')], []);
  expect(lines[0].text).toBe('fomore');
});

test('a receive buffer that is none needs a reset', () => {
  const { driver, lines, queues } = open();
  queues[0].send([text('readable')], []);
  lines[0].arrive('x');
  expect(driver.status & NEEDS_RESET).toBe(NEEDS_RESET);
});
