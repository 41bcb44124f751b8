import type { BreakInstruction } from './guest_debug.ts';
import type { ThreadPool } from './threads.ts';

export interface MachineOptions {
  /** Threads to take from; a machine without one makes its own. */
  readonly pool?: ThreadPool;
  /** File that survives a crash (see post_mortem.ts). */
  readonly postMortem?: string;
  /**
   * All threads share one processor: the machine thread then never spins, and runs before all others (SCHED_FIFO, for
   * which the process needs CAP_SYS_NICE), so that an exit is served as soon as it is posted, however many vCPUs wait
   * for their turn.
   */
  readonly oneProcessor?: boolean;
  /** What stands in for an instruction at a breakpoint: int3, unless the processor cannot intercept it. */
  readonly breakInstruction?: BreakInstruction;
  /** Bytes of RAM that were filled so far, when `prealloc` is on. */
  readonly onPrealloc?: (done: number) => void;
  /** Test hook: the thread (`vcpu0`) or call (`pause`) that throws, or the call that hangs (`hang pause`). */
  readonly fault?: string;
  /** Milliseconds that `close` waits for the machine thread's answer before it goes on without. */
  readonly quitTimeoutMs?: number;
}
