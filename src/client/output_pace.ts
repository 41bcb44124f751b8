/** A listener for a command's output. A promise says that it has not taken it yet: the command waits meanwhile. */
export type OutputListener = (bytes: Buffer) => void | Promise<void>;

/** Has a command in the guest wait while whoever gets its output takes none: it would pile up on the way. */
export class OutputPace {
  readonly #hold: () => void;
  readonly #go: () => void;
  #pending = 0;
  #held = false;
  #over = false;

  /** @param hold stops the command's output in the guest, @param go lets it on. */
  constructor(hold: () => void, go: () => void) {
    this.#hold = hold;
    this.#go = go;
  }

  /** @param taken what an output listener gave. */
  took(taken: void | Promise<void>): void {
    if (!taken || this.#over) return;
    this.#pending++;
    if (!this.#held) {
      this.#held = true;
      this.#hold();
    }
    const done = () => {
      if (--this.#pending === 0) this.#letGo();
    };
    taken.then(done, done);
  }

  /** Nothing is held any more: a command that is to end has to get rid of its output. */
  release(): void {
    this.#over = true;
    this.#letGo();
  }

  #letGo(): void {
    if (!this.#held) return;
    this.#held = false;
    this.#go();
  }
}
