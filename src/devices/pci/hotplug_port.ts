import { PciBridge } from './bridge.ts';
import { addExpress, EXP, LNKSTA_ACTIVE } from './express.ts';
import type { PciIdentity, PciSlot } from './function.ts';
import { Msix } from './msix.ts';

const SLTCAP_ATTENTION_BUTTON = 1 << 0;
const SLTCAP_POWER_CONTROLLER = 1 << 1;
const SLTCAP_ATTENTION_INDICATOR = 1 << 3;
const SLTCAP_POWER_INDICATOR = 1 << 4;
const SLTCAP_SURPRISE = 1 << 5;
const SLTCAP_HOTPLUG = 1 << 6;

const SLTCTL_INTERRUPTS = 0x1f;
const SLTCTL_HOTPLUG_INTERRUPT = 1 << 5;
const SLTCTL_LINK_CHANGE_ENABLE = 1 << 12;
const SLTCTL_POWER_INDICATOR = 0x300;
const SLTCTL_ATTENTION_INDICATOR = 0xc0;
const SLTCTL_POWER_OFF = 1 << 10;
const SLTCTL_WRITABLE = 0x17ff;
const POWER_INDICATOR_ON = 0x100;
const INDICATOR_OFF = 3;
const INDICATOR_BLINK = 2;

const SLTSTA_ATTENTION_BUTTON = 1 << 0;
const SLTSTA_PRESENCE_CHANGED = 1 << 3;
const SLTSTA_COMMAND_COMPLETED = 1 << 4;
const SLTSTA_PRESENT = 1 << 6;
const SLTSTA_LINK_CHANGED = 1 << 8;
const SLTSTA_EVENTS = 0x11f;

export type Indicator = 'on' | 'blink' | 'off';

/** What a hot-plug slot shows to those who look at the machine from outside. */
export interface SlotState {
  readonly occupied: boolean;
  readonly powered: boolean;
  readonly powerIndicator: Indicator;
  readonly attentionIndicator: Indicator;
  readonly linkActive: boolean;
}

/** What the driver of a slot does, told to whoever put a device in or wants it back. */
export interface SlotWatcher {
  /** It took an event. */
  noticed(): void;
  /** The device has power, and the indicator says that the driver means it. */
  turnedOn(): void;
  /** The indicator blinks on a slot that is on: the driver works on letting go. */
  leaving(): void;
  /** The indicator is on again, and the power never went: the driver keeps the device. */
  kept(): void;
  /** Power and indicator are off: the device can be taken out (PCI Express 4.0, section 6.7.1.1.2). */
  turnedOff(state: SlotState): void;
  /** It has tidied up after a device that went without asking, or was reset. */
  settled(): void;
}

export interface HotplugPortOptions {
  /** Type of port in the Express capability. */
  readonly type: number;
  /** Physical slot number. */
  readonly slotNumber: number;
  /** Number of the link. */
  readonly port: number;
}

/**
 * A port of PCI Express with a hot-plug slot (PCI Express Base Specification 4.0, section 6.7): attention button,
 * power controller and indicators, presence and link events.
 */
export abstract class HotplugPort extends PciBridge {
  readonly slotNumber: number;
  readonly msix: Msix;
  watcher: SlotWatcher | undefined;
  /** A driver listens to the slot from now on. */
  onListening: (() => void) | undefined;
  /** Bus numbers that firmware keeps free for what may be behind the port. */
  reservedBuses = 1;
  /** Offset of the Express capability. */
  protected readonly express: number;
  #occupied = false;
  #powered = true;
  /** The driver has used what is in the slot since it came. */
  #engaged = false;
  /** The driver still tidies up after a device that went: what comes now would be taken for a part of that. */
  #settling = false;
  /** A device waits for the driver to be ready for it. */
  #insertLater = false;
  #blinking = false;
  #listening = false;
  /** The button was pressed before anybody listened: drivers clear what is there before they begin. */
  #pressed = false;
  /** Events that Slot Status shows. */
  #events = 0;

