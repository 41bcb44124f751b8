/** Devices that come and go. */
import * as z from 'zod';
import { isSettled } from '../../client/live.ts';
import { parseSize } from '../../client/sizes.ts';
import { command } from '../command.ts';
import type { Driver } from '../driver.ts';
import { DRIVERS, findDriver } from '../drivers.ts';
import { deviceNotFound, QmpError } from '../errors.ts';
import type { JsonObject } from '../json.ts';
import type { Monitor } from '../monitor.ts';
import { OBJECT_TYPES } from '../objects.ts';
import { requireBus } from '../pci_place.ts';
import { any, none, parseArguments, requireId, str } from '../types.ts';
import { findObject, isAbstractDevice, isKnownType } from './qom.ts';

const typeOf = (schema: z.ZodType): string => (schema.def as { type: string; innerType?: z.ZodType }).type;
const inner = (schema: z.ZodType): z.ZodType => {
  const { innerType } = schema.def as { innerType?: z.ZodType };
  return innerType ? inner(innerType) : schema;
};

/** Properties may come as text, as on QEMU's command line. @throws QmpError */
function fromText(name: string, schema: z.ZodType, value: unknown): unknown {
  const type = typeOf(inner(schema));
  if (type === 'number' || type === 'literal') {
    const number = typeof value === 'string' ? numberFrom(name, value) : value;
    if (!Number.isInteger(number)) throw new QmpError(`Parameter '${name}' expects integer`);
    return number;
  }
  // What is on, off or auto may come as what is on or off.
  if (type === 'enum' && typeof value === 'boolean') return value ? 'on' : 'off';
  if (type !== 'boolean' || typeof value === 'boolean') return value;
  if (typeof value === 'string' && Object.hasOwn(TRUTH, value)) return TRUTH[value];
  throw new QmpError(`Parameter '${name}' expects 'on' or 'off'`);
}

const TRUTH: Readonly<Record<string, boolean>> = {
  ...{ on: true, yes: true, true: true, y: true },
  ...{ off: false, no: false, false: false, n: false },
};

/** Numbers as strtol(3) has them; those of bytes may have a unit. */
function numberFrom(name: string, text: string): number | undefined {
  const [, sign, digits] = /^(-?)(0x[0-9a-f]+|\d+)$/i.exec(text) ?? [];
  if (digits !== undefined)
    return (sign ? -1 : 1) * (/^0\d/.test(digits) ? Number.parseInt(digits, 8) : Number(digits));
  const isSize = name === 'size' || name.endsWith('-size');
  return isSize && /^\d+(\.\d+)?[KMGTkmgt]$/.test(text) ? parseSize(text) : undefined;
}

function propertiesOf({ name, properties }: Driver, given: JsonObject): JsonObject {
  const shape = properties.shape as Record<string, z.ZodType>;
  const unknown = Object.keys(given).find((key) => !Object.hasOwn(shape, key));
  if (unknown !== undefined) throw new QmpError(`Property '${name}.${unknown}' not found`);
  const converted = Object.fromEntries(
    Object.entries(given).map(([key, value]) => [key, fromText(key, shape[key], value)]),
  ) as JsonObject;
  return parseArguments(properties, converted) as JsonObject;
}

/** @throws QmpError */
export async function deviceAdd(monitor: Monitor, args: JsonObject): Promise<void> {
  const { driver: name, id, ...given } = args;
  if (id !== undefined) requireId(id);
  const driver = findDriver(name);
  if (!driver && isAbstractDevice(String(name))) {
    throw new QmpError("Parameter 'driver' expects a non-abstract device type");
  }
  if (!driver) throw new QmpError(`'${String(name)}' is not a valid device model name`);
  const { shape } = driver.properties;
  if (typeof given.bus === 'string' && 'addr' in shape && 'bus' in shape) await requireBus(monitor, given.bus);
  const properties = propertiesOf(driver, given);
  if (id !== undefined && (await monitor.hasDevice(id))) throw new QmpError(`Duplicate device ID '${id}'`);
  const plan = await driver.plan(monitor, id, properties);
  // From here on another peer finds what the device uses taken; and its events have the peer's name for it.
  plan.take();
  if (id !== undefined) monitor.names.give(id, plan.id);
  if (!plan.device) return;
  try {
    await monitor.plug(plan.device, plan.id);
  } catch (error) {
    monitor.forget(plan.id);
    throw error;
  }
}

