import { PCI, PCI_COMMAND_IO, PCI_COMMAND_MEMORY } from './config_space.ts';
import { PciFunction, type PciIdentity, type PciSlot } from './function.ts';

/** Offsets of a header of type 1 (PCI-to-PCI Bridge Architecture Specification 1.2, section 3.2). */
export const BRIDGE = {
  PRIMARY_BUS: 0x18,
  SECONDARY_BUS: 0x19,
  SUBORDINATE_BUS: 0x1a,
  IO_BASE: 0x1c,
  IO_LIMIT: 0x1d,
  SECONDARY_STATUS: 0x1e,
  MEMORY_BASE: 0x20,
  MEMORY_LIMIT: 0x22,
  PREFETCH_BASE: 0x24,
  PREFETCH_LIMIT: 0x26,
  PREFETCH_BASE_UPPER: 0x28,
  PREFETCH_LIMIT_UPPER: 0x2c,
  CONTROL: 0x3e,
} as const;

const PREFETCH_64_BIT = 1;
const SECONDARY_STATUS_ERRORS = 0xf900;
const CONTROL_WRITABLE = 0x005f;
const CONTROL_BUS_RESET = 0x40;
const PCI_CAP_ID_SSVID = 0x0d;

/** Addresses that a bridge hands on, both ends included. */
export interface Window {
  readonly base: number;
  readonly limit: number;
}

/** A PCI-to-PCI bridge: the header of type 1, windows, and a bus behind it. */
export class PciBridge extends PciFunction {
  /** What is behind the bridge is reset: by the driver, or since it lost its link. */
  onBusReset: (() => void) | undefined;

  constructor(name: string, identity: PciIdentity, slot: PciSlot) {
    super(name, { ...identity, bridge: true }, slot);
    const { config } = this;
    for (const register of [BRIDGE.PRIMARY_BUS, BRIDGE.SECONDARY_BUS, BRIDGE.SUBORDINATE_BUS]) {
      config.allow(register, 1, 0xff);
    }
    config.allow(BRIDGE.IO_BASE, 2, 0xf0f0);
    config.allow(BRIDGE.MEMORY_BASE, 4, 0xfff0fff0);
    config.set(BRIDGE.PREFETCH_BASE, 2, PREFETCH_64_BIT);
    config.set(BRIDGE.PREFETCH_LIMIT, 2, PREFETCH_64_BIT);
    config.allow(BRIDGE.PREFETCH_BASE, 4, 0xfff0fff0);
    config.allow(BRIDGE.PREFETCH_BASE_UPPER, 4, -1);
    config.allow(BRIDGE.PREFETCH_LIMIT_UPPER, 4, -1);
    config.allowClear(BRIDGE.SECONDARY_STATUS, 2, SECONDARY_STATUS_ERRORS);
    config.allow(BRIDGE.CONTROL, 2, CONTROL_WRITABLE);
    config.allow(PCI.COMMAND, 2, PCI_COMMAND_IO | PCI_COMMAND_MEMORY);
    config.watch(BRIDGE.PRIMARY_BUS, 4, () => slot.decodeChanged());
    config.watch(BRIDGE.IO_BASE, 0x14, () => slot.decodeChanged());
    config.watch(BRIDGE.CONTROL, 2, () => {
      if (config.read(BRIDGE.CONTROL, 2) & CONTROL_BUS_RESET) this.onBusReset?.();
    });
  }

  /** Adds the capability that holds a bridge's subsystem. */
  protected addSubsystem(vendor: number, subsystem: number): void {
    const at = this.config.addCapability(PCI_CAP_ID_SSVID, 8);
    this.config.set(at + 4, 2, vendor);
    this.config.set(at + 6, 2, subsystem);
  }

  /** Whether what is behind the bridge can be reached; a link may be down. */
  get linkActive(): boolean {
    return true;
  }

  get secondaryBus(): number {
    return this.config.read(BRIDGE.SECONDARY_BUS, 1);
  }

  get subordinateBus(): number {
    return this.config.read(BRIDGE.SUBORDINATE_BUS, 1);
  }

  /** Port addresses that pass, while the bridge answers them. */
  get ioWindow(): Window | undefined {
    if (!(this.command & PCI_COMMAND_IO)) return undefined;
    const base = (this.config.read(BRIDGE.IO_BASE, 1) & 0xf0) << 8;
    return window(base, ((this.config.read(BRIDGE.IO_LIMIT, 1) & 0xf0) << 8) | 0xfff);
  }

  /** Memory windows that pass, while the bridge answers them. */
  get memoryWindows(): Window[] {
    if (!(this.command & PCI_COMMAND_MEMORY)) return [];
    const { config } = this;
    const upper = (low: number, offset: number, high: number) =>
      (((config.read(offset, 2) & 0xfff0) << 16) >>> 0) + low + high * 2 ** 32;
    return [
      window(upper(0, BRIDGE.MEMORY_BASE, 0), upper(0xfffff, BRIDGE.MEMORY_LIMIT, 0)),
      window(
        upper(0, BRIDGE.PREFETCH_BASE, config.read(BRIDGE.PREFETCH_BASE_UPPER, 4)),
        upper(0xfffff, BRIDGE.PREFETCH_LIMIT, config.read(BRIDGE.PREFETCH_LIMIT_UPPER, 4)),
      ),
    ].filter((each) => each !== undefined);
  }

  /** Whether an access to [address, address + size) passes. */
  passes(space: 'io' | 'memory', address: number, size: number): boolean {
    const windows = space === 'io' ? [this.ioWindow] : this.memoryWindows;
    return windows.some((each) => each !== undefined && address >= each.base && address + size - 1 <= each.limit);
  }
}

const window = (base: number, limit: number): Window | undefined => (base <= limit ? { base, limit } : undefined);
