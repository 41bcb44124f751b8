/** The machine as a tree of objects, as far as clients look at it: devices below /machine/peripheral, and /objects. */
import * as z from 'zod';
import type { LiveDevice } from '../../client/live.ts';
import type { VirtioReport } from '../../client/machine_client.ts';
import { command } from '../command.ts';
import { driverOf, type QmpObject, VIRTIO_BACKENDS, VIRTIO_DRIVERS } from '../devices.ts';
import { DRIVERS } from '../drivers.ts';
import { deviceNotFound, QmpError } from '../errors.ts';
import { RTC_PATH } from '../events.ts';
import type { Monitor } from '../monitor.ts';
import { isSettable, OBJECT_TYPES, requirePolling } from '../objects.ts';
import { PciView } from '../pci_view.ts';
import { any, bool, none, str } from '../types.ts';
import { memdevOf } from './memory.ts';
import { isOnBoard } from './pci.ts';

interface Property {
  readonly type: string;
  readonly value: unknown;
}
export interface QomNode {
  readonly type: string;
  readonly properties: Readonly<Record<string, Property>>;
  readonly children: Readonly<Record<string, QomNode>>;
}

/** What a virtio-mem device is asked to have plugged. */
const REQUESTED_SIZE = 'requested-size';

const text = (value: string): Property => ({ type: 'string', value });
const flag = (value: boolean): Property => ({ type: 'bool', value });
const number = (type: string, value: number): Property => ({ type, value });

const container = (children: Readonly<Record<string, QomNode>>): QomNode => ({
  type: 'container',
  properties: {},
  children,
});

function liveNode(monitor: Monitor, device: LiveDevice): QomNode {
  const hot = monitor.hotplugged.has(device.id);
  const common = { realized: flag(true), hotplugged: flag(hot), hotpluggable: flag(true) };
  return { type: driverOf(device), properties: { ...common, ...liveProperties(monitor, device) }, children: {} };
}

function liveProperties(monitor: Monitor, device: LiveDevice): Record<string, Property> {
  if (device.kind === 'cpu') {
    return {
      'socket-id': number('int32', device.socket),
      'core-id': number('int32', device.core),
      'thread-id': number('int32', device.thread),
      'node-id': number('int32', device.node ?? 0),
      'apic-id': number('uint32', device.apicId),
    };
  }
  if (device.kind !== 'memory' && device.kind !== 'nvdimm') return {};
  return {
    ...(device.kind === 'nvdimm' && { 'label-size': number('int', device.labelSize) }),
    memdev: { type: 'link<memory-backend>', value: memdevOf(monitor, device) },
    ...{ addr: number('uint64', device.address), size: number('uint64', device.size) },
    ...{ slot: number('int32', device.slot), node: number('uint32', device.node) },
  };
}

/** What QEMU calls a PCI function's driver. */
export function pciDriver(view: PciView): string {
  const { virtio } = view.report;
  if (virtio) return VIRTIO_DRIVERS[virtio.type] ?? 'virtio-pci';
  return view.isBridge ? 'pcie-root-port' : view.report.name;
}

async function pciNode(monitor: Monitor, view: PciView): Promise<QomNode> {
  const properties: Record<string, Property> = {
    realized: flag(true),
    hotplugged: flag(monitor.hotplugged.has(view.report.name)),
    addr: text(`${view.slot.toString(16).padStart(2, '0')}.${view.function}`),
  };
  const type = pciDriver(view);
  if (type === 'virtio-balloon-pci') {
    const { statistics } = await monitor.machine.balloon();
    const stats = Object.fromEntries(Object.entries(statistics).map(([name, value]) => [`stat-${kebab(name)}`, value]));
    const lastUpdate = Math.floor(Date.now() / 1000);
    properties['guest-stats'] = { type: 'guest statistics', value: { stats, 'last-update': lastUpdate } };
    properties['guest-stats-polling-interval'] = number('int', monitor.balloonPolling);
  }
  if (type === 'virtio-mem-pci') Object.assign(properties, await virtioMemProperties(monitor, view.report.name));
  return { type, properties, children: backendOf(view.report.virtio) };
}

/** Clients find a disk by the device behind its bus. */
function backendOf(virtio: VirtioReport | undefined): Readonly<Record<string, QomNode>> {
  if (!virtio) return {};
  const type = VIRTIO_BACKENDS[virtio.type] ?? 'virtio-device';
  return { 'virtio-backend': { type, properties: { realized: flag(true) }, children: {} } };
}

async function virtioMemProperties(monitor: Monitor, id: string): Promise<Record<string, Property>> {
  const found = (await monitor.machine.plugged()).memory.virtio.find((each) => each.id === id);
  if (!found) return {};
  return {
    memdev: { type: 'link<memory-backend>', value: memdevOf(monitor, found) },
    ...{ memaddr: number('uint64', found.address), node: number('uint32', found.node) },
    ...{ 'block-size': number('size', found.block), size: number('size', found.plugged) },
    [REQUESTED_SIZE]: number('size', found.requested),
  };
}

