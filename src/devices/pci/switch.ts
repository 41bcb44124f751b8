import { PciBridge } from './bridge.ts';
import { addAcs, addAer, addExpress, EXP_TYPE_DOWNSTREAM, EXP_TYPE_UPSTREAM } from './express.ts';
import type { PciSlot } from './function.ts';
import { HotplugPort } from './hotplug_port.ts';

/** A switch of Texas Instruments, as QEMU has it: X3130 upstream, XIO3130 downstream. */
const VENDOR_TI = 0x104c;
const DEVICE_UPSTREAM = 0x8232;
const DEVICE_DOWNSTREAM = 0x8233;
const REVISION_UPSTREAM = 2;
const REVISION_DOWNSTREAM = 1;

/** The side of a switch that is towards the root (PCI Express 4.0, section 7.5.1.3). */
export class UpstreamPort extends PciBridge {
  constructor(name: string, slot: PciSlot) {
    super(name, { vendor: VENDOR_TI, device: DEVICE_UPSTREAM, classCode: 0x060400, revision: REVISION_UPSTREAM }, slot);
    addExpress(this.config, { type: EXP_TYPE_UPSTREAM });
    this.addSubsystem(0, 0);
    addAer(this.config, false);
  }
}

/** A port of a switch, with a hot-plug slot. */
export class DownstreamPort extends HotplugPort {
  /** @param port number of the link in the switch. */
  constructor(name: string, slot: PciSlot, slotNumber: number, port: number) {
    super(
      name,
      { vendor: VENDOR_TI, device: DEVICE_DOWNSTREAM, classCode: 0x060400, revision: REVISION_DOWNSTREAM, pin: 1 },
      slot,
      { type: EXP_TYPE_DOWNSTREAM, slotNumber, port },
    );
    this.addSubsystem(0, 0);
    addAer(this.config, false);
    addAcs(this.config);
  }
}
