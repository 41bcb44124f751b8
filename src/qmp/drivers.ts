/** Devices that `device_add` makes: their properties, and the plug request that each stands for. */
import * as z from 'zod';
import type { PlugInput } from '../client/live.ts';
import { cpuIndex, cpuProperties } from './commands/cpus.ts';
import { CPU_TYPE } from './devices.ts';
import { deviceNotFound, QmpError } from './errors.ts';
import type { JsonObject } from './json.ts';
import type { Monitor } from './monitor.ts';
import { str } from './types.ts';

/** What there is to plug. `taken` are objects of the peer's that go into it. */
export interface Plan {
  readonly device: PlugInput;
  /** The id that the machine gives it. */
  readonly id: string;
  /** Marks what the device uses as taken, once the machine has said that it can be. */
  readonly take: () => void;
}

export interface Driver {
  readonly name: string;
  readonly summary: string;
  readonly properties: z.ZodObject;
  plan(monitor: Monitor, id: string | undefined, properties: JsonObject): Plan | Promise<Plan>;
}

interface Definition<S extends z.ZodObject> {
  readonly name: string;
  readonly summary: string;
  readonly properties: S;
  plan(monitor: Monitor, id: string | undefined, properties: z.output<S>): Plan | Promise<Plan>;
}
const driver = <S extends z.ZodObject>(definition: Definition<S>): Driver => definition as unknown as Driver;

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
    if (memdev === undefined) throw new QmpError("'memdev' property must be set");
    const object = monitor.objects.get(memdev.replace(/^\/objects\//, ''));
    if (!object) throw deviceNotFound(memdev);
    if (object.usedBy !== undefined) throw new QmpError(`can't use already busy memdev: ${object.id}`);
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
    const take = () => {
      object.usedBy = id;
    };
    return { device, id, take };
  },
});

export const DRIVERS: readonly Driver[] = [cpuDriver(CPU_TYPE), cpuDriver('max-x86_64-cpu'), dimmDriver];
