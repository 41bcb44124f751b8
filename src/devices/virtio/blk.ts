import { ConfigFields, type VirtioDevice, type VirtioHost } from './device.ts';
import { type Chain, RingError, sliceViews, type VirtQueue } from './queue.ts';

/** Feature bits (virtio 1.2, section 5.2.3). */
const SEG_MAX = 1n << 2n;
const RO = 1n << 5n;
const BLK_SIZE = 1n << 6n;
const FLUSH = 1n << 9n;
const TOPOLOGY = 1n << 10n;
const CONFIG_WCE = 1n << 11n;
const MQ = 1n << 12n;
const DISCARD = 1n << 13n;
const WRITE_ZEROES = 1n << 14n;

/** Request types (section 5.2.6). */
const T_IN = 0;
const T_OUT = 1;
const T_FLUSH = 4;
const T_GET_ID = 8;
const T_DISCARD = 11;
const T_WRITE_ZEROES = 13;
const S_OK = 0;
const S_IOERR = 1;
const S_UNSUPP = 2;

const SECTOR = 512;
const HEADER_SIZE = 16;
const ID_SIZE = 20;
const RANGE_SIZE = 16;
const RANGE_UNMAP = 1;
const CONFIG_SIZE = 60;
/** struct virtio_blk_config. */
const C = {
  CAPACITY: 0,
  SEG_MAX: 12,
  BLK_SIZE: 20,
  PHYSICAL_EXPONENT: 24,
  MIN_IO_SIZE: 26,
  OPT_IO_SIZE: 28,
  WRITEBACK: 32,
  NUM_QUEUES: 34,
  MAX_DISCARD_SECTORS: 36,
  MAX_DISCARD_SEGMENTS: 40,
  DISCARD_ALIGNMENT: 44,
  MAX_WRITE_ZEROES_SECTORS: 48,
  MAX_WRITE_ZEROES_SEGMENTS: 52,
  WRITE_ZEROES_MAY_UNMAP: 56,
} as const;

const QUEUE_SIZE = 256;
const MAX_RANGE_SECTORS = 0x3fffff;

/** Called once; 0 or a positive errno. */
export type Done = (errno: number) => void;

/** What holds the bytes of a disk. Offsets and lengths are bytes; views stay valid until `done`. */
export interface BlockBackend {
  /** Bytes, a multiple of 512. */
  readonly size: number;
  readonly readOnly: boolean;
  readonly blockSize: number;
  readonly physicalBlockSize: number;
  /** Can give space back. */
  readonly canDiscard: boolean;
  read(offset: number, into: readonly Uint8Array[], done: Done): void;
  write(offset: number, from: readonly Uint8Array[], done: Done): void;
  /** What was written before is on stable storage when `done` is called. */
  flush(done: Done): void;
  discard(offset: number, length: number, done: Done): void;
  writeZeroes(offset: number, length: number, mayUnmap: boolean, done: Done): void;
  /** Does `action`, and hands over in one go what it asked for. */
  batch(action: () => void): void;
  /** Called before (true) and after (false) a burst of completions. */
  onBurst: ((running: boolean) => void) | undefined;
}

export type BlkOperation = 'read' | 'write' | 'flush' | 'discard' | 'write-zeroes';

/** What becomes of a request that failed: told to the guest, tried again when the machine goes on, or taken as done. */
export type BlkErrorAction = 'report' | 'stop' | 'ignore';

export interface BlkOptions {
  readonly name: string;
  readonly backend: BlockBackend;
  readonly queues?: number;
  /** 20 bytes of ASCII at most. */
  readonly serial?: string;
  readonly onError?: (operation: BlkOperation, errno: number, offset: number) => BlkErrorAction;
}

interface Request {
  readonly queue: number;
  /** Where its buffer goes back to: after a reset of the queue or the device, nowhere. */
  readonly ring: VirtQueue;
  readonly chain: Chain;
  readonly operation: BlkOperation;
  readonly offset: number;
  readonly run: (done: Done) => void;
}

