import { NemuError } from '../client/errors.ts';
import { NetError } from '../net/backend.ts';
import { StorageError } from '../storage/error.ts';
import { IoError } from '../storage/task.ts';

/**
 * Disks and networks know nothing of machines and have errors of their own: what users see of them.
 * @param what could not be done, where the message alone does not say. @returns any other error as it is.
 */
export function asNemuError(code: string, cause: unknown, what?: string): unknown {
  const known = cause instanceof StorageError || cause instanceof NetError;
  if (!known && !(cause instanceof IoError)) return cause;
  const message = what === undefined ? cause.message : `${what}: ${cause.message}`;
  return new NemuError(code, message, { ...(known && cause.hint !== undefined && { hint: cause.hint }), cause });
}
