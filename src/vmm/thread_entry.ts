import { type MessagePort, parentPort, workerData } from 'node:worker_threads';
import { type EngineThreadData, LOADED, PLAYED } from './threads.ts';

/**
 * The life of an engine thread: it says that its code is loaded, waits for its role, plays it to the end, and ends; or
 * waits for another, where that is asked for.
 */
export function playRole<Role extends object>(play: (role: Role, port: MessagePort) => void): void {
  if (!parentPort) throw new Error('This module is the entry of a worker thread.');
  const port = parentPort;
  // A pool may wait for that, and the end of the process does.
  const { loading } = workerData as EngineThreadData;
  Atomics.store(loading, 0, LOADED);
  Atomics.notify(loading, 0);
  port.postMessage({ type: 'loaded' });
  port.on('message', (message: (Role & { readonly again: boolean }) | object) => {
    // A call that came when the role was over.
    if (!('again' in message)) return;
    play(message, port);
    if (message.again) port.postMessage({ type: PLAYED });
    else port.close();
  });
}
