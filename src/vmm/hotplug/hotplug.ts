import { NemuError } from '../../client/errors.ts';
import { isSettled, type LiveDevice, type LiveRequest, type PlugRequest } from '../../client/live.ts';
import { formatSize } from '../../client/sizes.ts';
import type { VirtioMemDevice } from '../../client/virtio_mem.ts';
import type { Clock } from '../../devices/device.ts';
import type { GuestActs, HostPart, LiveKind } from './kind.ts';
import { LiveRequests, type Pending } from './live_requests.ts';
import { readOst } from './ost.ts';

const FORCED =
  'It was taken by force: what the guest had not yet written to it is lost, and what used it in the guest fails.';

const BOOTS = 'it was booting, and finds the device then or is told of it';

export interface HotplugOptions {
  readonly clock: Clock;
  /** Before that a guest is still to boot, and finds what is there. */
  readonly hasStarted: () => boolean;
  readonly changed: (request: LiveRequest) => void;
  /** The main thread takes back what it made for a device, and says `released`. */
  readonly release: (id: number, device: LiveDevice) => void;
}

/** Takes devices into and out of a running machine; lives in its thread. */
export class Hotplug {
  readonly #options: HotplugOptions;
  readonly #requests: LiveRequests;
  readonly #kinds = new Map<LiveDevice['kind'], LiveKind>();

