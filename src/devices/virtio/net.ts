import { ConfigFields, type VirtioDevice, type VirtioHost } from './device.ts';
import { type Chain, RingError, type VirtQueue } from './queue.ts';

/** Feature bits (virtio 1.2, section 5.1.3). */
const CSUM = 1n << 0n;
const GUEST_CSUM = 1n << 1n;
const CTRL_GUEST_OFFLOADS = 1n << 2n;
const MTU = 1n << 3n;
const MAC = 1n << 5n;
const GUEST_TSO4 = 1n << 7n;
const GUEST_TSO6 = 1n << 8n;
const GUEST_ECN = 1n << 9n;
const HOST_TSO4 = 1n << 11n;
const HOST_TSO6 = 1n << 12n;
const HOST_ECN = 1n << 13n;
const MRG_RXBUF = 1n << 15n;
const STATUS = 1n << 16n;
const CTRL_VQ = 1n << 17n;
const CTRL_RX = 1n << 18n;
const CTRL_VLAN = 1n << 19n;
const GUEST_ANNOUNCE = 1n << 21n;
const MQ = 1n << 22n;
const CTRL_MAC_ADDR = 1n << 23n;

const STATUS_LINK_UP = 1;
const STATUS_ANNOUNCE = 2;

/** Offloads of a back end, as TUNSETOFFLOAD numbers them. */
const OFFLOAD_CSUM = 0x01;
const OFFLOAD_TSO4 = 0x02;
const OFFLOAD_TSO6 = 0x04;
const OFFLOAD_TSO_ECN = 0x08;

/** Control commands (section 5.1.6.5). */
const CTRL_CLASS_RX = 0;
const CTRL_CLASS_MAC = 1;
const CTRL_CLASS_VLAN = 2;
const CTRL_CLASS_ANNOUNCE = 3;
const CTRL_CLASS_MQ = 4;
const CTRL_CLASS_GUEST_OFFLOADS = 5;
const CTRL_MAC_TABLE_SET = 0;
const CTRL_MAC_ADDR_SET = 1;
const CTRL_OK = 0;
const CTRL_ERR = 1;

const HEADER_SIZE = 12;
const QUEUE_SIZE = 256;
const CONTROL_QUEUE_SIZE = 64;
const MAX_FRAME = 65_550 + HEADER_SIZE;
const MAC_BYTES = 6;
const CONFIG_SIZE = 12;
/** Frames that are taken from a back end in one go before others get their turn. */
const BURST = 64;

/** What the card is plugged into; see src/net/backend.ts. */
export interface NetBackend {
  readonly headerSize: 0 | 12;
  readonly offloads: number;
  send(frame: Uint8Array): boolean;
  receive(into: Uint8Array): number;
  onReadable: (() => void) | undefined;
  onWritable: (() => void) | undefined;
  setOffloads(offloads: number): void;
}

export interface NetOptions {
  readonly name: string;
  /** One for each pair of queues. */
  readonly backends: readonly NetBackend[];
  /** Six bytes. */
  readonly mac: Uint8Array;
  readonly mtu?: number;
}

export interface NetCounters {
  rxFrames: number;
  rxBytes: number;
  rxDropped: number;
  txFrames: number;
  txBytes: number;
  txDropped: number;
}

/** virtio network device (virtio 1.2, section 5.1). */
export class VirtioNet implements VirtioDevice {
  readonly name: string;
  readonly type = 1;
  readonly classCode = 0x020000;
  readonly features: bigint;
  readonly queueSizes: readonly number[];
  readonly configSize = CONFIG_SIZE;
  readonly counters: NetCounters = { rxFrames: 0, rxBytes: 0, rxDropped: 0, txFrames: 0, txBytes: 0, txDropped: 0 };
  readonly #backends: readonly NetBackend[];
  readonly #config = new ConfigFields(CONFIG_SIZE);
  readonly #mac: Uint8Array;
  readonly #frame = new Uint8Array(MAX_FRAME);
  #host: VirtioHost | undefined;
  #queues: readonly (VirtQueue | undefined)[] = [];
  #mergeable = false;
  #pairs = 1;
  #linkUp = true;
  /** A frame that was taken from the back end and waits for a buffer: bytes, by pair. */
  readonly #waiting: (Uint8Array | undefined)[];
  readonly #full: boolean[];
  /** Buffers that were taken for a frame which they could not hold yet, by pair. */
  readonly #reserve: Chain[][];

