import type { EndReason } from '../client/machine_client.ts';

/** Exit statuses of `nemu`. Documented in `nemu --help` and the README; never renumbered. */
export const EXIT = {
  OK: 0,
  /** Something of the host failed: a file, KVM, memory, the lab. */
  HOST: 1,
  USAGE: 2,
  PANIC: 70,
  TIMEOUT: 71,
  TRIPLE_FAULT: 72,
  INTERNAL_ERROR: 73,
  /** The engine was killed by a signal (the supervisor says so). */
  CRASH: 74,
  /** The guest ended before its command did. */
  NO_STATUS: 75,
  /** Ctrl-C: as a shell has it of a program that SIGINT has ended. */
  INTERRUPTED: 130,
} as const;

export const EXIT_TEXT: readonly (readonly [number, string])[] = [
  [EXIT.OK, 'success; with a command, the command succeeded in the guest'],
  [EXIT.HOST, 'the host failed: a file, KVM, memory, the lab'],
  [EXIT.USAGE, 'the command line is wrong'],
  [EXIT.PANIC, 'the guest kernel panicked'],
  [EXIT.TIMEOUT, '--timeout ran out'],
  [EXIT.TRIPLE_FAULT, 'the guest triple-faulted'],
  [EXIT.INTERNAL_ERROR, 'KVM could not go on (an instruction that it cannot emulate, a failed entry)'],
  [EXIT.CRASH, 'the engine was killed by a signal; a post-mortem is shown'],
  [EXIT.NO_STATUS, 'the guest powered off or was reset before the command ended'],
  [EXIT.INTERRUPTED, 'Ctrl-C'],
];

/** Exit status for a machine that ended on its own, without a command's status. */
export function exitStatusOf(reason: EndReason, debugExit: number | undefined): number {
  switch (reason) {
    case 'panic':
      return EXIT.PANIC;
    case 'triple-fault':
      return EXIT.TRIPLE_FAULT;
    case 'internal-error':
      return EXIT.INTERNAL_ERROR;
    case 'engine-error':
      return EXIT.HOST;
    case 'debug-exit':
      return debugExit ?? 1;
    case 'poweroff':
    case 'reset':
    case 'quit':
      return EXIT.OK;
  }
}
