/**
 * Changes of a running machine: what can be asked for, and how far each request is. A request goes through
 * stages, and each new one is told in an event of type `request`; nothing here is particular to one kind of
 * device but the schemas and interfaces at the end of a section, by `kind`.
 */
import { inspect } from 'node:util';
import * as z from 'zod';
import {
  asNet,
  checkDimm,
  type DimmDescription,
  deviceSchemas,
  deviceType,
  dimmFields,
  ID,
  netSchema,
  withOwnType,
} from './description.ts';
import { BOOT_TYPES, DEVICE_ALIASES, type DeviceType, problemsOfDevices, type Stream } from './device_schema.ts';
import { NemuError } from './errors.ts';
import { tell } from './explain.ts';
import { type NvdimmDevice, type NvdimmReport, nvdimmPlugSchema, problemOfPmem } from './nvdimm.ts';
import { byteSizeOrNone } from './sizes.ts';
import { didYouMean } from './suggest.ts';
import type { VirtioMemDevice, VirtioMemReport } from './virtio_mem.ts';

const cpuPlugSchema = z.strictObject({
  kind: z.literal('cpu'),
  index: z.int().min(0).max(253).optional().describe('which vCPU; the first that is not there, without'),
});

const memoryPlugSchema = z
  .strictObject({
    kind: z.literal('memory'),
    id: ID.optional().describe('name; dimm0, dimm1 and so on by its slot without one'),
    slot: z.int().min(0).max(255).optional().describe('the first that is free, without'),
    address: z
      .number()
      .int()
      .nonnegative()
      .optional()
      .describe('guest-physical; the first place with room for it, without'),
    ...dimmFields,
  })
  .superRefine((memory, context) => checkDimm(memory, (message) => context.addIssue({ code: 'custom', message })));

const ofPci = <S extends z.core.$ZodLooseShape>(schema: z.ZodObject<S, z.core.$strict>) =>
  schema.extend({ kind: z.literal('pci') });
const [disk, card, rng, balloon, console, port, watchdog, pcieSwitch, pciBridge, pmem, memoryBlocks] = deviceSchemas;

/** Devices of PCI, by `type`: with the options that `--device` has. */
const pciPlugSchemas = [
  ofPci(disk),
  ofPci(card),
  ofPci(rng),
  ofPci(balloon),
  ofPci(console),
  ofPci(port),
  ofPci(watchdog),
  ofPci(pcieSwitch),
  ofPci(pmem),
  ofPci(memoryBlocks),
  // At the start alone, but it is described as the others are.
  ofPci(pciBridge),
] as const;
const pciPlugSchema = z.discriminatedUnion('type', pciPlugSchemas);

/** What can be plugged, by `kind`. */
export const plugSchema = z.discriminatedUnion('kind', [
  cpuPlugSchema,
  memoryPlugSchema,
  nvdimmPlugSchema,
  pciPlugSchema,
]);
export type PlugInput = z.input<typeof plugSchema>;
export type PlugRequest = z.output<typeof plugSchema>;
export type CpuPlug = Extract<PlugRequest, { kind: 'cpu' }>;
export type MemoryPlug = Extract<PlugRequest, { kind: 'memory' }>;
export type NvdimmPlug = Extract<PlugRequest, { kind: 'nvdimm' }>;
export type PciPlug = Extract<PlugRequest, { kind: 'pci' }>;
export type PciPlugInput = Extract<PlugInput, { kind: 'pci' }>;

/** Everything that can be plugged, each with its options: by kind, and a device of PCI by its type too. */
export const pluggable: readonly {
  readonly kind: PlugInput['kind'];
  readonly type?: DeviceType;
  readonly schema: z.ZodObject;
}[] = [
  { kind: 'cpu', schema: cpuPlugSchema },
  { kind: 'memory', schema: memoryPlugSchema },
  { kind: 'nvdimm', schema: nvdimmPlugSchema },
  ...pciPlugSchemas
    .map((schema) => ({ kind: 'pci' as const, type: schema.shape.type.value, schema }))
    .filter(({ type }) => !BOOT_TYPES.includes(type)),
];

