import * as aml from './aml.ts';
import { join, littleEndian } from './aml_encoding.ts';
import type { AcpiPci } from './board.ts';
import { hotplugSlots, linkName, linkRegisters } from './pci_legacy.ts';
import { busNumbers, io, ioSpace, memory32Fixed, memorySpace, resourceTemplate } from './resources.ts';
import { table } from './table.ts';

const FOUR_GIB = 2 ** 32;
const ECAM_BYTES_PER_BUS = 0x100000;
/** _OSC (PCI Firmware Specification 3.2, section 4.5.1). */
const OSC_UUID = '33db4d5b-1ff7-401c-9657-7441c03dd766';
const OSC_REVISION = 1;
const OSC_UNRECOGNIZED_UUID = 0x04;
const OSC_UNRECOGNIZED_REVISION = 0x08;
const OSC_MASKED = 0x10;
/** Native hot-plug, SHPC, PME, AER and the PCI Express capability are the guest's. */
const OSC_CONTROL = 0x1f;

function osc(): aml.Aml {
  return aml.method(
    '_OSC',
    { args: 4 },
    aml.createDWordField(aml.arg(3), 0, 'CDW1'),
    aml.ifThen(
      aml.lEqual(aml.arg(0), aml.uuid(OSC_UUID)),
      aml.createDWordField(aml.arg(3), 8, 'CDW3'),
      aml.and(aml.path('CDW3'), OSC_CONTROL, aml.local(0)),
      aml.ifThen(aml.lNotEqual(aml.arg(1), OSC_REVISION), aml.or(aml.path('CDW1'), OSC_UNRECOGNIZED_REVISION, 'CDW1')),
      aml.ifThen(aml.lNotEqual(aml.path('CDW3'), aml.local(0)), aml.or(aml.path('CDW1'), OSC_MASKED, 'CDW1')),
      aml.store(aml.local(0), 'CDW3'),
    ),
    aml.elseThen(aml.or(aml.path('CDW1'), OSC_UNRECOGNIZED_UUID, 'CDW1')),
    aml.returnValue(aml.arg(3)),
  );
}

function resources(pci: AcpiPci): aml.Aml {
  return resourceTemplate(
    busNumbers({ min: 0, max: pci.lastBus }),
    io(0xcf8, 8),
    ...pci.io.map((range) => ioSpace('word', range)),
    ...pci.memory.map((range) =>
      range.max < FOUR_GIB ? memorySpace('dword', range) : memorySpace('qword', { ...range, caching: 'prefetchable' }),
    ),
  );
}

/**
 * \_SB.PCI0: the root complex with what it hands on, its interrupts, and a name for each slot.
 * @param node to which it is near, on a machine that has several.
 */
export function pciRoot(pci: AcpiPci, node?: number): aml.Aml {
  const routes = pci.interrupts.map(({ device, pin, ...to }) => {
    const source = 'link' in to ? [aml.path(`\\_SB.${linkName(to.link)}`), 0] : [0, to.gsi];
    return aml.packageOf(device * 0x10000 + 0xffff, pin - 1, ...source);
  });
  const express = pci.ecamBase !== undefined;
  const ports = pci.ports.map((port) =>
    aml.device(
      port.name,
      aml.name('_ADR', port.device * 0x10000 + port.function),
      aml.device('S00', aml.name('_ADR', 0), aml.name('_SUN', port.slotNumber)),
    ),
  );
  return aml.device(
    'PCI0',
    ...(express
      ? [aml.name('_HID', aml.eisaId('PNP0A08')), aml.name('_CID', aml.eisaId('PNP0A03'))]
      : [aml.name('_HID', aml.eisaId('PNP0A03'))]),
    aml.name('_UID', 0),
    aml.name('_SEG', 0),
    aml.name('_BBN', 0),
    ...(node === undefined ? [] : [aml.name('_PXM', node)]),
    aml.name('_CRS', resources(pci)),
    aml.name('_PRT', aml.packageOf(...routes)),
    ...(express ? [osc()] : []),
    ...ports,
    ...linkRegisters(pci),
    ...hotplugSlots(pci),
  );
}

/** What stands in the root's memory but is the board's own: without it a guest does not trust ECAM. */
export function boardResources(ecamBase: number, lastBus: number): aml.Aml {
  return aml.device(
    'MBRD',
    aml.name('_HID', aml.eisaId('PNP0C02')),
    aml.name('_UID', 1),
    aml.name('_CRS', resourceTemplate(memory32Fixed(ecamBase, (lastBus + 1) * ECAM_BYTES_PER_BUS, true))),
  );
}

/** Memory-mapped configuration space (PCI Firmware Specification 3.2, section 4.1.2). */
export function mcfg(ecamBase: number, lastBus: number): Uint8Array {
  const reserved = new Uint8Array(8);
  return table(
    'MCFG',
    1,
    join(reserved, littleEndian(ecamBase, 8), littleEndian(0, 2), 0, lastBus, littleEndian(0, 4)),
  );
}
