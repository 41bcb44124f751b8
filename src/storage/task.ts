/**
 * Work of several steps in threads that never return to libuv, where promises do not run: a generator that
 * yields each step it waits for. Steps that are done at once cost no turn of any loop.
 */
import { errnoName } from '../ffi/libc.ts';

/** Called once; 0 or a positive errno. */
export type Done = (errno: number) => void;

/** Something to wait for: it is started by the call, and calls back once. */
export type Step = (done: Done) => void;

/** Fails by throwing: `IoError` for a step that failed. */
export type Task<T = void> = Generator<Step, T, void>;

/** A read or write that failed, by its number. */
export class IoError extends Error {
  override readonly name = 'IoError';
  readonly errno: number;

  constructor(errno: number) {
    super(`Input or output failed: ${errnoName(errno)}.`);
    this.errno = errno;
  }
}

/** @throws IoError when the step fails. */
export function* wait(step: Step): Task {
  yield step;
}

/** Runs a task; `done` is called once, at once when no step has to wait. */
export function start<T>(task: Task<T>, done: (error: unknown, value?: T) => void): void {
  const go = (errno: number): void => {
    for (let failed = errno; ; ) {
      let result: IteratorResult<Step, T>;
      try {
        result = failed ? task.throw(new IoError(failed)) : task.next();
      } catch (error) {
        done(error);
        return;
      }
      if (result.done) {
        done(undefined, result.value);
        return;
      }
      let here = true;
      let answer: number | undefined;
      result.value((value) => {
        if (here) answer = value;
        else go(value);
      });
      here = false;
      if (answer === undefined) return;
      failed = answer;
    }
  };
  go(0);
}

/**
 * Runs a task to its end in the caller's turn.
 * @param drain waits for something that is under way and has it call back; false when there is nothing.
 * @throws what the task throws.
 */
export function finish<T>(task: Task<T>, drain: () => boolean = () => false): T {
  let outcome: { error: unknown; value?: T } | undefined;
  start(task, (error, value) => {
    outcome = { error, value: value as T };
  });
  while (!outcome) if (!drain() && !outcome) throw new Error('A step neither ended nor is under way.');
  if (outcome.error !== undefined) throw outcome.error;
  return outcome.value as T;
}

/** One task at a time; the others wait in the order in which they came. */
export class Mutex {
  #held = false;
  readonly #waiting: Done[] = [];

  *hold<T>(task: () => Task<T>): Task<T> {
    yield (done) => {
      if (this.#held) this.#waiting.push(done);
      else {
        this.#held = true;
        done(0);
      }
    };
    try {
      return yield* task();
    } finally {
      const next = this.#waiting.shift();
      if (next) next(0);
      else this.#held = false;
    }
  }
}

/** Steps at the same time. @throws IoError of one that failed, when all have ended. */
export function* together(steps: readonly ((done: Done) => void)[]): Task {
  if (steps.length === 0) return;
  yield (done) => {
    let left = steps.length;
    let failed = 0;
    for (const step of steps) {
      step((errno) => {
        failed ||= errno;
        if (--left === 0) done(failed);
      });
    }
  };
}
