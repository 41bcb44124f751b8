/** What was done to a machine, in the order in which it was done, and how each is taken back. */
import { NemuError } from '../client/errors.ts';
import { writeNewFile } from './new_file.ts';

/** One live action. `code` is its typed form, which a script may repeat. */
export interface Action {
  readonly code: string;
  run(): Promise<unknown>;
  /** What takes it back, where something does. */
  readonly inverse?: { readonly code: string; run(): Promise<unknown> };
  /** What holds afterwards, as an expression for a script to assert; asked for once it was done. */
  readonly holds?: string;
}

interface Entry {
  readonly at: Date;
  readonly action: Action;
}

export class Journal {
  readonly #done: Entry[] = [];
  readonly #undone: Entry[] = [];

  /** Does an action and writes it down. What was undone before cannot be redone after it. */
  async do<T>(action: Omit<Action, 'run'> & { run(): Promise<T> }): Promise<T> {
    const result = await action.run();
    this.#done.push({ at: new Date(), action });
    this.#undone.length = 0;
    return result;
  }

  /** Takes the last action back. @returns what was done for it. @throws NemuError UNDO. */
  async undo(): Promise<string> {
    const last = this.#done.at(-1);
    if (!last) throw new NemuError('UNDO', 'Nothing was done yet that could be undone.');
    const { inverse, code } = last.action;
    if (!inverse) throw new NemuError('UNDO', `${code} cannot be undone.`);
    await inverse.run();
    this.#done.pop();
    this.#undone.push(last);
    return inverse.code;
  }

  /** Does again what was undone last. @returns what was done. @throws NemuError UNDO. */
  async redo(): Promise<string> {
    const last = this.#undone.at(-1);
    if (!last) throw new NemuError('UNDO', 'Nothing was undone that could be done again.');
    await last.action.run();
    this.#undone.pop();
    this.#done.push(last);
    return last.action.code;
  }

  /** One line an action, oldest first. */
  get lines(): readonly string[] {
    return this.#done.map(({ at, action }) => `${at.toISOString().slice(11, 19)}  ${action.code}`);
  }

  /** All that was done and not undone, as a script for `nemu run --script`, which does it again and asserts. */
  get script(): string {
    const steps = this.#done.flatMap(({ action }) => [
      `await ${action.code};`,
      ...(action.holds ? [`assert.ok(${action.holds});`] : []),
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
