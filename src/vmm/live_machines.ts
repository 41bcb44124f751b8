/** Machines that must be torn down when the process exits: their threads may sit in blocking calls. */
export const live = new Set<{ stopNow(): void }>();
let exitHandlerInstalled = false;

/**
 * A worker blocked in a system call can neither be terminated nor joined, and would hang `process.exit`:
 * the exit handler kicks them all out first.
 */
export function installExitHandler(): void {
  if (exitHandlerInstalled) return;
  exitHandlerInstalled = true;
  process.on('exit', () => {
    for (const machine of live) machine.stopNow();
  });
}
