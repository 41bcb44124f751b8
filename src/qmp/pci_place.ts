/** Where a device of PCI goes, and what it is called. */
import * as z from 'zod';
import { QmpError } from './errors.ts';
import type { Monitor } from './monitor.ts';
import { bool, int, str } from './types.ts';

/** Properties of every device of PCI. */
export const pciProperties = {
  bus: str.optional().describe('a root port or switch port by its id; pci.0 of a pc'),
  addr: z.union([int, str]).optional().describe('device number of a slot: 5, or 05.0'),
};

/** Properties of every virtio device of PCI: ours have no registers of the time before virtio 1.0. */
export const virtioProperties = {
  ...pciProperties,
  'disable-legacy': z.enum(['on', 'off', 'auto']).optional().describe('on: virtio 1.0 and later alone, as always here'),
  'disable-modern': bool.optional().describe('off: virtio 1.0 and later, as always here'),
};

/** @throws QmpError for what only a device of the time before virtio 1.0 could be. */
export function requireModern(driver: string, properties: z.output<z.ZodObject<typeof virtioProperties>>): void {
  if (properties['disable-modern'] || properties['disable-legacy'] === 'off') {
    throw new QmpError(`A ${driver} speaks virtio 1.0 and later alone: disable-legacy is on, and disable-modern off`);
  }
}

/** QEMU's bus and address as a place of ours; undefined where any will do. @throws QmpError */
export function placeOf(bus: string | undefined, addr: number | string | undefined): { port?: string } {
  if (bus === 'pcie.0') throw new QmpError(`Bus 'pcie.0' does not support hotplugging`);
  const device = typeof addr === 'number' ? addr : Number.parseInt(addr ?? '0', 16);
  if (!(device >= 0 && device < 32)) throw new QmpError(`Parameter 'addr' expects a value of 0 to 31`);
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