  constructor(options: HotplugOptions) {
    this.#options = options;
    this.#requests = new LiveRequests({
      ...options,
      timedOut: (device, action) => {
        if (action === 'unplug') this.#kind(device.kind).removalTimedOut?.(device);
      },
    });
  }

  /** Adds a kind. @param make is given what the kind has to call when the guest acts. */
  add<D extends LiveDevice, K extends LiveKind<D, Extract<PlugRequest, { kind: D['kind'] }>>>(
    kind: D['kind'],
    make: (guest: GuestActs) => K,
  ): K {
    const made = make(this.#guest);
    // A request goes to the kind that it names, and a device to the one that made it.
    this.#kinds.set(kind, made as unknown as LiveKind);
    return made;
  }

  #kind(name: LiveDevice['kind']): LiveKind {
    return this.#kinds.get(name) as LiveKind;
  }

  /**
   * Takes a device's place. The main thread makes what it needs and says `prepared`.
   * @throws NemuError that names the limit that is in the way; then nothing was touched.
   */
  plug(request: PlugRequest, timeoutMs?: number): LiveRequest {
    const device = this.#kind(request.kind).reserve(request);
    return this.#requests.open('plug', 'user', device, timeoutMs).snapshot();
  }

  /** The host's part of a device is made, or could not be. @param host what the main thread made for it. */
  prepared(id: number, error?: string, host?: HostPart): void {
    const pending = this.#requests.get(id);
    if (pending?.stage !== 'reserved' || pending.detaching) return;
    const { device } = pending;
    const kind = this.#kind(device.kind);
    if (error !== undefined) {
      kind.vacate(device);
      this.#requests.advance(pending, 'refused', error);
      return;
    }
    try {
      kind.attach(device, host);
    } catch (cause) {
      this.#withdraw(pending, (cause as Error).message);
      return;
    }
    if (!this.#options.hasStarted()) {
      this.#findsAtBoot(pending, 'it finds the device at its boot');
      return;
    }
    pending.early = kind.listens?.() === false;
    const waits = pending.early ? BOOTS : kind.waits?.(device);
    if (waits !== undefined) pending.guest = waits;
    this.#requests.advance(pending, 'notified');
  }

  /** @throws NemuError for a device that there is not, that cannot go, or that is busy with another request. */
  unplug(id: string, timeoutMs?: number, force = false): LiveRequest {
    const all = [...this.#kinds.values()].flatMap((kind) => kind.present());
    const device = all.find((each) => each.id === id);
    if (!device) {
      this.#requests.requireFree(id);
      const ids = all.map((each) => each.id).join(', ');
      throw new NemuError('NO_DEVICE', `There is no ${id} in this machine.`, { hint: `It has ${ids}.` });
    }
    const kind = this.#kind(device.kind);
    kind.requireRemovable(device, force);
    if (force) return this.#take(device);
    this.#requests.requireFree(id);
    const pending = this.#requests.open('unplug', 'user', device, timeoutMs);
    // Whoever is told of the stage is told of that with it.
    const needs = kind.removalNeeds?.(device);
    if (needs !== undefined) pending.guest = needs;
    this.#requests.advance(pending, 'notified');
    kind.requestRemoval(device);
    return pending.snapshot();
  }

  /** Takes a device away from under the guest, with whatever was asked before about it. */
  #take(device: LiveDevice): LiveRequest {
    for (const action of ['plug', 'unplug'] as const) {
      const other = this.#requests.about(device.id, action);
      if (!other) continue;
      if (other.detaching) this.#requests.requireFree(device.id);
      if (!isSettled(other.stage)) this.#requests.advance(other, 'refused', 'It was taken away by force.');
    }
    const pending = this.#requests.open('unplug', 'user', device);
    pending.forced = true;
    pending.guest = 'it was not asked';
    this.#requests.advance(pending, 'notified');
    this.#detach(pending);
    return pending.snapshot();
  }

  /**
   * Asks the guest to have so many bytes of a device plugged. One that was asked for before is no longer wanted.
   * @param now how much is plugged, and what stands in the guest's way. @param ask tells the guest.
   * @throws NemuError BUSY for a device that is on its way out.
   */
  resize(
    device: VirtioMemDevice,
    size: number,
    now: { readonly plugged: number; readonly words?: string | undefined; readonly timeoutMs?: number | undefined },
    ask: () => void,
  ): LiveRequest {
    if (this.#requests.about(device.id, 'unplug')) this.#requests.requireFree(device.id);
    const other = this.#requests.about(device.id, 'resize');
    if (other && !isSettled(other.stage)) {
      this.#requests.advance(other, 'refused', `Another size was asked for meanwhile, ${formatSize(size)}.`);
    }
    const pending = this.#requests.open('resize', 'user', device, now.timeoutMs, size);
    pending.guest = now.words ?? progress(now.plugged, size);
    this.#requests.advance(pending, 'notified');
    ask();
    if (now.plugged === size) this.resized(device, size);
    return pending.snapshot();
  }

  /** The guest has so many bytes of a device plugged. */
  resized(device: VirtioMemDevice, plugged: number): void {
    const pending = this.#requests.about(device.id, 'resize');
    if (pending?.size === undefined) return;
    pending.guest = progress(plugged, pending.size);
    if (plugged === pending.size) this.#requests.advance(pending, 'reached');
    else if (pending.stage === 'notified') this.#requests.advance(pending, 'accepted');
  }

  /** The host has a device's thread or memory back. */
  released(id: number): void {
    const pending = this.#requests.get(id);
    if (!pending?.detaching || pending.released) return;
    pending.released = true;
    this.#kind(pending.device.kind).vacate(pending.device);
    if (pending.withdrawnFor === undefined)
      this.#requests.advance(pending, 'removed', pending.forced ? FORCED : undefined);
    else this.#requests.advance(pending, 'refused', pending.withdrawnFor);
  }

  requests(): LiveRequest[] {
    return this.#requests.list();
  }

  /**
   * The guest that was asked is no more: the next one finds at its boot what is there, and nothing that was to leave.
   * Called before devices are reset. A request to leave that has timed out was told to have failed: its device stays.
   */
  reset(): void {
    for (const pending of this.#requests.waiting()) {
      // The next guest has the same memory to plug.
      if (pending.detaching || pending.stage === 'reserved' || pending.action === 'resize') continue;
      if (pending.action === 'plug') {
        this.#findsAtBoot(pending, 'it was reset, and finds the device at its boot');
      } else if (pending.stage === 'timed-out') {
        this.#requests.advance(pending, 'refused', 'The guest was reset before it let go.');
      } else {
        this.#ejected(pending.device, 'it was reset, and what comes has it no more', false);
      }
    }
  }

  /** Whether a device may leave at any moment: it was asked to, or the host takes it back. */
  isLeaving(id: string): boolean {
    const pending = this.#requests.about(id, 'unplug');
    return pending !== undefined && (pending.detaching === true || !isSettled(pending.stage));
  }

  #findsAtBoot(pending: Pending, words: string): void {
    pending.guest = words;
    this.#requests.advance(pending, 'online');
  }

  /** Takes a device out, and has the request refused once the host has everything back. */
  #withdraw(pending: Pending, reason: string): void {
    pending.withdrawnFor = reason;
    this.#detach(pending);
  }

  #detach(pending: Pending): void {
    const { id, device } = pending;
    pending.detaching = true;
    this.#kind(device.kind).detach(device, () => this.#options.release(id, device));
  }

  readonly #guest: GuestActs = {
    noticed: (device) => {
      for (const action of ['plug', 'unplug'] as const) {
        const pending = this.#requests.about(device.id, action);
        if (pending) pending.guest = 'it read the event and told its drivers';
      }
    },
    answered: (device, event, status) => this.#answered(device, event, status),
    started: (device) => {
      const pending = this.#requests.about(device.id, 'plug');
      if (!pending || pending.detaching) return;
      pending.guest = 'it started the device';
      this.#requests.advance(pending, 'online');
    },
    accepted: (device, action, words) => {
      const pending = this.#requests.about(device.id, action);
      if (!pending || pending.detaching) return;
      pending.guest = words;
      if (pending.stage === 'notified') this.#requests.advance(pending, 'accepted');
    },
    refused: (device, action, words) => {
      const pending = this.#requests.about(device.id, action);
      if (!pending || pending.detaching) return;
      pending.guest = words;
      if (!isSettled(pending.stage)) this.#requests.advance(pending, 'refused', `The guest refused: ${words}.`);
    },
    ejected: (device, words = 'it let go (_EJ0)', stays = false) => this.#ejected(device, words, stays),
  };

  #answered(device: LiveDevice, event: number, status: number): void {
    const answer = readOst(event, status);
    const pending = answer && this.#requests.about(device.id, answer.about === 'insertion' ? 'plug' : 'unplug');
    // Of a device that is still being made a guest can know nothing.
    if (!answer || !pending || pending.detaching || pending.stage === 'reserved') return;
    pending.guest = `it answered: ${answer.words}`;
    pending.ost = { event, status };
    const { onlineWhenAccepted } = this.#kind(device.kind);
    if (answer.outcome === 'failure') {
      const reason = `The guest refused: ${answer.words}.`;
      if (pending.action === 'plug' && pending.early) this.#mayHave(pending, answer.words);
      else if (pending.action === 'plug') this.#withdraw(pending, reason);
      else this.#requests.advance(pending, 'refused', reason);
    } else if (pending.action === 'plug' && answer.outcome === 'success' && onlineWhenAccepted) {
      this.#requests.advance(pending, 'online');
    } else if (pending.stage === 'notified') {
      this.#requests.advance(pending, 'accepted');
    }
  }

  /**
   * A guest was told of what came while it booted, and does not take it. Linux before 6.9 answers so, too, for what it has
   * found before: taken out, it would be torn from under it.
   */
  #mayHave(pending: Pending, words: string): void {
    pending.guest = `it answered: ${words}, and may have found the device at its boot`;
    if (this.#kind(pending.device.kind).onlineWhenAccepted) this.#requests.advance(pending, 'online');
  }

  #ejected(device: LiveDevice, words: string, stays: boolean): void {
    const plug = this.#requests.about(device.id, 'plug');
    if (plug) {
      if (plug.detaching) return;
      this.#withdraw(plug, `The guest let go of it before it used it: ${words}.`);
      return;
    }
    const asked = this.#requests.about(device.id, 'unplug');
    if (!asked && stays) return;
    const pending = asked ?? this.#requests.open('unplug', 'guest', device);
    if (pending.detaching) return;
    pending.guest = words;
    if (pending.stage !== 'accepted') this.#requests.advance(pending, 'accepted');
    this.#detach(pending);
  }
}

const progress = (plugged: number, size: number) =>
  `it has ${formatSize(plugged)} plugged, of ${formatSize(size)} that are asked for`;
