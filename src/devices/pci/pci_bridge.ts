import { PciBridge } from './bridge.ts';
import { addAer, addExpress, EXP_TYPE_PCI_BRIDGE } from './express.ts';
import type { PciSlot } from './function.ts';

/** QEMU's bridges, which have no hot-plug controller (SHPC) here. */
const VENDOR_REDHAT = 0x1b36;
const DEVICE_PCI_BRIDGE = 0x0001;
const DEVICE_PCIE_PCI_BRIDGE = 0x000e;
const CLASS_PCI_BRIDGE = 0x060400;

/** A bridge from conventional PCI to another bus of it. */
export class PciPciBridge extends PciBridge {
  constructor(name: string, slot: PciSlot) {
    super(name, { vendor: VENDOR_REDHAT, device: DEVICE_PCI_BRIDGE, classCode: CLASS_PCI_BRIDGE }, slot);
    this.addSubsystem(VENDOR_REDHAT, 0);
  }
}

/** A bridge from PCI Express to conventional PCI (PCI Express to PCI/PCI-X Bridge Specification 1.0). */
export class PciePciBridge extends PciBridge {
  constructor(name: string, slot: PciSlot) {
    super(name, { vendor: VENDOR_REDHAT, device: DEVICE_PCIE_PCI_BRIDGE, classCode: CLASS_PCI_BRIDGE }, slot);
    addExpress(this.config, { type: EXP_TYPE_PCI_BRIDGE });
    this.addSubsystem(VENDOR_REDHAT, 0);
    addAer(this.config, false);
  }
}
