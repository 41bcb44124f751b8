/** What a peer sent for a call, checked. */
import type * as z from 'zod';
import { NemuError } from './errors.ts';
import { tell } from './explain.ts';

/** @param names of the arguments, for what is wrong with one. @throws NemuError PROTOCOL for what does not fit. */
export function valid<T extends z.ZodType>(schema: T, value: unknown, names: readonly string[] = []): z.output<T> {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  throw new NemuError('PROTOCOL', `This cannot be done: ${tell(schema, value, result.error.issues, names)}`);
}
