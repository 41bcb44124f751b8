/** Where a device of PCI goes, and what it is called. */
import * as z from 'zod';
import { QmpError } from './errors.ts';
import type { Monitor } from './monitor.ts';
import { bool, int, str } from './types.ts';

/** Properties of every device of PCI. */
export const pciProperties = {
  bus: str.optional().describe('a root port or switch port by its id; pci.0 of a pc'),
  addr: z.union([int, str]).optional().describe('device number of a slot, hexadecimal: 5, or 05.0'),
  multifunction: bool.optional().describe('off: each device has one function'),
  romfile: str.optional().describe('empty: no device has a ROM'),
  rombar: int.optional().describe('not used: no device has a ROM'),
};

/** Properties of every virtio device of PCI: ours have no registers of the time before virtio 1.0. */
export const virtioProperties = {
  ...pciProperties,
  'disable-legacy': z.enum(['on', 'off', 'auto']).optional().describe('on: virtio 1.0 and later alone, as always here'),
  'disable-modern': bool.optional().describe('off: virtio 1.0 and later, as always here'),
  event_idx: bool.optional().describe('on: it is offered to the guest, as always here'),
  indirect_desc: bool.optional().describe('on: it is offered to the guest, as always here'),
  ioeventfd: bool.optional().describe('on: as always here'),
  iommu_platform: bool.optional().describe('off: there is no IOMMU'),
};

/** What is so, whatever is asked for. */
const FIXED = { multifunction: false, event_idx: true, indirect_desc: true, ioeventfd: true, iommu_platform: false };

/** @throws QmpError for what a device here cannot be: what is fixed, and of the time before virtio 1.0. */
export function requireModern(driver: string, properties: z.output<z.ZodObject<typeof virtioProperties>>): void {
  requireFixed(driver, properties);
  if (properties['disable-modern'] || properties['disable-legacy'] === 'off') {
    throw new QmpError(`A ${driver} speaks virtio 1.0 and later alone: disable-legacy is on, and disable-modern off`);
  }
}

/** @throws QmpError for another value of what every device of PCI has in one way. */
export function requireFixed(driver: string, properties: Readonly<Record<string, unknown>>): void {
  for (const [name, value] of Object.entries(FIXED)) {
    if (properties[name] === undefined || properties[name] === value) continue;
    throw new QmpError(`Property '${driver}.${name}' is ${value ? 'on' : 'off'} here, always`);
  }
  if (properties.romfile) throw new QmpError(`A ${driver} has no ROM here: romfile must be empty`);
}

/** @throws QmpError for a bus that there is not. */
export async function requireBus({ machine, names }: Monitor, bus: string): Promise<void> {
  const { ports } = (await machine.plugged()).pci;
  const root = machine.description.machine === 'q35' ? 'pcie.0' : 'pci.0';
  const own = names.own(bus);
  // A switch or bridge by its own name is the first place behind it.
  const known = bus === root || ports.some(({ id }) => id === own || id.startsWith(`${own}.`));
  if (!known) throw new QmpError(`Bus '${bus}' not found`);
}

/** `5`, `05.0`: hexadecimal, also a number, as QEMU 7.2 has it. */
const ADDRESS = /^(?:0x)?([0-9a-f]{1,2})(?:\.([0-7]))?$/i;

/** QEMU's bus and address as a place of ours; undefined where any will do. @throws QmpError */
export function placeOf(driver: string, bus: string | undefined, addr: number | string | undefined): { port?: string } {
  if (bus === 'pcie.0') throw new QmpError(`Bus 'pcie.0' does not support hotplugging`);
  const [, slot, part = '0'] = ADDRESS.exec(String(addr ?? 0)) ?? [];
  const device = Number.parseInt(slot, 16);
  if (!(device < 32)) throw new QmpError(`Property '${driver}.addr' doesn't take value '${addr}'`);
  if (part !== '0')
    throw new QmpError(`PCI: slot ${device} function ${part} cannot be had: each device has one function`);
  if (bus !== undefined && bus !== 'pci.0') {
    // Behind a port there is one device.
    if (device !== 0) throw new QmpError(`PCI: slot ${device} function 0 is not available behind ${bus}`);
    return { port: bus };
  }
  return addr === undefined ? {} : { port: `slot${device}` };
}

/** The id that the machine takes: the peer's, or the first of these names that is free. */
export async function idOf(
  { machine }: Monitor,
  given: string | undefined,
  name: (index: number) => string,
): Promise<string> {
  if (given !== undefined) return given;
  const { devices } = (await machine.plugged()).pci;
  for (let index = 0; ; index++) if (!devices.some(({ id }) => id === name(index))) return name(index);
}