const ID_OF_DEVICE = z.string().min(1).max(64);
const timeoutMs = z
  .int()
  .min(1)
  .max(2 ** 31 - 1)
  .optional()
  .describe('milliseconds of guest time that the guest may take');
export const plugOptionsSchema = z.strictObject({ timeoutMs }).prefault({});
export const unplugOptionsSchema = z
  .strictObject({
    timeoutMs,
    force: z
      .boolean()
      .optional()
      .describe(
        'take it away at once, whether the guest lets go or not (PCI): what it has not yet written is lost, and what uses it fails',
      ),
  })
  .prefault({});
export const unplugSchema = z.tuple([ID_OF_DEVICE, unplugOptionsSchema.optional()]);
export type PlugOptions = z.input<typeof plugOptionsSchema>;
export type UnplugOptions = z.input<typeof unplugOptionsSchema>;

/** @throws NemuError `PLUG` that names each field and what is wrong with it. */
export function parsePlug(input: unknown): PlugRequest {
  const device = withOwnType(input);
  const result = plugSchema.safeParse(device);
  const { kind, type } = (device ?? {}) as { kind?: unknown; type?: unknown };
  if (result.success) {
    if (result.data.kind === 'pci') requireSound(result.data);
    return result.data;
  }
  requireKind(device);
  const schema =
    pluggable.find((each) => each.kind === kind && each.type === (kind === 'pci' ? type : undefined))?.schema ??
    plugSchema;
  throw new NemuError('PLUG', `This cannot be plugged: ${tell(schema, device, result.error.issues)}`);
}

/** How what is meant is written. */
const written = ({ kind, type }: (typeof pluggable)[number]) =>
  type === undefined ? `{ kind: '${kind}' }` : `{ kind: '${kind}', type: '${type}' }`;

/** What is to be plugged is known by its kind, and of PCI by its type. @throws NemuError `PLUG` */
function requireKind(device: unknown): void {
  const problem = (what: string, hint: string) => new NemuError('PLUG', `This cannot be plugged: ${what}.`, { hint });
  if (typeof device !== 'object' || device === null || Array.isArray(device)) {
    const hint = "As { kind: 'cpu' }, { kind: 'memory', size: '1G' } or { kind: 'pci', type: 'virtio-rng' }.";
    throw problem(`a device is an object of options, not ${inspect(device)}`, hint);
  }
  const { kind, type } = device as { kind?: unknown; type?: unknown };
  const types = pluggable.flatMap((each) => each.type ?? []);
  const all = `There are ${types.join(', ')}.`;
  if (kind === 'pci') {
    if (types.some((each) => each === type)) return;
    const near = didYouMean(String(type), [...types, ...Object.keys(DEVICE_ALIASES)]);
    const what = typeof type === 'string' ? JSON.stringify(type) : inspect(type);
    throw problem(`there is no type ${what} of PCI device`, near ? `Did you mean ${near}?` : all);
  }
  if (pluggable.some((each) => each.kind === kind)) return;
  const word = kind ?? type;
  const named = typeof word === 'string' ? JSON.stringify(word) : inspect(word);
  const what = word === undefined ? 'it has no kind' : `there is no ${kind === undefined ? 'type' : 'kind'} ${named}`;
  const names = pluggable.map((each) => each.type ?? each.kind);
  const near = typeof word === 'string' ? didYouMean(deviceType(word), names) : undefined;
  const meant = pluggable.find((each) => (each.type ?? each.kind) === near);
  // A type alone says what is meant.
  if (meant && kind === undefined && near === type) throw problem('it has no kind', `Write it so: ${written(meant)}.`);
  if (meant) throw problem(what, `Did you mean ${written(meant)}?`);
  throw problem(what, `The kinds are cpu, memory, nvdimm and pci, whose types are ${types.join(', ')}.`);
}

