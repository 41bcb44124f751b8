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
const CTRL_MQ_VQ_PAIRS_SET = 0;
const CTRL_GUEST_OFFLOADS_SET = 0;
const CTRL_ANNOUNCE_ACK = 0;
/** Promiscuous and all-multicast modes to the modes without one kind of frame. */
const CTRL_RX_LAST = 5;
const CTRL_VLAN_DEL = 1;
const CTRL_OK = 0;
const CTRL_ERR = 1;

const HEADER_SIZE = 12;
const QUEUE_SIZE = 256;
const CONTROL_QUEUE_SIZE = 64;
const MAX_FRAME = 65_550 + HEADER_SIZE;
/** Longest control command that is looked at: two tables of addresses. */
const MAX_COMMAND = 16384;
const MAC_BYTES = 6;
const MIN_FRAME = 14;
/** Ethernet header with a VLAN tag, which the MTU does not count. */
const LINK_HEADER = 18;
const CONFIG_SIZE = 12;
/** Frames that are taken from a back end in one go before others get their turn. */
const BURST = 64;

/** Offloads that a driver switches. */
const GUEST_OFFLOADS = GUEST_CSUM | GUEST_TSO4 | GUEST_TSO6 | GUEST_ECN;

/** Features of a driver as a back end takes them. Each needs the one that it builds on (section 5.1.3.1). */
function offloadsOf(features: bigint): number {
  if (!(features & GUEST_CSUM)) return 0;
  const segments = (features & GUEST_TSO4 ? OFFLOAD_TSO4 : 0) | (features & GUEST_TSO6 ? OFFLOAD_TSO6 : 0);
  return OFFLOAD_CSUM | segments | (segments && features & GUEST_ECN ? OFFLOAD_TSO_ECN : 0);
}

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
  /** Whether the cable is in at first; it is, without. */
  readonly link?: boolean;
  /** Told of a frame that could not pass at once: for how many milliseconds it waited. */
  readonly onWait?: (direction: 'rx' | 'tx', ms: number) => void;
}

export interface NetCounters {
  rxFrames: number;
  rxBytes: number;
  /** Frames that the cable did not let through. */
  rxDropped: number;
  /** Frames that were longer than the driver takes. */
  rxErrors: number;
  txFrames: number;
  txBytes: number;
  txDropped: number;
  /** Frames that are none: too short or too long. */
  txErrors: number;
}

/** Something that waits, and since when (performance.now()). */
interface Waiting<T> {
  readonly what: T;
  readonly since: number;
}

/** virtio network device (virtio 1.2, section 5.1). */
export class VirtioNet implements VirtioDevice {
  readonly name: string;
  readonly type = 1;
  readonly classCode = 0x020000;
  readonly features: bigint;
  readonly queueSizes: readonly number[];
  readonly configSize = CONFIG_SIZE;
  readonly counters: NetCounters = {
    ...{ rxFrames: 0, rxBytes: 0, rxDropped: 0, rxErrors: 0 },
    ...{ txFrames: 0, txBytes: 0, txDropped: 0, txErrors: 0 },
  };
  readonly #onWait: NonNullable<NetOptions['onWait']>;
  readonly #backends: readonly NetBackend[];
  readonly #config = new ConfigFields(CONFIG_SIZE);
  readonly #mac: Uint8Array;
  readonly #frame = new Uint8Array(MAX_FRAME);
  #host: VirtioHost | undefined;
  #queues: readonly (VirtQueue | undefined)[] = [];
  #features = 0n;
  /** What the driver lets frames come with now, as a back end takes it. */
  #offloads = 0;
  #pairs = 1;
  #linkUp: boolean;
  /** A frame that was taken from the back end and waits for a buffer: bytes, by pair. */
  readonly #waiting: (Waiting<Uint8Array> | undefined)[];
  /** A frame that its back end had no room for, by pair; nothing is sent before it. */
  readonly #unsent: (Waiting<Chain> | undefined)[];
  /** Buffers that were taken for a frame which they could not hold yet, by pair. */
  readonly #reserve: Chain[][];