/** virtio block device (virtio 1.2, section 5.2). */
export class VirtioBlk implements VirtioDevice {
  readonly name: string;
  readonly type = 2;
  readonly classCode = 0x010000;
  readonly features: bigint;
  readonly queueSizes: readonly number[];
  readonly configSize = CONFIG_SIZE;
  readonly #backend: BlockBackend;
  readonly #config = new ConfigFields(CONFIG_SIZE);
  readonly #serial: Uint8Array;
  readonly #onError: NonNullable<BlkOptions['onError']>;
  #host: VirtioHost | undefined;
  #queues: readonly (VirtQueue | undefined)[] = [];
  /** Requests that were taken and not answered. */
  readonly #requests = new Set<Request>();
  /** Requests at the back end, by queue, those from before a reset too. */
  readonly #atBackend: number[];
  #writeThrough = false;
  /** Failed requests that wait for the machine to go on. */
  #held: Request[] = [];
  #inBurst = false;
  readonly #toInterrupt = new Set<number>();
  readonly #header = new Uint8Array(HEADER_SIZE);
  readonly #headerView = new DataView(this.#header.buffer);

  constructor(options: BlkOptions) {
    const { backend } = options;
    this.name = options.name;
    this.#backend = backend;
    this.#onError = options.onError ?? (() => 'report');
    const queues = options.queues ?? 1;
    this.queueSizes = Array.from({ length: queues }, () => QUEUE_SIZE);
    this.#atBackend = this.queueSizes.map(() => 0);
    const serial = Buffer.from(options.serial ?? '', 'latin1');
    if (serial.length > ID_SIZE)
      throw new Error(`The serial number "${options.serial}" is longer than ${ID_SIZE} bytes.`);
    this.#serial = new Uint8Array(ID_SIZE);
    this.#serial.set(serial);
    this.features =
      SEG_MAX |
      BLK_SIZE |
      FLUSH |
      TOPOLOGY |
      CONFIG_WCE |
      (queues > 1 ? MQ : 0n) |
      (backend.readOnly ? RO : 0n) |
      (backend.readOnly || !backend.canDiscard ? 0n : DISCARD) |
      (backend.readOnly ? 0n : WRITE_ZEROES);
    const { view } = this.#config;
    view.setUint32(C.SEG_MAX, QUEUE_SIZE - 2, true);
    view.setUint32(C.BLK_SIZE, backend.blockSize, true);
    view.setUint8(C.PHYSICAL_EXPONENT, Math.log2(backend.physicalBlockSize / backend.blockSize));
    view.setUint16(C.MIN_IO_SIZE, backend.physicalBlockSize / backend.blockSize, true);
    view.setUint8(C.WRITEBACK, 1);
    view.setUint16(C.NUM_QUEUES, queues, true);
    view.setUint32(C.MAX_DISCARD_SECTORS, MAX_RANGE_SECTORS, true);
    view.setUint32(C.MAX_DISCARD_SEGMENTS, 1, true);
    view.setUint32(C.DISCARD_ALIGNMENT, backend.physicalBlockSize / SECTOR, true);
    view.setUint32(C.MAX_WRITE_ZEROES_SECTORS, MAX_RANGE_SECTORS, true);
    view.setUint32(C.MAX_WRITE_ZEROES_SEGMENTS, 1, true);
    view.setUint8(C.WRITE_ZEROES_MAY_UNMAP, backend.canDiscard ? 1 : 0);
    this.#showCapacity();
    backend.onBurst = (running) => this.#burst(running);
  }

  /** While many requests complete together, each queue's interrupt comes once, at the end. */
  #burst(running: boolean): void {
    this.#inBurst = running;
    if (running) return;
    for (const queue of this.#toInterrupt) this.#host?.interrupt(queue);
    this.#toInterrupt.clear();
  }

