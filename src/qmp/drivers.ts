/** Every device that `device_add` makes. */
import * as z from 'zod';
import type { PlugInput } from '../client/live.ts';
import { cpuIndex, cpuProperties } from './commands/cpus.ts';
import { CPU_TYPE } from './devices.ts';
import { type Driver, driver } from './driver.ts';
import { QmpError } from './errors.ts';
import { claim, memoryObject } from './memory_object.ts';
import { PCI_DRIVERS } from './pci_drivers.ts';
import { bool, str } from './types.ts';

const cpuDriver = (name: string) =>
  driver({
    name,
    summary: 'a vCPU, at a place that `query-hotpluggable-cpus` has',
    properties: cpuProperties,
    plan: async (monitor, _id, place) => {
      const index = cpuIndex(monitor, place);
      const id = `cpu${index}`;
      const { present } = (await monitor.machine.plugged()).cpus;
      const there = present.find((each) => each.index === index);
      if (there) throw new QmpError(`CPU[${index}] with APIC ID ${there.apicId} exists`);
      return { device: { kind: 'cpu', index }, id, take: () => {} };
    },
  });

const dimmDriver = driver({
  name: 'pc-dimm',
  summary: 'a DIMM of memory that `object-add` made',
  properties: z.strictObject({
    memdev: str.optional(),
    addr: z.int().nonnegative().optional(),
    slot: z.int().min(-1).optional(),
    node: z.int().nonnegative().optional(),
  }),
  plan: async (monitor, given, { memdev, addr, slot, node }) => {
    const object = memoryObject(monitor, memdev);
    const { dimms } = (await monitor.machine.plugged()).memory;
    const free = Array.from({ length: dimms.length + 1 }, (_, i) => `dimm${i}`).find(
      (name) => !dimms.some(({ id }) => id === name),
    );
    const id = given ?? (free as string);
    const device: PlugInput = {
      ...{ kind: 'memory', id, size: object.size, ...object.plug },
      // QEMU's 0 and -1 stand for a place that it chooses.
      ...(addr !== undefined && addr !== 0 && { address: addr }),
      ...(slot !== undefined && slot !== -1 && { slot }),
      ...(node !== undefined && { node }),
    };
    return { device, id, take: claim(object, id) };
  },
});

const nvdimmDriver = driver({
  name: 'nvdimm',
  summary: 'persistent memory on a `memory-backend-file` object',
  properties: z.strictObject({
    memdev: str.optional(),
    'label-size': z.int().nonnegative().optional(),
    unarmed: bool.optional(),
    slot: z.int().min(-1).optional(),
    node: z.int().nonnegative().optional(),
  }),
  plan: async (monitor, given, { memdev, 'label-size': labelSize = 0, unarmed, slot, node }) => {
    const object = memoryObject(monitor, memdev);
    const { path, share } = object.plug;
    if (path === undefined) throw new QmpError(`An nvdimm is a file: '${object.id}' is no memory-backend-file`);
    if (labelSize >= object.size)
      throw new QmpError(`the size of memdev '${object.id}' is too small to contain its labels`);
    const { nvdimms } = await monitor.machine.plugged();
    const free = Array.from({ length: nvdimms.length + 1 }, (_, i) => `nvdimm${i}`).find(
      (name) => !nvdimms.some(({ id }) => id === name),
    );
    const id = given ?? (free as string);
    const device: PlugInput = {
      // The object's size is that of the memory and its labels together.
      ...{ kind: 'nvdimm', id, file: path, size: object.size - labelSize, labelSize, share },
      ...(unarmed !== undefined && { readonly: unarmed }),
      ...(slot !== undefined && slot !== -1 && { slot }),
      ...(node !== undefined && { node }),
    };
    return { device, id, take: claim(object, id) };
  },
});

/** Names that do not say the bus. */
const ALIASES: Readonly<Record<string, string>> = {
  'virtio-balloon': 'virtio-balloon-pci',
  'virtio-blk': 'virtio-blk-pci',
  'virtio-net': 'virtio-net-pci',
  'virtio-rng': 'virtio-rng-pci',
  'virtio-serial': 'virtio-serial-pci',
};

export const findDriver = (name: unknown): Driver | undefined =>
  typeof name === 'string'
    ? DRIVERS.find((each) => each.name === (Object.hasOwn(ALIASES, name) ? ALIASES[name] : name))
    : undefined;

export const DRIVERS: readonly Driver[] = [
  ...[cpuDriver(CPU_TYPE), cpuDriver('max-x86_64-cpu'), dimmDriver, nvdimmDriver],
  ...PCI_DRIVERS,
];