  constructor(options: NetOptions) {
    const { backends, mac } = options;
    if (mac.length !== MAC_BYTES || mac[0] & 1) throw new Error(`${options.name}: this is no address of one card.`);
    this.name = options.name;
    this.#backends = backends;
    this.#mac = mac;
    this.#waiting = backends.map(() => undefined);
    this.#full = backends.map(() => false);
    this.#reserve = backends.map(() => []);
    const pairs = backends.length;
    this.queueSizes = [...Array.from({ length: pairs * 2 }, () => QUEUE_SIZE), CONTROL_QUEUE_SIZE];
    const can = (offload: number) => backends.every((each) => each.headerSize !== 0 && each.offloads & offload);
    this.features =
      MAC |
      STATUS |
      MRG_RXBUF |
      CTRL_VQ |
      CTRL_RX |
      CTRL_VLAN |
      CTRL_MAC_ADDR |
      GUEST_ANNOUNCE |
      (options.mtu === undefined ? 0n : MTU) |
      (pairs > 1 ? MQ : 0n) |
      (can(OFFLOAD_CSUM) ? CSUM | GUEST_CSUM | CTRL_GUEST_OFFLOADS : 0n) |
      (can(OFFLOAD_TSO4) ? HOST_TSO4 | GUEST_TSO4 : 0n) |
      (can(OFFLOAD_TSO6) ? HOST_TSO6 | GUEST_TSO6 : 0n) |
      (can(OFFLOAD_TSO_ECN) ? HOST_ECN | GUEST_ECN : 0n);
    const { view } = this.#config;
    new Uint8Array(view.buffer).set(mac);
    view.setUint16(6, STATUS_LINK_UP, true);
    view.setUint16(8, pairs, true);
    view.setUint16(10, options.mtu ?? 0, true);
    for (const [pair, backend] of backends.entries()) {
      backend.onReadable = () => this.#receive(pair);
      backend.onWritable = () => {
        this.#full[pair] = false;
        this.#guarded(() => this.#send(pair));
      };
    }
  }

  attach(host: VirtioHost): void {
    this.#host = host;
  }

  readConfig(offset: number, size: number): number {
    return this.#config.read(offset, size);
  }

  writeConfig(): void {}

  get linkUp(): boolean {
    return this.#linkUp;
  }

