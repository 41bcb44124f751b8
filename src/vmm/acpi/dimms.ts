/** DIMMs that can be plugged, in the DSDT: a device for each slot, as QEMU has them. */
import * as aml from './aml.ts';
import type { AcpiBoard } from './board.ts';
import { NOTIFY_DEVICE_CHECK, NOTIFY_EJECT_REQUEST, resourceRoot, STA_PRESENT } from './cpus.ts';
import { io, memorySpace, resourceTemplate } from './resources.ts';

const REGISTERS_LENGTH = 0x18;
const FLAGS_OFFSET = 0x14;
/** Where a 64-bit address space descriptor (section 6.4.3.5.1) has minimum, maximum and length. */
const MINIMUM_OFFSET = 14;
const MAXIMUM_OFFSET = 22;
const LENGTH_OFFSET = 38;

const slotName = (slot: number) => `MP${slot.toString(16).toUpperCase().padStart(2, '0')}`;

/** The registers of hot-plug, and \_SB.MHPC with the slots; nothing on a machine without room for memory. */
export function dimmSlots(board: AcpiBoard): aml.Aml[] {
  if (!board.memoryHotplug) return [];
  const { port, slots } = board.memoryHotplug;
  const registers = `${resourceRoot(board)}.MHPD`;
  return [
    hotplugRegisters(registers, port),
    aml.device(
      'MHPC',
      aml.name('_HID', aml.eisaId('PNP0A06')),
      aml.name('_UID', aml.string('DIMM devices')),
      aml.name('MDNR', slots),
      aml.mutex('MLCK'),
      aml.method('_STA', {}, aml.returnValue(STA_PRESENT)),
      ...slotMethods(registers, slots),
      ...Array.from({ length: slots }, (_, slot) => dimm(slot)),
    ),
  ];
}

function hotplugRegisters(where: string, port: number): aml.Aml {
  const words = (...names: readonly string[]) => names.map((name) => ({ name, bits: 32 }));
  return aml.device(
    where,
    aml.name('_HID', aml.eisaId('PNP0A06')),
    aml.name('_UID', aml.string('Memory hotplug resources')),
    aml.name('_CRS', resourceTemplate(io(port, REGISTERS_LENGTH))),
    aml.operationRegion('HPMR', aml.SPACE.systemIo, port, REGISTERS_LENGTH),
    // What a read gives, what the flags are, and what a write takes.
    aml.field('HPMR', { access: 'dword' }, ...words('MRBL', 'MRBH', 'MRLL', 'MRLH', 'MPX')),
    aml.field(
      'HPMR',
      { access: 'byte', update: 'writeAsZeros' },
      { offset: FLAGS_OFFSET },
      ...['MES', 'MINS', 'MRMV', 'MEJ'].map((name) => ({ name, bits: 1 })),
    ),
    aml.field('HPMR', { access: 'dword' }, ...words('MSEL', 'MOEV', 'MOSC')),
  );
}

function dimm(slot: number): aml.Aml {
  return aml.device(
    slotName(slot),
    aml.name('_UID', aml.string(`0x${slot.toString(16).toUpperCase().padStart(2, '0')}`)),
    aml.name('_HID', aml.eisaId('PNP0C80')),
    aml.method('_CRS', {}, aml.returnValue(aml.call('MCRS', slot))),
    aml.method('_STA', {}, aml.returnValue(aml.call('MRST', slot))),
    aml.method('_PXM', {}, aml.returnValue(aml.call('MPXM', slot))),
    aml.method('_OST', { args: 3 }, aml.call('MOST', slot, aml.arg(0), aml.arg(1))),
    aml.method('_EJ0', { args: 1 }, aml.call('MEJ0', slot)),
  );
}

function slotMethods(registers: string, slots: number): aml.Aml[] {
  const unit = (name: string) => `${registers}.${name}`;
  const get = (name: string) => aml.path(unit(name));
  const locked = (...list: readonly aml.Aml[]) => [aml.acquire('MLCK'), ...list, aml.release('MLCK')];
  const select = aml.store(aml.arg(0), unit('MSEL'));
  const tell = (flag: string, notification: number) => [
    aml.call('MTFY', aml.local(0), notification),
    aml.store(1, unit(flag)),
  ];
  const joined = (high: string, low: string, into: number) =>
    aml.or(aml.shiftLeft(get(high), 32), get(low), aml.local(into));
  return [
    aml.method(
      'MSCN',
      { serialized: true },
      ...locked(
        aml.store(0, aml.local(0)),
        aml.whileDo(
          aml.lLess(aml.local(0), aml.path('MDNR')),
          aml.store(aml.local(0), unit('MSEL')),
          aml.ifThen(aml.lEqual(get('MINS'), 1), ...tell('MINS', NOTIFY_DEVICE_CHECK)),
          aml.elseThen(aml.ifThen(aml.lEqual(get('MRMV'), 1), ...tell('MRMV', NOTIFY_EJECT_REQUEST))),
          aml.increment(aml.local(0)),
        ),
      ),
    ),
    aml.method(
      'MTFY',
      { args: 2 },
      ...Array.from({ length: slots }, (_, slot) =>
        aml.ifThen(aml.lEqual(aml.arg(0), slot), aml.notify(slotName(slot), aml.arg(1))),
      ),
    ),
    aml.method(
      'MRST',
      { args: 1, serialized: true },
      aml.store(0, aml.local(0)),
      ...locked(select, aml.ifThen(aml.lEqual(get('MES'), 1), aml.store(STA_PRESENT, aml.local(0)))),
      aml.returnValue(aml.local(0)),
    ),
    aml.method(
      'MCRS',
      { args: 1, serialized: true },
      aml.store(resourceTemplate(memorySpace('qword', { min: 0, max: 0, caching: 'cacheable' })), aml.local(2)),
      aml.createQWordField(aml.local(2), MINIMUM_OFFSET, 'MINA'),
      aml.createQWordField(aml.local(2), MAXIMUM_OFFSET, 'MAXA'),
      aml.createQWordField(aml.local(2), LENGTH_OFFSET, 'LENA'),
      ...locked(select, joined('MRBH', 'MRBL', 0), joined('MRLH', 'MRLL', 1)),
      aml.store(aml.local(0), 'MINA'),
      aml.store(aml.local(1), 'LENA'),
      aml.subtract(aml.add(aml.local(0), aml.local(1)), 1, 'MAXA'),
      aml.returnValue(aml.local(2)),
    ),
    aml.method(
      'MPXM',
      { args: 1, serialized: true },
      ...locked(select, aml.store(get('MPX'), aml.local(0))),
      aml.returnValue(aml.local(0)),
    ),
    aml.method(
      'MOST',
      { args: 3, serialized: true },
      ...locked(select, aml.store(aml.arg(1), unit('MOEV')), aml.store(aml.arg(2), unit('MOSC'))),
    ),
    aml.method('MEJ0', { args: 1, serialized: true }, ...locked(select, aml.store(1, unit('MEJ')))),
  ];
}

/** The handler of the event that says that the registers have news. */
export const memoryHotplugEvent = (): aml.Aml =>
  aml.scope('\\_GPE', aml.method('_E03', {}, aml.call('\\_SB.MHPC.MSCN')));
