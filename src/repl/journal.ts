/** What was done to a machine, in the order in which it was done, and how each is taken back. */
import { NemuError } from '../client/errors.ts';
import { writeNewFile } from './new_file.ts';
import { literal } from './values.ts';

/** One live action. `code` is its typed form, which a script may repeat. */
export interface Action {
  readonly code: string;
  /** The same for a script, where the code leaves something for the machine to choose. */
  readonly steps?: readonly string[];
  run(): Promise<unknown>;
  /** What takes it back, where something does. */
  readonly inverse?: { readonly code: string; run(): Promise<unknown> };
  /** What holds afterwards, as an expression for a script to assert; asked for once it was done. */
  readonly holds?: string;
  /** The same where it is a value: an expression that gives it, and what it is. */
  readonly gives?: readonly [code: string, value: unknown];
}

interface Entry {
  readonly at: Date;
  readonly action: Action;
}

export class Journal {
  readonly #done: Entry[] = [];
  readonly #undone: Entry[] = [];
  /** The undo or redo that is under way: the next one begins when it has ended, and sees what it left. */
  #turn: Promise<unknown> = Promise.resolve();

  /** Actions that are under way. */
  readonly #running = new Set<Promise<unknown>>();

  /** Does an action and writes it down. What was undone before cannot be redone after it. */
  async do<T>(action: Omit<Action, 'run'> & { run(): Promise<T> }): Promise<T> {
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

  async #do<T>(action: Omit<Action, 'run'> & { run(): Promise<T> }): Promise<T> {
    const result = await action.run();
    this.#done.push({ at: new Date(), action });
    this.#undone.length = 0;
    return result;
  }

  /**
   * Takes the last action back that something takes back; those after it stay done.
   * @returns what was done for it, and what was stepped over. @throws NemuError UNDO.
   */
  undo(): Promise<string> {
    return this.#inTurn(async () => {
      const at = this.#done.findLastIndex(({ action }) => action.inverse);
      const over = this.#done.slice(at + 1).map(({ action }) => action.code);
      const [last, inverse] = [this.#done[at], this.#done[at]?.action.inverse];
      if (!last || !inverse) {
        if (over.length === 0) {
          throw new NemuError('UNDO', 'Nothing was done in this session that could be undone.', {
            hint: 'What was done elsewhere is taken back by what does the contrary, as unplug ID; info requests tells of it.',
          });
        }
        throw new NemuError('UNDO', `Nothing is left that could be undone: ${over.join(', ')} cannot be.`);
      }
      await inverse.run();
      this.#done.splice(this.#done.indexOf(last), 1);
      this.#undone.push(last);
      return over.length === 0 ? inverse.code : `${inverse.code} (${over.join(', ')} cannot be undone)`;
    });
  }

  /** Does again what was undone last. @returns what was done. @throws NemuError UNDO. */
  redo(): Promise<string> {
    return this.#inTurn(async () => {
      const last = this.#undone.at(-1);
      if (!last) throw new NemuError('UNDO', 'Nothing was undone that could be done again.');
      await last.action.run();
      this.#undone.splice(this.#undone.indexOf(last), 1);
      this.#done.push(last);
      return last.action.code;
    });
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(work);
    this.#turn = result.catch(() => {});
    return this.#watched(result);
  }

  /** One line an action, oldest first. */
  get lines(): readonly string[] {
    return this.#done.map(({ at, action }) => `${at.toISOString().slice(11, 19)}  ${action.code}`);
  }

  /** All that was done and not undone, as a script for `nemu run --script`, which does it again and asserts. */
  get script(): string {
    const steps = this.#done.flatMap(({ action }) => [
      ...(action.steps ?? [action.code]).map((code) => `await ${code};`),
      ...(action.holds ? [`assert.ok(${action.holds});`] : []),
      ...(action.gives ? [`assert.deepEqual(${action.gives[0]}, ${literal(action.gives[1])});`] : []),
    ]);
    return ["import assert from 'node:assert/strict';", '', 'declare const vm: any;', '', ...steps, ''].join('\n');
  }

  /**
   * Writes the script into a file, which must not be there yet.
   * @returns how many actions it has. @throws NemuError FILE.
   */
  save(path: string): number {
    writeNewFile(path, this.script, 'script');
    return this.#done.length;
  }
}
