/**
 * What is written down of each change of a machine: its code, what does it again and what takes it back. Whoever does
 * the change knows what there was before it.
 */
import type { NotedAction } from './actions.ts';
import { given, literal, memberCode } from './code.ts';
import type { HostForwardInput, NetBackendInput, NetThrottleInput, ThrottleInput } from './description.ts';
import { type LiveDevice, type PlugInput, type PlugOptions, pluggable, type UnplugOptions } from './live.ts';
import type { DiskChangeInput, NetChangeInput } from './live_change.ts';
import { type MachineChange, plugChange, unplugChange } from './machine_change.ts';
import type { DiskReport, NetReport } from './machine_client.ts';
import { withAbsoluteFiles } from './paths.ts';

const pause: MachineChange = { method: 'pause', parameters: [] };
const resume: MachineChange = { method: 'resume', parameters: [] };

export const PAUSED: NotedAction = {
  code: 'vm.pause()',
  redo: [pause],
  undo: { code: 'vm.resume()', changes: [resume] },
  holds: "vm.state === 'paused'",
};

export const RESUMED: NotedAction = {
  code: 'vm.resume()',
  redo: [resume],
  undo: { code: 'vm.pause()', changes: [pause] },
  holds: "vm.state === 'running'",
};

export const RESET: NotedAction = { code: 'vm.reset()' };
export const POWER_BUTTON: NotedAction = { code: 'vm.powerButton()' };
export const NMI: NotedAction = { code: 'vm.nmi()' };

/** What was asked for with the name, or the number, that the device got: what does it again does the same. */
function named(asked: PlugInput, device: LiveDevice): PlugInput {
  if (device.kind === 'cpu') return { ...asked, index: device.index } as PlugInput;
  const fields = pluggable.find(({ kind, type }) =>
    device.kind === 'pci' ? type === device.type : kind === device.kind,
  )?.schema.shape;
  return fields && 'id' in fields ? ({ ...asked, id: device.id } as PlugInput) : asked;
}

/** @param device that came. */
export function plugNote(asked: PlugInput, device: LiveDevice, options: PlugOptions = {}): NotedAction {
  const again = named(asked, device);
  const id = literal(device.id);
  return {
    code: `vm.plug(${literal(again)}${given(options)})`,
    redo: [plugChange(withAbsoluteFiles(again), options)],
    undo: withNothingPlugged(asked, device.id, { code: `vm.unplug(${id})`, changes: [unplugChange(device.id)] }),
    holds: `vm.has(${id})`,
  };
}

/** A virtio-mem leaves only when nothing of it is asked for. */
function withNothingPlugged(asked: PlugInput, id: string, undo: NonNullable<NotedAction['undo']>): typeof undo {
  if (asked.kind !== 'pci' || asked.type !== 'virtio-mem' || asked.requested === undefined) return undo;
  const nothing: MachineChange = { method: 'resizeMemory', parameters: [id, 0, {}] };
  return {
    code: `await vm.memory.resize(${literal(id)}, 0), ${undo.code}`,
    changes: [nothing, ...undo.changes],
  };
}

/** @param again what plugs the device as it was (device_now.ts); what cannot be plugged stays away. */
export function unplugNote(id: string, again: PlugInput | undefined, options: UnplugOptions = {}): NotedAction {
  return {
    code: `vm.unplug(${literal(id)}${given(options)})`,
    redo: [unplugChange(id, options)],
    ...(again && { undo: { code: `vm.plug(${literal(again)})`, changes: [plugChange(again)] } }),
    holds: `!vm.has(${literal(id)})`,
  };
}

/** A size as it was asked for, and in bytes. */
interface Size {
  readonly size: string | number;
  readonly bytes: number;
}

/** @param before bytes that a virtio-mem was asked to have plugged. */
export function virtioMemNote(
  id: string,
  { size, bytes }: Size,
  before: number,
  options: PlugOptions = {},
): NotedAction {
  return {
    code: `vm.memory.resize(${literal(id)}, ${literal(size)}${given(options)})`,
    redo: [{ method: 'resizeMemory', parameters: [id, bytes, options] }],
    undo: {
      code: `vm.memory.resize(${literal(id)}, ${before})`,
      changes: [{ method: 'resizeMemory', parameters: [id, before, options] }],
    },
  };
}

/** @param before bytes that the balloon was to hold. */
export function balloonNote({ size, bytes }: Size, before: number): NotedAction {
  return {
    code: `vm.memory.balloon(${literal(size)})`,
    redo: [{ method: 'balloon', parameters: [bytes] }],
    undo: { code: `vm.memory.balloon(${before})`, changes: [{ method: 'balloon', parameters: [before] }] },
  };
}

const diskCode = (name: string) => memberCode('vm.disks', name);

/** What a field of a disk's report is after a change. */
const diskGives = (name: string, field: keyof DiskReport, value: unknown) =>
  [`(await ${diskCode(name)}.statistics()).${field}`, value] as const;

const diskChange = (name: string, change: DiskChangeInput): MachineChange => ({
  method: 'changeDisk',
  parameters: [name, change],
});

/** Of a disk as it was before. */
export function diskThrottleNote({ name, throttle }: DiskReport, limits: ThrottleInput): NotedAction {
  const code = (which: ThrottleInput) => `${diskCode(name)}.throttle(${literal(which)})`;
  const set = (which: ThrottleInput): MachineChange => ({ method: 'throttle', parameters: [name, which] });
  return {
    code: code(limits),
    redo: [set(limits)],
    undo: { code: code(throttle), changes: [set(throttle)] },
    gives: diskGives(name, 'throttle', limits),
  };
}

