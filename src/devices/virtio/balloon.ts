import { integerIn } from '../state.ts';
import { ConfigFields, type VirtioDevice, type VirtioHost } from './device.ts';
import type { Chain, VirtQueue } from './queue.ts';

/** Feature bits (virtio 1.2, section 5.5.3). */
const STATS_VQ = 1n << 1n;
const DEFLATE_ON_OOM = 1n << 2n;
const PAGE_POISON = 1n << 4n;
const PAGE_REPORTING = 1n << 5n;

const QUEUE_SIZE = 128;
const INFLATE = 0;
const DEFLATE = 1;
const STATS = 2;

/** struct virtio_balloon_config (section 5.5.4). */
const CONFIG_SIZE = 16;
const C = { NUM_PAGES: 0, ACTUAL: 4, POISON_VAL: 12 } as const;

/** Pages of the balloon have this size whatever the guest's are (section 5.5.6). */
const PAGE = 4096;
const PFN_BYTES = 4;
/** Page numbers of one buffer that are looked at: many times what drivers send. */
const MAX_PFNS = 4096;

/** Statistics as their tags number them (section 5.5.6.4). */
const STAT_NAMES = [
  'swapIn',
  'swapOut',
  'majorFaults',
  'minorFaults',
  'freeMemory',
  'totalMemory',
  'availableMemory',
  'diskCaches',
  'hugetlbAllocations',
  'hugetlbFailures',
] as const;
const STAT_BYTES = 10;
const MAX_STATS = 64;

export type BalloonStatistic = (typeof STAT_NAMES)[number];

/** What the guest last said of its memory: bytes and counts. A statistic that it does not keep is missing. */
export type BalloonStatistics = Partial<Record<BalloonStatistic, number>>;

/** Gives the host memory back that a guest does not use. */
export interface BalloonBackend {
  /**
   * The guest does not need what stands there: reads may give zeros from now on. The range is RAM and aligned to 4 KiB;
   * what of it cannot be given back is kept.
   */
  discard(gpa: number, length: number): void;
}

export interface BalloonOptions {
  readonly name: string;
  readonly backend: BalloonBackend;
  /** The guest may take pages back when it runs out of memory. */
  readonly deflateOnOom?: boolean;
  /** The guest tells of pages that are free without a balloon. On unless it is false. */
  readonly reporting?: boolean;
  /** The balloon has another size now: bytes. */
  readonly onActual?: (bytes: number) => void;
  /** New statistics have come. */
  readonly onStatistics?: (statistics: BalloonStatistics) => void;
}

/** virtio memory balloon (virtio 1.2, section 5.5). */
export class VirtioBalloon implements VirtioDevice {
  readonly name: string;
  readonly type = 5;
  readonly classCode = 0x00ff00;
  readonly features: bigint;
  /**
   * Inflation, deflation, statistics, and two for reports of free pages: drivers number the queues without gaps for
   * features that are not used, the specification with them.
   */
  readonly queueSizes = [QUEUE_SIZE, QUEUE_SIZE, QUEUE_SIZE, QUEUE_SIZE, QUEUE_SIZE];
  readonly configSize = CONFIG_SIZE;
  readonly #options: BalloonOptions;
  readonly #config = new ConfigFields(CONFIG_SIZE);
  #host: VirtioHost | undefined;
  #features = 0n;
  #queues: readonly (VirtQueue | undefined)[] = [];
  #statistics: BalloonStatistics = {};
  /** The buffer in which the driver sent statistics: given back, it asks for new ones. */
  #statsBuffer: Chain | undefined;
  #statsWanted = false;

  constructor(options: BalloonOptions) {
    this.name = options.name;
    this.#options = options;
    this.features =
      STATS_VQ |
      PAGE_POISON |
      (options.deflateOnOom ? DEFLATE_ON_OOM : 0n) |
      (options.reporting === false ? 0n : PAGE_REPORTING);
  }