  #showCapacity(): void {
    this.#config.view.setBigUint64(C.CAPACITY, BigInt(this.#backend.size / SECTOR), true);
  }

  /** The backend has another size now. */
  resized(): void {
    this.#showCapacity();
    this.#host?.configChanged();
  }

  attach(host: VirtioHost): void {
    this.#host = host;
  }

  readConfig(offset: number, size: number): number {
    return this.#config.read(offset, size);
  }

  writeConfig(offset: number, _size: number, value: number): void {
    if (offset !== C.WRITEBACK) return;
    this.#config.view.setUint8(C.WRITEBACK, value & 1);
    this.#writeThrough = (value & 1) === 0;
  }

  /** A driver that knows no flush can rely on each write once it is answered (sections 5.2.5.2 and 5.2.6.2). */
  negotiated(features: bigint): void {
    this.#writeThrough = (features & FLUSH) === 0n;
    if (features & CONFIG_WCE) this.#config.view.setUint8(C.WRITEBACK, this.#writeThrough ? 0 : 1);
  }

  start(_features: bigint, queues: readonly (VirtQueue | undefined)[]): void {
    this.#queues = [...queues];
  }

  queueChanged(index: number, queue: VirtQueue | undefined): void {
    const queues = [...this.#queues];
    queues[index] = queue;
    this.#queues = queues;
    for (const request of this.#requests) if (request.queue === index) this.#requests.delete(request);
    this.#held = this.#held.filter((request) => request.queue !== index);
    this.#toInterrupt.delete(index);
  }

  stop(): void {
    this.#queues = [];
    this.#requests.clear();
    this.#held = [];
    this.#toInterrupt.clear();
    this.#writeThrough = false;
    this.#config.view.setUint8(C.WRITEBACK, 1);
  }

  busy(queue?: number): boolean {
    return queue === undefined ? this.#atBackend.some((count) => count > 0) : this.#atBackend[queue] > 0;
  }

  /** Requests that were taken and not answered. */
  get inFlight(): number {
    return this.#requests.size;
  }

  notify(index: number): void {
    const queue = this.#queues[index];
    if (!queue) return;
    this.#backend.batch(() => {
      do {
        queue.disableNotification();
        for (let chain = queue.pop(); chain; chain = queue.pop()) this.#serve(index, queue, chain);
      } while (queue.enableNotification());
    });
    this.#host?.interrupt(index);
  }

  #serve(queue: number, ring: VirtQueue, chain: Chain): void {
    // Data may share descriptors with the header and the status: only sizes count (section 2.7.4.1).
    if (chain.read(this.#header) < HEADER_SIZE || chain.writeLength < 1) {
      throw new RingError(`a request of ${chain.readLength} bytes to read and ${chain.writeLength} to write`);
    }
    const type = this.#headerView.getUint32(0, true);
    const sector = this.#headerView.getUint32(8, true) + this.#headerView.getUint32(12, true) * 2 ** 32;
    const offset = sector * SECTOR;
    const toRead = chain.writeLength - 1;
    const toWrite = chain.readLength - HEADER_SIZE;
    const backend = this.#backend;
    const start = (operation: BlkOperation, run: (done: Done) => void) =>
      this.#begin({ queue, ring, chain, operation, offset, run });
    switch (type) {
      case T_IN:
        if (!this.#inside(offset, toRead)) break;
        start('read', (done) => backend.read(offset, sliceViews(chain.writable, 0, toRead), done));
        return;
      case T_OUT:
        if (backend.readOnly || !this.#inside(offset, toWrite)) break;
        start('write', (done) => {
          const views = sliceViews(chain.readable, HEADER_SIZE, toWrite);
          backend.write(
            offset,
            views,
            this.#writeThrough ? (errno) => (errno ? done(errno) : backend.flush(done)) : done,
          );
        });
        return;
      case T_FLUSH:
        start('flush', (done) => backend.flush(done));
        return;
      case T_GET_ID:
        chain.write(this.#serial.subarray(0, Math.min(toRead, ID_SIZE)));
        this.#answer(ring, chain, S_OK);
        return;
      case T_DISCARD:
      case T_WRITE_ZEROES:
        this.#range(type, queue, ring, chain, toWrite);
        return;
      default:
        this.#answer(ring, chain, S_UNSUPP);
        return;
    }
    this.#answer(ring, chain, S_IOERR);
  }

  #inside(offset: number, length: number): boolean {
    return length % SECTOR === 0 && offset + length <= this.#backend.size;
  }

  #range(type: number, queue: number, ring: VirtQueue, chain: Chain, length: number): void {
    const discard = type === T_DISCARD;
    const backend = this.#backend;
    if (backend.readOnly || (discard && !backend.canDiscard)) {
      this.#answer(ring, chain, backend.readOnly ? S_IOERR : S_UNSUPP);
      return;
    }
    const range = new Uint8Array(RANGE_SIZE);
    if (length !== RANGE_SIZE || chain.read(range, HEADER_SIZE) !== RANGE_SIZE) {
      this.#answer(ring, chain, S_UNSUPP);
      return;
    }
    const view = new DataView(range.buffer);
    const offset = (view.getUint32(0, true) + view.getUint32(4, true) * 2 ** 32) * SECTOR;
    const bytes = view.getUint32(8, true) * SECTOR;
    const flags = view.getUint32(12, true);
    // Reserved flags, and unmapping by a discard, are not supported (section 5.2.6.2).
    if (flags & ~(discard ? 0 : RANGE_UNMAP)) {
      this.#answer(ring, chain, S_UNSUPP);
      return;
    }
    if (offset + bytes > backend.size || bytes > MAX_RANGE_SECTORS * SECTOR) {
      this.#answer(ring, chain, S_IOERR);
      return;
    }
    this.#begin({
      queue,
      ring,
      chain,
      operation: discard ? 'discard' : 'write-zeroes',
      offset,
      run: (done) =>
        discard
          ? backend.discard(offset, bytes, done)
          : backend.writeZeroes(offset, bytes, (flags & RANGE_UNMAP) !== 0, done),
    });
  }

  #begin(request: Request): void {
    this.#requests.add(request);
    this.#run(request);
  }

  #run(request: Request): void {
    let inside = true;
    this.#atBackend[request.queue]++;
    request.run((errno) => {
      this.#atBackend[request.queue]--;
      // After a reset its buffers are the driver's again.
      if (!this.#requests.has(request)) return;
      if (errno) {
        const action = this.#onError(request.operation, errno, request.offset);
        if (action === 'stop') {
          this.#held.push(request);
          return;
        }
        if (action === 'report') {
          this.#finish(request, S_IOERR, inside);
          return;
        }
      }
      this.#finish(request, S_OK, inside);
    });
    inside = false;
  }

  #finish(request: Request, status: number, inside: boolean): void {
    this.#requests.delete(request);
    this.#answer(request.ring, request.chain, status);
    // What completes while its queue is served is told once, at the end of the burst.
    if (inside) return;
    if (this.#inBurst) this.#toInterrupt.add(request.queue);
    else this.#host?.interrupt(request.queue);
  }

  #answer(ring: VirtQueue, chain: Chain, status: number): void {
    chain.write(Uint8Array.of(status), chain.writeLength - 1);
    ring.push(chain, chain.writeLength);
  }

  /** The machine goes on after a failed request stopped it: what was held is tried again. */
  retry(): void {
    const requests = this.#held.splice(0);
    this.#backend.batch(() => {
      for (const request of requests) this.#run(request);
    });
    // A back end may have answered them on the spot.
    for (const queue of new Set(requests.map((request) => request.queue))) this.#host?.interrupt(queue);
  }

  get heldRequests(): number {
    return this.#held.length;
  }

  save(): Record<string, unknown> {
    return { writeThrough: this.#writeThrough };
  }

  restore(state: unknown): void {
    const { writeThrough } = (state ?? {}) as Record<string, unknown>;
    if (typeof writeThrough !== 'boolean') throw new Error(`${this.name}: the state of the write cache is missing.`);
    this.#writeThrough = writeThrough;
    this.#config.view.setUint8(C.WRITEBACK, writeThrough ? 0 : 1);
  }
}
