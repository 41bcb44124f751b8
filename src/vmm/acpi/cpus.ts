/** Processors in the DSDT, with what a guest needs to take new ones and to let go of others. */
import * as aml from './aml.ts';
import type { AcpiBoard, AcpiCpu } from './board.ts';
import { localApic } from './madt.ts';
import { io, resourceTemplate } from './resources.ts';

const REGISTERS_LENGTH = 12;
/** Commands of docs/specs/acpi_cpu_hotplug. */
const CMD_NEXT_WITH_EVENT = 0;
const CMD_OST_EVENT = 1;
const CMD_OST_STATUS = 2;

/** Notifications of devices (ACPI specification 6.4, section 5.6.6). */
export const NOTIFY_DEVICE_CHECK = 1;
export const NOTIFY_EJECT_REQUEST = 3;
/** _STA: present, enabled, shown and functioning (section 6.3.7). */
export const STA_PRESENT = 0x0f;

/** `C000`, `C001`, …: three hexadecimal digits number 4096 processors. */
const cpuName = (number: number) => `C${number.toString(16).toUpperCase().padStart(3, '0')}`;

/** Where the board keeps registers of its own: below the root of PCI, when there is one. */
export const resourceRoot = (board: AcpiBoard): string => (board.pci ? '\\_SB.PCI0' : '\\_SB');

/** \_SB.CPUS, a container as QEMU has it, and the registers of hot-plug where there is room for more processors. */
export function processors(board: AcpiBoard): aml.Aml[] {
  const container = (...list: readonly aml.Aml[]) =>
    aml.device('CPUS', aml.name('_HID', aml.string('ACPI0010')), aml.name('_CID', aml.eisaId('PNP0A05')), ...list);
  const { cpuHotplug, cpus } = board;
  if (!cpuHotplug) return [container(...cpus.map((cpu) => processor(cpu)))];
  const registers = `${resourceRoot(board)}.PRES`;
  return [
    hotplugRegisters(registers, cpuHotplug.port),
    container(...hotplugMethods(registers, cpus), ...cpus.map((cpu) => processor(cpu, ...processorMethods(cpu)))),
  ];
}

function processor(cpu: AcpiCpu, ...more: readonly aml.Aml[]): aml.Aml {
  return aml.device(
    cpuName(cpu.uid),
    aml.name('_HID', aml.string('ACPI0007')),
    aml.name('_UID', cpu.uid),
    ...more,
    ...(cpu.node === undefined ? [] : [aml.name('_PXM', cpu.node)]),
  );
}

/** The MADT calls a processor that is to be plugged disabled; _MAT is what it will be. */
function processorMethods(cpu: AcpiCpu): aml.Aml[] {
  return [
    aml.method('_STA', { serialized: true }, aml.returnValue(aml.call('CSTA', cpu.uid))),
    aml.name('_MAT', aml.buffer(localApic({ ...cpu, online: true }))),
    // The boot processor stays.
    ...(cpu.uid === 0 ? [] : [aml.method('_EJ0', { args: 1 }, aml.call('CEJ0', cpu.uid))]),
    aml.method('_OST', { args: 3, serialized: true }, aml.call('COST', cpu.uid, aml.arg(0), aml.arg(1))),
  ];
}

function hotplugRegisters(where: string, port: number): aml.Aml {
  return aml.device(
    where,
    aml.name('_HID', aml.eisaId('PNP0A06')),
    aml.name('_UID', aml.string('CPU Hotplug resources')),
    aml.mutex('CPLK'),
    aml.name('_CRS', resourceTemplate(io(port, REGISTERS_LENGTH))),
    aml.operationRegion('PRST', aml.SPACE.systemIo, port, REGISTERS_LENGTH),
    aml.field(
      'PRST',
      { access: 'byte', update: 'writeAsZeros' },
      { offset: 4 },
      { name: 'CPEN', bits: 1 },
      { name: 'CINS', bits: 1 },
      { name: 'CRMV', bits: 1 },
      { name: 'CEJ0', bits: 1 },
      { offset: 5 },
      { name: 'CCMD', bits: 8 },
    ),
    aml.field('PRST', { access: 'dword' }, { name: 'CSEL', bits: 32 }, { offset: 8 }, { name: 'CDAT', bits: 32 }),
    // Firmware that knows QEMU's older interface finds it switched off.
    aml.method('_INI', { serialized: true }, aml.store(0, 'CSEL')),
  );
}

function hotplugMethods(registers: string, cpus: readonly AcpiCpu[]): aml.Aml[] {
  const lock = `${registers}.CPLK`;
  const unit = (name: string) => `${registers}.${name}`;
  const locked = (...list: readonly aml.Aml[]) => [aml.acquire(lock), ...list, aml.release(lock)];
  /** Tells of one event, takes its flag back, and has the search go on. */
  const tell = (flag: string, notification: number) => [
    aml.call('CTFY', aml.path(unit('CDAT')), notification),
    aml.store(1, unit(flag)),
    aml.store(1, aml.local(0)),
  ];
  return [
    aml.method(
      'CTFY',
      { args: 2 },
      ...cpus.map(({ uid }) => aml.ifThen(aml.lEqual(aml.arg(0), uid), aml.notify(cpuName(uid), aml.arg(1)))),
    ),
    aml.method(
      'CSTA',
      { args: 1, serialized: true },
      aml.store(0, aml.local(0)),
      ...locked(
        aml.store(aml.arg(0), unit('CSEL')),
        aml.ifThen(aml.lEqual(aml.path(unit('CPEN')), 1), aml.store(STA_PRESENT, aml.local(0))),
      ),
      aml.returnValue(aml.local(0)),
    ),
    aml.method(
      'CEJ0',
      { args: 1, serialized: true },
      ...locked(aml.store(aml.arg(0), unit('CSEL')), aml.store(1, unit('CEJ0'))),
    ),
    aml.method(
      'CSCN',
      { serialized: true },
      ...locked(
        aml.store(1, aml.local(0)),
        aml.whileDo(
          aml.lEqual(aml.local(0), 1),
          aml.store(0, aml.local(0)),
          aml.store(CMD_NEXT_WITH_EVENT, unit('CCMD')),
          aml.ifThen(aml.lEqual(aml.path(unit('CINS')), 1), ...tell('CINS', NOTIFY_DEVICE_CHECK)),
          aml.elseThen(aml.ifThen(aml.lEqual(aml.path(unit('CRMV')), 1), ...tell('CRMV', NOTIFY_EJECT_REQUEST))),
        ),
      ),
    ),
    aml.method(
      'COST',
      { args: 3, serialized: true },
      ...locked(
        aml.store(aml.arg(0), unit('CSEL')),
        aml.store(CMD_OST_EVENT, unit('CCMD')),
        aml.store(aml.arg(1), unit('CDAT')),
        aml.store(CMD_OST_STATUS, unit('CCMD')),
        aml.store(aml.arg(2), unit('CDAT')),
      ),
    ),
  ];
}

/** The handler of the event that says that the registers have news. */
export const cpuHotplugEvent = (): aml.Aml => aml.scope('\\_GPE', aml.method('_E02', {}, aml.call('\\_SB.CPUS.CSCN')));
