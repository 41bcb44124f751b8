/**
 * Changes of a running machine: what can be asked for, and how far each request is. A request goes through
 * stages, and each new one is told in an event of type `request`; nothing here is particular to one kind of
 * device but the schemas and interfaces at the end of a section, by `kind`.
 */
import * as z from 'zod';
import { checkMemoryBackend, DIMM_ALIGNMENT, ID, memoryBackendFields } from './description.ts';
import { NemuError } from './errors.ts';
import { explain } from './explain.ts';
import { type NvdimmDevice, type NvdimmReport, nvdimmPlugSchema } from './nvdimm.ts';
import { byteSize } from './sizes.ts';

const cpuPlugSchema = z.strictObject({
  kind: z.literal('cpu'),
  index: z.int().min(0).max(253).optional().describe('which vCPU; the first that is not there, without'),
});

const memoryPlugSchema = z
  .strictObject({
    kind: z.literal('memory'),
    size: byteSize.describe('bytes, a multiple of 128 MiB'),
    id: ID.optional().describe('name; dimm0, dimm1 and so on by its slot without one'),
    slot: z.int().min(0).max(255).optional().describe('the first that is free, without'),
    address: z
      .number()
      .int()
      .nonnegative()
      .optional()
      .describe('guest-physical; the first place with room for it, without'),
    node: z.int().min(0).max(127).optional().describe('NUMA node of the guest; 0 without'),
    ...memoryBackendFields,
  })
  .superRefine((memory, context) => {
    const problem = (message: string) => context.addIssue({ code: 'custom', message });
    if (memory.size % DIMM_ALIGNMENT !== 0) {
      problem(`A DIMM of ${memory.size} bytes is not a multiple of 128 MiB, in which Linux takes memory.`);
    }
    checkMemoryBackend(memory, problem);
  });

/** What can be plugged, by `kind`. */
export const plugSchema = z.discriminatedUnion('kind', [cpuPlugSchema, memoryPlugSchema, nvdimmPlugSchema]);
export type PlugInput = z.input<typeof plugSchema>;
export type PlugRequest = z.output<typeof plugSchema>;
export type CpuPlug = Extract<PlugRequest, { kind: 'cpu' }>;
export type MemoryPlug = Extract<PlugRequest, { kind: 'memory' }>;
export type NvdimmPlug = Extract<PlugRequest, { kind: 'nvdimm' }>;

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
    force: z.boolean().optional().describe('take it away whether the guest lets go or not, where that can be done'),
  })
  .prefault({});
export const unplugSchema = z.tuple([ID_OF_DEVICE, unplugOptionsSchema.optional()]);
export type PlugOptions = z.input<typeof plugOptionsSchema>;
export type UnplugOptions = z.input<typeof unplugOptionsSchema>;

/** @throws NemuError `PLUG` that names each field and what is wrong with it. */
export function parsePlug(input: unknown): PlugRequest {
  const result = plugSchema.safeParse(input);
  if (result.success) return result.data;
  const kind = (input as { kind?: unknown } | null)?.kind;
  const schema = plugSchema.options.find((each) => each.shape.kind.value === kind) ?? plugSchema;
  const problems = explain(schema, result.error.issues).map(({ path, message }) =>
    [path.join('.'), message].filter(Boolean).join(': '),
  );
  throw new NemuError('PLUG', `This cannot be plugged: ${problems.join('; ')}`);
}

/** @throws NemuError `PLUG` for options that are none. */
export function parseOptions<T extends z.ZodType>(schema: T, value: unknown): z.output<T> {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const problems = explain(schema, result.error.issues).map(({ path, message }) => `${path.join('.')}: ${message}`);
  throw new NemuError('PLUG', `These are no options: ${problems.join('; ')}`);
}

/**
 * How far a request is:
 *
 * - `reserved`: all bounds were checked, its place is taken, its thread or memory is being made;
 * - `notified`: the guest was told, by its ACPI event;
 * - `accepted`: the guest answered through _OST that it takes the device, or works on letting it go;
 * - `online`: a vCPU was started by the guest; memory was taken by the guest's kernel, whose policy says which
 *   of its blocks are in use;
 * - `removed`: the guest has let go, and the host has the thread or the memory back;
 * - `refused`: by the guest, with its reason, or by the host that could not make the device. After that all is
 *   as it was before, and the request can be made again;
 * - `timed-out`: the guest did not do it in time. The request stays with the guest, which may still do it.
 */
export const STAGES = ['reserved', 'notified', 'accepted', 'online', 'removed', 'refused', 'timed-out'] as const;
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

export interface MemoryDevice {
  readonly kind: 'memory';
  readonly id: string;
  readonly slot: number;
  /** Guest-physical. */
  readonly address: number;
  /** Bytes. */
  readonly size: number;
  readonly node: number;
  readonly backend: MemoryPlug['backend'];
  readonly path?: string;
  readonly hugepages?: '2M' | '1G';
}

/** Something that came or can go while the machine runs, by `kind`. */
export type LiveDevice = CpuDevice | MemoryDevice | NvdimmDevice;

export interface LiveRequest<D = LiveDevice> {
  /** Number of the request, from 1 on. */
  readonly id: number;
  readonly action: 'plug' | 'unplug';
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
  };
  /** Those of the start among them. */
  readonly nvdimms: readonly NvdimmReport[];
}

const DONE = { plug: 'plugged', unplug: 'unplugged' } as const;

/** What a caller gets of a request that did not do what was asked. */
export function failureOf(request: LiveRequest): NemuError | undefined {
  if (request.stage !== 'refused' && request.stage !== 'timed-out') return undefined;
  const message = `${request.device.id} was not ${DONE[request.action]}: ${request.reason ?? 'no reason is known.'}`;
  return request.stage === 'refused'
    ? new NemuError('REFUSED', message, { hint: 'All is as it was before: it can be tried again.' })
    : new NemuError('GUEST_TIMEOUT', message, { hint: 'The guest may still do it; requests() tells.' });
}
