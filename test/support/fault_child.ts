/** Runs a machine and breaks something, as the first argument says. For test/micro/faults.test.ts. */
import { setTimeout as sleep } from 'node:timers/promises';
import { Machine } from '../../src/vmm/machine.ts';
import { engineThreadStates } from '../../src/vmm/thread_states.ts';

const [, , fault, kernel] = process.argv;
const machine = await Machine.create(
  { name: 'fault', memory: { size: '16M' }, kernel: { image: kernel }, cpus: { count: 2 } },
  { ...(['vcpu0', 'vcpu1', 'counters', 'hang counters'].includes(fault) && { fault, quitTimeoutMs: 300 }) },
);
machine.onEvent((event) => process.stdout.write(`${JSON.stringify(event)}\n`));
// A vCPU thread may fail before the call returns.
await machine.start().catch((error: Error) => process.stdout.write(`${error.message}\n`));
process.stdout.write('running\n');
switch (fault) {
  case 'throw':
    setTimeout(() => {
      throw new Error('Thrown in the main thread.');
    }, 50);
    break;
  case 'exit':
    setTimeout(() => process.exit(5), 50);
    break;
  case 'exit-paused':
    await machine.pause();
    process.exit(6);
    break;
  case 'abort':
    setTimeout(() => process.abort(), 50);
    break;
  case 'reject':
    void Promise.reject(new Error('Nobody listens.'));
    break;
  case 'counters':
    await machine.counters().catch((error: Error) => process.stdout.write(`${error.message}\n`));
    await machine.close();
    break;
  case 'hang counters':
    void machine.counters().catch((error: Error) => process.stdout.write(`${error.message}\n`));
    // Until it hangs: a machine thread that has nothing to do waits in another call.
    while (!engineThreadStates().includes('machine: in futex(')) await sleep(10);
    await machine.close();
    break;
  case 'vcpu0':
  case 'vcpu1': {
    const end = await machine.ended();
    process.stdout.write(`${end.reason}: ${end.detail}\n`);
    await machine.close();
    break;
  }
  case 'close':
    await machine.close();
    break;
}