  constructor(name: string, identity: PciIdentity, slot: PciSlot, options: HotplugPortOptions) {
    super(name, identity, slot);
    const { config } = this;
    this.slotNumber = options.slotNumber;
    this.express = addExpress(config, { type: options.type, slot: options.slotNumber, port: options.port });
    this.msix = new Msix(this, slot.msi, 1, 0);
    this.addBar({ index: 0, kind: 'memory32', prefetchable: false, size: this.msix.size, region: this.msix });
    const at = this.express;
    config.set(
      at + EXP.SLTCAP,
      4,
      (SLTCAP_ATTENTION_BUTTON |
        SLTCAP_POWER_CONTROLLER |
        SLTCAP_ATTENTION_INDICATOR |
        SLTCAP_POWER_INDICATOR |
        SLTCAP_SURPRISE |
        SLTCAP_HOTPLUG |
        (options.slotNumber << 19)) >>>
        0,
    );
    config.set(at + EXP.SLTCTL, 2, SLTCTL_POWER_INDICATOR | SLTCTL_ATTENTION_INDICATOR);
    config.allow(at + EXP.SLTCTL, 2, SLTCTL_WRITABLE);
    config.allowClear(at + EXP.SLTSTA, 2, SLTSTA_EVENTS);
    config.watch(at + EXP.SLTCTL, 2, () => this.#controlWritten());
    config.watch(at + EXP.SLTSTA, 2, () => {
      const taken = this.#events & ~this.#status;
      this.#events &= this.#status;
      if (this.#listening && taken & ~SLTSTA_COMMAND_COMPLETED) this.watcher?.noticed();
      this.#interrupt();
    });
    this.#showLink();
  }

  get #control(): number {
    return this.config.read(this.express + EXP.SLTCTL, 2);
  }

  get #status(): number {
    return this.config.read(this.express + EXP.SLTSTA, 2);
  }

  /** Something is in the slot from the start, as firmware leaves it: on, and no event. */
  occupy(): void {
    this.#occupied = true;
    this.#insertLater = false;
    this.#engaged = true;
    this.config.set(
      this.express + EXP.SLTCTL,
      2,
      (this.#control & ~(SLTCTL_POWER_INDICATOR | SLTCTL_POWER_OFF)) | POWER_INDICATOR_ON,
    );
    this.#showLink();
    this.#setStatus(SLTSTA_PRESENT, SLTSTA_EVENTS);
  }

  /**
   * A device was put into the slot: the driver finds it present. While the driver still tidies up after the one
   * before, the device comes when that is done, since drivers forget what happens meanwhile.
   */
  insert(): void {
    if (this.#settling) {
      this.#insertLater = true;
      return;
    }
    this.#insertLater = false;
    this.#occupied = true;
    this.#engaged = false;
    // Linux does not listen for presence where there is a button, which would cost it 5 s: the link's event it takes.
    this.#setStatus(SLTSTA_PRESENT | SLTSTA_PRESENCE_CHANGED | SLTSTA_LINK_CHANGED, 0);
    this.#showLink();
    this.#interrupt();
  }

  /** Asks the driver to let go of the device, as a person at the slot would. */
  pressAttentionButton(): void {
    this.#pressed = !this.#listening;
    this.#event(SLTSTA_ATTENTION_BUTTON);
  }

  /** The device is gone from the slot, whether its driver let go of it or not. */
  remove(): void {
    this.#insertLater = false;
    this.#pressed = false;
    if (!this.#occupied) return;
    this.#occupied = false;
    // A driver that listens has a device to let go of.
    this.#settling = this.#engaged && this.#listening;
    this.#engaged = false;
    this.#blinking = false;
    this.#setStatus(SLTSTA_PRESENCE_CHANGED, SLTSTA_PRESENT);
    this.#showLink();
    this.#interrupt();
  }

  get isListening(): boolean {
    return this.#listening;
  }

  /** The driver has turned the slot off: what is in it can be taken without asking. */
  get isOff(): boolean {
    return !this.#powered && (this.#control & SLTCTL_POWER_INDICATOR) === SLTCTL_POWER_INDICATOR;
  }

  /** Whether the driver works on letting go of the device, and can still be called off. */
  get isBlinking(): boolean {
    return this.#blinking;
  }

  /** Whether a device is there that the driver is still to be told of. */
  get isWaiting(): boolean {
    return this.#insertLater;
  }

  /** Whether the driver still tidies up after the device before. */
  get isSettling(): boolean {
    return this.#settling;
  }

  get slotState(): SlotState {
    const control = this.#control;
    return {
      occupied: this.#occupied,
      powered: this.#powered,
      powerIndicator: indicator((control & SLTCTL_POWER_INDICATOR) >> 8),
      attentionIndicator: indicator((control & SLTCTL_ATTENTION_INDICATOR) >> 6),
      linkActive: this.linkActive,
    };
  }

  override get linkActive(): boolean {
    return this.#occupied && this.#powered;
  }

  /** Brings Link Status in line; a change is an event, and what is behind the port comes or goes. */
  #showLink(): void {
    const at = this.express + EXP.LNKSTA;
    const status = this.config.read(at, 2);
    const next = this.linkActive ? status | LNKSTA_ACTIVE : status & ~LNKSTA_ACTIVE;
    if (next === status) return;
    this.config.set(at, 2, next);
    this.#setStatus(SLTSTA_LINK_CHANGED, 0);
    // Without power it forgets all that it was told.
    if (!this.linkActive) this.onBusReset?.();
    this.slot.decodeChanged();
  }

  #controlWritten(): void {
    const control = this.#control;
    this.#powered = !(control & SLTCTL_POWER_OFF);
    const listened = this.#listening;
    this.#listening = (control & SLTCTL_HOTPLUG_INTERRUPT) !== 0;
    if (this.#listening && !listened) {
      this.onListening?.();
      if (this.#pressed) this.pressAttentionButton();
    }
    this.#showLink();
    if (this.#occupied) this.#follow(indicator((control & SLTCTL_POWER_INDICATOR) >> 8));
    else if (this.isOff) this.#settled();
    // Every write to Slot Control is a command; ours complete at once.
    this.#event(SLTSTA_COMMAND_COMPLETED);
  }

  /** What the driver says by power and indicator of the device that is there. */
  #follow(power: Indicator): void {
    const { watcher } = this;
    const engaged = this.#engaged;
    if (this.#powered) {
      const blinked = this.#blinking;
      this.#blinking = engaged && power === 'blink';
      if (!engaged && power !== 'off') {
        this.#engaged = true;
        watcher?.turnedOn();
      } else if (this.#blinking && !blinked) watcher?.leaving();
      else if (blinked && power === 'on') watcher?.kept();
    } else if (power === 'off' && engaged) {
      this.#engaged = false;
      this.#blinking = false;
      watcher?.turnedOff(this.slotState);
    }
  }

  #settled(): void {
    this.#endSettling();
    if (this.#insertLater) this.insert();
  }

  #endSettling(): void {
    const settling = this.#settling;
    this.#settling = false;
    if (settling) this.watcher?.settled();
  }

  #setStatus(set: number, clear: number): void {
    const status = (this.#status & ~clear) | set;
    this.config.set(this.express + EXP.SLTSTA, 2, status);
    this.#events = status & SLTSTA_EVENTS;
  }

  #event(event: number): void {
    this.#setStatus(event, 0);
    this.#interrupt();
  }

