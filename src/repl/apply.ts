/** Has a running machine become what a description says, as far as that can be done while it runs. */
import { inspect } from 'node:util';
import { NemuError } from '../client/errors.ts';
import type { Step } from './plan.ts';
import type { Vm } from './vm.ts';

/** What there is to do, or what was done of it. Prints as a table. */
export class Plan {
  readonly steps: readonly Step[];
  /** Whether it was done, as far as it can be while the machine runs. */
  readonly done: boolean;

  constructor(steps: readonly Step[], done: boolean) {
    this.steps = steps;
    this.done = done;
  }

  /** Steps that only a new start does. */
  get restarts(): readonly Step[] {
    return this.steps.filter(({ action }) => action === 'restart');
  }

  toJSON(): object {
    return {
      done: this.done,
      steps: this.steps.map(({ action, subject, detail, code }) => ({
        action,
        subject,
        detail,
        ...(code && { code }),
      })),
    };
  }

  [inspect.custom](): string {
    const { steps, restarts } = this;
    if (steps.length === 0) return 'The machine is as the description has it.';
    const live = steps.filter(({ action }) => action !== 'restart');
    const line = ({ action, subject, detail }: Step) =>
      `  ${action === 'restart' ? '' : `${action} `}${subject}: ${detail}`;
    return [
      ...(live.length > 0 ? [this.done ? 'Done:' : 'While it runs:', ...live.map(line)] : []),
      ...(restarts.length > 0 ? ['Only with a new start:', ...restarts.map(line)] : []),
    ].join('\n');
  }
}

/**
 * Does the steps that can be done while the machine runs, one after the other.
 * @throws NemuError APPLY that says how far it came; what was done is in the journal.
 */
export async function doSteps(vm: Vm, steps: readonly Step[]): Promise<Plan> {
  const live = steps.filter(({ run }) => run);
  for (const [index, step] of live.entries()) {
    try {
      await step.run?.(vm);
    } catch (cause) {
      throw stepError(cause as NemuError, step, index, live.length);
    }
  }
  return new Plan(steps, true);
}

function stepError(cause: NemuError, { action, subject }: Step, before: number, all: number): NemuError {
  const undo = before > 0 && `${before} of ${all} steps are done; undo takes them back, one at a time.`;
  const hint = [cause.hint, undo].filter(Boolean).join(' ');
  return new NemuError('APPLY', `${action} ${subject} failed: ${cause.message}`, { ...(hint && { hint }), cause });
}
