import type { ByteChannel } from '../device.ts';
import { booleanIn, integerIn } from '../state.ts';
import { ConfigFields, type VirtioDevice, type VirtioHost } from './device.ts';
import { type Chain, RingError, sliceViews, type VirtQueue } from './queue.ts';

/** Feature bits (virtio 1.2, section 5.3.3). */
const SIZE = 1n << 0n;
const MULTIPORT = 1n << 1n;
const EMERG_WRITE = 1n << 2n;

const QUEUE_SIZE = 128;
const CONTROL_QUEUE_SIZE = 32;
/** Queues between those of port 0 and of port 1. */
const CONTROL_RX = 2;
const CONTROL_TX = 3;

/** struct virtio_console_config (section 5.3.4). */
const CONFIG_SIZE = 12;
const C = { COLS: 0, ROWS: 2, MAX_NR_PORTS: 4, EMERG_WR: 8 } as const;

/** struct virtio_console_control, and its events (section 5.3.6.2). */
const CONTROL_BYTES = 8;
const DEVICE_READY = 0;
const PORT_ADD = 1;
const PORT_READY = 3;
const CONSOLE_PORT = 4;
const RESIZE = 5;
const PORT_OPEN = 6;
const PORT_NAME = 7;

const MAX_PORTS = 511;
/** Bytes that go to a channel, or come from one, in one piece. */
const PIECE = 65536;

export interface ConsolePortOptions {
  /** What the port is connected to. */
  readonly channel: ByteChannel;
  /** Linux makes `/dev/virtio-ports/NAME` of it. */
  readonly name?: string;
  /** A terminal (`/dev/hvc0`), not a plain port. On for port 0 unless it is false. */
  readonly console?: boolean;
  /** Whether somebody is at this end when the guest comes up. On unless it is false. */
  readonly open?: boolean;
  /** A program in the guest has opened or closed its end. */
  readonly onGuestOpen?: (open: boolean) => void;
}

export interface ConsoleOptions {
  readonly name: string;
  readonly ports: readonly ConsolePortOptions[];
  readonly columns?: number;
  readonly rows?: number;
}

interface Port {
  readonly id: number;
  readonly options: ConsolePortOptions;
  readonly console: boolean;
  /** The driver knows it. */
  ready: boolean;
  hostOpen: boolean;
  guestOpen: boolean;
  columns: number;
  rows: number;
  /** A buffer of which the channel took only a part, and how much of it. */
  unsent: { chain: Chain; done: number } | undefined;
  /** Bytes of the next buffer that had gone to the channel before a snapshot. */
  alreadySent: number;
}

/**
 * virtio console (virtio 1.2, section 5.3): ports, each with a byte stream in both directions. What a side does not
 * take waits at the other: nothing is lost and nothing piles up here.
 */
export class VirtioConsole implements VirtioDevice {
  readonly name: string;
  readonly type = 3;
  readonly classCode = 0x078000;
  readonly features = SIZE | MULTIPORT | EMERG_WRITE;
  readonly queueSizes: readonly number[];
  readonly configSize = CONFIG_SIZE;
  readonly #config = new ConfigFields(CONFIG_SIZE);
  readonly #ports: readonly Port[];
  readonly #bytes = new Uint8Array(PIECE);
  #host: VirtioHost | undefined;
  #queues: readonly (VirtQueue | undefined)[] = [];
  #multiport = false;
  /**
   * Messages that wait for a buffer of the driver, by port and event: a newer one takes the place of an older one,
   * so that there is a limit to them.
   */
  readonly #messages = new Map<string, Uint8Array>();

