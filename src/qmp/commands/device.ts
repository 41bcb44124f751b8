/** Devices that come and go. */
import * as z from 'zod';
import { command } from '../command.ts';
import type { Driver } from '../driver.ts';
import { findDriver } from '../drivers.ts';
import { deviceNotFound, QmpError } from '../errors.ts';
import type { JsonObject } from '../json.ts';
import type { Monitor } from '../monitor.ts';
import { OBJECT_TYPES } from '../objects.ts';
import { any, none, parseArguments, requireId, str } from '../types.ts';

const typeOf = (schema: z.ZodType): string => (schema.def as { type: string; innerType?: z.ZodType }).type;
const inner = (schema: z.ZodType): z.ZodType => {
  const { innerType } = schema.def as { innerType?: z.ZodType };
  return innerType ? inner(innerType) : schema;
};

/** Properties may come as text, as on QEMU's command line. @throws QmpError */
function fromText(name: string, schema: z.ZodType, value: unknown): unknown {
  const type = typeOf(inner(schema));
  if (type === 'number' || type === 'literal') {
    const number = typeof value === 'string' && /^-?\d+$/.test(value) ? Number(value) : value;
    if (!Number.isInteger(number)) throw new QmpError(`Parameter '${name}' expects integer`);
    return number;
  }
  if (type !== 'boolean' || typeof value === 'boolean') return value;
  if (value === 'on' || value === 'off') return value === 'on';
  throw new QmpError(`Parameter '${name}' expects 'on' or 'off'`);
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
  const driver = findDriver(name);
  if (!driver) throw new QmpError(`'${String(name)}' is not a valid device model name`);
  if (id !== undefined) requireId(id);
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
    monitor.emit('DEVICE_DELETED', { device, path: `/machine/peripheral/${device}` });
    return;
  }
  if (!(await monitor.hasDevice(id))) throw deviceNotFound(id);
  await monitor.unplug(own);
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
      const driver = findDriver(typename);
      if (!driver) throw deviceNotFound(typename);
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
      const driver = findDriver(typename);
      const object = OBJECT_TYPES.find(({ name }) => name === typename);
      if (driver) return [...OF_EVERY_DEVICE, ...properties(driver.properties.shape as Record<string, z.ZodType>)];
      if (object) return [TYPE, ...properties(object.properties)];
      throw new QmpError(`Class '${typename}' not found`, 'DeviceNotFound');
    },
  }),
];

const PROPERTY_TYPES: Readonly<Record<string, string>> = { number: 'int64', literal: 'int64', boolean: 'bool' };
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
