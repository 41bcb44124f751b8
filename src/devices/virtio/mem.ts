import { integerIn } from '../state.ts';
import { ConfigFields, type VirtioDevice, type VirtioHost } from './device.ts';
import { type Chain, RingError, type VirtQueue } from './queue.ts';

/** Feature bits (virtio 1.2, section 5.15.3). */
const ACPI_PXM = 1n << 0n;
const UNPLUGGED_INACCESSIBLE = 1n << 1n;

const QUEUE_SIZE = 128;

/** struct virtio_mem_config (section 5.15.4). */
const CONFIG_SIZE = 56;
const C = { BLOCK_SIZE: 0, NODE_ID: 8, ADDR: 16, REGION_SIZE: 24, USABLE: 32, PLUGGED: 40, REQUESTED: 48 } as const;

/** struct virtio_mem_req and virtio_mem_resp (section 5.15.6). */
const REQUEST_BYTES = 24;
const RESPONSE_BYTES = 10;
const R = { TYPE: 0, ADDR: 8, NB_BLOCKS: 16 } as const;
const RESPONSE_STATE = 8;
const REQUESTS = ['plug', 'unplug', 'unplugAll', 'state'] as const;
const ANSWERS = ['ack', 'nack', 'busy', 'error'] as const;
const STATE_PLUGGED = 0;
const STATE_UNPLUGGED = 1;
const STATE_MIXED = 2;

/**
 * Bytes that are usable beyond what is asked for, as in QEMU: two sections of Linux, so that its driver can take blocks
 * that stand where it has whole sections free.
 */
const USABLE_SPARE = 256 * 2 ** 20;

type Answer = (typeof ANSWERS)[number];

/** Requests of the driver so far, by kind, and those that were not acknowledged, by answer. */
export type MemCounts = Readonly<
  Record<(typeof REQUESTS)[number] | Exclude<Answer, 'ack'>, number> & {
    /** Times that the driver was told of another size. */
    readonly told: number;
  }
>;

/** The memory behind the device. Offsets count from the region's start; all are multiples of the block size. */
export interface MemBackend {
  /** The guest may use what stands there. @returns whether the host has room for it. */
  plug(offset: number, length: number): boolean;
  /** The guest does not use it any more: the host may have it back. */
  unplug(offset: number, length: number): void;
  /** The driver may read what is unplugged up to there: 0 for one that knows that it may not. */
  readable(length: number): void;
}

export interface MemOptions {
  readonly name: string;
  readonly backend: MemBackend;
  /** Guest-physical start of the region and its bytes, multiples of the block size, which is a power of two. */
  readonly address: number;
  readonly size: number;
  readonly block: number;
  /** Proximity domain of ACPI. */
  readonly node: number;
  /** Bytes that are asked for at first. */
  readonly requested: number;
  /** Other blocks are plugged than before, or a driver has started or stopped. */
  readonly changed?: () => void;
}

/** virtio memory device (virtio 1.2, section 5.15): blocks of a region that the driver plugs and unplugs when asked. */
export class VirtioMem implements VirtioDevice {
  readonly name: string;
  readonly type = 24;
  readonly classCode = 0x00ff00;
  readonly features = ACPI_PXM | UNPLUGGED_INACCESSIBLE;
  readonly queueSizes = [QUEUE_SIZE];
  readonly configSize = CONFIG_SIZE;
  readonly #options: MemOptions;
  readonly #config = new ConfigFields(CONFIG_SIZE);
  /** By block: 1 when it is plugged. */
  readonly #blocks: Uint8Array;
  readonly #counts = { plug: 0, unplug: 0, unplugAll: 0, state: 0, nack: 0, busy: 0, error: 0, told: 0 };
  #host: VirtioHost | undefined;
  #queue: VirtQueue | undefined;
  /** The driver has not said that it leaves unplugged memory alone. */
  #reads = false;

  constructor(options: MemOptions) {
    const { name, address, size, block, node, requested } = options;
    const whole = [address, size, requested].every((value) => value >= 0 && value % block === 0);
    if (!whole || requested > size || !Number.isInteger(Math.log2(block))) {
      throw new Error(`${name}: ${requested} of ${size} bytes at ${address} are not in blocks of ${block}.`);
    }
    this.name = name;
    this.#options = options;
    this.#blocks = new Uint8Array(size / block);
    this.#set(C.BLOCK_SIZE, block);
    this.#config.view.setUint16(C.NODE_ID, node, true);
    this.#set(C.ADDR, address);
    this.#set(C.REGION_SIZE, size);
    this.#set(C.REQUESTED, requested);
    this.#grow();
  }