/** @throws QmpError */
export async function deviceDel(monitor: Monitor, id: string): Promise<void> {
  const own = monitor.names.own(id);
  const bus = monitor.serialBuses.get(own);
  if (bus) {
    const [port] = bus.ports;
    if (port !== undefined) throw new QmpError(`'${id}' has ports: remove '${monitor.names.peer(port)}' first`);
    const device = monitor.names.peer(own);
    monitor.forget(own);
    const path = `/machine/peripheral/${device}`;
    monitor.emit('DEVICE_DELETED', { device, path });
    monitor.emit('DEVICE_DELETED', { path: `${path}/virtio-backend` });
    return;
  }
  if (!(await monitor.hasDevice(id))) {
    // What has a path and is no device was not forgotten.
    if (id.startsWith('/')) {
      await findObject(monitor, id);
      throw new QmpError(`${id} is not a hotpluggable device`);
    }
    throw deviceNotFound(id);
  }
  const before = (await monitor.machine.requests()).findLast(({ device }) => device.id === own);
  if (before?.action !== 'unplug' || isSettled(before.stage)) return monitor.unplug(own);
  // DIMMs and vCPUs are asked for again, which changes nothing for a guest that has been told.
  if (before.device.kind === 'pci') throw new QmpError(`Device ${id} is already in the process of unplug`);
}

export const DEVICE = [
  command({
    name: 'device_add',
    summary: 'plugs a device, and does not wait for the guest',
    changes: true,
    args: z.looseObject({ driver: str, bus: str.optional(), id: str.optional() }),
    returns: none,
    features: ['json-cli', 'json-cli-hotplug'],
    run: async (monitor, args) => {
      await deviceAdd(monitor, args as JsonObject);
      return {};
    },
  }),
  command({
    name: 'device_del',
    summary: 'asks the guest to let go of a device; DEVICE_DELETED follows',
    changes: true,
    args: z.strictObject({ id: str }),
    returns: none,
    run: async (monitor, { id }) => {
      await deviceDel(monitor, id);
      return {};
    },
  }),
  command({
    name: 'device-list-properties',
    summary: 'properties of a device that can be added',
    args: z.strictObject({ typename: str }),
    returns: z.array(z.strictObject({ name: str, type: str, description: str.optional() })),
    run: (_monitor, { typename }) => {
      const driver = DRIVERS.find(({ name }) => name === typename);
      if (!driver && isKnownType(typename)) {
        throw new QmpError("Parameter 'typename' expects a non-abstract device type");
      }
      if (!driver) throw new QmpError(`Device '${typename}' not found`, 'DeviceNotFound');
      return properties(driver.properties.shape as Record<string, z.ZodType>);
    },
  }),
  command({
    name: 'qom-list-properties',
    summary: 'properties of a type of device or object',
    args: z.strictObject({ typename: str }),
    returns: z.array(
      z.strictObject({ name: str, type: str, description: str.optional(), 'default-value': any.optional() }),
    ),
    run: (_monitor, { typename }) => {
      const driver = DRIVERS.find(({ name }) => name === typename);
      const object = OBJECT_TYPES.find(({ name }) => name === typename);
      if (driver) return [...OF_EVERY_DEVICE, ...properties(driver.properties.shape as Record<string, z.ZodType>)];
      if (object) return [TYPE, ...properties(object.properties)];
      if (isKnownType(typename)) return typename.endsWith('device') || typename === 'cpu' ? OF_EVERY_DEVICE : [TYPE];
      throw new QmpError(`Class '${typename}' not found`, 'DeviceNotFound');
    },
  }),
];

const PROPERTY_TYPES: Readonly<Record<string, string>> = { number: 'int', literal: 'int', boolean: 'bool' };
const TYPE = { name: 'type', type: 'string' };
const OF_EVERY_DEVICE = [TYPE, ...['realized', 'hotplugged', 'hotpluggable'].map((name) => ({ name, type: 'bool' }))];

const properties = (shape: Readonly<Record<string, z.ZodType>>) =>
  Object.entries(shape).map(([name, schema]) => {
    const description = schema.description ?? inner(schema).description;
    return {
      ...{ name, type: PROPERTY_TYPES[typeOf(inner(schema))] ?? 'str' },
      ...(description !== undefined && { description }),
    };
  });
