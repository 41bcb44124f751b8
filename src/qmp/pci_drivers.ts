/** Devices of PCI that `device_add` makes, with what `blockdev-add` and `netdev_add` made behind them. */
import * as z from 'zod';
import { diskName } from '../client/description.ts';
import type { PciPlugInput } from '../client/live.ts';
import { type Driver, driver } from './driver.ts';
import { deviceNotFound, QmpError } from './errors.ts';
import { claim, memoryObject } from './memory_object.ts';
import type { Monitor } from './monitor.ts';
import { OBJECT_TYPES } from './objects.ts';
import { idOf, pciProperties, placeOf, requireFixed, requireModern, virtioProperties } from './pci_place.ts';
import { SERIAL_DRIVERS } from './serial_drivers.ts';
import { bool, int, str } from './types.ts';

const bootindex = int.min(-1).optional().describe('not used: the machine boots its kernel itself');

/** What a device names and does not need has to be there. @throws QmpError */
function requireObject({ objects }: Monitor, property: string, given: string | undefined, parent: string): void {
  if (given === undefined) return;
  const object = objects.get(given.replace(/^\/objects\//, ''));
  if (!object) throw deviceNotFound(given);
  const type = OBJECT_TYPES.find(({ name }) => name === object.type);
  if (type?.name !== parent && type?.parent !== parent) {
    throw new QmpError(`Invalid parameter type for '${property}', expected: ${parent}`);
  }
}

const ERROR_POLICY = z.enum(['auto', 'report', 'ignore', 'stop', 'enospc']);

const blk = driver({
  name: 'virtio-blk-pci',
  summary: 'a disk on a node that `blockdev-add` made',
  properties: z.strictObject({
    drive: str.optional(),
    serial: str.max(20).optional(),
    'num-queues': int.min(1).max(64).optional(),
    packed: bool.optional(),
    werror: ERROR_POLICY.optional(),
    rerror: ERROR_POLICY.optional(),
    'write-cache': z.enum(['on', 'off', 'auto']).optional().describe('on: the guest flushes, as it always does here'),
    'share-rw': bool.optional().describe('off: an image that is written to has one user'),
    iothread: str.optional().describe('an iothread object; all devices have one thread'),
    bootindex,
    ...virtioProperties,
  }),
  plan: async (monitor, given, { drive, serial, packed, werror, rerror, bus, addr, iothread, ...rest }) => {
    requireModern('virtio-blk-pci', rest);
    if (rest['write-cache'] === 'off') throw new QmpError('A disk here has a write cache: write-cache must be on');
    if (rest['share-rw']) throw new QmpError('An image that is written to has one user: share-rw must be off');
    requireObject(monitor, 'iothread', iothread, 'iothread');
    if (drive === undefined) throw new QmpError('drive property not set');
    const node = monitor.nodes.get(drive);
    if (!node) throw new QmpError(`Property 'virtio-blk-pci.drive' can't find value '${drive}'`);
    const user = node.usedBy ?? node.parent;
    if (user !== undefined) throw new QmpError(`Node '${drive}' is in use by ${user}`);
    if (rerror === 'enospc') throw new QmpError("Parameter 'rerror' expects report, ignore, stop or auto");
    const id = await idOf(monitor, given, diskName);
    const queues = rest['num-queues'];
    const device: PciPlugInput = {
      ...{ kind: 'pci', type: 'virtio-blk', id, file: node.filename, readonly: node.readOnly },
      // A node of a file alone is what QEMU takes for raw.
      format: node.driver === 'qcow2' ? 'qcow2' : 'raw',
      ...(node.direct && { cache: 'none' as const }),
      ...(serial !== undefined && { serial }),
      ...(packed !== undefined && { packed }),
      ...(queues !== undefined && { queues }),
      ...(werror !== undefined && werror !== 'auto' && { werror }),
      ...(rerror !== undefined && rerror !== 'auto' && { rerror }),
      ...placeOf('virtio-blk-pci', bus, addr),
    };
    return { device, id, take: () => void monitor.nodes.take(drive, id) };
  },
});

const net = driver({
  name: 'virtio-net-pci',
  summary: 'a network card on a back end that `netdev_add` made',
  properties: z.strictObject({
    netdev: str.optional(),
    mac: str.optional(),
    host_mtu: int.min(0).max(65535).optional(),
    packed: bool.optional(),
    mq: bool.optional(),
    vectors: int.optional(),
    bootindex,
    ...virtioProperties,
  }),
  plan: async (monitor, given, { netdev: name, mac, host_mtu: mtu, packed, bus, addr, ...rest }) => {
    requireModern('virtio-net-pci', rest);
    if (name === undefined) throw new QmpError("'netdev' property must be set");
    const netdev = monitor.netdevs.all.find(({ id }) => id === name);
    if (!netdev) throw new QmpError(`Property 'virtio-net-pci.netdev' can't find value '${name}'`);
    if (netdev.usedBy !== undefined) {
      throw new QmpError(`Property 'virtio-net-pci.netdev' can't take value '${name}', it's in use`);
    }
    const id = await idOf(monitor, given, (index) => `net${index}`);
    const { type: backend, ...options } = netdev.net;
    const device: PciPlugInput = {
      ...{ kind: 'pci', type: 'virtio-net', ...options, backend, id },
      ...(!netdev.link && { link: false }),
      ...(mac !== undefined && { mac }),
      // Nothing is said of an MTU of 0.
      ...(mtu !== undefined && mtu !== 0 && { mtu }),
      ...(packed !== undefined && { packed }),
      ...placeOf('virtio-net-pci', bus, addr),
    };
    return { device, id, take: () => void monitor.netdevs.take(name, id) };
  },
});

const rng = driver({
  name: 'virtio-rng-pci',
  summary: "random bytes of the host's",
  properties: z.strictObject({
    rng: str.optional().describe('an rng-random or rng-builtin object'),
    ...virtioProperties,
  }),
  plan: async (monitor, given, { rng: source, bus, addr, ...rest }) => {
    requireModern('virtio-rng-pci', rest);
    requireObject(monitor, 'rng', source, 'rng-backend');
    const id = await idOf(monitor, given, (index) => (index === 0 ? 'rng' : `rng${index}`));
    return {
      device: { kind: 'pci', type: 'virtio-rng', id, ...placeOf('virtio-rng-pci', bus, addr) },
      id,
      take: () => {},
    };
  },
});

const balloon = driver({
  name: 'virtio-balloon-pci',
  summary: 'takes memory of the guest back',
  properties: z.strictObject({
    'deflate-on-oom': bool.optional(),
    'free-page-reporting': bool.optional(),
    ...virtioProperties,
  }),
  plan: async (monitor, given, { 'deflate-on-oom': deflate, 'free-page-reporting': reporting, bus, addr, ...rest }) => {
    requireModern('virtio-balloon-pci', rest);
    const id = await idOf(monitor, given, (index) => (index === 0 ? 'balloon' : `balloon${index}`));
    const device: PciPlugInput = {
      ...{ kind: 'pci', type: 'virtio-balloon', id },
      ...(deflate !== undefined && { deflateOnOom: deflate }),
      ...(reporting !== undefined && { reporting }),
      ...placeOf('virtio-balloon-pci', bus, addr),
    };
    return { device, id, take: () => {} };
  },
});

const memory = driver({
  name: 'virtio-mem-pci',
  summary: 'memory that the guest plugs by blocks, of an object that `object-add` made',
  properties: z.strictObject({
    memdev: str.optional(),
    'requested-size': int.nonnegative().optional(),
    'block-size': int.positive().optional(),
    node: int.nonnegative().optional(),
    ...pciProperties,
  }),
  plan: async (monitor, given, { memdev, node, bus, addr, ...sizes }) => {
    requireFixed('virtio-mem-pci', sizes);
    const object = memoryObject(monitor, memdev);
    const { backend, hugepages, thp, hostNodes, policy } = object.plug;
    if (backend === 'file')
      throw new QmpError(`'${object.id}' is a file: a virtio-mem has memory-backend-ram or -memfd`);
    const id = await idOf(monitor, given, (index) => `vm${index}`);
    const device: PciPlugInput = {
      ...{ kind: 'pci', type: 'virtio-mem', id, size: object.size, backend, thp, policy },
      ...(hugepages !== undefined && { hugepages }),
      ...(hostNodes !== undefined && { hostNodes }),
      ...(sizes['requested-size'] !== undefined && { requested: sizes['requested-size'] }),
      ...(sizes['block-size'] !== undefined && { block: sizes['block-size'] }),
      ...(node !== undefined && { node }),
      ...placeOf('virtio-mem-pci', bus, addr),
    };
    return { device, id, take: claim(object, id) };
  },
});

const pmem = driver({
  name: 'virtio-pmem-pci',
  summary: 'persistent memory on a `memory-backend-file` object',
  properties: z.strictObject({ memdev: str.optional(), ...pciProperties }),
  plan: async (monitor, given, { memdev, bus, addr, ...rest }) => {
    requireFixed('virtio-pmem-pci', rest);
    const object = memoryObject(monitor, memdev);
    const { path, share } = object.plug;
    if (path === undefined) throw new QmpError(`A virtio-pmem is a file: '${object.id}' is no memory-backend-file`);
    const id = await idOf(monitor, given, (index) => `pmem${index}`);
    const device: PciPlugInput = {
      ...{ kind: 'pci', type: 'virtio-pmem', id, file: path, size: object.size, share },
      ...placeOf('virtio-pmem-pci', bus, addr),
    };
    return { device, id, take: claim(object, id) };
  },
});

const watchdog = driver({
  name: 'i6300esb',
  summary: 'a watchdog, on a machine with slots of conventional PCI',
  properties: z.strictObject({ ...pciProperties }),
  plan: async (monitor, given, { bus, addr, ...rest }) => {
    requireFixed('i6300esb', rest);
    const id = await idOf(monitor, given, (index) => (index === 0 ? 'watchdog' : `watchdog${index}`));
    const { watchdogAction: action } = monitor;
    return {
      device: { kind: 'pci', type: 'i6300esb', id, action, ...placeOf('i6300esb', bus, addr) },
      id,
      take: () => {},
    };
  },
});

const rootPort = driver({
  name: 'pcie-root-port',
  summary: 'a root port: those of the start are all',
  properties: z.strictObject({ chassis: int.optional(), port: int.optional(), slot: int.optional(), ...pciProperties }),
  plan: (_monitor, _given, { bus = 'pcie.0', addr }) => {
    placeOf('pcie-root-port', bus, addr);
    throw new QmpError('A machine has its root ports from the start: nemu run --pcie root-ports=N');
  },
});

export const PCI_DRIVERS: readonly Driver[] = [
  ...[blk, net, rng, balloon, memory, pmem, watchdog, rootPort],
  ...SERIAL_DRIVERS,
];