  #set(field: number, value: number): void {
    this.#config.view.setBigUint64(field, BigInt(value), true);
  }

  #get(field: number): number {
    return Number(this.#config.view.getBigUint64(field, true));
  }

  /** Bytes that the driver is asked to have plugged. */
  get requested(): number {
    return this.#get(C.REQUESTED);
  }

  /** Bytes that are plugged. */
  get plugged(): number {
    return this.#get(C.PLUGGED);
  }

  /** Bytes from the region's start within which the driver may plug blocks. */
  get usable(): number {
    return this.#get(C.USABLE);
  }

  get counts(): MemCounts {
    return { ...this.#counts };
  }

  /** Whether a driver is ready with it. */
  get running(): boolean {
    return this.#queue !== undefined;
  }

  /** Asks the driver for another size. @param bytes a multiple of the block size, within the region. */
  request(bytes: number): void {
    const { block, size } = this.#options;
    if (!(bytes >= 0 && bytes <= size && bytes % block === 0)) {
      throw new Error(`${this.name}: ${bytes} bytes are not in blocks of ${block} up to ${size}.`);
    }
    if (bytes === this.requested) return;
    this.#set(C.REQUESTED, bytes);
    this.#grow();
    this.#counts.told++;
    this.#host?.configChanged();
  }

  /** The usable region holds what is asked for; it never shrinks here (5.15.4.2). */
  #grow(): void {
    const { block, size } = this.#options;
    const wanted = Math.ceil((this.requested + USABLE_SPARE) / block) * block;
    this.#set(C.USABLE, Math.max(this.usable, Math.min(size, wanted)));
    this.#tellReadable();
  }

  /** A driver that does not know the feature may read what is unplugged, to write dumps (5.15.6.2). */
  #tellReadable(): void {
    this.#options.backend.readable(this.#reads ? this.usable : 0);
  }

  readConfig(offset: number, size: number): number {
    return this.#config.read(offset, size);
  }

  writeConfig(): void {}

  attach(host: VirtioHost): void {
    this.#host = host;
  }

  negotiated(features: bigint): void {
    this.#reads = (features & UNPLUGGED_INACCESSIBLE) === 0n;
    this.#tellReadable();
  }

  start(_features: bigint, [queue]: readonly (VirtQueue | undefined)[]): void {
    this.#queue = queue;
    this.#options.changed?.();
  }

  queueChanged(_index: number, queue: VirtQueue | undefined): void {
    this.#queue = queue;
  }

  /** What is plugged stays so, with all that is in it (5.15.5.2): the next driver may be a kernel that dumps this one. */
  stop(): void {
    this.#queue = undefined;
    this.#reads = false;
    this.#tellReadable();
  }

  /** The machine was reset: nothing is plugged (5.15.6.2), and what is asked for stays. */
  systemReset(): void {
    this.#unplugAll();
    this.#options.changed?.();
  }

  notify(): void {
    const queue = this.#queue;
    if (!queue) return;
    const before = this.plugged;
    do {
      queue.disableNotification();
      for (let chain = queue.pop(); chain; chain = queue.pop()) queue.push(chain, this.#serve(chain));
    } while (queue.enableNotification());
    this.#host?.interrupt(0);
    if (this.plugged !== before) this.#options.changed?.();
  }

  /** @returns the bytes of the response. */
  #serve(chain: Chain): number {
    const request = new Uint8Array(REQUEST_BYTES);
    if (chain.read(request) < REQUEST_BYTES || chain.writeLength < RESPONSE_BYTES) {
      throw new RingError(`a request of ${chain.readLength} bytes to read and ${chain.writeLength} to write`);
    }
    const view = new DataView(request.buffer);
    const kind = REQUESTS[view.getUint16(R.TYPE, true)];
    const response = new DataView(new ArrayBuffer(RESPONSE_BYTES));
    let answer: Answer = 'error';
    if (kind === 'unplugAll') {
      this.#unplugAll();
      answer = 'ack';
    } else if (kind !== undefined) {
      const range = this.#range(view.getBigUint64(R.ADDR, true), view.getUint16(R.NB_BLOCKS, true));
      if (range) {
        const state = this.#stateOf(range);
        if (kind === 'state') {
          response.setUint16(RESPONSE_STATE, state, true);
          answer = 'ack';
        } else answer = kind === 'plug' ? this.#plug(range, state) : this.#unplug(range, state);
      }
    }
    if (kind !== undefined) this.#counts[kind]++;
    if (answer !== 'ack') this.#counts[answer]++;
    response.setUint16(0, ANSWERS.indexOf(answer), true);
    return chain.write(new Uint8Array(response.buffer));
  }

  /** @returns the blocks that a request names; undefined when they are none of the usable region. */
  #range(address: bigint, count: number): { first: number; count: number } | undefined {
    const { block, address: start } = this.#options;
    const offset = address - BigInt(start);
    // In whole numbers of any length: a sum of a driver's own must not wrap.
    if (count === 0 || offset < 0n || offset % BigInt(block) !== 0n) return undefined;
    if (offset + BigInt(count) * BigInt(block) > BigInt(this.usable)) return undefined;
    return { first: Number(offset) / block, count };
  }

  #stateOf({ first, count }: { first: number; count: number }): number {
    const blocks = this.#blocks.subarray(first, first + count);
    if (!blocks.includes(0)) return STATE_PLUGGED;
    return blocks.includes(1) ? STATE_MIXED : STATE_UNPLUGGED;
  }

  #plug({ first, count }: { first: number; count: number }, state: number): Answer {
    const { block, backend } = this.#options;
    if (state !== STATE_UNPLUGGED) return 'error';
    if (this.plugged + count * block > this.requested) return 'nack';
    if (!backend.plug(first * block, count * block)) return 'busy';
    this.#mark(first, count, true);
    return 'ack';
  }

  #unplug({ first, count }: { first: number; count: number }, state: number): Answer {
    const { block, backend } = this.#options;
    if (state !== STATE_PLUGGED) return 'error';
    backend.unplug(first * block, count * block);
    this.#mark(first, count, false);
    return 'ack';
  }

  #mark(first: number, count: number, plugged: boolean): void {
    const bytes = count * this.#options.block;
    this.#blocks.fill(plugged ? 1 : 0, first, first + count);
    this.#set(C.PLUGGED, this.plugged + (plugged ? bytes : -bytes));
  }

  #unplugAll(): void {
    const { block, backend } = this.#options;
    for (const [first, count] of runsOf(this.#blocks)) backend.unplug(first * block, count * block);
    this.#blocks.fill(0);
    this.#set(C.PLUGGED, 0);
    // Only now may it shrink, and nobody is told (5.15.4.2).
    this.#set(C.USABLE, 0);
    this.#grow();
  }

  save(): Record<string, unknown> {
    return { requested: this.requested, usable: this.usable, runs: [...runsOf(this.#blocks)] };
  }

  restore(state: unknown): void {
    const { block, size, backend } = this.#options;
    const fields = (state ?? {}) as Record<string, unknown>;
    const requested = integerIn(fields, 'requested', 0, size);
    const usable = integerIn(fields, 'usable', requested, size);
    if (requested % block !== 0 || usable % block !== 0) throw new Error(`${this.name}: sizes that are no blocks.`);
    const blocks = new Uint8Array(this.#blocks.length);
    if (!Array.isArray(fields.runs)) throw new Error(`${this.name}: no list of blocks.`);
    for (const run of fields.runs as unknown[]) {
      const [first, count] = (Array.isArray(run) ? run : []) as unknown[];
      const at = integerIn({ first }, 'first', 0, usable / block);
      blocks.fill(1, at, at + integerIn({ count }, 'count', 1, usable / block - at));
    }
    // What is plugged before and after keeps what is in it.
    const gone = this.#blocks.map((plugged, index) => plugged & ~blocks[index]);
    for (const [first, count] of runsOf(gone)) {
      backend.unplug(first * block, count * block);
      this.#mark(first, count, false);
    }
    const come = blocks.map((plugged, index) => plugged & ~this.#blocks[index]);
    for (const [first, count] of runsOf(come)) {
      if (!backend.plug(first * block, count * block)) throw new Error(`${this.name}: the host has no room for it.`);
      this.#mark(first, count, true);
    }
    this.#set(C.REQUESTED, requested);
    this.#set(C.USABLE, usable);
    this.#tellReadable();
  }
}

/** First block and length of each run of plugged ones. */
function* runsOf(blocks: Uint8Array): Generator<[first: number, count: number]> {
  for (let first = blocks.indexOf(1); first >= 0; ) {
    const end = blocks.indexOf(0, first);
    const next = end < 0 ? blocks.length : end;
    yield [first, next - first];
    first = blocks.indexOf(1, next);
  }
}
