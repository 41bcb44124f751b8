/** Changes of disks and network cards that stay where they are: size and medium, link, limits, what is behind. */
import * as z from 'zod';
import { hostForwardSchema, netBackendSchema, netThrottleSchema } from './description.ts';
import { NemuError } from './errors.ts';
import { tell } from './explain.ts';
import { byteSize } from './sizes.ts';

const resizeSchema = z.strictObject({
  action: z.literal('resize'),
  size: byteSize.optional().describe('bytes; what the device behind the disk has now, without'),
  shrink: z.boolean().default(false).describe('a smaller disk is meant, and what is behind its end may be lost'),
});

const mediumSchema = z.strictObject({
  action: z.literal('medium'),
  file: z.string().min(1).describe('image or block device'),
  format: z.enum(['raw', 'qcow2']).optional().describe('found out by the first bytes where it is not said'),
});

/** What can be changed of a disk, by `action`. */
export const diskChangeSchema = z.discriminatedUnion('action', [resizeSchema, mediumSchema]);
export type DiskChangeInput = z.input<typeof diskChangeSchema>;
export type DiskChange = z.output<typeof diskChangeSchema>;
export type MediumChange = Extract<DiskChange, { action: 'medium' }>;

/** Which forwarding is meant, by where it listens. */
const listenerSchema = hostForwardSchema.pick({ protocol: true, hostAddress: true, hostPort: true });

const forwardSchema = z.strictObject({
  action: z.literal('forward'),
  add: z.array(hostForwardSchema).max(64).default([]).describe('ports of the host that lead into the guest'),
  remove: z.array(listenerSchema).max(64).default([]).describe('forwardings that end'),
});

/** What can be changed of a network card, by `action`. */
export const netChangeSchema = z.discriminatedUnion('action', [
  z.strictObject({ action: z.literal('throttle'), limits: netThrottleSchema.describe('all of them; none for {}') }),
  z.strictObject({ action: z.literal('link'), up: z.boolean().describe('whether the cable is in') }),
  z.strictObject({
    action: z.literal('backend'),
    backend: netBackendSchema.describe('the network it is plugged into'),
  }),
  forwardSchema,
]);
export type NetChangeInput = z.input<typeof netChangeSchema>;
export type NetChange = z.output<typeof netChangeSchema>;

type Change = z.ZodObject<{ action: z.ZodLiteral<string> }>;

function parse<T extends z.ZodType & { readonly options: readonly Change[] }>(
  schema: T,
  input: unknown,
  what: string,
): z.output<T> {
  const result = schema.safeParse(input);
  if (result.success) return result.data;
  // What is wrong is told by the fields of the one that is meant.
  const { action } = (input ?? {}) as { action?: unknown };
  const meant = schema.options.find(({ shape }) => shape.action.value === action) ?? schema;
  const problems = tell(meant, input, result.error.issues);
  throw new NemuError('CHANGE', `${what} cannot be changed like this: ${problems}`);
}

/** @throws NemuError `CHANGE` that names each field and what is wrong with it. */
export const parseDiskChange = (input: unknown): DiskChange => parse(diskChangeSchema, input, 'A disk');
/** @throws NemuError `CHANGE` that names each field and what is wrong with it. */
export const parseNetChange = (input: unknown): NetChange => parse(netChangeSchema, input, 'A network card');
