import { Arena } from '../ffi/arena.ts';
import { check, close, EAGAIN, EBUSY, EPERM, errno, O_NONBLOCK, O_RDWR, open, raw, SystemError } from '../ffi/libc.ts';
import {
  IFF_MULTI_QUEUE,
  IFF_NO_PI,
  IFF_TAP,
  IFF_VNET_HDR,
  IFNAMSIZ,
  ifreq,
  TUNSETIFF,
  TUNSETOFFLOAD,
  TUNSETVNETHDRSZ,
} from '../ffi/tun.ts';
import {
  MAX_FRAME,
  type NetBackend,
  NetError,
  OFFLOAD_CSUM,
  OFFLOAD_TSO_ECN,
  OFFLOAD_TSO4,
  OFFLOAD_TSO6,
  type Poller,
} from './backend.ts';

const HEADER_SIZE = 12;

export interface TapOptions {
  /** Interface name; without one the kernel gives the next free `tapN`. */
  readonly ifname?: string;
  /** Queues of the interface: each is a back end of its own. */
  readonly queues?: number;
}

/** One queue of a tap interface of the host. */
export class TapBackend implements NetBackend {
  readonly name: string;
  readonly headerSize = HEADER_SIZE;
  readonly offloads = OFFLOAD_CSUM | OFFLOAD_TSO4 | OFFLOAD_TSO6 | OFFLOAD_TSO_ECN;
  onReadable: (() => void) | undefined;
  onWritable: (() => void) | undefined;
  /** What the interface drops before we see it, the kernel counts: /sys/class/net/tap0/statistics. */
  readonly lost = { rxDropped: 0, txErrors: 0 };
  readonly #fd: number;
  readonly #poller: Poller;
  #polled = false;

  constructor(name: string, fd: number, poller: Poller) {
    this.name = name;
    this.#fd = fd;
    this.#poller = poller;
    this.#poll();
  }

  #poll(): void {
    if (this.#polled) return;
    this.#polled = true;
    this.#poller.add(this.#fd, () => {
      // Level-triggered: a guest without receive buffers must not make the loop spin.
      this.#unpoll();
      this.onReadable?.();
    });
  }

  #unpoll(): void {
    if (this.#polled) this.#poller.remove(this.#fd);
    this.#polled = false;
  }

  send(frame: Uint8Array): boolean {
    // A tap interface takes or drops a frame at once; one that is down (EIO) drops it.
    if (raw.write(this.#fd, frame, frame.length) < 0) this.lost.txErrors++;
    return true;
  }

  receive(into: Uint8Array): number {
    const length = raw.read(this.#fd, into, Math.min(into.length, MAX_FRAME));
    if (length > 0) return length;
    if (length < 0 && errno() !== EAGAIN) return 0;
    this.#poll();
    return 0;
  }

  setOffloads(offloads: number): void {
    check(raw.ioctl(this.#fd, TUNSETOFFLOAD, offloads & this.offloads), 'ioctl', 'TUNSETOFFLOAD', offloads);
  }

  close(): void {
    this.#unpoll();
    close(this.#fd);
  }
}

/**
 * Opens a tap interface: one back end for each queue.
 * @throws NetError that names the interface and what is missing.
 */
export function openTap(options: TapOptions, poller: Poller): TapBackend[] {
  const queues = options.queues ?? 1;
  const wanted = options.ifname ?? 'tap%d';
  if (Buffer.byteLength(wanted) >= IFNAMSIZ || !/^[^\s/]+$/.test(wanted)) {
    throw new NetError(
      `"${wanted}" cannot be the name of an interface: that has ${IFNAMSIZ - 1} bytes at most, and neither spaces nor slashes.`,
    );
  }
  const backends: TapBackend[] = [];
  const arena = new Arena(4096);
  try {
    let name = wanted;
    for (let queue = 0; queue < queues; queue++) {
      const fd = openTun();
      try {
        const request = arena.struct(ifreq);
        for (const [i, byte] of Buffer.from(`${name}\0`).entries()) request.view.setUint8(i, byte);
        request.fields.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (queues > 1 ? IFF_MULTI_QUEUE : 0);
        if (raw.ioctl(fd, TUNSETIFF, request.address) < 0) throw attachError(name, queues);
        name = readName(request.view);
        const size = arena.alloc(4);
        size.view.setInt32(0, HEADER_SIZE, true);
        check(raw.ioctl(fd, TUNSETVNETHDRSZ, size.address), 'ioctl', 'TUNSETVNETHDRSZ', HEADER_SIZE);
        backends.push(new TapBackend(queues > 1 ? `${name}.${queue}` : name, fd, poller));
      } catch (error) {
        close(fd);
        throw error;
      }
    }
    return backends;
  } catch (error) {
    for (const backend of backends) backend.close();
    throw error;
  } finally {
    arena.free();
  }
}

function openTun(): number {
  try {
    return open('/dev/net/tun', O_RDWR | O_NONBLOCK);
  } catch (cause) {
    const { code } = cause as SystemError;
    throw new NetError(
      `/dev/net/tun cannot be opened (${code}).`,
      code === 'ENOENT' ? 'Load the module: sudo modprobe tun' : 'Use --net user, which needs no privileges.',
      cause,
    );
  }
}

function attachError(name: string, queues: number): NetError {
  const error = errno();
  const cause = new SystemError('ioctl', `TUNSETIFF, ${name}`, error);
  if (error === EPERM) {
    return new NetError(
      `This user may not open the tap interface ${name}.`,
      `Make it for this user first: sudo ip tuntap add ${name} mode tap user "$USER"${queues > 1 ? ' multi_queue' : ''} vnet_hdr. Or use --net user.`,
      cause,
    );
  }
  if (error === EBUSY) {
    return new NetError(`The tap interface ${name} is in use by another process.`, 'Use another ifname=.', cause);
  }
  return new NetError(
    `The tap interface ${name} cannot be opened (${cause.code}).`,
    queues > 1 ? 'An interface that was made without multi_queue has one queue: use queues=1.' : undefined,
    cause,
  );
}

function readName(view: DataView): string {
  const bytes = new Uint8Array(view.buffer, view.byteOffset, IFNAMSIZ);
  return Buffer.from(bytes.subarray(0, bytes.indexOf(0))).toString();
}
