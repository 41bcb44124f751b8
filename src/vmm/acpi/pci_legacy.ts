/** What the DSDT has besides its root: interrupt links of a PC without PCI Express, and hot-plug by ACPI. */
import * as aml from './aml.ts';
import type { AcpiPci } from './board.ts';
import { interrupt, io, resourceTemplate } from './resources.ts';

/** _STA: present, functioning and hidden; with and without a route. */
const STA_ROUTED = 0x0b;
const STA_NOT_ROUTED = 0x09;
/** A PIIX3's route register with this bit drives nothing. */
const ROUTE_DISABLED = 0x80;
const ROUTE_REGISTER = 0x60;
/** Where the interrupt's number stands in its descriptor: behind tag, length, flags and count. */
const IRQ_OFFSET = 5;

/** Notifications of devices (ACPI specification 6.4, section 5.6.6). */
const NOTIFY_DEVICE_CHECK = 1;
const NOTIFY_EJECT_REQUEST = 3;

export const linkName = (link: number): string => `LNK${'ABCDEFGH'[link]}`;
const routeName = (link: number): string => `PRQ${link}`;
/** As QEMU names them: by device and function. */
const slotName = (device: number): string => `S${(device << 3).toString(16).toUpperCase().padStart(2, '0')}`;

/** Inside PCI0: the ISA bridge with its route registers. */
export function linkRegisters({ links }: AcpiPci): aml.Aml[] {
  if (!links) return [];
  return [
    aml.device(
      'ISA',
      aml.name('_ADR', links.device * 0x10000),
      aml.operationRegion('P40C', aml.SPACE.pciConfig, ROUTE_REGISTER, links.count),
      aml.field(
        'P40C',
        { access: 'byte' },
        ...Array.from({ length: links.count }, (_, link) => ({ name: routeName(link), bits: 8 })),
      ),
    ),
  ];
}

/** Interrupt link devices (section 6.2.13): which ISA interrupts a link may drive, which it does, and to change that. */
export function interruptLinks({ links }: AcpiPci): aml.Aml[] {
  if (!links) return [];
  const shared = { trigger: 'level', polarity: 'high', shared: true } as const;
  return Array.from({ length: links.count }, (_, link) => {
    const route = aml.path(`\\_SB.PCI0.ISA.${routeName(link)}`);
    return aml.device(
      linkName(link),
      aml.name('_HID', aml.eisaId('PNP0C0F')),
      aml.name('_UID', link),
      aml.name('_PRS', resourceTemplate(interrupt(shared, ...links.irqs))),
      aml.name('PRR0', resourceTemplate(interrupt(shared, 0))),
      aml.method(
        '_STA',
        {},
        aml.ifThen(aml.and(route, ROUTE_DISABLED), aml.returnValue(STA_NOT_ROUTED)),
        aml.returnValue(STA_ROUTED),
      ),
      aml.method('_DIS', {}, aml.or(route, ROUTE_DISABLED, route)),
      aml.method(
        '_CRS',
        { serialized: true },
        aml.createDWordField(aml.path('PRR0'), IRQ_OFFSET, 'PRRI'),
        aml.ifThen(aml.lLess(route, ROUTE_DISABLED), aml.store(route, 'PRRI')),
        aml.returnValue(aml.path('PRR0')),
      ),
      aml.method(
        '_SRS',
        { args: 1, serialized: true },
        aml.createDWordField(aml.arg(0), IRQ_OFFSET, 'PRRI'),
        aml.store(aml.path('PRRI'), route),
      ),
    );
  });
}

/** Inside PCI0: the hot-plug registers, a device for each slot, and PCNT, which tells of what has come or is to go. */
export function hotplugSlots({ hotplug }: AcpiPci): aml.Aml[] {
  if (!hotplug) return [];
  const { port, slots, firstSun } = hotplug;
  const registers = (region: string, offset: number, ...names: readonly string[]) => [
    aml.operationRegion(region, aml.SPACE.systemIo, port + offset, 4 * names.length),
    aml.field(region, { access: 'dword', update: 'writeAsZeros' }, ...names.map((name) => ({ name, bits: 32 }))),
  ];
  return [
    ...registers('PCST', 0x00, 'PCIU', 'PCID'),
    ...registers('SEJ', 0x08, 'B0EJ'),
    ...registers('BNMR', 0x10, 'BNUM'),
    aml.mutex('BLCK'),
    aml.method(
      'PCEJ',
      { args: 1, serialized: true },
      aml.acquire('BLCK'),
      aml.store(0, 'BNUM'),
      aml.shiftLeft(1, aml.arg(0), 'B0EJ'),
      aml.release('BLCK'),
    ),
    ...slots.map((slot) =>
      aml.device(
        slotName(slot),
        aml.name('_SUN', firstSun + slot),
        aml.name('_ADR', slot * 0x10000),
        aml.method('_EJ0', { args: 1 }, aml.call('PCEJ', slot)),
      ),
    ),
    aml.method(
      'DVNT',
      { args: 2 },
      ...slots.map((slot) => aml.ifThen(aml.and(aml.arg(0), 2 ** slot), aml.notify(slotName(slot), aml.arg(1)))),
    ),
    aml.method(
      'PCNT',
      { serialized: true },
      aml.acquire('BLCK'),
      aml.store(0, 'BNUM'),
      aml.call('DVNT', aml.path('PCIU'), NOTIFY_DEVICE_CHECK),
      aml.call('DVNT', aml.path('PCID'), NOTIFY_EJECT_REQUEST),
      aml.release('BLCK'),
    ),
  ];
}

/** The handler of the event that says that the registers have news. */
export const hotplugEvent = (): aml.Aml => aml.scope('\\_GPE', aml.method('_E01', {}, aml.call('\\_SB.PCI0.PCNT')));

/** Ports that the board keeps for itself. @param gpe0 where the events are, when they have ports of their own. */
export const hotplugResources = (port: number, gpe0?: { readonly port: number; readonly length: number }): aml.Aml =>
  aml.device(
    'PHPR',
    aml.name('_HID', aml.eisaId('PNP0A06')),
    aml.name('_UID', 1),
    aml.name('_STA', STA_ROUTED),
    aml.name('_CRS', resourceTemplate(io(port, 0x14), ...(gpe0 ? [io(gpe0.port, gpe0.length)] : []))),
  );
