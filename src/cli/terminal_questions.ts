/** Questions that a guest asks the terminal, and the terminal's answers, which nobody else may read as keys. */

// biome-ignore lint/suspicious/noControlCharactersInRegex: device status, cursor position and attributes (ECMA-48)
const QUESTION = /\x1b\[[?>=]?\d*[nc]/;
// biome-ignore lint/suspicious/noControlCharactersInRegex: as above
const ANSWER = /\x1b\[[?>=]?[\d;]*[Rnc]/;
/** No sequence of these is longer: a piece of one that has begun is in so many bytes. */
const LONGEST = 64;

/** What a guest printed some time ago, without questions: answers would come too late, as keys that nobody typed. */
export const withoutQuestions = (bytes: Uint8Array): Buffer =>
  Buffer.from(Buffer.from(bytes).toString('latin1').replaceAll(new RegExp(QUESTION, 'g'), ''), 'latin1');

/** The same of a stream whose pieces may end anywhere. */
export class QuestionFilter {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: what may become a question
  static readonly #BEGUN = /\x1b(?:\[[?>=]?\d{0,9})?$/;
  #begun = '';

  take(bytes: Uint8Array): Buffer {
    const text = this.#begun + Buffer.from(bytes).toString('latin1');
    const at = text.search(QuestionFilter.#BEGUN);
    this.#begun = at < 0 ? '' : text.slice(at);
    return withoutQuestions(Buffer.from(at < 0 ? text : text.slice(0, at), 'latin1'));
  }

  /** What was kept back, when there is no more. */
  rest(): Buffer {
    return Buffer.from(this.#begun, 'latin1');
  }
}

/** Finds sequences in a stream whose pieces may end anywhere. */
class SequenceCounter {
  readonly #pattern: RegExp;
  #rest = '';

  constructor(pattern: RegExp) {
    this.#pattern = new RegExp(pattern, 'g');
  }

  /** @returns how many were completed by these bytes. */
  take(bytes: Uint8Array): number {
    const text = this.#rest + Buffer.from(bytes).toString('latin1');
    const found = [...text.matchAll(this.#pattern)];
    const last = found.at(-1);
    this.#rest = text.slice(last ? last.index + last[0].length : 0).slice(-LONGEST);
    return found.length;
  }
}

export class TerminalQuestions {
  readonly #questions = new SequenceCounter(QUESTION);
  readonly #answers = new SequenceCounter(ANSWER);
  #open = 0;
  #settled: (() => void) | undefined;

  /** Questions that have no answer yet. */
  get open(): number {
    return this.#open;
  }

  /** What goes to the terminal. */
  printed(bytes: Uint8Array): void {
    this.#open += this.#questions.take(bytes);
  }

  /** What comes from the terminal. */
  typed(bytes: Uint8Array): void {
    this.#open = Math.max(0, this.#open - this.#answers.take(bytes));
    if (this.#open === 0) this.#settled?.();
  }

  /** Resolves when every question has its answer, or after this time: not every terminal answers everything. */
  async answered(timeoutMs: number): Promise<void> {
    if (this.#open === 0) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#settled = resolve;
    const timer = setTimeout(resolve, timeoutMs);
    await promise;
    clearTimeout(timer);
    this.#settled = undefined;
  }
}