  constructor(options: NetOptions) {
    const { backends, mac } = options;
    if (mac.length !== MAC_BYTES || mac[0] & 1) throw new Error(`${options.name}: this is no address of one card.`);
    this.name = options.name;
    this.#backends = backends;
    this.#mac = mac;
    this.#onWait = options.onWait ?? (() => {});
    this.#linkUp = options.link ?? true;
    this.#waiting = backends.map(() => undefined);
    this.#unsent = backends.map(() => undefined);
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
    view.setUint16(6, this.#linkUp ? STATUS_LINK_UP : 0, true);
    view.setUint16(8, pairs, true);
    view.setUint16(10, options.mtu ?? 0, true);
    for (const [pair, backend] of backends.entries()) {
      backend.onReadable = () => this.#receive(pair);
      backend.onWritable = () => this.#guarded(() => this.#send(pair));
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

  /** Whether a driver may leave checksums and segments to the network behind. */
  get offersOffloads(): boolean {
    return (this.features & CSUM) !== 0n;
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

  negotiated(features: bigint): void {
    this.#features = features;
    this.#offloads = offloadsOf(features);
  }

  start(_features: bigint, queues: readonly (VirtQueue | undefined)[]): void {
    this.#queues = [...queues];
    this.#applyOffloads();
    for (const backend of this.#backends.keys()) this.#receive(backend);
  }

  #applyOffloads(): void {
    for (const backend of this.#backends) backend.setOffloads(this.#offloads);
  }

  queueChanged(index: number, queue: VirtQueue | undefined): void {
    const queues = [...this.#queues];
    queues[index] = queue;
    this.#queues = queues;
    const pair = index >> 1;
    if (pair >= this.#backends.length) return;
    if (index & 1) this.#unsent[pair] = undefined;
    else this.#reserve[pair].length = 0;
  }

  stop(): void {
    this.#queues = [];
    this.#features = 0n;
    this.#offloads = 0;
    this.#pairs = 1;
    this.#waiting.fill(undefined);
    this.#unsent.fill(undefined);
    for (const reserve of this.#reserve) reserve.length = 0;
    new Uint8Array(this.#config.view.buffer).set(this.#mac);
  }

  /** The control queue stands behind the pairs that the driver knows of (section 5.1.2). */
  get #controlQueue(): number {
    return this.#features & MQ ? this.queueSizes.length - 1 : 2;
  }

  notify(index: number): void {
    if (index === this.#controlQueue) this.#control(index);
    else if (index & 1) this.#send(index >> 1);
    else this.#receiveFor(index >> 1);
  }

  /** The pair that a back end's frames go to: its own, or the first while the driver does not use that. */
  #pairOf(backend: number): number {
    return backend < this.#pairs ? backend : 0;
  }

  #receiveFor(pair: number): void {
    for (const backend of this.#backends.keys()) if (this.#pairOf(backend) === pair) this.#receive(backend);
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
    if (!queue || !backend) return;
    do {
      queue.disableNotification();
      const unsent = this.#unsent[pair];
      for (let chain = unsent?.what ?? queue.pop(); chain; chain = queue.pop()) {
        if (!this.#sendFrame(backend, chain)) {
          this.#unsent[pair] ??= { what: chain, since: performance.now() };
          this.#host?.interrupt(index);
          return;
        }
        if (this.#unsent[pair]) this.#sentAfterAll(pair);
        queue.push(chain, 0);
      }
    } while (queue.enableNotification());
    this.#host?.interrupt(index);
  }

  #sentAfterAll(pair: number): void {
    this.#onWait('tx', performance.now() - (this.#unsent[pair]?.since ?? 0));
    this.#unsent[pair] = undefined;
  }

  /** @returns false when the back end has no room now. */
  #sendFrame(backend: NetBackend, chain: Chain): boolean {
    const skip = HEADER_SIZE - backend.headerSize;
    const length = chain.readLength - skip;
    if (chain.readLength < HEADER_SIZE + MIN_FRAME || length > MAX_FRAME) {
      this.counters.txErrors++;
      return true;
    }
    if (!this.#linkUp) {
      this.counters.txDropped++;
      return true;
    }
    chain.read(this.#frame.subarray(0, length), skip);
    if (!backend.send(this.#frame.subarray(0, length))) return false;
    this.counters.txFrames++;
    this.counters.txBytes += chain.readLength - HEADER_SIZE;
    return true;
  }

  /** Takes what a back end has, for the pair that it goes to. */
  #receive(index: number): void {
    this.#guarded(() => {
      const pair = this.#pairOf(index);
      const queue = this.#queues[pair * 2];
      const backend = this.#backends[index];
      if (!queue || !backend) return;
      for (let taken = 0; ; taken++) {
        const waiting = this.#waiting[index];
        let length = waiting?.what.length ?? 0;
        if (waiting) this.#frame.set(waiting.what);
        else {
          length = this.#take(backend);
          if (length === 0) break;
        }
        if (!this.#linkUp || this.#exceedsMtu(length)) {
          this.#waiting[index] = undefined;
          if (this.#linkUp) this.counters.rxErrors++;
          else this.counters.rxDropped++;
          continue;
        }
        if (!this.#deliver(pair, queue, length)) {
          // No buffer: the frame waits until the driver tells of one.
          this.#waiting[index] ??= { what: this.#frame.slice(0, length), since: performance.now() };
          break;
        }
        if (waiting) this.#onWait('rx', performance.now() - waiting.since);
        this.#waiting[index] = undefined;
        if (taken % BURST === BURST - 1) this.#host?.interrupt(pair * 2);
      }
      this.#host?.interrupt(pair * 2);
    });
  }

  /** Whether the frame is longer than a driver has agreed to take in one piece (section 5.1.4.1). */
  #exceedsMtu(length: number): boolean {
    if (!(this.#features & MTU)) return false;
    const segmented = (this.#frame[1] & 0x7f) !== 0;
    return !segmented && length - HEADER_SIZE > this.#config.view.getUint16(10, true) + LINK_HEADER;
  }

  /** Takes a frame from the back end, with a header before it. @returns bytes with the header, 0 for none. */
  #take(backend: NetBackend): number {
    const skip = HEADER_SIZE - backend.headerSize;
    const length = backend.receive(this.#frame.subarray(skip));
    if (length === 0) return 0;
    if (skip > 0) this.#frame.fill(0, 0, skip);
    return length + skip;
  }

  /**
   * Puts `length` bytes of the frame into as many buffers as it takes, or drops it where no buffers could hold it.
   * @returns false when there are too few for now.
   */
  #deliver(pair: number, queue: VirtQueue, length: number): boolean {
    const mergeable = (this.#features & MRG_RXBUF) !== 0n;
    const reserve = this.#reserve[pair];
    let room = reserve.reduce((sum, chain) => sum + chain.writeLength, 0);
    while (reserve.length === 0 || (mergeable && room < length)) {
      // There is no more to come: the driver's buffers are too small together.
      if (reserve.length >= queue.size) break;
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
    if ((mergeable ? room : reserve[0].writeLength) < length) {
      this.counters.rxErrors++;
      return true;
    }
    const used: { chain: Chain; bytes: number }[] = [];
    for (let done = 0; done < length; ) {
      const chain = reserve.shift() as Chain;
      const bytes = chain.write(this.#frame.subarray(done, length));
      used.push({ chain, bytes });
      done += bytes;
    }
    // num_buffers of the header.
    used[0].chain.write(Uint8Array.of(used.length & 0xff, used.length >> 8), 10);
    for (const { chain, bytes } of used) queue.push(chain, bytes);
    this.counters.rxFrames++;
    this.counters.rxBytes += length - HEADER_SIZE;
    return true;
  }

  #control(index: number): void {
    const queue = this.#queues[index];
    if (!queue) return;
    do {
      queue.disableNotification();
      for (let chain = queue.pop(); chain; chain = queue.pop()) {
        const command = new Uint8Array(Math.min(chain.readLength, MAX_COMMAND));
        chain.read(command);
        const status = command.length >= 2 && this.#command(command) ? CTRL_OK : CTRL_ERR;
        queue.push(chain, chain.write(Uint8Array.of(status)));
      }
    } while (queue.enableNotification());
    this.#host?.interrupt(index);
  }

  #command(bytes: Uint8Array): boolean {
    const command = bytes[1];
    const data = bytes.subarray(2);
    const view = new DataView(data.buffer, data.byteOffset, data.length);
    switch (bytes[0]) {
      // The wire behind the back end filters nothing for us: the guest gets all that is for it, and more.
      case CTRL_CLASS_RX:
        return command <= CTRL_RX_LAST && data.length >= 1;
      case CTRL_CLASS_VLAN:
        return command <= CTRL_VLAN_DEL && data.length >= 2;
      case CTRL_CLASS_MAC:
        if (command === CTRL_MAC_TABLE_SET) return twoTables(view);
        if (command !== CTRL_MAC_ADDR_SET || data.length < MAC_BYTES) return false;
        new Uint8Array(this.#config.view.buffer).set(data.subarray(0, MAC_BYTES));
        return true;
      case CTRL_CLASS_ANNOUNCE:
        if (command !== CTRL_ANNOUNCE_ACK) return false;
        this.#config.view.setUint16(6, this.#config.view.getUint16(6, true) & ~STATUS_ANNOUNCE, true);
        return true;
      case CTRL_CLASS_MQ: {
        const pairs = data.length >= 2 ? view.getUint16(0, true) : 0;
        if (command !== CTRL_MQ_VQ_PAIRS_SET || !(this.#features & MQ)) return false;
        if (pairs < 1 || pairs > this.#backends.length) return false;
        this.#pairs = pairs;
        // A back end with a frame that waits says nothing more: its pair may have room.
        for (const backend of this.#backends.keys()) this.#receive(backend);
        return true;
      }
      case CTRL_CLASS_GUEST_OFFLOADS: {
        if (command !== CTRL_GUEST_OFFLOADS_SET || data.length < 8) return false;
        const wanted = view.getBigUint64(0, true);
        if (!(this.#features & CTRL_GUEST_OFFLOADS) || wanted & ~(this.#features & GUEST_OFFLOADS)) return false;
        this.#offloads = offloadsOf(wanted);
        this.#applyOffloads();
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

  save(): Record<string, unknown> {
    return {
      mac: [...new Uint8Array(this.#config.view.buffer, 0, MAC_BYTES)],
      announce: (this.#config.view.getUint16(6, true) & STATUS_ANNOUNCE) !== 0,
      pairs: this.#pairs,
      offloads: this.#offloads,
      link: this.#linkUp,
    };
  }

  restore(state: unknown): void {
    const { mac, announce, pairs, offloads, link } = (state ?? {}) as Record<string, unknown>;
    const within = (value: unknown, least: number, most: number): value is number =>
      Number.isInteger(value) && (value as number) >= least && (value as number) <= most;
    const valid =
      Array.isArray(mac) &&
      mac.length === MAC_BYTES &&
      mac.every((byte) => within(byte, 0, 255)) &&
      typeof announce === 'boolean' &&
      typeof link === 'boolean';
    if (!valid || !within(pairs, 1, this.#backends.length) || !within(offloads, 0, 0x0f)) {
      throw new Error(`${this.name}: this is not the state of a network card like this one.`);
    }
    if (offloads & ~offloadsOf(this.#features)) {
      throw new Error(`${this.name}: the state has offloads ${offloads} that its driver has not agreed to.`);
    }
    new Uint8Array(this.#config.view.buffer).set(mac);
    this.#config.view.setUint16(6, (link ? STATUS_LINK_UP : 0) | (announce ? STATUS_ANNOUNCE : 0), true);
    this.#linkUp = link;
    this.#pairs = pairs;
    this.#offloads = offloads;
  }
}

/** Whether the data of a command is the two tables that it says (section 5.1.6.5.2). */
function twoTables(view: DataView): boolean {
  let at = 0;
  for (let table = 0; table < 2; table++) {
    if (at + 4 > view.byteLength) return false;
    at += 4 + view.getUint32(at, true) * MAC_BYTES;
  }
  return at <= view.byteLength;
}
