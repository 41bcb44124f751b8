/**
 * The engine's side of the lab, as one file: the lab's loader imports it before the lab is saved (`prepare`)
 * and starts it after the lab was restored (`start`). It is also the entry of the engine's threads there.
 */
import { createReadStream, createWriteStream, openSync } from 'node:fs';
import { Duplex } from 'node:stream';
import { isMainThread } from 'node:worker_threads';
import { serveMachines } from '../client/serve.ts';
import { Machine } from '../vmm/machine.ts';
import { ThreadPool } from '../vmm/threads.ts';

/** A machine thread, and vCPU threads for what most guests have: each takes most of a second to start in the lab. */
const SPARE_THREADS = 5;

let pool: ThreadPool | undefined;

/** Starts threads ahead, so that they are in the saved lab. */
export async function prepare(): Promise<void> {
  pool ??= new ThreadPool(new URL(import.meta.url));
  pool.prepare(SPARE_THREADS);
  await pool.ready();
}

/** Serves machines on a virtio-serial port until the lab ends. */
export async function start({ portPath }: { portPath: string }): Promise<void> {
  await prepare();
  const fd = openSync(portPath, 'r+');
  const stream = Duplex.from({
    readable: createReadStream('', { fd, autoClose: false, highWaterMark: 64 * 1024 }),
    writable: createWriteStream('', { fd, autoClose: false }),
  });
  void serveMachines(stream, (description) => Machine.create(description, { pool }));
}

if (!isMainThread) await import('../vmm/engine_thread.ts');