const kebab = (name: string) => name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`).replaceAll('_', '-');

/** What `object-add` made, with what its schema has. */
function objectNode({ type, settings }: QmpObject): QomNode {
  const shape = OBJECT_TYPES.find(({ name }) => name === type)?.properties ?? {};
  const properties = Object.keys(shape).flatMap((name): [string, Property][] => {
    const value = settings[name];
    return value === undefined ? [] : [[name, { type: QOM_TYPES[typeof value] ?? 'any', value }]];
  });
  return { type, properties: Object.fromEntries(properties), children: {} };
}
const QOM_TYPES: Readonly<Record<string, string>> = { number: 'int', boolean: 'bool', string: 'string' };

async function tree(monitor: Monitor): Promise<QomNode> {
  const { machine, names } = monitor;
  const [plugged, { pci, mmio }] = await Promise.all([machine.plugged(), machine.devices()]);
  const peripheral: Record<string, QomNode> = {};
  const unattached: Record<string, QomNode> = {};
  for (const device of [...plugged.cpus.present, ...plugged.memory.dimms, ...plugged.nvdimms] as const) {
    const path = names.path(device);
    const name = path.slice(path.lastIndexOf('/') + 1);
    (names.isAnonymous(device) ? unattached : peripheral)[name] = liveNode(monitor, device);
  }
  for (const virtio of mmio) {
    const properties = { realized: flag(true), hotplugged: flag(false) };
    peripheral[names.peer(virtio.name)] = { type: 'virtio-mmio', properties, children: backendOf(virtio) };
  }
  for (const view of pci.map((report) => new PciView(report))) {
    const where = isOnBoard(view) ? unattached : peripheral;
    where[names.peer(view.report.name)] = await pciNode(monitor, view);
  }
  for (const id of monitor.serialBuses.keys()) {
    const properties = { realized: flag(true), hotplugged: flag(true) };
    peripheral[names.peer(id)] = { type: 'virtio-serial-pci', properties, children: {} };
  }
  if (machine.description.rtc) {
    unattached[RTC_PATH.slice(RTC_PATH.lastIndexOf('/') + 1)] = {
      ...{ type: 'mc146818rtc', properties: { realized: flag(true), hotplugged: flag(false) }, children: {} },
    };
  }
  const objects = Object.fromEntries([...monitor.objects.values()].map((object) => [object.id, objectNode(object)]));
  const { memory, name } = machine.description;
  const board: QomNode = {
    type: `${machine.description.machine}-machine`,
    properties: { 'memory-size': number('int', memory.size), 'guest-name': text(name) },
    children: {
      'peripheral-anon': container({}),
      peripheral: container(peripheral),
      unattached: container(unattached),
    },
  };
  return container({ machine: board, objects: container(objects), chardevs: container({}) });
}

interface Found {
  readonly node: QomNode;
  /** From the root. */
  readonly path: string;
}

function below(start: Found, steps: readonly string[]): Found | undefined {
  let { node, path } = start;
  for (const step of steps) {
    if (!Object.hasOwn(node.children, step)) return undefined;
    node = node.children[step];
    path += `/${step}`;
  }
  return { node, path };
}

function* everywhere(start: Found): Generator<Found> {
  yield start;
  for (const [name, node] of Object.entries(start.node.children)) {
    yield* everywhere({ node, path: `${start.path}/${name}` });
  }
}

async function resolve(monitor: Monitor, path: string): Promise<Found> {
  const root: Found = { node: await tree(monitor), path: '' };
  const steps = path.split('/').filter((each) => each !== '');
  // Without a slash before it a path may begin anywhere, where that is one place alone.
  const starts = path.startsWith('/') ? [root] : [...everywhere(root)];
  const found = starts.flatMap((start) => below(start, steps) ?? []);
  if (found.length > 1) throw new QmpError(`Path '${path}' does not uniquely identify an object`);
  if (found.length === 0 || path === '') throw deviceNotFound(path);
  return found[0];
}

/** @throws QmpError for a path where nothing is. */
export const findObject = async (monitor: Monitor, path: string): Promise<QomNode> =>
  (await resolve(monitor, path)).node;

const property = z.strictObject({ name: str, type: str, description: str.optional() });

async function qomSet(monitor: Monitor, path: string, name: string, value: unknown): Promise<void> {
  const { node, path: whole } = await resolve(monitor, path);
  const known = name === 'type' || Object.hasOwn(node.properties, name);
  if (!known) throw new QmpError(`Property '${node.type}.${name}' not found`);
  const object = monitor.objects.get(whole.replace(/^\/objects\//, ''));
  if (object && isSettable(object.type, name)) {
    if (!Number.isInteger(value)) throw new QmpError(`Invalid parameter type for '${name}', expected: integer`);
    requirePolling(name, value as number);
    Object.assign(object.settings, { [name]: value });
    return;
  }
  if (name === REQUESTED_SIZE && node.type === 'virtio-mem-pci') {
    const size = z.int().nonnegative().safeParse(value);
    if (!size.success) throw new QmpError(`Invalid parameter type for '${name}', expected: size`);
    await monitor.resizeMemory(monitor.names.own(whole), size.data);
    return;
  }
  if (name !== 'guest-stats-polling-interval') {
    throw new QmpError(`Property '${node.type}.${name}' is not writable`);
  }
  const seconds = z.int().nonnegative().safeParse(value);
  if (!seconds.success) throw new QmpError(`Invalid parameter type for '${name}', expected: integer`);
  // The guest is asked anew each time that `guest-stats` is read.
  monitor.balloonPolling = seconds.data;
}

/** What a type of device is, as far as clients ask: the nearest first. */
function ancestorsOf(name: string): readonly string[] {
  if (name.endsWith('-cpu')) return ['x86_64-cpu', 'cpu', 'device'];
  if (name === 'pc-dimm') return ['device'];
  if (name === 'nvdimm') return ['pc-dimm', 'device'];
  if (name === 'virtserialport') return ['virtio-serial-port', 'device'];
  if (name === 'virtconsole') return ['virtserialport', 'virtio-serial-port', 'device'];
  if (name === 'pcie-root-port') return ['pcie-root-port-base', 'pcie-port', 'pci-device', 'device'];
  return name.startsWith('virtio-') ? ['virtio-pci', 'pci-device', 'device'] : ['pci-device', 'device'];
}

/** What can be plugged, and what it is made of. */
const TYPES: readonly { readonly name: string; readonly ancestors: readonly string[] }[] = [
  ...OBJECT_TYPES.map(({ name, parent }) => ({ name, ancestors: [parent, 'object'] })),
  ...DRIVERS.map(({ name }) => ({ name, ancestors: [...ancestorsOf(name), 'object'] })),
];
/** What they are made of, of which nothing itself can be made. */
const ABSTRACT = new Map(
  TYPES.flatMap(({ ancestors }) => ancestors.map((name, at) => [name, ancestors.slice(at + 1)] as const)).filter(
    ([name]) => name !== 'object' && !TYPES.some((each) => each.name === name),
  ),
);
export const isAbstractDevice = (name: string): boolean =>
  name === 'device' || (ABSTRACT.get(name)?.includes('device') ?? false);
/** Whether something is, or is made of, this. */
export const isKnownType = (name: string): boolean => ABSTRACT.has(name) || TYPES.some((each) => each.name === name);

export const QOM = [
  command({
    name: 'qom-list',
    summary: "an object's properties and children",
    args: z.strictObject({ path: str }),
    returns: z.array(property),
    run: async (monitor, { path }) => {
      const node = await findObject(monitor, path);
      return [
        { name: 'type', type: 'string' },
        ...Object.entries(node.properties).map(([name, { type }]) => ({ name, type })),
        ...Object.entries(node.children).map(([name, { type }]) => ({ name, type: `child<${type}>` })),
      ];
    },
  }),
  command({
    name: 'qom-get',
    summary: "the value of an object's property",
    args: z.strictObject({ path: str, property: str }),
    returns: any,
    run: async (monitor, { path, property: name }) => {
      const { node, path: whole } = await resolve(monitor, path);
      if (name === 'type') return node.type;
      if (Object.hasOwn(node.children, name)) return `${whole}/${name}`;
      if (!Object.hasOwn(node.properties, name)) throw new QmpError(`Property '${node.type}.${name}' not found`);
      return node.properties[name].value;
    },
  }),
  command({
    name: 'qom-set',
    summary: 'sets `guest-stats-polling-interval` of a balloon, or `requested-size` of a virtio-mem device',
    changes: true,
    args: z.strictObject({ path: str, property: str, value: any }),
    returns: none,
    run: async (monitor, { path, property: name, value }) => {
      await qomSet(monitor, path, name, value);
      return {};
    },
  }),
  command({
    name: 'qom-list-types',
    summary: 'types that can be made: memory and devices',
    args: z.strictObject({ implements: str.optional(), abstract: bool.optional() }),
    returns: z.array(z.strictObject({ name: str, abstract: bool.optional(), parent: str.optional() })),
    run: (_monitor, args) =>
      [
        ...TYPES.map((each) => ({ ...each, abstract: false })),
        ...(args.abstract ? [...ABSTRACT].map(([name, ancestors]) => ({ name, ancestors, abstract: true })) : []),
      ]
        .filter(({ name, ancestors }) => [undefined, name, ...ancestors].includes(args.implements))
        .map(({ name, ancestors, abstract }) => ({ name, parent: ancestors[0], ...(abstract && { abstract }) })),
  }),
];
