import type { Worker } from 'node:worker_threads';
import { NemuError } from '../client/errors.ts';
import { H, type LocalRegister, S, type SharedBlock, slotWord } from './shared.ts';
import type { MachineThreadData } from './thread_messages.ts';
import { engineThreadStates } from './thread_states.ts';
import { PLAYED, type ThreadPool, type ThreadRole } from './threads.ts';
import type { VcpuThreadData } from './vcpu_thread.ts';
import { within } from './within.ts';

/** How long threads that were told to end may take. */
const EXIT_TIMEOUT_MS = 5_000;

/** What the threads of one machine have in common. */
export interface EngineThreadsOptions {
  readonly pool: ThreadPool;
  readonly block: SharedBlock;
  readonly wakeFd: number;
  readonly local: readonly LocalRegister[];
  readonly configPages: SharedArrayBuffer | undefined;
  /** Host processors of each vCPU. */
  readonly pin: readonly VcpuThreadData['pinning'][] | undefined;
  /** The thread that throws: a test hook, see MachineOptions. */
  readonly fault: string | undefined;
  /** A thread ended that was not to. */
  readonly onFailure: (error: NemuError) => void;
}

/** One machine's threads: its devices live in one, its vCPUs in one each. */
export class EngineThreads {
  readonly #options: EngineThreadsOptions;
  /** Ends of threads that have not ended. */
  readonly #exits = new Set<Promise<void>>();
  /** By number of the vCPU: its thread's end. */
  readonly #vcpuExits = new Map<number, Promise<void>>();
  #machine: Worker | undefined;

  constructor(options: EngineThreadsOptions) {
    this.#options = options;
  }

  /** The machine thread, while it lives. */
  get machine(): Worker | undefined {
    return this.#machine;
  }

  startMachine(data: MachineThreadData): Worker {
    const thread = this.#options.pool.take(data);
    this.#machine = thread;
    const onExit = () => {
      this.#machine = undefined;
    };
    this.#watch('machine', thread, 'the machine thread', onExit, () => false);
    return thread;
  }

  startVcpu(index: number): void {
    const { pool, block, wakeFd, local, configPages, pin, fault } = this.#options;
    const data: VcpuThreadData = {
      role: 'vcpu',
      index,
      vcpus: block.vcpus,
      shared: block.buffer,
      wakeFd,
      local,
      configPages,
      // None are any.
      pinning: pin?.[index]?.length ? pin[index] : undefined,
      ...(fault === `vcpu${index}` && { fault: true }),
    };
    const isToLeave = () => Atomics.load(block.words, slotWord(index) + S.LEAVE) === 1;
    const exited = this.#watch('vcpu', pool.take(data), `the thread of vCPU ${index}`, () => {}, isToLeave);
    this.#vcpuExits.set(index, exited);
  }

  /** The next vCPU that is plugged need not wait for its thread to start. */
  keepSpare(): void {
    this.#options.pool.prepare('vcpu', 1);
  }

  /** Resolves when the thread of a vCPU that was to leave has ended. */
  async vcpuEnded(index: number): Promise<void> {
    await this.#vcpuExits.get(index);
  }

  /** A thread of ours may end only when the machine does, or when it is to leave. @returns its end. */
  #watch(role: ThreadRole, worker: Worker, name: string, onExit: () => void, isToLeave: () => boolean): Promise<void> {
    const { block, pool, onFailure } = this.#options;
    let error: unknown;
    worker.on('error', (thrown) => {
      error = thrown;
    });
    const exited = new Promise<void>((resolve) => {
      const over = () => {
        onExit();
        if (error !== undefined || !(Atomics.load(block.words, H.STOP) || isToLeave())) {
          const why = error instanceof Error ? error.message : error === undefined ? 'it exited' : String(error);
          onFailure(new NemuError('ENGINE', `The engine failed: ${name} ended (${why}).`, { cause: error }));
        }
        this.#exits.delete(exited);
        resolve();
      };
      worker.once('exit', over);
      worker.on('message', ({ type }: { readonly type: string }) => {
        if (type !== PLAYED) return;
        pool.giveBack(role, worker);
        over();
      });
    });
    this.#exits.add(exited);
    return exited;
  }

  /**
   * Waits for the end of threads that were told to end, and for what else uses the machine's memory.
   * @throws NemuError ENGINE when one does not end: the machine's memory must then stay, for it may be in use.
   */
  async end(machine: string, alsoEnds: readonly Promise<void>[]): Promise<void> {
    const ended = async () => {
      await Promise.all([...this.#exits, ...alsoEnds]);
      return true;
    };
    if (await within(EXIT_TIMEOUT_MS, ended())) return;
    void this.#machine?.terminate();
    if (await within(EXIT_TIMEOUT_MS, ended())) return;
    throw new NemuError('ENGINE', `Threads of ${machine} do not end (${engineThreadStates()}).`, {
      hint: 'Their memory stays mapped until this process ends; it may have to be killed.',
    });
  }
}