/** What a device's own schema cannot tell. */
function requireSound(plug: PciPlug): void {
  if (plug.type === 'virtio-net') requireNet(plug);
  const [problem = plug.type === 'virtio-pmem' ? problemOfPmem(plug) : undefined] = problemsOfDevices([plug]);
  if (problem !== undefined) throw new NemuError('PLUG', `This cannot be plugged: ${problem}`);
}

/** What holds between the options of a network card. @throws NemuError `PLUG` */
function requireNet({ kind: _, type: __, ...options }: Extract<PciPlug, { type: 'virtio-net' }>): void {
  const result = netSchema.safeParse(asNet(options));
  if (result.success) return;
  throw new NemuError('PLUG', `This cannot be plugged: ${result.error.issues.map(({ message }) => message).join(' ')}`);
}

/** How much of a virtio-mem device is to be plugged: its id, bytes, and how long the guest may take. */
export const resizeMemorySchema = z.tuple([ID_OF_DEVICE, byteSizeOrNone, plugOptionsSchema.optional()]);

/** @throws NemuError `PLUG` for options that are none. */
export function parseOptions<T extends z.ZodType>(schema: T, value: unknown): z.output<T> {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  throw new NemuError('PLUG', `These are no options: ${tell(schema, value, result.error.issues)}`);
}

/**
 * How far a request is:
 *
 * - `reserved`: all bounds were checked, its place is taken, its thread or memory is being made;
 * - `notified`: the guest was told, by its ACPI event;
 * - `accepted`: the guest takes the device, or works on letting it go: it said so through _OST, turned a port's power
 *   on or had its indicator blink, turned the device's decoding on, or plugged or unplugged some of the memory;
 * - `online`: a vCPU was started by the guest; memory was taken by the guest's kernel, whose policy says which
 *   of its blocks are in use; a driver is ready with a virtio device, or has turned another PCI device's decoding on;
 * - `reached`: of a virtio-mem device so much is plugged as was asked for;
 * - `removed`: the guest has let go, and the host has the thread or the memory back;
 * - `refused`: by the guest, with its reason, or by the host that could not make the device. After that all is
 *   as it was before, and the request can be made again;
 * - `timed-out`: the guest did not do it in time. The request stays with the guest, which may still do it.
 */
export const STAGES = [
  ...(['reserved', 'notified', 'accepted'] as const),
  ...(['online', 'reached', 'removed', 'refused', 'timed-out'] as const),
] as const;
export type Stage = (typeof STAGES)[number];

/** Nothing is to be waited for after these. */
export const isSettled = (stage: Stage): boolean => STAGES.indexOf(stage) >= STAGES.indexOf('online');

export interface CpuDevice {
  readonly kind: 'cpu';
  /** `cpu0` and so on. */
  readonly id: string;
  readonly index: number;
  readonly apicId: number;
  readonly socket: number;
  readonly core: number;
  readonly thread: number;
  readonly node?: number;
}

export interface MemoryDevice extends Omit<DimmDescription, 'id' | 'node'> {
  readonly kind: 'memory';
  readonly id: string;
  readonly slot: number;
  /** Guest-physical. */
  readonly address: number;
  readonly node: number;
}

export interface PciDevice {
  readonly kind: 'pci';
  readonly id: string;
  readonly type: DeviceType;
  /** Where it stands: `rp0`, `sw0.1`, `slot4`. */
  readonly port: string;
  /** What plugs it in again; undefined for the consoles and ports of the start, which are one device. */
  readonly plug?: PciPlugInput;
  /** Consoles and ports of `MachineClient.console` that come and go with it. */
  readonly streams: readonly Stream[];
  /** Memory that it brings into guest-physical space, besides its BARs: where, and bytes. */
  readonly memory?: { readonly address: number; readonly size: number };
}

/** Something that came or can go while the machine runs, by `kind`. */
export type LiveDevice = CpuDevice | MemoryDevice | NvdimmDevice | PciDevice | VirtioMemDevice;

