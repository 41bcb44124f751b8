import { ConfigFields, type VirtioDevice, type VirtioHost } from './device.ts';
import { type Chain, RingError, type VirtQueue } from './queue.ts';

const QUEUE_SIZE = 128;
const CONFIG_SIZE = 16;
/** Requests and their answers (virtio 1.2, sections 5.19.6 and 5.19.7). */
const REQUEST_BYTES = 4;
const T_FLUSH = 0;
const RESPONSE_OK = 0;
const RESPONSE_EIO = 1;

/** Called once; 0 or a positive errno. */
type Done = (errno: number) => void;

/** What makes the memory lasting. */
export interface PmemBackend {
  /** All that the guest has stored in the range before is on stable storage when `done` is called. */
  flush(done: Done): void;
}

export interface PmemOptions {
  readonly name: string;
  readonly backend: PmemBackend;
  /** Guest-physical address of the memory, and its bytes. The board maps it; the device only tells where it is. */
  readonly start: number;
  readonly size: number;
}

/** virtio persistent memory (virtio 1.2, section 5.19), which stands at an address that the board chose. */
export class VirtioPmem implements VirtioDevice {
  readonly name: string;
  readonly type = 27;
  readonly classCode = 0x00ff00;
  readonly features = 0n;
  readonly queueSizes = [QUEUE_SIZE];
  readonly configSize = CONFIG_SIZE;
  readonly #backend: PmemBackend;
  readonly #config = new ConfigFields(CONFIG_SIZE);
  #host: VirtioHost | undefined;
  #queue: VirtQueue | undefined;
  /** Buffers that wait for the flush under way, which may have begun before they were made available. */
  #next: Chain[] = [];
  /** Flushes that the back end has not finished, those from before a reset too. */
  #flushing = 0;
  #life = 0;

  constructor(options: PmemOptions) {
    const { name, backend, start, size } = options;
    if (![start, size].every((value) => Number.isSafeInteger(value) && value >= 0)) {
      throw new Error(`${name}: ${size} bytes at ${start} are no range of memory.`);
    }
    this.name = name;
    this.#backend = backend;
    this.#config.view.setBigUint64(0, BigInt(start), true);
    this.#config.view.setBigUint64(8, BigInt(size), true);
  }

  readConfig(offset: number, size: number): number {
    return this.#config.read(offset, size);
  }

  writeConfig(): void {}

  attach(host: VirtioHost): void {
    this.#host = host;
  }

  start(_features: bigint, [queue]: readonly (VirtQueue | undefined)[]): void {
    this.#queue = queue;
  }

  queueChanged(_index: number, queue: VirtQueue | undefined): void {
    this.#life++;
    this.#next = [];
    this.#queue = queue;
  }

  stop(): void {
    this.#life++;
    this.#next = [];
    this.#queue = undefined;
  }

  /** Flushes that the back end has not finished. */
  get inFlight(): number {
    return this.#flushing;
  }

  notify(): void {
    const queue = this.#queue;
    if (!queue) return;
    do {
      queue.disableNotification();
      for (let chain = queue.pop(); chain; chain = queue.pop()) this.#serve(queue, chain);
    } while (queue.enableNotification());
    this.#flush();
    this.#host?.interrupt(0);
  }

  #serve(queue: VirtQueue, chain: Chain): void {
    const request = new Uint8Array(REQUEST_BYTES);
    if (chain.read(request) < REQUEST_BYTES || chain.writeLength < REQUEST_BYTES) {
      throw new RingError(`a request of ${chain.readLength} bytes to read and ${chain.writeLength} to write`);
    }
    if (new DataView(request.buffer).getUint32(0, true) === T_FLUSH) this.#next.push(chain);
    else answer(queue, chain, RESPONSE_EIO);
  }

  /** One flush for all that wait; what comes while it runs waits for the next. */
  #flush(): void {
    const queue = this.#queue;
    if (this.#next.length === 0 || this.#flushing > 0 || !queue) return;
    const chains = this.#next;
    const life = this.#life;
    let inside = true;
    this.#next = [];
    this.#flushing++;
    this.#backend.flush((errno) => {
      this.#flushing--;
      if (life === this.#life) {
        for (const chain of chains) answer(queue, chain, errno ? RESPONSE_EIO : RESPONSE_OK);
      }
      // The buffers that came meanwhile, perhaps of a driver that has started anew.
      if (inside) return;
      if (life === this.#life) this.#host?.interrupt(0);
      this.#flush();
    });
    inside = false;
    if (this.#flushing === 0) this.#flush();
  }
}

function answer(queue: VirtQueue, chain: Chain, response: number): void {
  const bytes = new Uint8Array(REQUEST_BYTES);
  new DataView(bytes.buffer).setUint32(0, response, true);
  queue.push(chain, chain.write(bytes));
}