  attach(host: VirtioHost): void {
    this.#host = host;
  }

  /** Asks the guest to put so many bytes into the balloon, or to leave so many in it. */
  setTarget(bytes: number): void {
    const pages = Math.floor(bytes / PAGE);
    if (!(pages >= 0 && pages <= 0xffffffff)) throw new Error(`${this.name}: a balloon cannot hold ${bytes} bytes.`);
    if (pages === this.#config.view.getUint32(C.NUM_PAGES, true)) return;
    this.#config.view.setUint32(C.NUM_PAGES, pages, true);
    this.#host?.configChanged();
  }

  /** Bytes that the guest was asked to put into the balloon. */
  get target(): number {
    return this.#config.view.getUint32(C.NUM_PAGES, true) * PAGE;
  }

  /** Bytes that the balloon holds, as the guest says. */
  get actual(): number {
    return this.#config.view.getUint32(C.ACTUAL, true) * PAGE;
  }

  /** What the guest said last; it is asked again by `refreshStats`. */
  stats(): BalloonStatistics {
    return this.#statistics;
  }

  /**
   * Asks the guest for new statistics; `onStatistics` is called when they come.
   * @returns false when its driver has none.
   */
  refreshStats(): boolean {
    if (!(this.#features & STATS_VQ) || !this.#queues[STATS]) return false;
    this.#statsWanted = true;
    this.#returnStats();
    return true;
  }

  #returnStats(): void {
    const chain = this.#statsBuffer;
    if (!chain || !this.#statsWanted) return;
    this.#statsWanted = false;
    this.#statsBuffer = undefined;
    this.#queues[STATS]?.push(chain, 0);
    this.#host?.interrupt(STATS);
  }

  readConfig(offset: number, size: number): number {
    return this.#config.read(offset, size);
  }

  writeConfig(offset: number, size: number, value: number): void {
    const { view } = this.#config;
    for (let i = 0; i < size; i++) {
      const at = offset + i;
      const actual = at >= C.ACTUAL && at < C.ACTUAL + 4;
      const poison = at >= C.POISON_VAL && at < C.POISON_VAL + 4;
      if (actual || poison) view.setUint8(at, (value >>> (8 * i)) & 0xff);
    }
    // Drivers write the field whole: its last byte is there.
    if (offset < C.ACTUAL + 4 && offset + size >= C.ACTUAL + 4) this.#options.onActual?.(this.actual);
  }

  negotiated(features: bigint): void {
    this.#features = features;
  }

  start(_features: bigint, queues: readonly (VirtQueue | undefined)[]): void {
    this.#queues = [...queues];
  }

  queueChanged(index: number, queue: VirtQueue | undefined): void {
    const queues = [...this.#queues];
    queues[index] = queue;
    this.#queues = queues;
    if (index === STATS) this.#statsBuffer = undefined;
  }

  stop(): void {
    this.#queues = [];
    this.#features = 0n;
    this.#statsBuffer = undefined;
    this.#statsWanted = false;
    this.#statistics = {};
    // The driver of before has taken its pages back, or is gone.
    this.#config.view.setUint32(C.ACTUAL, 0, true);
    this.#config.view.setUint32(C.POISON_VAL, 0, true);
  }

  notify(index: number): void {
    if (index === STATS && this.#features & STATS_VQ) {
      this.#takeStats();
      return;
    }
    const queue = this.#queues[index];
    if (!queue) return;
    do {
      queue.disableNotification();
      for (let chain = queue.pop(); chain; chain = queue.pop()) {
        if (index === INFLATE) this.#inflate(chain);
        // A page that leaves the balloon comes back when it is touched.
        else if (index !== DEFLATE) this.#reported(chain);
        queue.push(chain, 0);
      }
    } while (queue.enableNotification());
    this.#host?.interrupt(index);
  }

  #inflate(chain: Chain): void {
    const bytes = new Uint8Array(Math.min(chain.readLength, MAX_PFNS * PFN_BYTES));
    chain.read(bytes);
    const numbers = new DataView(bytes.buffer);
    // Neighbours are given back together; Linux counts down.
    let first = 0;
    let count = 0;
    for (let at = 0; at + PFN_BYTES <= bytes.length; at += PFN_BYTES) {
      const pfn = numbers.getUint32(at, true);
      if (count > 0 && pfn === first + count) count++;
      else if (count > 0 && pfn === first - 1) {
        first = pfn;
        count++;
      } else {
        this.#discard(first * PAGE, count * PAGE);
        first = pfn;
        count = 1;
      }
    }
    this.#discard(first * PAGE, count * PAGE);
  }

  /** Free pages are themselves the buffer (section 5.5.6.7). */
  #reported(chain: Chain): void {
    // With poison in them they have to keep it: that cannot be had from the host for less than the pages.
    const poisoned = this.#features & PAGE_POISON && this.#config.view.getUint32(C.POISON_VAL, true) !== 0;
    if (poisoned || !(this.#features & PAGE_REPORTING)) return;
    for (const [i, view] of chain.writable.entries()) {
      const gpa = chain.addresses[chain.readable.length + i];
      const start = Math.ceil(gpa / PAGE) * PAGE;
      const end = Math.floor((gpa + view.length) / PAGE) * PAGE;
      this.#discard(start, end - start);
    }
  }

  #discard(gpa: number, length: number): void {
    if (length <= 0) return;
    if (this.#host?.memory.slice(gpa, length)) {
      this.#options.backend.discard(gpa, length);
      return;
    }
    // A run that leaves RAM somewhere is looked at page by page; what is no RAM is nobody's to give.
    if (length === PAGE) return;
    for (let at = gpa; at < gpa + length; at += PAGE) this.#discard(at, PAGE);
  }

  #takeStats(): void {
    const queue = this.#queues[STATS];
    if (!queue) return;
    do {
      queue.disableNotification();
      for (let chain = queue.pop(); chain; chain = queue.pop()) {
        this.#parseStats(chain);
        // The driver has one buffer; one more takes the place of the first.
        if (this.#statsBuffer) queue.push(this.#statsBuffer, 0);
        this.#statsBuffer = chain;
      }
    } while (queue.enableNotification());
    this.#returnStats();
  }

  #parseStats(chain: Chain): void {
    const bytes = new Uint8Array(Math.min(chain.readLength, MAX_STATS * STAT_BYTES));
    chain.read(bytes);
    const view = new DataView(bytes.buffer);
    const statistics: BalloonStatistics = {};
    for (let at = 0; at + STAT_BYTES <= bytes.length; at += STAT_BYTES) {
      const name = STAT_NAMES[view.getUint16(at, true)];
      const value = view.getBigUint64(at + 2, true);
      // A kernel says with all ones that it does not count this.
      if (name && value !== 0xffffffffffffffffn) statistics[name] = Number(value);
    }
    // The buffer that a driver starts with may be empty.
    if (bytes.length < STAT_BYTES) return;
    this.#statistics = statistics;
    this.#options.onStatistics?.(statistics);
  }

  save(): Record<string, unknown> {
    const { view } = this.#config;
    return {
      target: view.getUint32(C.NUM_PAGES, true),
      actual: view.getUint32(C.ACTUAL, true),
      poison: view.getUint32(C.POISON_VAL, true),
    };
  }

  restore(state: unknown): void {
    const fields = (state ?? {}) as Record<string, unknown>;
    const [target, actual, poison] = ['target', 'actual', 'poison'].map((name) =>
      integerIn(fields, name, 0, 0xffffffff),
    );
    const { view } = this.#config;
    view.setUint32(C.NUM_PAGES, target, true);
    view.setUint32(C.ACTUAL, actual, true);
    view.setUint32(C.POISON_VAL, poison, true);
  }
}
