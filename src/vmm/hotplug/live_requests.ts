import { NemuError } from '../../client/errors.ts';
import { isSettled, type LiveDevice, type LiveRequest, type Stage } from '../../client/live.ts';
import type { Clock, Timer } from '../../devices/device.ts';

/** Requests that are remembered after they have settled. */
const REMEMBERED = 256;
/** How long a guest may take: emulated hosts are slow, and a guest that moves pages away is busy with that. */
const DEFAULT_TIMEOUT_MS = 60_000;
const NS_PER_MS = 1_000_000n;

/** One request as the machine thread keeps it; what others see is a snapshot. */
export interface Pending {
  readonly id: number;
  readonly action: LiveRequest['action'];
  readonly device: LiveDevice;
  readonly timeoutMs: number;
  /** Bytes that are asked for (resize). */
  readonly size?: number;
  readonly timer: Timer;
  stage: Stage;
  /** The device is on its way out: the guest's word no longer counts. */
  detaching?: boolean;
  /** The host has everything back. */
  released?: boolean;
  /** The guest is not asked. */
  forced?: boolean;
  /** It came while the guest was booting, which may have found it by itself. */
  early?: boolean;
  /** What it comes to when the host has its thread or memory back; `removed`, without. */
  withdrawnFor?: string;
  reason?: string;
  guest?: string;
  ost?: NonNullable<LiveRequest['ost']>;
  readonly history: { readonly stage: Stage; readonly at: string }[];
  readonly snapshot: () => LiveRequest;
}

export interface LiveRequestsOptions {
  readonly clock: Clock;
  /** Told of each new stage. */
  readonly changed: (request: LiveRequest) => void;
  /** A guest took too long. */
  readonly timedOut?: (device: LiveDevice, action: LiveRequest['action']) => void;
}

/** The requests of one machine: their stages, their time limits, and which device each is about. */
export class LiveRequests {
  readonly #options: LiveRequestsOptions;
  /** By number; the oldest that have settled are forgotten. */
  readonly #all = new Map<number, Pending>();
  /** The request that a guest's answer about a device belongs to: one that has not settled, or has timed out. */
  readonly #byDevice = new Map<string, Pending>();
  #next = 1;

  constructor(options: LiveRequestsOptions) {
    this.#options = options;
  }

  /**
   * Refuses a second request for a device while the first one is under way. One that timed out makes way.
   * @throws NemuError `BUSY`
   */
  requireFree(device: string): void {
    const other = this.#byDevice.get(device);
    // One that has timed out may end late, and holds its device's place until it has.
    if (!other || (isSettled(other.stage) && !other.detaching)) return;
    const doing = { plug: 'plugged', unplug: 'unplugged', resize: 'resized' }[other.action];
    throw new NemuError('BUSY', `${device} is being ${doing}: request ${other.id} is ${other.stage}.`, {
      hint: 'Wait for that request to settle, then try again.',
    });
  }

  open(
    action: LiveRequest['action'],
    origin: LiveRequest['origin'],
    device: LiveDevice,
    timeoutMs = DEFAULT_TIMEOUT_MS,
    size?: number,
  ): Pending {
    const id = this.#next++;
    const record: Pending = {
      ...{ id, action, device, timeoutMs, stage: 'reserved' },
      ...(size !== undefined && { size }),
      history: [],
      timer: this.#options.clock.timer(() => this.#timedOut(record)),
      snapshot: () => ({
        ...{ id, action, origin, device, stage: record.stage },
        ...(size !== undefined && { size }),
        ...(record.reason !== undefined && { reason: record.reason }),
        ...(record.guest !== undefined && { guest: record.guest }),
        ...(record.ost && { ost: record.ost }),
        history: [...record.history],
      }),
    };
    this.#all.set(id, record);
    this.#byDevice.set(device.id, record);
    this.#forget();
    this.advance(record, 'reserved');
    return record;
  }

  #forget(): void {
    for (const [id, { stage, detaching, released }] of this.#all) {
      if (this.#all.size <= REMEMBERED) return;
      if (isSettled(stage) && (!detaching || released)) this.#all.delete(id);
    }
  }

  get(id: number): Pending | undefined {
    return this.#all.get(id);
  }

  /** The request of this kind that a guest's answer is about. */
  about(device: string, action: LiveRequest['action']): Pending | undefined {
    const pending = this.#byDevice.get(device);
    return pending?.action === action ? pending : undefined;
  }

  advance(pending: Pending, stage: Stage, reason?: string): void {
    const now = this.#options.clock.now();
    pending.stage = stage;
    pending.history.push({ stage, at: String(now) });
    if (reason === undefined) delete pending.reason;
    else pending.reason = reason;
    if (stage === 'notified') pending.timer.armAt(now + BigInt(pending.timeoutMs) * NS_PER_MS);
    if (isSettled(stage)) {
      pending.timer.cancel();
      // A guest that was late may still do what it was asked.
      if (stage !== 'timed-out' && this.#byDevice.get(pending.device.id) === pending) {
        this.#byDevice.delete(pending.device.id);
      }
    }
    this.#options.changed(pending.snapshot());
  }

  #timedOut(pending: Pending): void {
    // Once the guest has let go, only the host is slow.
    if (isSettled(pending.stage) || pending.detaching) return;
    const did = pending.guest ? `What it did last: ${pending.guest}.` : 'It did not look at the event.';
    const unused =
      pending.action === 'plug' && pending.stage === 'accepted'
        ? ' It knows the device but does not use it: is there something in it that brings new ones online?'
        : '';
    this.#options.timedOut?.(pending.device, pending.action);
    this.advance(pending, 'timed-out', `The guest took longer than ${pending.timeoutMs / 1000} s. ${did}${unused}`);
  }

  /** Every request that waits for the guest. */
  waiting(): Pending[] {
    return [...this.#byDevice.values()];
  }

  list(): LiveRequest[] {
    return [...this.#all.values()].map(({ snapshot }) => snapshot());
  }
}
