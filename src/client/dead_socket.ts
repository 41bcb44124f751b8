import { lstatSync } from 'node:fs';
import { createConnection } from 'node:net';

/** A server that has more to do than to answer is there all the same. */
const PATIENCE_MS = 1000;

/**
 * Is this the socket of a process that is no more? Anything else at the path, a file above all, is somebody's: the kernel
 * refuses a connection to it in the same words.
 */
export function isDeadSocket(path: string): Promise<boolean> {
  if (!lstatSync(path, { throwIfNoEntry: false })?.isSocket()) return Promise.resolve(false);
  return new Promise((resolve) => {
    const probe = createConnection(path);
    const timer = setTimeout(() => probe.destroy(), PATIENCE_MS);
    probe.once('connect', () => probe.destroy());
    probe.once('error', (error: NodeJS.ErrnoException) => resolve(error.code === 'ECONNREFUSED'));
    // A promise keeps its first answer.
    probe.once('close', () => {
      clearTimeout(timer);
      resolve(false);
    });
  });
}
