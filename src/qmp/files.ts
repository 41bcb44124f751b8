import { type FileHandle, open } from 'node:fs/promises';
import { QmpError } from './errors.ts';

export const NO_FILE = 'No such file or directory';

const REASONS: Readonly<Record<string, string>> = {
  ENOENT: NO_FILE,
  EACCES: 'Permission denied',
  EISDIR: 'Is a directory',
};

/** `No such file or directory`, as everybody says it. */
export const reasonOf = ({ code = '', message }: NodeJS.ErrnoException): string => REASONS[code] ?? message;

/** A new file that only this user may read: a guest's memory goes into it. @throws QmpError */
export async function createFile(path: string): Promise<FileHandle> {
  try {
    return await open(path, 'w', 0o600);
  } catch (error) {
    throw new QmpError(`Could not open '${path}': ${reasonOf(error as NodeJS.ErrnoException)}`);
  }
}
