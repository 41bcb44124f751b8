import { writeFileSync } from 'node:fs';
import { inspect } from 'node:util';
import { NemuError } from '../client/errors.ts';

/**
 * Writes a file that is not there yet.
 * @param what it is, in a word, for the message. @throws NemuError FILE
 */
export function writeNewFile(path: string, text: string, what: string): void {
  if (typeof path !== 'string' || path === '') {
    throw new NemuError('FILE', `The ${what} is written into a file: ${inspect(path)} is no name of one.`);
  }
  try {
    writeFileSync(path, text, { flag: 'wx' });
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code === 'EEXIST') {
      throw new NemuError('FILE', `${path} is there already.`, { hint: 'Take another name, or remove it.' });
    }
    throw new NemuError('FILE', `The ${what} cannot be written to ${path}: ${message}.`, { cause });
  }
}
