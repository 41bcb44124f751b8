import { addAcs, addAer, addSerialNumber, EXP, EXP_TYPE_ROOT_PORT } from './express.ts';
import type { PciSlot } from './function.ts';
import { HotplugPort } from './hotplug_port.ts';

/** QEMU's generic root port, which stock kernels and firmware know. */
const VENDOR_REDHAT = 0x1b36;
const DEVICE_ROOT_PORT = 0x000c;
/** Errors and power management events that the driver wants to hear of. */
const RTCTL_WRITABLE = 0x1f;

export interface RootPortOptions {
  /** Physical slot number, also the port number of the link. */
  readonly slotNumber: number;
  readonly serial: bigint;
}

/** A PCI Express root port with a hot-plug slot. */
export class RootPort extends HotplugPort {
  constructor(name: string, slot: PciSlot, options: RootPortOptions) {
    const identity = { vendor: VENDOR_REDHAT, device: DEVICE_ROOT_PORT, classCode: 0x060400, pin: 1 };
    super(name, identity, slot, {
      type: EXP_TYPE_ROOT_PORT,
      slotNumber: options.slotNumber,
      port: options.slotNumber,
    });
    const { config } = this;
    config.allow(this.express + EXP.RTCTL, 2, RTCTL_WRITABLE);
    this.addSubsystem(VENDOR_REDHAT, 0);
    addAer(config, true);
    addAcs(config);
    addSerialNumber(config, options.serial);
  }
}
