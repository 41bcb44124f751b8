/** Files that `--log` and `--record` write: one that cannot be made is told before there is a machine. */
import { accessSync, constants, createWriteStream, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { cannotWrite, openOutput } from '../console/output_file.ts';

/** Asks whether a file could be written, and leaves everything as it is. @throws NemuError OUTPUT_FILE */
export function checkOutputFile(path: string): void {
  try {
    if (!isThere(path)) accessSync(dirname(path), constants.W_OK | constants.X_OK);
    else if (statSync(path).isDirectory()) throw new Error('it is a folder');
    else accessSync(path, constants.W_OK);
  } catch (cause) {
    throw cannotWrite(path, cause);
  }
}

function isThere(path: string): boolean {
  try {
    statSync(path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
}

export interface OutputOptions {
  readonly log?: string;
  readonly record?: string;
}

/** @throws NemuError OUTPUT_FILE */
export function checkOutputFiles({ log, record }: OutputOptions): void {
  for (const path of [log, record]) if (path !== undefined) checkOutputFile(path);
}

export interface OutputFile {
  write(bytes: Uint8Array): void;
  end(): void;
}

/**
 * Opens a file that takes what comes, at its own pace.
 * @param failed told once when it takes no more, as on a full disk.
 * @throws NemuError OUTPUT_FILE
 */
export function openOutputFile(path: string, failed: (error: Error) => void): OutputFile {
  const stream = createWriteStream(path, { fd: openOutput(path, 0o666) });
  stream.on('error', failed);
  return { write: (bytes) => void (stream.writable && stream.write(bytes)), end: () => stream.end() };
}