  /** Plugs the cable in or out, while the guest runs. */
  setLink(up: boolean): void {
    if (up === this.#linkUp) return;
    this.#linkUp = up;
    const status = this.#config.view.getUint16(6, true) & ~STATUS_LINK_UP;
    this.#config.view.setUint16(6, status | (up ? STATUS_LINK_UP : 0), true);
    this.#host?.configChanged();
    if (up) for (const pair of this.#backends.keys()) this.#receive(pair);
  }

  /** Has the guest tell its network where it is, after it has moved. */
  announce(): void {
    this.#config.view.setUint16(6, this.#config.view.getUint16(6, true) | STATUS_ANNOUNCE, true);
    this.#host?.configChanged();
  }

  start(features: bigint, queues: readonly (VirtQueue | undefined)[]): void {
    this.#queues = [...queues];
    this.#mergeable = (features & MRG_RXBUF) !== 0n;
    this.#pairs = 1;
    const accepted =
      (features & GUEST_CSUM ? OFFLOAD_CSUM : 0) |
      (features & GUEST_TSO4 ? OFFLOAD_TSO4 : 0) |
      (features & GUEST_TSO6 ? OFFLOAD_TSO6 : 0) |
      (features & GUEST_ECN ? OFFLOAD_TSO_ECN : 0);
    for (const backend of this.#backends) backend.setOffloads(accepted);
    for (const pair of this.#backends.keys()) this.#receive(pair);
  }

  queueChanged(index: number, queue: VirtQueue | undefined): void {
    const queues = [...this.#queues];
    queues[index] = queue;
    this.#queues = queues;
    if (!(index & 1) && this.#reserve[index >> 1]) this.#reserve[index >> 1].length = 0;
  }

  stop(): void {
    this.#queues = [];
    this.#pairs = 1;
    this.#waiting.fill(undefined);
    this.#full.fill(false);
    for (const reserve of this.#reserve) reserve.length = 0;
    new Uint8Array(this.#config.view.buffer).set(this.#mac);
  }

  notify(index: number): void {
    if (index === this.queueSizes.length - 1) this.#control(index);
    else if (index & 1) this.#send(index >> 1);
    else this.#receive(index >> 1);
  }

  #guarded(action: () => void): void {
    try {
      action();
    } catch (error) {
      if (!(error instanceof RingError)) throw error;
      this.#host?.fail(error.message);
    }
  }

  #send(pair: number): void {
    const index = pair * 2 + 1;
    const queue = this.#queues[index];
    const backend = this.#backends[pair];
    if (!queue || !backend || this.#full[pair]) return;
    do {
      queue.disableNotification();
      for (let chain = queue.pop(); chain; chain = queue.pop()) {
        this.#sendFrame(backend, chain);
        queue.push(chain, 0);
      }
    } while (queue.enableNotification());
    this.#host?.interrupt(index);
  }

  #sendFrame(backend: NetBackend, chain: Chain): void {
    const skip = HEADER_SIZE - backend.headerSize;
    const length = chain.readLength - skip;
    if (chain.readLength < HEADER_SIZE || length > MAX_FRAME || !this.#linkUp) {
      this.counters.txDropped++;
      return;
    }
    chain.read(this.#frame.subarray(0, length), skip);
    if (backend.send(this.#frame.subarray(0, length))) {
      this.counters.txFrames++;
      this.counters.txBytes += chain.readLength - HEADER_SIZE;
    } else this.counters.txDropped++;
  }

  #receive(pair: number): void {
    this.#guarded(() => {
      const index = pair * 2;
      const queue = this.#queues[index];
      const backend = this.#backends[pair];
      if (!queue || !backend) return;
      for (let taken = 0; ; taken++) {
        const waiting = this.#waiting[pair];
        let length = waiting?.length ?? 0;
        if (waiting) this.#frame.set(waiting);
        else {
          length = this.#take(backend);
          if (length === 0) break;
        }
        if (!this.#linkUp) {
          this.#waiting[pair] = undefined;
          this.counters.rxDropped++;
          continue;
        }
        if (!this.#deliver(pair, queue, length)) {
          // No buffer: the frame waits until the driver tells of one.
          this.#waiting[pair] ??= this.#frame.slice(0, length);
          break;
        }
        this.#waiting[pair] = undefined;
        if (taken % BURST === BURST - 1) this.#host?.interrupt(index);
      }
      this.#host?.interrupt(index);
    });
  }

  /** Takes a frame from the back end, with a header before it. @returns bytes with the header, 0 for none. */
  #take(backend: NetBackend): number {
    const skip = HEADER_SIZE - backend.headerSize;
    const length = backend.receive(this.#frame.subarray(skip));
    if (length === 0) return 0;
    if (skip > 0) this.#frame.fill(0, 0, skip);
    return length + skip;
  }

  /** Puts `length` bytes of the frame into as many buffers as it takes. @returns false when there are too few. */
  #deliver(pair: number, queue: VirtQueue, length: number): boolean {
    const reserve = this.#reserve[pair];
    let room = reserve.reduce((sum, chain) => sum + chain.writeLength, 0);
    while (reserve.length === 0 || (this.#mergeable && room < length)) {
      const chain = queue.pop();
      if (!chain) {
        if (queue.enableNotification()) continue;
        return false;
      }
      if (chain.writeLength < HEADER_SIZE) throw new RingError(`a receive buffer has ${chain.writeLength} bytes`);
      reserve.push(chain);
      room += chain.writeLength;
    }
    queue.disableNotification();
    const used: { chain: Chain; bytes: number }[] = [];
    let done = 0;
    while (done < length && (this.#mergeable || used.length === 0)) {
      const chain = reserve.shift() as Chain;
      const bytes = chain.write(this.#frame.subarray(done, length));
      used.push({ chain, bytes });
      done += bytes;
    }
    // num_buffers of the header.
    used[0].chain.write(Uint8Array.of(used.length & 0xff, used.length >> 8), 10);
    for (const { chain, bytes } of used) queue.push(chain, bytes);
    if (done < length) this.counters.rxDropped++;
    else {
      this.counters.rxFrames++;
      this.counters.rxBytes += length - HEADER_SIZE;
    }
    return true;
  }

  #control(index: number): void {
    const queue = this.#queues[index];
    if (!queue) return;
    do {
      queue.disableNotification();
      for (let chain = queue.pop(); chain; chain = queue.pop()) {
        const command = new Uint8Array(Math.min(chain.readLength, 4096));
        chain.read(command);
        const status = command.length >= 2 && this.#command(command) ? CTRL_OK : CTRL_ERR;
        queue.push(chain, chain.write(Uint8Array.of(status)));
      }
    } while (queue.enableNotification());
    this.#host?.interrupt(index);
  }

  #command(bytes: Uint8Array): boolean {
    const data = bytes.subarray(2);
    const view = new DataView(data.buffer, data.byteOffset, data.length);
    switch (bytes[0]) {
      case CTRL_CLASS_RX:
      case CTRL_CLASS_VLAN:
        // The wire behind the back end filters nothing for us: the guest gets all that is for it, and more.
        return data.length >= 1;
      case CTRL_CLASS_MAC:
        if (bytes[1] === CTRL_MAC_TABLE_SET) return true;
        if (bytes[1] !== CTRL_MAC_ADDR_SET || data.length < MAC_BYTES) return false;
        new Uint8Array(this.#config.view.buffer).set(data.subarray(0, MAC_BYTES));
        return true;
      case CTRL_CLASS_ANNOUNCE:
        this.#config.view.setUint16(6, this.#config.view.getUint16(6, true) & ~STATUS_ANNOUNCE, true);
        return true;
      case CTRL_CLASS_MQ: {
        const pairs = data.length >= 2 ? view.getUint16(0, true) : 0;
        if (bytes[1] !== 0 || pairs < 1 || pairs > this.#backends.length) return false;
        this.#pairs = pairs;
        return true;
      }
      case CTRL_CLASS_GUEST_OFFLOADS: {
        if (data.length < 8) return false;
        const features = view.getBigUint64(0, true);
        for (const backend of this.#backends) {
          backend.setOffloads(
            (features & GUEST_CSUM ? OFFLOAD_CSUM : 0) |
              (features & GUEST_TSO4 ? OFFLOAD_TSO4 : 0) |
              (features & GUEST_TSO6 ? OFFLOAD_TSO6 : 0) |
              (features & GUEST_ECN ? OFFLOAD_TSO_ECN : 0),
          );
        }
        return true;
      }
      default:
        return false;
    }
  }

  /** Pairs of queues that the driver uses. */
  get pairs(): number {
    return this.#pairs;
  }
}
