import type { Region } from '../devices/device.ts';

/** Writes in quick succession after which a port's writes are gathered. */
const BURST = 8;
/** Longest pause, in milliseconds, between two writes of one burst. */
const BURST_GAP_MS = 2;
/** How often the ring is looked at while a port gathers: a byte with nothing after it waits at most so long. */
export const GATHER_TICK_MS = 2;
/** Without a write for so long a port leaves the ring again, and the machine thread can sleep for good. */
const IDLE_MS = 20;

interface Port {
  readonly address: number;
  gathering: boolean;
  burst: number;
  lastWrite: number;
}

/**
 * Lets KVM gather writes to serial holding registers while there are many of them. Gathered writes cost no
 * exit, but nobody is told of them: a guest that prints and halts would leave its last bytes in the ring. So
 * a port gathers only during a burst, while a tick empties the ring.
 */
export class SerialCoalescing {
  readonly #setGathering: (address: number, on: boolean) => void;
  readonly #drain: () => void;
  readonly #ports: Port[] = [];

  /**
   * @param setGathering tells KVM.
   * @param drain replays what the ring holds.
   */
  constructor(setGathering: (address: number, on: boolean) => void, drain: () => void) {
    this.#setGathering = setGathering;
    this.#drain = drain;
  }

  /** A UART's region at `address`, watched for bursts of writes to its first register. */
  watch(region: Region & { writeMany?: Region['writeMany'] }, address: number): Region {
    const port: Port = { address, gathering: false, burst: 0, lastWrite: 0 };
    this.#ports.push(port);
    return {
      name: region.name,
      size: region.size,
      read: (offset, size) => region.read(offset, size),
      write: (offset, size, value) => {
        if (offset === 0) this.#wrote(port);
        region.write(offset, size, value);
      },
      writeMany: (offset, size, from) => region.writeMany?.(offset, size, from),
    };
  }

  /** True while a tick is due every GATHER_TICK_MS. */
  get active(): boolean {
    return this.#ports.some(({ gathering }) => gathering);
  }

  #wrote(port: Port): void {
    const now = performance.now();
    port.burst = now - port.lastWrite < BURST_GAP_MS ? port.burst + 1 : 1;
    port.lastWrite = now;
    if (port.gathering || port.burst < BURST) return;
    port.gathering = true;
    this.#setGathering(port.address, true);
  }

  tick(): void {
    this.#drain();
    const now = performance.now();
    for (const port of this.#ports) {
      if (!port.gathering || now - port.lastWrite < IDLE_MS) continue;
      this.#setGathering(port.address, false);
      port.gathering = false;
      port.burst = 0;
      // A write may have been gathered just before KVM let go of the port.
      this.#drain();
    }
  }
}