  constructor(options: ConsoleOptions) {
    const { name, ports } = options;
    if (ports.length < 1 || ports.length > MAX_PORTS) {
      throw new Error(`${name}: a virtio console has 1 to ${MAX_PORTS} ports, not ${ports.length}.`);
    }
    this.name = name;
    this.#ports = ports.map((port, id) => ({
      id,
      options: port,
      console: port.console ?? id === 0,
      ready: false,
      hostOpen: port.open ?? true,
      guestOpen: false,
      columns: options.columns ?? 80,
      rows: options.rows ?? 25,
      unsent: undefined,
      alreadySent: 0,
    }));
    this.queueSizes = [
      ...[QUEUE_SIZE, QUEUE_SIZE, CONTROL_QUEUE_SIZE, CONTROL_QUEUE_SIZE],
      ...ports.slice(1).flatMap(() => [QUEUE_SIZE, QUEUE_SIZE]),
    ];
    const { view } = this.#config;
    this.#configSize();
    view.setUint32(C.MAX_NR_PORTS, ports.length, true);
    for (const port of this.#ports) {
      port.options.channel.onReadable = () => this.#guarded(() => this.#receive(port));
      port.options.channel.onWritable = () => this.#guarded(() => this.#send(port));
    }
  }

  attach(host: VirtioHost): void {
    this.#host = host;
  }

  #guarded(action: () => void): void {
    try {
      action();
    } catch (error) {
      if (!(error instanceof RingError)) throw error;
      this.#host?.fail(error.message);
    }
  }

  #port(id: number): Port {
    const port = this.#ports[id];
    if (!port) throw new Error(`${this.name}: there is no port ${id}.`);
    return port;
  }

  /** The configuration has one size: that of port 0. */
  #configSize(): void {
    const { view } = this.#config;
    view.setUint16(C.COLS, this.#ports[0].columns, true);
    view.setUint16(C.ROWS, this.#ports[0].rows, true);
  }

  /** The terminal of a console has another size now. */
  resize(id: number, columns: number, rows: number): void {
    const port = this.#port(id);
    port.columns = columns;
    port.rows = rows;
    this.#configSize();
    // A driver that knows several ports gets it as a message.
    if (!this.#multiport) {
      if (id === 0) this.#host?.configChanged();
    } else if (port.ready && port.console) {
      this.#guarded(() => {
        this.#queueSize(port);
        this.#sendMessages();
      });
    }
  }

  /** Somebody has come to this end of a port, or has gone. What the guest writes to nobody is lost, as on a line. */
  setOpen(id: number, open: boolean): void {
    const port = this.#port(id);
    if (port.hostOpen === open) return;
    port.hostOpen = open;
    this.#guarded(() => {
      if (port.ready && this.#multiport) {
        this.#message(port, PORT_OPEN, open ? 1 : 0);
        this.#sendMessages();
      }
      this.#send(port);
      if (open) this.#receive(port);
    });
  }

  /** Whether a program in the guest has the port open. */
  guestOpen(id: number): boolean {
    return this.#port(id).guestOpen;
  }

  readConfig(offset: number, size: number): number {
    return this.#config.read(offset, size);
  }

  writeConfig(offset: number, _size: number, value: number): void {
    if (offset !== C.EMERG_WR) return;
    // Early in a boot, or in a panic: a byte without a queue (section 5.3.5.1).
    if (this.#ports[0].hostOpen) this.#ports[0].options.channel.write(Uint8Array.of(value & 0xff));
  }

  negotiated(features: bigint): void {
    this.#multiport = (features & MULTIPORT) !== 0n;
  }

  start(_features: bigint, queues: readonly (VirtQueue | undefined)[]): void {
    this.#queues = [...queues];
    // Without messages there is one port, and it is open.
    if (!this.#multiport) this.#setGuestOpen(this.#ports[0], true);
    for (const port of this.#ports) this.#receive(port);
    this.#sendMessages();
  }

  queueChanged(index: number, queue: VirtQueue | undefined): void {
    const queues = [...this.#queues];
    queues[index] = queue;
    this.#queues = queues;
    const port = this.#portOf(index);
    if (!port || !(index & 1)) return;
    port.unsent = undefined;
    port.alreadySent = 0;
  }

  stop(): void {
    this.#queues = [];
    this.#multiport = false;
    this.#messages.clear();
    for (const port of this.#ports) {
      port.ready = false;
      port.unsent = undefined;
      port.alreadySent = 0;
      this.#setGuestOpen(port, false);
    }
  }

  #setGuestOpen(port: Port, open: boolean): void {
    if (port.guestOpen === open) return;
    port.guestOpen = open;
    port.options.onGuestOpen?.(open);
  }

  /** The port of a queue that carries bytes: an even number receives, the next one transmits. */
  #portOf(index: number): Port | undefined {
    if (index === CONTROL_RX || index === CONTROL_TX) return undefined;
    return this.#ports[index < CONTROL_RX ? 0 : (index >> 1) - 1];
  }

  #receiveQueue({ id }: Port): number {
    return id === 0 ? 0 : 2 * id + 2;
  }

  notify(index: number): void {
    if (!this.#multiport && index >= CONTROL_RX) return;
    if (index === CONTROL_RX) this.#sendMessages();
    else if (index === CONTROL_TX) this.#control();
    else {
      const port = this.#portOf(index);
      if (port && index & 1) this.#send(port);
      else if (port) this.#receive(port);
    }
  }

  /** From the guest to the channel. */
  #send(port: Port): void {
    const index = this.#receiveQueue(port) + 1;
    const queue = this.#queues[index];
    if (!queue) return;
    do {
      queue.disableNotification();
      for (;;) {
        if (!port.unsent) {
          const chain = queue.pop();
          if (!chain) break;
          port.unsent = { chain, done: port.alreadySent };
          port.alreadySent = 0;
        }
        const { unsent } = port;
        if (port.hostOpen && !this.#transmit(port, unsent)) {
          // The rest goes when the channel has room: the driver sees that in its buffers.
          this.#host?.interrupt(index);
          return;
        }
        port.unsent = undefined;
        queue.push(unsent.chain, 0);
      }
    } while (queue.enableNotification());
    this.#host?.interrupt(index);
  }

  /** @returns false when the channel does not take all of it now. */
  #transmit({ options }: Port, unsent: { readonly chain: Chain; done: number }): boolean {
    const { chain } = unsent;
    while (unsent.done < chain.readLength) {
      const [piece] = sliceViews(chain.readable, unsent.done, PIECE);
      const taken = options.channel.write(piece);
      unsent.done += taken;
      if (taken < piece.length) return false;
    }
    return true;
  }

  /** From the channel to the guest. */
  #receive(port: Port): void {
    const index = this.#receiveQueue(port);
    const queue = this.#queues[index];
    const { channel } = port.options;
    if (!queue || !port.guestOpen) return;
    const bytes = this.#bytes;
    while (channel.readable) {
      const chain = queue.pop();
      if (!chain) {
        // The channel keeps the rest until the driver tells of a buffer.
        if (queue.enableNotification()) continue;
        break;
      }
      queue.disableNotification();
      if (chain.writeLength === 0) throw new RingError('a receive buffer has no room');
      const room = Math.min(chain.writeLength, PIECE);
      let length = 0;
      while (length < room) {
        const byte = channel.read();
        if (byte < 0) break;
        bytes[length++] = byte;
      }
      queue.push(chain, chain.write(bytes.subarray(0, length)));
    }
    this.#host?.interrupt(index);
  }

  /** What the driver says of its ports. */
  #control(): void {
    const queue = this.#queues[CONTROL_TX];
    if (!queue) return;
    do {
      queue.disableNotification();
      for (let chain = queue.pop(); chain; chain = queue.pop()) {
        const bytes = new Uint8Array(CONTROL_BYTES);
        const whole = chain.read(bytes) === CONTROL_BYTES;
        queue.push(chain, 0);
        if (whole) this.#heard(new DataView(bytes.buffer));
      }
    } while (queue.enableNotification());
    this.#host?.interrupt(CONTROL_TX);
    this.#sendMessages();
  }

  #heard(view: DataView): void {
    const port = this.#ports[view.getUint32(0, true)];
    const value = view.getUint16(6, true);
    switch (view.getUint16(4, true)) {
      case DEVICE_READY:
        // A driver that failed says 0: nothing can be done for it.
        if (value === 1) for (const each of this.#ports) this.#message(each, PORT_ADD, 1);
        return;
      case PORT_READY:
        if (!port || value !== 1) return;
        port.ready = true;
        if (port.console) {
          this.#message(port, CONSOLE_PORT, 1);
          this.#queueSize(port);
        }
        if (port.options.name !== undefined) this.#message(port, PORT_NAME, 1, Buffer.from(port.options.name));
        if (port.hostOpen) this.#message(port, PORT_OPEN, 1);
        return;
      case PORT_OPEN:
        if (!port) return;
        this.#setGuestOpen(port, value === 1);
        this.#receive(port);
        return;
    }
  }

  #queueSize(port: Port): void {
    const size = new Uint8Array(4);
    // struct virtio_console_resize. Older drivers of Linux, and the BSDs, take the rows first.
    new DataView(size.buffer).setUint16(0, port.columns, true);
    new DataView(size.buffer).setUint16(2, port.rows, true);
    this.#message(port, RESIZE, 0, size);
  }

  #message({ id }: Port, event: number, value: number, more: Uint8Array = new Uint8Array()): void {
    const bytes = new Uint8Array(CONTROL_BYTES + more.length);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, id, true);
    view.setUint16(4, event, true);
    view.setUint16(6, value, true);
    bytes.set(more, CONTROL_BYTES);
    this.#messages.set(`${id} ${event}`, bytes);
  }

  #sendMessages(): void {
    const queue = this.#queues[CONTROL_RX];
    if (!queue || !this.#multiport) return;
    for (const [key, bytes] of this.#messages) {
      let chain = queue.pop();
      if (!chain && queue.enableNotification()) chain = queue.pop();
      if (!chain) break;
      // One that a buffer cannot hold is cut, as names are by drivers with short ones.
      queue.push(chain, chain.write(bytes));
      this.#messages.delete(key);
    }
    this.#host?.interrupt(CONTROL_RX);
  }

  save(): Record<string, unknown> {
    return {
      ports: this.#ports.map(({ ready, hostOpen, guestOpen, columns, rows, unsent, alreadySent }) => ({
        ...{ ready, hostOpen, guestOpen, columns, rows, sent: unsent?.done ?? alreadySent },
      })),
      messages: [...this.#messages.values()].map((bytes) => Buffer.from(bytes).toString('base64')),
    };
  }

  restore(state: unknown): void {
    const { ports, messages } = (state ?? {}) as Record<string, unknown>;
    if (!Array.isArray(ports) || ports.length !== this.#ports.length) {
      throw new Error(`${this.name}: this is not the state of a console with ${this.#ports.length} ports.`);
    }
    const most = this.#ports.length * (PORT_NAME + 1);
    if (!Array.isArray(messages) || messages.length > most || messages.some((each) => typeof each !== 'string')) {
      throw new Error(`${this.name}: the messages to the driver are not valid.`);
    }
    const saved = ports.map((each: unknown) => {
      const fields = (each ?? {}) as Record<string, unknown>;
      const sent = integerIn(fields, 'sent', 0, 2 ** 32);
      return {
        ready: booleanIn(fields, 'ready'),
        hostOpen: booleanIn(fields, 'hostOpen'),
        guestOpen: booleanIn(fields, 'guestOpen'),
        columns: integerIn(fields, 'columns', 0, 0xffff),
        rows: integerIn(fields, 'rows', 0, 0xffff),
        sent,
      };
    });
    const decoded = messages.map((each: string) => Buffer.from(each, 'base64'));
    if (decoded.some(({ length }) => length < CONTROL_BYTES)) {
      throw new Error(`${this.name}: a message to the driver is too short.`);
    }
    for (const [id, { ready, guestOpen, columns, rows, sent }] of saved.entries()) {
      this.#ports[id].ready = ready;
      this.#ports[id].columns = columns;
      this.#ports[id].rows = rows;
      this.#ports[id].unsent = undefined;
      this.#ports[id].alreadySent = sent;
      this.#setGuestOpen(this.#ports[id], guestOpen);
    }
    this.#configSize();
    this.#messages.clear();
    for (const bytes of decoded) {
      this.#messages.set(`${bytes.readUInt32LE(0)} ${bytes.readUInt16LE(4)}`, Uint8Array.from(bytes));
    }
    // Who is at this end is not the guest's state: it hears of it if that is different now.
    for (const [id, { ready, hostOpen }] of saved.entries()) {
      const port = this.#ports[id];
      if (ready && hostOpen !== port.hostOpen) this.#message(port, PORT_OPEN, port.hostOpen ? 1 : 0);
    }
  }
}