/** Of a disk as it was before. @param asked nothing for the size that the device behind it has. */
export function diskSizeNote(
  { name, size: before }: DiskReport,
  asked: Size | undefined,
  options: { readonly shrink?: boolean } = {},
): NotedAction {
  const written = [
    ...(asked ? [literal(asked.size)] : []),
    ...(options.shrink === undefined ? [] : [literal(options)]),
  ].join(', ');
  const size = asked && { size: asked.bytes };
  return {
    code: `${diskCode(name)}.resize(${written})`,
    redo: [diskChange(name, { action: 'resize', ...size, ...options })],
    // Taking growth back loses what was written there since, so that is said to be meant; what was cut off is gone.
    ...(asked &&
      asked.bytes > before && {
        undo: {
          code: `${diskCode(name)}.resize(${before}, { shrink: true })`,
          changes: [diskChange(name, { action: 'resize', size: before, shrink: true })],
        },
      }),
    ...(asked && { gives: diskGives(name, 'size', asked.bytes) }),
  };
}

/** Of a disk as it was before. @param file from the root, where others see the note. */
export function mediumNote(
  { name, file: before, format, probed }: DiskReport,
  file: string,
  options: { readonly format?: 'raw' | 'qcow2' } = {},
): NotedAction {
  const formerly = probed ? {} : { format };
  const code = (path: string, how: object) => `${diskCode(name)}.change(${literal(path)}${given(how)})`;
  return {
    code: code(file, options),
    redo: [diskChange(name, { action: 'medium', file, ...options })],
    undo: {
      code: code(before, formerly),
      changes: [diskChange(name, { action: 'medium', file: before, ...formerly })],
    },
    gives: diskGives(name, 'file', file),
  };
}

const netCode = (name: string) => memberCode('vm.nets', name);

const netChange = (name: string, change: NetChangeInput): MachineChange => ({
  method: 'changeNet',
  parameters: [name, change],
});

/** What a change of a card by a value does, and what the contrary does. */
function netNote<T>(
  name: string,
  method: string,
  [wanted, before]: readonly [T, T],
  [field, value]: readonly [field: keyof NetReport, value: unknown],
  change: (which: T) => NetChangeInput,
): NotedAction {
  return {
    code: `${netCode(name)}.${method}(${literal(wanted)})`,
    redo: [netChange(name, change(wanted))],
    undo: { code: `${netCode(name)}.${method}(${literal(before)})`, changes: [netChange(name, change(before))] },
    gives: [`(await ${netCode(name)}.statistics()).${field}`, value],
  };
}

/** Of a card as it was before. */
export const netThrottleNote = ({ name, throttle }: NetReport, limits: NetThrottleInput): NotedAction =>
  netNote(name, 'throttle', [limits, throttle], ['throttle', limits], (which) => ({
    action: 'throttle',
    limits: which,
  }));

/** Of a card as it was before. */
export const linkNote = ({ name, link }: NetReport, up: boolean): NotedAction =>
  netNote(name, 'link', [up, link], ['link', up], (which) => ({ action: 'link', up: which }));

/** @param before the card as it was. */
export const backendNote = (before: NetReport, backend: NetBackendInput): NotedAction =>
  netNote(before.name, 'backend', [backend, backendOf(before)], ['type', backend.type], (which) => ({
    ...{ action: 'backend', backend: which },
  }));

/** What plugs a card into the network again where it is now. */
export function backendOf({ type, queues, ifname, net, hostname, restrict, hostForwards }: NetReport): NetBackendInput {
  if (type === 'tap') return { type, queues, ...(ifname !== undefined && { ifname }) };
  return {
    ...{ type, ...(net !== undefined && { net }), ...(hostname !== undefined && { hostname }) },
    ...(restrict && { restrict }),
    ...(hostForwards.length > 0 && { hostForwards: [...hostForwards] }),
  };
}

/** A port of the host, without where it leads to. */
export type Listener = Omit<HostForwardInput, 'guestPort' | 'guestAddress'>;

export const listenerOf = ({ protocol, hostAddress, hostPort }: Listener): Listener => ({
  ...(protocol !== undefined && { protocol }),
  ...(hostAddress !== undefined && { hostAddress }),
  hostPort,
});

/** Of a card as it is after that. */
const forwarding = (
  { name, hostForwards }: NetReport,
  [code, change]: readonly [string, Omit<NetChangeInput & { action: 'forward' }, 'action'>],
  [undo, inverse]: readonly [string, Omit<NetChangeInput & { action: 'forward' }, 'action'>],
): NotedAction => ({
  code: `${netCode(name)}.${code}`,
  redo: [netChange(name, { action: 'forward', ...change })],
  undo: { code: `${netCode(name)}.${undo}`, changes: [netChange(name, { action: 'forward', ...inverse })] },
  gives: [`(await ${netCode(name)}.statistics()).hostForwards`, hostForwards],
});

/** @param after the card as it is with it. */
export const forwardNote = (after: NetReport, forward: HostForwardInput): NotedAction =>
  forwarding(
    after,
    [`forward(${literal(forward)})`, { add: [forward] }],
    [`unforward(${literal(forward)})`, { remove: [listenerOf(forward)] }],
  );

/** @param after the card as it is without it. @param which as it was asked for. @param gone what was led into the guest. */
export const unforwardNote = (
  after: NetReport,
  which: number | Listener,
  gone: HostForwardInput | undefined,
): NotedAction =>
  forwarding(
    after,
    [`unforward(${literal(which)})`, { remove: [listenerOf(typeof which === 'number' ? { hostPort: which } : which)] }],
    [`forward(${literal(gone)})`, { add: gone ? [gone] : [] }],
  );
