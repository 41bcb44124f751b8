/** Changes of a machine as data, which a peer sends and a machine's history keeps: a method and what it is given. */
import { setTimeout as sleep } from 'node:timers/promises';
import * as z from 'zod';
import { throttleSchema } from './description.ts';
import {
  type PlugInput,
  type PlugOptions,
  plugOptionsSchema,
  resizeMemorySchema,
  type UnplugOptions,
  unplugSchema,
} from './live.ts';
import { parseDiskChange, parseNetChange } from './live_change.ts';
import type { BalloonReport, MachineClient } from './machine_client.ts';
import { valid } from './parameters.ts';

/** Methods of `MachineClient` that change a machine, and whose change another call of one takes back. */
export const CHANGES = [
  ...(['pause', 'resume', 'plug', 'unplug', 'resizeMemory', 'balloon'] as const),
  ...(['throttle', 'changeDisk', 'changeNet'] as const),
] as const;
export type ChangeMethod = (typeof CHANGES)[number];

export const changeSchema = z.strictObject({
  method: z.enum(CHANGES),
  parameters: z.array(z.unknown()).max(4),
});
/** `{ method: 'unplug', parameters: ['dimm0'] }` */
export type MachineChange = Readonly<z.output<typeof changeSchema>>;

export const plugChange = (device: PlugInput, options: PlugOptions = {}): MachineChange => ({
  method: 'plug',
  parameters: [device, options],
});
export const unplugChange = (id: string, options: UnplugOptions = {}): MachineChange => ({
  method: 'unplug',
  parameters: [id, options],
});

/** What is to change is checked by its own schema, which says more. */
const namedCallSchema = z.tuple([z.string().max(64), z.unknown()]);
const throttleCallSchema = z.tuple([z.string().max(64), throttleSchema]);
const balloonSchema = z.tuple([
  z
    .number()
    .int()
    .nonnegative()
    .max(2 ** 44)
    .optional(),
]);

export const isChange = (method: string): method is ChangeMethod => CHANGES.some((each) => each === method);

/**
 * Does a change. Its parameters come from outside, and are checked here.
 * @returns what the method does. @throws NemuError PROTOCOL for parameters that are none; else as the method does.
 */
export async function doChange(
  machine: MachineClient,
  { method, parameters }: { readonly method: ChangeMethod; readonly parameters: readonly unknown[] },
): Promise<unknown> {
  switch (method) {
    case 'pause':
      return machine.pause();
    case 'resume':
      return machine.resume();
    case 'plug': {
      const [device, options] = parameters;
      return machine.plug(device as PlugInput, valid(plugOptionsSchema, options ?? {}));
    }
    case 'unplug':
      return machine.unplug(...valid(unplugSchema, parameters, ['id', 'options']));
    case 'resizeMemory':
      return machine.resizeMemory(...valid(resizeMemorySchema, parameters, ['id', 'size', 'options']));
    case 'balloon':
      return machine.balloon(...valid(balloonSchema, parameters, ['size']));
    case 'throttle':
      return machine.throttle(...valid(throttleCallSchema, parameters, ['disk', 'limits']));
    case 'changeDisk': {
      const [disk, change] = valid(namedCallSchema, parameters, ['name', 'change']);
      return machine.changeDisk(disk, parseDiskChange(change));
    }
    case 'changeNet': {
      const [net, change] = valid(namedCallSchema, parameters, ['name', 'change']);
      return machine.changeNet(net, parseNetChange(change));
    }
  }
}

const BALLOON_POLL_MS = 100;
/** Polls without progress after which a balloon is as it stays. */
const BALLOON_PATIENCE = 30;

/** Asks the guest to leave so many bytes in its balloon, and waits until it has, or does not go on. */
export async function inflate(machine: MachineClient, target: number): Promise<BalloonReport> {
  let report = await machine.balloon(target);
  for (let still = 0; report.actual !== report.target && still < BALLOON_PATIENCE; ) {
    await sleep(BALLOON_POLL_MS);
    const next = await machine.balloon();
    still = next.actual === report.actual ? still + 1 : 0;
    report = next;
  }
  return report;
}
