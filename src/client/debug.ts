/** What a debugger asks of a machine. Addresses and registers are hexadecimal text: they have 64 bits and more. */
import * as z from 'zod';
import { NemuError } from './errors.ts';
import { tell } from './explain.ts';

const MAX_VCPUS = 254;
/** Breakpoints at the same time, in software. */
const MAX_BREAKPOINTS = 1024;

const address = z.string().regex(/^0x[0-9a-f]{1,16}$/, 'it is a hexadecimal address such as 0xffffffff81000000');

export const breakpointSchema = z.discriminatedUnion('kind', [
  z.strictObject({
    kind: z.literal('software').describe("an instruction of the guest's memory stands in for another"),
    address: address.describe('guest-physical'),
  }),
  z.strictObject({
    kind: z.enum(['execute', 'write', 'access']).describe('by a debug register, of which there are four'),
    address: address.describe('linear; a multiple of the size'),
    size: z.union([z.literal(1), z.literal(2), z.literal(4), z.literal(8)]).default(1),
  }),
]);
export type BreakpointInput = z.input<typeof breakpointSchema>;
export type Breakpoint = z.output<typeof breakpointSchema>;
export type HardwareBreakpoint = Exclude<Breakpoint, { kind: 'software' }>;

const breakpointsSchema = z.array(breakpointSchema).max(MAX_BREAKPOINTS);

const vcpuSchema = z
  .number()
  .int()
  .nonnegative()
  .max(MAX_VCPUS - 1);
const vcpusSchema = z.array(vcpuSchema).max(MAX_VCPUS);

const debugRunSchema = z.strictObject({
  vcpus: vcpusSchema.min(1).optional().describe('these alone; the others stand still'),
  step: vcpusSchema.default([]).describe('these do one instruction'),
});
export type DebugRunInput = z.input<typeof debugRunSchema>;
export type DebugRun = z.output<typeof debugRunSchema>;

const registersSchema = z.record(
  z.string().regex(/^[a-z][a-z0-9_]{0,15}$/),
  z.string().regex(/^0x[0-9a-f]{1,32}$/, 'it is a hexadecimal number such as 0x2a'),
);
/** A vCPU's registers by gdb's names. */
export type RegisterValues = Readonly<Record<string, string>>;

/** Why a vCPU stopped the machine. */
export interface DebugStop {
  readonly vcpu: number;
  readonly reason: 'breakpoint' | 'execute' | 'write' | 'access' | 'step';
  /** Linear: of the instruction, or of what was accessed. */
  readonly address?: string;
}

function parse<T extends z.ZodType>(schema: T, input: unknown, code: string, what: string): z.output<T> {
  const result = schema.safeParse(input);
  if (result.success) return result.data;
  throw new NemuError(code, `${what}: ${tell(schema, input, result.error.issues)}`);
}

/** @throws NemuError BREAKPOINT */
export const parseBreakpoints = (input: unknown): Breakpoint[] =>
  parse(breakpointsSchema, input, 'BREAKPOINT', 'These are no breakpoints');
/** @throws NemuError VCPU */
export const parseDebugRun = (input: unknown): DebugRun =>
  parse(debugRunSchema, input, 'VCPU', 'vCPUs cannot run like this');
/** @throws NemuError VCPU */
export const parseVcpu = (input: unknown): number => parse(vcpuSchema, input, 'VCPU', 'This is no vCPU');
/** @throws NemuError REGISTER */
export const parseRegisters = (input: unknown): RegisterValues =>
  parse(registersSchema, input, 'REGISTER', 'These are no registers');
