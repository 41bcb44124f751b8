import { connect, createServer, type Socket } from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import { SlirpBackend, type UserNetOptions } from '../../../src/net/slirp.ts';
import { slirpLibrary } from '../../../src/net/slirp_library.ts';
import { Reactor } from '../../../src/vmm/reactor.ts';

let missing: string | undefined;
try {
  slirpLibrary();
} catch (error) {
  missing = (error as Error).message;
}

const GUEST_MAC = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
const ETHERTYPE_IPV4 = 0x0800;

/** The loop that a machine's thread would be. */
class Loop {
  readonly reactor = new Reactor();
  readonly #timers = new Set<{ at: bigint | undefined; callback: () => void }>();
  readonly clock = {
    now: () => process.hrtime.bigint(),
    timer: (callback: () => void) => {
      const timer = { at: undefined as bigint | undefined, callback };
      this.#timers.add(timer);
      return {
        armAt: (ns: bigint) => {
          timer.at = ns;
        },
        cancel: () => void this.#timers.delete(timer),
      };
    },
  };

  async until(done: () => boolean): Promise<void> {
    const deadline = Date.now() + 5000;
    while (!done()) {
      if (Date.now() > deadline) throw new Error('Nothing came in five seconds.');
      this.reactor.wait(1);
      for (const timer of this.#timers) {
        if (timer.at === undefined || timer.at > process.hrtime.bigint()) continue;
        timer.at = undefined;
        timer.callback();
      }
      // Sockets of this test live on libuv's loop.
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
}

function guest(options: UserNetOptions = {}) {
  const loop = new Loop();
  const backend = new SlirpBackend(options, loop.reactor, loop.clock);
  const frames: Buffer[] = [];
  const buffer = new Uint8Array(70_000);
  backend.onReadable = () => {
    for (let length = backend.receive(buffer); length > 0; length = backend.receive(buffer)) {
      frames.push(Buffer.from(buffer.subarray(0, length)));
    }
  };
  const find = (filter: (frame: Buffer) => boolean) => frames.find(filter);
  const receive = async (filter: (frame: Buffer) => boolean) => {
    await loop.until(() => find(filter) !== undefined);
    return find(filter) as Buffer;
  };
  cleanup.push(() => {
    backend.close();
    loop.reactor.close();
  });
  return { backend, frames, receive, loop };
}

const cleanup: (() => void)[] = [];
afterEach(() => {
  for (const each of cleanup.splice(0)) each();
});

const ethernet = (type: number, payload: Buffer, to: readonly number[] = [255, 255, 255, 255, 255, 255]) =>
  Buffer.concat([Buffer.from([...to, ...GUEST_MAC, type >> 8, type & 0xff]), payload]);

function checksum(bytes: Buffer): number {
  let sum = 0;
  for (let i = 0; i < bytes.length; i += 2) sum += (bytes[i] << 8) | (bytes[i + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return ~sum & 0xffff;
}

function ipv4(protocol: number, from: readonly number[], to: readonly number[], payload: Buffer): Buffer {
  const header = Buffer.alloc(20);
  header.set([0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol]);
  header.writeUInt16BE(20 + payload.length, 2);
  header.set(from, 12);
  header.set(to, 16);
  header.writeUInt16BE(checksum(header), 10);
  return Buffer.concat([header, payload]);
}

function udp(from: number, to: number, payload: Buffer): Buffer {
  const header = Buffer.alloc(8);
  header.writeUInt16BE(from, 0);
  header.writeUInt16BE(to, 2);
  header.writeUInt16BE(8 + payload.length, 4);
  return Buffer.concat([header, payload]);
}

function dhcpDiscover(): Buffer {
  const message = Buffer.alloc(300);
  message.set([1, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef]);
  message.set(GUEST_MAC, 28);
  message.set([0x63, 0x82, 0x53, 0x63, 53, 1, 1, 255], 236);
  return ethernet(ETHERTYPE_IPV4, ipv4(17, [0, 0, 0, 0], [255, 255, 255, 255], udp(68, 67, message)));
}

const isType = (type: number) => (frame: Buffer) => frame.readUInt16BE(12) === type;

describe.skipIf(missing)(`user networking${missing ? ` (${missing})` : ''}`, () => {
  test('DHCP offers the first address of the network, its host and its name server', async () => {
    const { backend, receive } = guest({ net: '192.168.77.0/24' });
    backend.send(dhcpDiscover());
    const offer = await receive((frame) => isType(ETHERTYPE_IPV4)(frame) && frame.readUInt16BE(36) === 68);
    const message = offer.subarray(42);
    expect([...message.subarray(16, 20)]).toEqual([192, 168, 77, 15]);
    const options = new Map<number, number[]>();
    for (let at = 240; message[at] !== 255; at += 2 + message[at + 1]) {
      options.set(message[at], [...message.subarray(at + 2, at + 2 + message[at + 1])]);
    }
    expect(options.get(53)).toEqual([2]);
    expect(options.get(3)).toEqual([192, 168, 77, 2]);
    expect(options.get(6)).toEqual([192, 168, 77, 3]);
  });

  test("a connection to a forwarded port of the host arrives as the guest's", async () => {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as { port: number };
    await new Promise((resolve) => server.close(resolve));
    const { backend, receive } = guest({
      hostForwards: [{ protocol: 'tcp', hostAddress: '127.0.0.1', hostPort: port, guestPort: 22 }],
    });
    backend.send(dhcpDiscover());
    await receive(isType(ETHERTYPE_IPV4));
    const socket: Socket = connect(port, '127.0.0.1');
    socket.on('error', () => {});
    cleanup.push(() => socket.destroy());
    const syn = await receive((frame) => isType(ETHERTYPE_IPV4)(frame) && frame[23] === 6);
    expect([...syn.subarray(30, 34)]).toEqual([10, 0, 2, 15]);
    expect(syn.readUInt16BE(36)).toBe(22);
    expect(syn[47] & 0x3f).toBe(0x02);
  });

  test('a port that is taken is said with its number, and the back end is gone', async () => {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as { port: number };
    cleanup.push(() => server.close());
    expect(() =>
      guest({ hostForwards: [{ protocol: 'tcp', hostAddress: '127.0.0.1', hostPort: port, guestPort: 22 }] }),
    ).toThrow(`The host's tcp port 127.0.0.1:${port} cannot be forwarded.`);
  });

  test('words that are no network are refused', () => {
    expect(() => guest({ net: '10.0.2/24' })).toThrow('is no IPv4 address');
    expect(() => guest({ net: '10.0.2.0/31' })).toThrow('is no network for a guest');
  });

  test('a guest that takes no frames does not grow us', async () => {
    const loop = new Loop();
    const backend = new SlirpBackend({}, loop.reactor, loop.clock);
    cleanup.push(() => backend.close());
    for (let i = 0; i < 2000; i++) backend.send(dhcpDiscover());
    let waiting = 0;
    const buffer = new Uint8Array(70_000);
    while (backend.receive(buffer) > 0) waiting++;
    expect(waiting).toBeGreaterThan(0);
    expect(waiting).toBeLessThanOrEqual(256);
  });

  test('frames of noise do no harm', () => {
    const { backend } = guest();
    for (let length = 0; length < 400; length++) {
      backend.send(Buffer.from(Array.from({ length }, (_, i) => (i * 7 + length * 13) & 0xff)));
    }
    backend.send(dhcpDiscover());
  });
});