/** A place where a device of PCI can come and go. */
export interface PciPortReport {
  readonly id: string;
  /** A port of PCI Express, or a slot of the root bus, whose devices come and go through ACPI. */
  readonly kind: 'port' | 'slot';
  /** Id of what is in it, or is on its way in or out. */
  readonly device?: string;
  /** What a port shows to those who look at it from outside. */
  readonly state?: {
    readonly powered: boolean;
    readonly linkActive: boolean;
    readonly powerIndicator: 'on' | 'blink' | 'off';
    readonly attentionIndicator: 'on' | 'blink' | 'off';
  };
}

export interface LiveRequest<D = LiveDevice> {
  /** Number of the request, from 1 on. */
  readonly id: number;
  readonly action: 'plug' | 'unplug' | 'resize';
  /** Bytes that are asked for (resize). */
  readonly size?: number;
  /** Who asked: a guest may let go of a device by itself. */
  readonly origin: 'user' | 'guest';
  readonly device: D;
  readonly stage: Stage;
  /** Why it was refused or timed out, in a sentence. */
  readonly reason?: string;
  /** What the guest did last about it. */
  readonly guest?: string;
  /** The guest's last answer through _OST, as it is: source event and status (ACPI 6.4, section 6.3.5). */
  readonly ost?: { readonly event: number; readonly status: number };
  /** Each stage that it was in, with the guest's time in nanoseconds as a decimal string. */
  readonly history: readonly { readonly stage: Stage; readonly at: string }[];
}

/** What is there of what can come and go, and the room that there is. */
export interface PluggedReport {
  readonly cpus: {
    readonly present: readonly CpuDevice[];
    /** vCPUs that there is room for; undefined on a machine that has none. */
    readonly max?: number;
  };
  readonly memory: {
    /** Bytes at boot. */
    readonly boot: number;
    readonly dimms: readonly MemoryDevice[];
    /** Bytes and DIMMs that there is room for; undefined on a machine that has none. */
    readonly max?: number;
    readonly slots?: number;
    /** Memory that the guest plugs and unplugs by blocks. */
    readonly virtio: readonly VirtioMemReport[];
  };
  /** Those of the start among them. */
  readonly nvdimms: readonly NvdimmReport[];
  readonly pci: {
    readonly devices: readonly PciDevice[];
    /** Empty on a machine without PCI. */
    readonly ports: readonly PciPortReport[];
  };
}

/** A request's stage in a line: with the reason, and, before the guest has done anything, with what it waits for. */
export function stageText({ action, device, stage, reason, guest }: LiveRequest): string {
  const why = reason ?? (stage === 'notified' ? guest : undefined);
  return `${action} ${device.id}: ${stage}${why ? ` (${why})` : ''}`;
}

const DONE = { plug: 'plugged', unplug: 'unplugged', resize: 'resized' } as const;

/** What a caller gets of a request that did not do what was asked. */
export function failureOf(request: LiveRequest): NemuError | undefined {
  if (request.stage !== 'refused' && request.stage !== 'timed-out') return undefined;
  const message = `${request.device.id} was not ${DONE[request.action]}: ${request.reason ?? 'no reason is known.'}`;
  if (request.action === 'resize' && request.stage === 'timed-out') {
    return new NemuError('GUEST_TIMEOUT', message, {
      hint: 'It stays asked for: the guest may still do it. Memory that is in use, or not movable, does not leave.',
    });
  }
  return request.stage === 'refused'
    ? new NemuError('REFUSED', message, { hint: 'All is as it was before: it can be tried again.' })
    : new NemuError('GUEST_TIMEOUT', message, { hint: 'The guest may still do it; requests() tells.' });
}

/** Bytes that were plugged: DIMMs, and blocks of virtio-mem devices. */
export const pluggedSize = ({ dimms, virtio }: PluggedReport['memory']): number =>
  dimms.reduce((sum, { size }) => sum + size, 0) + virtio.reduce((sum, { plugged }) => sum + plugged, 0);

/** All RAM of the guest, in bytes. */
export const ramSize = (memory: PluggedReport['memory']): number => memory.boot + pluggedSize(memory);
