import type { LiveDevice, LiveRequest, PlugRequest } from '../../client/live.ts';
import type { SerialRings } from '../serial_channel.ts';

/** What the main thread made for a device. */
export interface HostPart {
  /** Of the file behind it; it stays the main thread's. */
  readonly fd?: number;
  /** Of the streams that it brings. */
  readonly rings?: Readonly<Record<string, SerialRings>>;
}

/** What a kind of device tells when the guest does something about one. */
export interface GuestActs {
  /** It took the event to its drivers. */
  noticed(device: LiveDevice): void;
  /** It answered through _OST. */
  answered(device: LiveDevice, event: number, status: number): void;
  /** It uses the device. */
  started(device: LiveDevice): void;
  /** It works on a request, as these words say. */
  accepted(device: LiveDevice, action: LiveRequest['action'], words: string): void;
  /** It does not do what was asked. */
  refused(device: LiveDevice, action: LiveRequest['action'], words: string): void;
  /**
   * It let go of the device.
   * @param stays without a request the device stays where it is: it was turned off, and may be turned on again.
   */
  ejected(device: LiveDevice, words?: string, stays?: boolean): void;
}

/**
 * One kind of device that comes and goes: `reserve`, then the main thread makes what the device needs (a
 * thread, memory), then `attach`, `detach` when the guest has let go, then the main thread takes that back, and
 * `vacate`. A reservation that fails goes from `reserve` to `vacate`.
 */
export interface LiveKind<D extends LiveDevice = LiveDevice, P extends PlugRequest = PlugRequest> {
  /**
   * Checks every bound, and takes a place.
   * @throws NemuError that names the limit and what raises it; then nothing was touched.
   */
  reserve(request: P): D;
  /**
   * The guest can see the device from now on, and is told of it.
   * @param host what the main thread made for it. @throws what the host says against it.
   */
  attach(device: D, host?: HostPart): void;
  /** Whether the guest has begun to listen to events of these devices; one that has not is booting, and may find them. */
  listens?(): boolean;
  /** Why the guest cannot look at it yet, if it cannot. */
  waits?(device: D): string | undefined;
  /** @throws NemuError for a device that can never go, and for `force` where it would break the guest. */
  requireRemovable(device: D, force: boolean): void;
  /** What has to be done in the guest for a device to go, where nothing can ask it to. */
  removalNeeds?(device: D): string | undefined;
  /** Asks the guest to let go. */
  requestRemoval(device: D): void;
  /** The guest has taken too long to let go. */
  removalTimedOut?(device: D): void;
  /** The guest can no longer see the device. @param done called when nothing of it is in use, at once or later. */
  detach(device: D, done: () => void): void;
  /** Its place is free. */
  vacate(device: D): void;
  /** Is the device of use as soon as the guest has accepted it, or only when it is `started`? */
  readonly onlineWhenAccepted: boolean;
  /** Devices that the guest can see. */
  present(): readonly D[];
}
