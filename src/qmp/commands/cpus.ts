/** Processors: what there is, and what there could be. */
import * as z from 'zod';
import { possibleCpus } from '../../client/description.ts';
import type { CpuDevice } from '../../client/live.ts';
import { command } from '../command.ts';
import { CPU_TYPE } from '../devices.ts';
import { QmpError } from '../errors.ts';
import type { Monitor } from '../monitor.ts';
import { int, none, str } from '../types.ts';

const props = z.strictObject({
  'node-id': int.optional(),
  'socket-id': int.optional(),
  'core-id': int.optional(),
  'thread-id': int.optional(),
});

/** Where a vCPU of this number stands: threads of a core follow each other, then cores of a package. */
function placeOf({ machine }: Monitor, index: number) {
  const { cpus, numa } = machine.description;
  const node = numa?.nodes.findIndex((each) => each.cpus.includes(index)) ?? 0;
  return {
    'socket-id': Math.floor(index / (cpus.threads * cpus.cores)),
    'core-id': Math.floor(index / cpus.threads) % cpus.cores,
    'thread-id': index % cpus.threads,
    ...(node >= 0 && { 'node-id': node }),
  };
}

/** What `device_add` says of where a vCPU goes. */
export const cpuProperties = z.strictObject({
  'socket-id': int.optional(),
  'core-id': int.optional(),
  'thread-id': int.optional(),
  'die-id': z.literal(0).optional(),
  'node-id': int.optional(),
});

/** @returns the number of the vCPU. @throws QmpError for a place that this machine does not have. */
export function cpuIndex(monitor: Monitor, place: z.output<typeof cpuProperties>): number {
  const { sockets, cores, threads } = monitor.machine.description.cpus;
  const coordinate = (name: 'socket-id' | 'core-id' | 'thread-id', count: number) => {
    const value = place[name];
    if (value === undefined) throw new QmpError(`CPU ${name} is not set`);
    if (value < 0 || value >= count) {
      throw new QmpError(`Invalid CPU ${name}: ${value} must be in range 0:${count - 1}`);
    }
    return value;
  };
  const [socket, core] = [coordinate('socket-id', sockets), coordinate('core-id', cores)];
  const index = (socket * cores + core) * threads + coordinate('thread-id', threads);
  const node = placeOf(monitor, index)['node-id'];
  if (place['node-id'] !== undefined && place['node-id'] !== node) {
    throw new QmpError(`node-id=${place['node-id']} must match numa node specified with -numa option`);
  }
  return index;
}

export async function hotpluggableCpus(monitor: Monitor) {
  const { present } = (await monitor.machine.plugged()).cpus;
  const count = possibleCpus(monitor.machine.description.cpus);
  return Array.from({ length: count }, (_, at) => {
    // As in QEMU, the last one first.
    const index = count - 1 - at;
    const device = present.find((each) => each.index === index);
    return {
      ...{ type: CPU_TYPE, 'vcpus-count': 1, props: placeOf(monitor, index) },
      ...(device && { 'qom-path': monitor.names.path(device) }),
    };
  });
}

export async function cpusFast(monitor: Monitor) {
  const { machine } = monitor;
  const [{ cpus }, { vcpus }] = await Promise.all([machine.plugged(), machine.counters()]);
  const threadOf = ({ index }: CpuDevice) => vcpus.find((each) => each.index === index)?.threadId ?? 0;
  return cpus.present.map((cpu) => ({
    ...{ 'cpu-index': cpu.index, 'qom-path': monitor.names.path(cpu), 'thread-id': threadOf(cpu) },
    ...{ props: placeOf(monitor, cpu.index), target: 'x86_64' as const },
  }));
}

export const CPUS = [
  command({
    name: 'query-cpus-fast',
    summary: 'vCPUs and their threads',
    args: none,
    returns: z.array(
      z.strictObject({
        ...{ 'cpu-index': int, 'qom-path': str, 'thread-id': int },
        ...{ props: props.optional(), target: z.enum(['aarch64', 'x86_64']) },
      }),
    ),
    run: cpusFast,
  }),
  command({
    name: 'query-hotpluggable-cpus',
    summary: 'places for vCPUs, taken and free',
    args: none,
    returns: z.array(z.strictObject({ type: str, 'vcpus-count': int, props, 'qom-path': str.optional() })),
    run: hotpluggableCpus,
  }),
];
