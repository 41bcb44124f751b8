import { HPET_SIZE } from '../../devices/hpet.ts';
import * as aml from './aml.ts';
import type { AcpiBoard, AcpiVirtioMmio } from './board.ts';
import { cpuHotplugEvent, processors } from './cpus.ts';
import { dimmSlots, memoryHotplugEvent } from './dimms.ts';
import { nvdimmEvent, nvdimmRoot } from './nvdimm.ts';
import { boardResources, pciRoot } from './pci.ts';
import { hotplugEvent, hotplugResources, interruptLinks } from './pci_legacy.ts';
import { type Descriptor, interrupt, io, irqNoFlags, memory32Fixed, resourceTemplate } from './resources.ts';

/** _STA: present, enabled, functioning; and shown in a user interface (ACPI specification 6.4, section 6.3.7). */
const STA_HIDDEN = 0x0b;
const STA_SHOWN = 0x0f;

const hid = (id: string) => aml.name('_HID', /^[A-Z]{3}[0-9A-F]{4}$/.test(id) ? aml.eisaId(id) : aml.string(id));
const uid = (id: number) => aml.name('_UID', id);
const sta = (status: number) => aml.name('_STA', status);
const crs = (...descriptors: readonly Descriptor[]) => aml.name('_CRS', resourceTemplate(...descriptors));

/** QEMU's pvpanic. The methods are those of the interface; Linux uses the port in _CRS. */
function pvpanic(port: number): aml.Aml {
  return aml.device(
    'PEVT',
    hid('QEMU0001'),
    crs(io(port, 1)),
    aml.operationRegion('PEOR', aml.SPACE.systemIo, port, 1),
    aml.field('PEOR', { access: 'byte' }, { name: 'PEPT', bits: 8 }),
    sta(STA_SHOWN),
    aml.method('RDPT', {}, aml.store(aml.path('PEPT'), aml.local(0)), aml.returnValue(aml.local(0))),
    aml.method('WRPT', { args: 1 }, aml.store(aml.arg(0), 'PEPT')),
  );
}

/** The id that Linux's virtio_mmio looks for. The interrupt is an edge, as `VirtioMmio` makes it. */
function virtioMmio({ base, size, gsi, shared }: AcpiVirtioMmio, index: number): aml.Aml {
  return aml.device(
    `VR${index.toString(16).toUpperCase().padStart(2, '0')}`,
    hid('LNRO0005'),
    uid(index),
    crs(memory32Fixed(base, size, true), interrupt({ trigger: 'edge', polarity: 'high', shared }, gsi)),
  );
}

/** Contents of the DSDT, behind its header: what no guest could find by itself. */
export function dsdt(board: AcpiBoard): aml.Aml {
  const devices: aml.Aml[] = [];
  const { pci } = board;
  if (pci) {
    devices.push(pciRoot(pci, board.numa && 0), ...interruptLinks(pci));
    if (pci.ecamBase !== undefined) devices.push(boardResources(pci.ecamBase, pci.lastBus));
    if (pci.hotplug) devices.push(hotplugResources(pci.hotplug.port, board.gpe0));
  }
  // Behind PCI0, below which their registers are.
  devices.push(...processors(board), ...dimmSlots(board), ...nvdimmRoot(board));
  devices.push(...(board.virtioMmio ?? []).map(virtioMmio));
  for (const [index, { name, port, irq }] of board.uarts.entries()) {
    devices.push(aml.device(name, hid('PNP0501'), uid(index + 1), crs(io(port, 8), irqNoFlags(irq))));
  }
  if (board.rtc) devices.push(aml.device('RTC', hid('PNP0B00'), crs(io(0x70, 2), irqNoFlags(8))));
  if (board.hpet !== undefined) {
    devices.push(aml.device('HPET', hid('PNP0103'), uid(0), crs(memory32Fixed(board.hpet, HPET_SIZE, false))));
  }
  if (board.i8042) {
    devices.push(aml.device('KBD', hid('PNP0303'), crs(io(0x60, 1), io(0x64, 1), irqNoFlags(1))));
  }
  if (board.fwCfg) {
    const { port, length } = board.fwCfg;
    devices.push(aml.device('FWCF', hid('QEMU0002'), sta(STA_HIDDEN), crs(io(port, length))));
  }
  if (board.pvpanicPort !== undefined) devices.push(pvpanic(board.pvpanicPort));
  return aml.terms(
    aml.scope('\\_SB', ...devices),
    ...(pci?.hotplug ? [hotplugEvent()] : []),
    ...(board.cpuHotplug ? [cpuHotplugEvent()] : []),
    ...(board.memoryHotplug ? [memoryHotplugEvent()] : []),
    ...(board.nvdimm ? [nvdimmEvent()] : []),
    // SLP_TYP of PM1a_CNT and PM1b_CNT for soft off; the chip's side is S5_SLP_TYP in ich9_pm.ts.
    aml.name('\\_S5', aml.packageOf(0, 0, 0, 0)),
  );
}
