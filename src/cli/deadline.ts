/** Ends this process when code of the user's has the thread for itself: behind a loop without end no timer is heard. */
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';

/** How long the timer that ends everything in order is waited for. */
const GRACE_MS = 5000;

/** Says why, has the supervisor end with the status (bin/nemu), and ends the process as nothing else can. */
const GUARD = `
const { workerData: { word, ms, text, file, status } } = require('node:worker_threads');
const { writeFileSync, writeSync } = require('node:fs');
if (Atomics.wait(word, 0, 0, ms) === 'timed-out') {
  writeSync(2, text);
  if (file) writeFileSync(file, String(status));
  process.kill(process.pid, 'SIGKILL');
}
`;

/**
 * @param ms when a timer of the caller's is due; the process is ended some time later.
 * @param text what standard error is told then.
 * @returns the function that calls it off: the timer was heard, or is not needed any more.
 */
export function guardDeadline(ms: number, text: string, status: number): () => void {
  const word = new Int32Array(new SharedArrayBuffer(4));
  const folder = process.env.NEMU_RUN_DIR;
  const file = folder && join(folder, 'own-status');
  const workerData = { word, ms: ms + GRACE_MS, text: `nemu: ${text}\n`, file, status };
  const guard = new Worker(GUARD, { eval: true, workerData, stdin: false });
  guard.unref();
  return () => {
    Atomics.store(word, 0, 1);
    Atomics.notify(word, 0);
  };
}
