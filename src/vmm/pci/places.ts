/** Places of a machine where devices of PCI can come and go while the guest runs. */
import type { PciPortReport } from '../../client/live.ts';
import type { AcpiPciHotplug } from '../../devices/acpi_pci_hotplug.ts';
import type { HotplugPort } from '../../devices/pci/hotplug_port.ts';
import type { PciBus } from './root.ts';

/** What a guest does about the device in a place, with words for people. */
export interface PlaceWatcher {
  noticed(): void;
  /** It takes the device. */
  accepted(words: string): void;
  /** It works on letting go. */
  leaving(words: string): void;
  /** It does not let go. */
  kept(words: string): void;
  /** It let go. */
  released(words: string): void;
}

export interface PciPlace {
  /** `rp0`, `sw0.1`, `slot4`. */
  readonly id: string;
  readonly kind: PciPortReport['kind'];
  readonly bus: PciBus;
  readonly devfn: number;
  /** Type in the Express capability of a device that stands here; undefined on a bus that is not Express. */
  readonly express: number | undefined;
  /** Bus numbers behind it: a switch takes two, and one for each of its ports. */
  readonly buses: number;
  /** What is here is here from the start, and stays. */
  readonly fixed: boolean;
  watcher: PlaceWatcher | undefined;
  /** A device is here from the start. */
  occupy(): void;
  /** A device came: the guest is told. */
  insert(): void;
  /** Asks the guest to let go. */
  requestRemoval(): void;
  /** The device is gone. */
  remove(): void;
  /** Why the guest may not have looked yet, when there is a reason. */
  readonly waits: string | undefined;
  /** Told once, when the guest has tidied up after a device that was torn out. */
  onSettled: (() => void) | undefined;
  readonly state: PciPortReport['state'];
}

const BLINKS = "the port's power indicator blinks: it works on letting go";
const UNSEEN = 'it has not seen the device, which waited for it';

/** A slot behind a port of PCI Express: native hot-plug. */
export class PortPlace implements PciPlace {
  readonly kind = 'port';
  readonly fixed = false;
  readonly devfn = 0;
  readonly id: string;
  readonly bus: PciBus;
  readonly express: number;
  watcher: PlaceWatcher | undefined;
  onSettled: (() => void) | undefined;
  readonly #port: HotplugPort;

  constructor(port: HotplugPort, bus: PciBus, express: number) {
    this.id = port.name;
    this.#port = port;
    this.bus = bus;
    this.express = express;
    port.watcher = {
      noticed: () => this.watcher?.noticed(),
      turnedOn: () => this.watcher?.accepted('it turned the port on'),
      leaving: () => this.watcher?.leaving(BLINKS),
      kept: () => this.watcher?.kept("it kept the device: the port's power indicator is on again"),
      turnedOff: ({ attentionIndicator }) => {
        const trouble = attentionIndicator === 'on' ? ', and its attention indicator on: it had trouble with it' : '';
        this.watcher?.released(`it turned the port off${trouble}`);
      },
      settled: () => {
        const told = this.onSettled;
        this.onSettled = undefined;
        told?.();
      },
    };
  }

  get buses(): number {
    return this.#port.reservedBuses;
  }

  occupy(): void {
    this.#port.occupy();
  }

  insert(): void {
    this.#port.insert();
  }

  requestRemoval(): void {
    if (this.#port.isWaiting) this.watcher?.released(UNSEEN);
    else if (this.#port.isOff) this.watcher?.released('it had turned the port off already');
    // A second press would call the first one off (PCI Express 4.0, section 6.7.1.5).
    else if (this.#port.isBlinking) this.watcher?.leaving(BLINKS);
    else this.#port.pressAttentionButton();
  }

  remove(): void {
    this.#port.remove();
  }

  get waits(): string | undefined {
    return this.#port.isSettling ? 'it still tidies up after the device that was here before' : undefined;
  }

  get state(): PciPortReport['state'] {
    const { powered, linkActive, powerIndicator, attentionIndicator } = this.#port.slotState;
    return { powered, linkActive, powerIndicator, attentionIndicator };
  }
}

const TORN = 'it has yet to let go of the device that was taken out of here by force';

/** A device number of the root bus: hot-plug through ACPI. */
export class SlotPlace implements PciPlace {
  readonly kind = 'slot';
  readonly fixed = false;
  readonly buses = 0;
  readonly state = undefined;
  readonly id: string;
  readonly bus: PciBus;
  readonly devfn: number;
  readonly express: number | undefined;
  watcher: PlaceWatcher | undefined;
  onSettled: (() => void) | undefined;
  readonly #hotplug: AcpiPciHotplug;
  readonly #device: number;

  constructor(hotplug: AcpiPciHotplug, bus: PciBus, device: number, express: number | undefined) {
    this.id = `slot${device}`;
    this.#hotplug = hotplug;
    this.#device = device;
    this.bus = bus;
    this.devfn = device << 3;
    this.express = express;
  }

  get waits(): string | undefined {
    return this.#hotplug.isTorn(this.#device) ? TORN : undefined;
  }

  /** The guest has let go of what was torn out. */
  settled(): void {
    const told = this.onSettled;
    this.onSettled = undefined;
    told?.();
  }

  occupy(): void {
    this.#hotplug.setRemovable(this.#device, true);
  }

  insert(): void {
    this.#hotplug.setRemovable(this.#device, true);
    this.#hotplug.plugged(this.#device);
  }

  requestRemoval(): void {
    if (this.#hotplug.isLate(this.#device)) this.watcher?.released(UNSEEN);
    else this.#hotplug.requestRemoval(this.#device);
  }

  remove(): void {
    this.#hotplug.gone(this.#device);
  }
}

/** A device number behind a bridge to conventional PCI, which has no controller for hot-plug. */
export class BridgePlace implements PciPlace {
  readonly kind = 'slot';
  readonly fixed = true;
  readonly buses = 0;
  readonly express = undefined;
  readonly waits = undefined;
  readonly state = undefined;
  readonly id: string;
  readonly bus: PciBus;
  readonly devfn: number;
  watcher: PlaceWatcher | undefined;
  onSettled: (() => void) | undefined;

  constructor(bridge: string, bus: PciBus, device: number) {
    this.id = `${bridge}.${device}`;
    this.bus = bus;
    this.devfn = device << 3;
  }

  occupy(): void {}
  insert(): void {}
  requestRemoval(): void {}
  remove(): void {}
}
