/** Entry of every engine thread: waits for its role, plays it to the end, and ends. */
import { parentPort, workerData } from 'node:worker_threads';
import { runMachine } from './machine_thread.ts';
import type { MachineThreadData } from './thread_messages.ts';
import { type EngineThreadData, LOADED } from './threads.ts';
import { runVcpu, type VcpuThreadData } from './vcpu_thread.ts';

if (!parentPort) throw new Error('This module is the entry of a worker thread.');
const port = parentPort;
// Says that the code is loaded: a pool may wait for that, and the end of the process does.
const { loading } = workerData as EngineThreadData;
Atomics.store(loading, 0, LOADED);
Atomics.notify(loading, 0);
port.postMessage({ type: 'loaded' });
port.once('message', (data: MachineThreadData | VcpuThreadData) => {
  if (data.role === 'machine') runMachine(data, port);
  else runVcpu(data);
  port.close();
});
