/** What was done to a machine, as the REPL has it: with lines to read, and as a script. */
import type { Actions, NotedAction } from '../client/actions.ts';
import { literal } from '../client/code.ts';
import { NemuError } from '../client/errors.ts';
import { writeNewFile } from './new_file.ts';

/** One live action: how it is done, and what is written down of it, which may depend on what came of it. */
export type Action<T = unknown> = { run(): Promise<T> } & (NotedAction | { note(result: T): NotedAction });

export class Journal {
  readonly #actions: Actions;
  readonly #after: () => Promise<void>;
  /** Actions that are under way. */
  readonly #running = new Set<Promise<unknown>>();

  /**
   * @param actions of the machine: those of other users among them.
   * @param after looks at the machine again when something was undone.
   */
  constructor(actions: Actions, after: () => Promise<void> = async () => {}) {
    this.#actions = actions;
    this.#after = after;
  }

  /** Does an action and writes it down. What was undone before cannot be redone after it. */
  async do<T>(action: Action<T>): Promise<T> {
    if (typeof action?.run !== 'function') {
      throw new NemuError('USAGE', `${literal(action)} is no action: it has code, and run, a function.`);
    }
    return this.#watched(this.#do(action));
  }

  /** Resolves when no action is under way. */
  async idle(): Promise<void> {
    while (this.#running.size > 0) await Promise.allSettled(this.#running);
  }

  /** The same as another promise: a failure that its caller does not handle is told as one. */
  #watched<T>(result: Promise<T>): Promise<T> {
    this.#running.add(result);
    return result.finally(() => this.#running.delete(result));
  }

  async #do<T>(action: Action<T>): Promise<T> {
    const result = await action.run();
    const { code, steps, redo, undo, holds, gives } = 'note' in action ? action.note(result) : action;
    await this.#actions.add({
      ...{ code, ...(steps && { steps }), ...(redo && { redo }), ...(undo && { undo }) },
      ...{ ...(holds !== undefined && { holds }), ...(gives && { gives }) },
    });
    return result;
  }

  /**
   * Takes the last action back that something takes back, whoever did it; those after it stay done.
   * @returns what was done for it, and what was stepped over. @throws NemuError UNDO.
   */
  undo(): Promise<string> {
    return this.#watched(this.#actions.undo().finally(this.#after));
  }

  /** Does again what was undone last. @returns what was done. @throws NemuError UNDO. */
  redo(): Promise<string> {
    return this.#watched(this.#actions.redo().finally(this.#after));
  }

  /** What `undo` takes back, and `redo` does again, where there is something. */
  get last(): { readonly done: string | undefined; readonly undone: string | undefined } {
    const { done, undone } = this.#actions;
    return { done: done.findLast(({ undo }) => undo)?.code, undone: undone.at(-1)?.code };
  }

  /** One line an action, oldest first. */
  get lines(): readonly string[] {
    return this.#actions.done.map(({ at, code }) => `${at.slice(11, 19)}  ${code}`);
  }

  /** All that was done and not undone, as a script for `nemu run --script`, which does it again and asserts. */
  get script(): string {
    const steps = this.#actions.done.flatMap(({ code, steps, holds, gives }) => [
      ...(steps ?? [code]).map((step) => `await ${step};`),
      ...(holds ? [`assert.ok(${holds});`] : []),
      ...(gives ? [`assert.deepEqual(${gives[0]}, ${literal(gives[1])});`] : []),
    ]);
    return ["import assert from 'node:assert/strict';", '', 'declare const vm: any;', '', ...steps, ''].join('\n');
  }

  /**
   * Writes the script into a file, which must not be there yet.
   * @returns how many actions it has. @throws NemuError FILE.
   */
  save(path: string): number {
    writeNewFile(path, this.script, 'script');
    return this.#actions.done.length;
  }
}
