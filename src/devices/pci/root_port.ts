import { PciBridge } from './bridge.ts';
import { addAcs, addAer, addExpress, addSerialNumber, EXP, EXP_TYPE_ROOT_PORT, LNKSTA_ACTIVE } from './express.ts';
import type { PciSlot } from './function.ts';
import { Msix } from './msix.ts';

/** QEMU's generic root port, which stock kernels and firmware know. */
const VENDOR_REDHAT = 0x1b36;
const DEVICE_ROOT_PORT = 0x000c;

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

export interface RootPortOptions {
  /** Physical slot number, also the port number of the link. */
  readonly slotNumber: number;
  readonly serial: bigint;
}

/**
 * A PCI Express root port with a hot-plug slot (PCI Express Base Specification 4.0, section 6.7): attention
 * button, power controller and indicators, presence and link events.
 */
export class RootPort extends PciBridge {
  readonly slotNumber: number;
  readonly msix: Msix;
  /** The driver has turned the slot's power off: a device in it can be taken away. */
  onPowerOff: (() => void) | undefined;
  /** Power indicator or attention indicator changed. */
  onIndicators: ((state: SlotState) => void) | undefined;
  readonly #express: number;
  #occupied = false;
  #powered = true;
  #indicators = 0;

  constructor(name: string, slot: PciSlot, options: RootPortOptions) {
    super(name, { vendor: VENDOR_REDHAT, device: DEVICE_ROOT_PORT, classCode: 0x060400, pin: 1 }, slot);
    const { config } = this;
    this.slotNumber = options.slotNumber;
    this.#express = addExpress(config, {
      type: EXP_TYPE_ROOT_PORT,
      slot: options.slotNumber,
      port: options.slotNumber,
    });
    this.msix = new Msix(this, slot.msi, 1, 0);
    this.addBar({ index: 0, kind: 'memory32', prefetchable: false, size: this.msix.size, region: this.msix });
    this.addSubsystem(VENDOR_REDHAT, 0);
    addAer(config, true);
    addAcs(config);
    addSerialNumber(config, options.serial);
    const at = this.#express;
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
    config.allow(at + EXP.RTCTL, 2, 0x1f);
    config.watch(at + EXP.SLTCTL, 2, () => this.#controlWritten());
    config.watch(at + EXP.SLTSTA, 2, () => this.#interrupt());
    this.#showLink();
  }

  get #control(): number {
    return this.config.read(this.#express + EXP.SLTCTL, 2);
  }

  get #status(): number {
    return this.config.read(this.#express + EXP.SLTSTA, 2);
  }

  /** Something is in the slot from the start: no event. */
  occupy(): void {
    this.#occupied = true;
    this.#setStatus(SLTSTA_PRESENT, 0);
    this.#showLink();
  }

  /** A device was put into the slot: the driver finds it present, with its link up. */
  insert(): void {
    this.#occupied = true;
    this.#setStatus(SLTSTA_PRESENT | SLTSTA_PRESENCE_CHANGED, 0);
    this.#showLink();
    this.#event(SLTSTA_LINK_CHANGED);
  }

  /** Asks the driver to let go of the device, as a person at the slot would. */
  pressAttentionButton(): void {
    this.#event(SLTSTA_ATTENTION_BUTTON);
  }

  /** The device is gone from the slot, whether its driver let go of it or not. */
  remove(): void {
    this.#occupied = false;
    this.#setStatus(SLTSTA_PRESENCE_CHANGED, SLTSTA_PRESENT);
    this.#showLink();
    this.#event(SLTSTA_LINK_CHANGED);
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

  get linkActive(): boolean {
    return this.#occupied && this.#powered;
  }

  #showLink(): void {
    const at = this.#express + EXP.LNKSTA;
    const status = this.config.read(at, 2);
    this.config.set(at, 2, this.linkActive ? status | LNKSTA_ACTIVE : status & ~LNKSTA_ACTIVE);
  }

  #controlWritten(): void {
    const control = this.#control;
    const powered = !(control & SLTCTL_POWER_OFF);
    if (powered !== this.#powered) {
      this.#powered = powered;
      this.#showLink();
      if (!powered) this.onPowerOff?.();
      if (this.#occupied) this.#setStatus(SLTSTA_LINK_CHANGED, 0);
    }
    const indicators = control & (SLTCTL_POWER_INDICATOR | SLTCTL_ATTENTION_INDICATOR);
    if (indicators !== this.#indicators) {
      this.#indicators = indicators;
      this.onIndicators?.(this.slotState);
    }
    // Every write to Slot Control is a command; ours complete at once.
    this.#event(SLTSTA_COMMAND_COMPLETED);
  }

  #setStatus(set: number, clear: number): void {
    this.config.set(this.#express + EXP.SLTSTA, 2, (this.#status & ~clear) | set);
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
    const occupied = this.#occupied;
    this.msix.reset();
    super.reset();
    this.#powered = true;
    this.#indicators = 0;
    if (occupied) this.occupy();
    else this.#showLink();
  }

  override save() {
    return { ...super.save(), msix: this.msix.save(), occupied: this.#occupied, powered: this.#powered };
  }

  override restore(state: unknown): void {
    const { msix, occupied, powered } = (state ?? {}) as Record<string, unknown>;
    if (typeof occupied !== 'boolean' || typeof powered !== 'boolean') {
      throw new Error(`${this.name}: the state of the slot is missing.`);
    }
    super.restore(state);
    this.msix.restore(msix);
    this.#occupied = occupied;
    this.#powered = powered;
    this.#showLink();
  }
}

const indicator = (bits: number): Indicator =>
  bits === INDICATOR_OFF ? 'off' : bits === INDICATOR_BLINK ? 'blink' : 'on';
