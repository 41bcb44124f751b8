import { openSync } from 'node:fs';
import { NemuError } from '../client/errors.ts';

/** What there is to say of a file for a console's output that cannot be made. */
export const cannotWrite = (path: string, cause: unknown): NemuError =>
  new NemuError('OUTPUT_FILE', `${path} cannot be written: ${(cause as Error).message.replace(/, \w+ '.*'$/, '')}.`, {
    hint: 'Give a file in a folder that is there, and that you may write to.',
    cause,
  });

/** A new file, for this user alone where it was not there before. @throws NemuError OUTPUT_FILE */
export function openOutput(path: string, mode = 0o600): number {
  try {
    return openSync(path, 'w', mode);
  } catch (cause) {
    throw cannotWrite(path, cause);
  }
}
