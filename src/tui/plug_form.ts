/** The form of a device to plug, made from the option schema. */
import * as z from 'zod';
import { literal } from '../client/code.ts';
import { type PlugInput, parsePlug, pluggable } from '../client/live.ts';
import { numberList, parseForward, parseLimits } from '../client/options.ts';
import { formatSize, parseSize } from '../client/sizes.ts';
import { memoryRoom } from './memory_room.ts';
import type { MachineModel } from './model.ts';
import type { Field } from './overlays/form.ts';
import { plugQmp } from './plug_qmp.ts';

type JsonSchema = {
  readonly type?: string | readonly string[];
  readonly enum?: readonly unknown[];
  readonly const?: unknown;
  readonly default?: unknown;
  readonly description?: string;
  readonly anyOf?: readonly JsonSchema[];
  readonly properties?: Readonly<Record<string, JsonSchema>>;
  readonly required?: readonly string[];
};

export interface PlugKind {
  /** `memory`, or `virtio-blk` for a device of PCI. */
  readonly name: string;
  readonly fields: readonly Field[];
}

/** Lists and groups of fields that the command line has a text for. */
const WRITTEN: Readonly<Record<string, { readonly how: string; read(text: string, kind: string): unknown }>> = {
  hostForwards: {
    how: 'ports of the host that lead into the guest: 2222:22, or tcp:127.0.0.1:2222-:22, several with a comma between',
    read: (text) => text.split(/\s*,\s*/).map(parseForward),
  },
  hostNodes: { how: 'host NUMA nodes: 0-1+3', read: (text) => numberList('host-nodes', text) },
  throttle: {
    how: 'limits in a second: iops=500,bps=10M for a disk, pps=1000,bps-rx=10M for a card',
    read: (text, kind) => parseLimits(text, kind === 'virtio-net' ? 'net' : 'disk'),
  },
};

/** Each kind of device that can be plugged, with its options. */
export function plugKinds(): PlugKind[] {
  return pluggable.map(({ kind, type, schema: option }) => {
    const schema = z.toJSONSchema(option, { io: 'input', unrepresentable: 'any' }) as JsonSchema;
    const fields = Object.entries(schema.properties ?? {})
      .filter(([name, { type: of }]) => name !== 'kind' && name !== 'type' && !(isGroup(of) && !WRITTEN[name]))
      .map(([name, property]) => fieldOf(name, property, schema.required?.includes(name) ?? false));
    return { name: type ?? kind, fields: fields.toSorted(neededFirst) };
  });
}

const isGroup = (type: JsonSchema['type']) => type === 'array' || type === 'object';

const neededFirst = (a: Field, b: Field) => Number(b.required) - Number(a.required);

function fieldOf(name: string, property: JsonSchema, required: boolean): Field {
  const written = isGroup(property.type) ? WRITTEN[name] : undefined;
  if (written) return { name, type: 'text', description: written.how, required };
  const choices = property.enum?.map(String);
  const types = [property.type, ...(property.anyOf ?? []).map(({ type }) => type)].flat();
  const type = choices
    ? 'choice'
    : types.includes('boolean')
      ? 'boolean'
      : types.includes('number') || types.includes('integer')
        ? 'number'
        : 'text';
  return {
    name,
    type,
    ...(choices && { choices }),
    description: property.description ?? '',
    required: required && property.default === undefined,
    ...(property.default !== undefined && { standard: String(property.default) }),
  };
}

/** What the form says. @param name of the kind in it. @throws NemuError for a text that is no list or group. */
export function plugInput(name: string, values: Readonly<Record<string, unknown>>): PlugInput {
  const { kind, type } = pluggable.find((each) => (each.type ?? each.kind) === name) ?? { kind: name, type: undefined };
  const read = Object.entries(values).map(([field, value]) => {
    const written = typeof value === 'string' ? WRITTEN[field] : undefined;
    return [field, written ? written.read(value as string, name) : value];
  });
  return { kind, ...(type && { type }), ...Object.fromEntries(read) } as PlugInput;
}

/** The same in the REPL and in QMP; nothing while a text in it is not whole. */
export function plugForms(
  name: string,
  values: Readonly<Record<string, unknown>>,
  { plugged, vm }: MachineModel,
): readonly string[] {
  let input: PlugInput;
  try {
    input = plugInput(name, values);
  } catch {
    return [];
  }
  const present = plugged?.cpus.present.map(({ index }) => index) ?? [];
  const lines = plugQmp(input, vm.machine.description.cpus, present);
  return [`REPL: await vm.plug(${literal(input)})`, ...lines.map((line) => `QMP: ${line}`)];
}

/** @throws NemuError that says what is wrong with the values. */
export function checkPlug(name: string, values: Readonly<Record<string, unknown>>): PlugInput {
  const input = plugInput(name, values);
  parsePlug(input);
  return input;
}

/** What a plug takes of the host and of the machine's room. */
export function costOf(kind: string, values: Readonly<Record<string, unknown>>, { plugged, vm }: MachineModel): string {
  if (kind === 'cpu') {
    const { present, max } = plugged?.cpus ?? { present: [], max: undefined };
    const room =
      max === undefined ? 'this machine has no room for more (--cpus N,max=M)' : `vCPU ${present.length + 1} of ${max}`;
    return `Costs one thread of the host; ${room}.`;
  }
  if (kind === 'memory') {
    let size = 0;
    try {
      size = typeof values.size === 'number' ? values.size : parseSize(String(values.size ?? ''));
    } catch {
      // It is said elsewhere what is wrong with it.
    }
    const max = plugged?.memory.max;
    const room = plugged && memoryRoom(plugged, vm.machine.description);
    const place =
      !room || max === undefined
        ? 'this machine has no room for DIMMs (--memory SIZE,max=M,slots=N)'
        : `slot ${room.taken + 1} of ${room.slots}, ${formatSize(room.used + size)} of ${formatSize(max)} in all`;
    const when = values.prealloc === true || values.lock === true ? 'at once' : 'as the guest touches it';
    return `Costs ${size > 0 ? formatSize(size) : 'memory'} of the host ${when}; ${place}.`;
  }
  if (kind === 'nvdimm') return 'Costs its file, and a slot and room of those for DIMMs (--memory SIZE,max=M,slots=N).';
  const free = (plugged?.pci.ports ?? []).filter(({ device }) => device === undefined).map(({ id }) => id);
  return `Costs a port or slot of PCI; ${free.length > 0 ? `free: ${free.join(', ')}` : 'none is free: unplug something (a pcie-switch in its place brings more), or start with --pcie root-ports=8'}.`;
}
