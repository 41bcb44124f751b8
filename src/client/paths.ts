/** Names of files that mean the same from any folder. */
import { isAbsolute, resolve } from 'node:path';
import type { PlugInput } from './live.ts';
import type { DiskChangeInput } from './live_change.ts';

/** An address of something elsewhere, which is no path. */
const isAddress = (file: string) => /^[a-z][a-z0-9+.-]*:\/\//.test(file);

export const fromFolder = (folder: string, file: string) =>
  isAddress(file) || isAbsolute(file) ? file : resolve(folder, file);

const absolute = (fields: object, name: string): object => {
  const file = (fields as Record<string, unknown>)[name];
  return typeof file === 'string' && file !== '' ? { [name]: fromFolder(process.cwd(), file) } : {};
};

/** A device to be plugged whose files are named from the root. */
export const withAbsoluteFiles = (device: PlugInput): PlugInput =>
  ({ ...device, ...absolute(device, 'file'), ...absolute(device, 'path') }) as PlugInput;

/** A change of a disk whose file is named from the root. */
export const withAbsoluteMedium = (change: DiskChangeInput): DiskChangeInput =>
  ({ ...change, ...absolute(change, 'file') }) as DiskChangeInput;