  /** Sends the message, or drives INTx, for events that are enabled (section 6.7.3.4). */
  #interrupt(): void {
    const control = this.#control;
    const status = this.#status;
    const enabled = (control & SLTCTL_INTERRUPTS) | (control & SLTCTL_LINK_CHANGE_ENABLE ? SLTSTA_LINK_CHANGED : 0);
    const pending = (control & SLTCTL_HOTPLUG_INTERRUPT) !== 0 && (status & enabled & SLTSTA_EVENTS) !== 0;
    if (this.msix.enabled) {
      if (pending) this.msix.notify(0);
    } else this.setIntx(pending);
  }

  override reset(): void {
    const occupied = this.#occupied || this.#insertLater;
    this.msix.reset();
    super.reset();
    this.#powered = true;
    this.#endSettling();
    this.#blinking = false;
    this.#engaged = false;
    this.#insertLater = false;
    this.#listening = false;
    this.#pressed = false;
    this.#events = 0;
    this.#occupied = occupied;
    if (occupied) this.occupy();
    else this.#showLink();
  }

  override save() {
    return {
      ...super.save(),
      msix: this.msix.save(),
      occupied: this.#occupied,
      powered: this.#powered,
      slot: [this.#engaged, this.#settling, this.#insertLater, this.#blinking, this.#pressed],
    };
  }

  override restore(state: unknown): void {
    const { msix, occupied, powered, slot } = (state ?? {}) as Record<string, unknown>;
    const flags: unknown[] = Array.isArray(slot) && slot.length === 5 ? slot : [undefined];
    if (![occupied, powered, ...flags].every((flag) => typeof flag === 'boolean')) {
      throw new Error(`${this.name}: the state of the slot is missing.`);
    }
    super.restore(state);
    this.msix.restore(msix);
    this.#occupied = occupied as boolean;
    this.#powered = powered as boolean;
    [this.#engaged, this.#settling, this.#insertLater, this.#blinking, this.#pressed] = flags as boolean[];
    this.#events = this.#status & SLTSTA_EVENTS;
    this.#listening = (this.#control & SLTCTL_HOTPLUG_INTERRUPT) !== 0;
    const at = this.express + EXP.LNKSTA;
    const status = this.config.read(at, 2);
    this.config.set(at, 2, this.linkActive ? status | LNKSTA_ACTIVE : status & ~LNKSTA_ACTIVE);
    this.slot.decodeChanged();
  }
}

const indicator = (bits: number): Indicator =>
  bits === INDICATOR_OFF ? 'off' : bits === INDICATOR_BLINK ? 'blink' : 'on';
