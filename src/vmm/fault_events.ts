import type { MachineEvent } from '../client/machine_client.ts';

/** A driver that loops over a mistake must not fill anybody's log. */
const INTERVAL_MS = 1000;
const AT_ONCE = 10;

/** Tells of a guest's faults: of the first ones at once, and then of no more than one a second. */
export class FaultEvents {
  readonly #tell: (event: MachineEvent) => void;
  #told = 0;
  #toldAt = 0;
  #unsaid = 0;

  constructor(tell: (event: MachineEvent) => void) {
    this.#tell = tell;
  }

  say(device: string, text: string): void {
    const now = performance.now();
    if (now - this.#toldAt < INTERVAL_MS && this.#told >= AT_ONCE) {
      this.#unsaid++;
      return;
    }
    this.#told++;
    this.#toldAt = now;
    const unsaid = this.#unsaid;
    this.#unsaid = 0;
    this.#tell({ type: 'guest-fault', device, text: unsaid > 0 ? `${text} (${unsaid} more were not shown)` : text });
  }
}
