/**
 * Virtio consoles and ports that `device_add` makes. Each is a device of PCI of its own: the `virtio-serial-pci` that
 * clients make first is a name on whose bus they are, and where the first of them stands.
 */
import * as z from 'zod';
import type { PciPlugInput } from '../client/live.ts';
import type { Chardev } from './chardevs.ts';
import { type Driver, driver } from './driver.ts';
import { QmpError } from './errors.ts';
import type { Monitor } from './monitor.ts';
import { idOf, placeOf, requireModern, virtioProperties } from './pci_place.ts';
import { int, str } from './types.ts';

/** QEMU's bound: a controller has 31 ports. */
const MAX_PORT = 30;

export interface SerialBus {
  /** Where its first port goes. */
  readonly place: { readonly port?: string };
  /** Its ports, by the machine's ids. */
  readonly ports: Set<string>;
}

const portProperties = {
  chardev: str.optional(),
  bus: str.optional().describe('ID.0 of a virtio-serial-pci'),
  nr: int.optional().describe('not kept: each port is the first of a device of its own'),
};

function chardevOf({ chardevs, surroundings }: Monitor, driver: string, name: string | undefined): Chardev | undefined {
  if (name === undefined) return undefined;
  const chardev = chardevs.get(name);
  if (!chardev) throw new QmpError(`Property '${driver}.chardev' can't find value '${name}'`);
  if (chardev.usedBy !== undefined) {
    throw new QmpError(`Property '${driver}.chardev' can't take value '${name}': Device '${name}' is in use`);
  }
  if (chardev.connect && !surroundings.consoles) {
    throw new QmpError(`'${name}' needs a machine whose consoles are shared: nemu run --name`);
  }
  chardev.prepare?.();
  return chardev;
}

function busOf({ serialBuses }: Monitor, name: string | undefined, nr: number | undefined): SerialBus | undefined {
  if (nr !== undefined && (nr < 0 || nr > MAX_PORT)) {
    throw new QmpError(`virtio-serial-bus: Out-of-range port id specified, max. allowed: ${MAX_PORT}`);
  }
  if (name === undefined) return undefined;
  const bus = serialBuses.get(name.replace(/\.0$/, ''));
  if (!bus) throw new QmpError(`Bus '${name}' not found`);
  return bus;
}

const controller = driver({
  name: 'virtio-serial-pci',
  summary: 'a bus for virtio consoles and ports',
  properties: z.strictObject({
    max_ports: int.min(1).max(31).optional(),
    vectors: int.optional(),
    ...virtioProperties,
  }),
  plan: ({ serialBuses }, given, { bus, addr, ...rest }) => {
    requireModern('virtio-serial-pci', rest);
    let id = given;
    for (let index = 0; id === undefined; index++) {
      if (!serialBuses.has(`virtio-serial${index}`)) id = `virtio-serial${index}`;
    }
    const made = { id, place: placeOf('virtio-serial-pci', bus, addr), ports: new Set<string>() };
    return { id, take: () => void serialBuses.set(made.id, made) };
  },
});

/** What a console and a port have in common. */
function planOf(
  device: PciPlugInput & { readonly type: 'virtio-console' | 'virtio-port' },
  id: string,
  { chardev, bus }: { readonly chardev: Chardev | undefined; readonly bus: SerialBus | undefined },
) {
  return {
    device: {
      ...device,
      ...(bus?.ports.size === 0 && bus.place),
      // Nobody will ever read what goes there.
      ...(chardev?.filename === 'null' && { flow: 'drop' as const }),
    },
    id,
    take: () => {
      bus?.ports.add(id);
      if (chardev) chardev.usedBy = id;
    },
  };
}

const consoleDriver = driver({
  name: 'virtconsole',
  summary: 'a virtio console, with what `chardev-add` made at its end',
  properties: z.strictObject(portProperties),
  plan: async (monitor, given, { chardev, bus, nr }) => {
    const ends = { chardev: chardevOf(monitor, 'virtconsole', chardev), bus: busOf(monitor, bus, nr) };
    const id = await idOf(monitor, given, (index) => `hvc${index}`);
    return planOf({ kind: 'pci', type: 'virtio-console', id }, id, ends);
  },
});

const portDriver = driver({
  name: 'virtserialport',
  summary: 'a port /dev/virtio-ports/NAME, with what `chardev-add` made at its end',
  properties: z.strictObject({ ...portProperties, name: str.min(1).optional() }),
  plan: async (monitor, given, { chardev, bus, nr, name }) => {
    const ends = { chardev: chardevOf(monitor, 'virtserialport', chardev), bus: busOf(monitor, bus, nr) };
    const id = name ?? (await idOf(monitor, given, (index) => `port${index}`));
    return planOf({ kind: 'pci', type: 'virtio-port', name: id }, id, ends);
  },
});

export const SERIAL_DRIVERS: readonly Driver[] = [controller, consoleDriver, portDriver];
