/** Questions that a guest asks the terminal, and the terminal's answers, which nobody else may read as keys. */

/**
 * Questions that programs ask: device status and attributes (ECMA-48), XTVERSION, DECRQM, the keyboard of kitty, sizes
 * (XTWINOPS), colours and the clipboard (OSC), DECRQSS and XTGETTCAP.
 */
const QUESTION =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control sequences
  /\x1b\[(?:[?>=]?[\d;]*n|[?>=]\d*c|(\d*)c|>\d*q|\??[\d;]*\$p|\?u|(?:1[1345689]|2[01])(?:;\d+)?t)|\x1b\][\d;c]*;\?(?=[;\x07\x1b])|\x1bP[$+]q/;
/** What a terminal answers, or says by itself, in the same forms. */
const ANSWER =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control sequences
  /\x1b\[(?:[?>=]?[\d;]*[Rn]|[>=][\d;]*c|(\??[\d;]*)c|\?[\d;]*(?:u|\$y)|[\d;]+t)|\x1b[\]P][^\x07\x1b]*(?:\x07|\x1b\\)/;
/** DA1, which every terminal answers, behind all that it was asked before. */
const ATTRIBUTES = '\x1b[c';
/** No sequence of these is longer: a piece of one that has begun is in so many bytes. */
const LONGEST = 64;
const MAX_ASKED = 256;

/** Controls that a terminal executes within a sequence, which goes on. */
const EXECUTED = '[\\x00-\\x17\\x19\\x1c-\\x1f\\x7f]';
/** Introducers of sequences; C1 controls are two bytes in UTF-8. */
const CSI = `(?:\\x1b${EXECUTED}{0,64}\\[|\\xc2\\x9b)`;
const OSC = `(?:\\x1b${EXECUTED}{0,64}\\]|\\xc2\\x9d)`;
const DCS = `(?:\\x1b${EXECUTED}{0,64}P|\\xc2\\x90)`;
/** What is in them: a question is short, and nothing longer is held back. */
const CSI_BODY = '[\\x00-\\x17\\x19\\x1c-?\\x7f]{0,256}';
const OSC_BODY = '(?:(?!\\xc2[\\x90-\\x9f])[^\\x07\\x18\\x1a\\x1b]){0,4096}';
const DCS_BODY = '(?:(?!\\xc2[\\x90-\\x9f])[^\\x18\\x1a\\x1b]){0,4096}';
/** ST; whatever else begins with ESC ends a string too. */
const END = '(?:\\x1b\\\\|\\xc2\\x9c|(?=\\x1b))';

const ENQ = '\x05';
const SEQUENCE = new RegExp(
  `${ENQ}|${CSI}(${CSI_BODY}[@-~])|${OSC}(${OSC_BODY})(?:\\x07|${END})|${DCS}(${DCS_BODY})${END}`,
  'g',
);
/** What may become one of these. */
const BEGUN = new RegExp(
  `(?:\\x1b${EXECUTED}{0,64}|\\xc2|${CSI}${CSI_BODY}|${OSC}${OSC_BODY}(?:\\x1b|\\xc2)?|${DCS}${DCS_BODY}(?:\\x1b|\\xc2)?)$`,
);
const ALL_EXECUTED = new RegExp(EXECUTED, 'g');

/**
 * Control sequences that a terminal answers (XTerm's ctlseqs): DSR and DA, XTVERSION, DECRQM, DECREQTPARM, reports of
 * XTWINOPS, the keyboard protocol of kitty, XTQMODKEYS, DECRQTSR and DECRQPSR, DECRQUPSS, DECRQCRA, DECRQDE,
 * XTSMGRAPHICS, XTREPORTSGR.
 */
const CSI_QUESTION =
  /^(?:[?>=]?[\d;]*[nc]|>[\d;]*q|\??[\d;]*\$p|[\d;]*x|(?:1[1345689]|2[01])(?:;[\d;]*)?t|\?[\d;]*[um]|[\d;]*\$[uw]|&u|[\d;]*\*y|"v|\?[\d;]*S|[\d;]*#\|)$/;
/** A parameter that is asked for, as a colour's or the clipboard. */
const OSC_QUESTION = /[;=]\?(?:;|$)/;
/** DECRQSS and XTGETTCAP. */
const DCS_QUESTION = /^[\d;]*[$+]q/;

function isQuestion(control = '', command = '', device = ''): boolean {
  return (
    CSI_QUESTION.test(control.replaceAll(ALL_EXECUTED, '')) ||
    OSC_QUESTION.test(command.replaceAll(ALL_EXECUTED, '')) ||
    DCS_QUESTION.test(device.replaceAll(ALL_EXECUTED, ''))
  );
}

/** What a guest printed some time ago, without questions: answers would come too late, as keys that nobody typed. */
export function withoutQuestions(bytes: Uint8Array): Buffer {
  const text = Buffer.from(bytes).toString('latin1');
  const without = text.replaceAll(SEQUENCE, (all, control, command, device) =>
    all === ENQ || isQuestion(control, command, device) ? '' : all,
  );
  return Buffer.from(without, 'latin1');
}

/** The same of a stream whose pieces may end anywhere. */
export class QuestionFilter {
  #begun = '';

  take(bytes: Uint8Array): Buffer {
    const text = this.#begun + Buffer.from(bytes).toString('latin1');
    const at = text.search(BEGUN);
    this.#begun = at < 0 ? '' : text.slice(at);
    return withoutQuestions(Buffer.from(at < 0 ? text : text.slice(0, at), 'latin1'));
  }

  /** What was kept back, when there is no more. */
  rest(): Buffer {
    return Buffer.from(this.#begun, 'latin1');
  }
}

/** Finds sequences in a stream whose pieces may end anywhere. */
class SequenceFinder {
  readonly #pattern: RegExp;
  #rest = '';

  constructor(pattern: RegExp) {
    this.#pattern = new RegExp(pattern, 'g');
  }

  /** @returns whether each that was completed by these bytes was of DA1. */
  take(bytes: Uint8Array): boolean[] {
    const text = this.#rest + Buffer.from(bytes).toString('latin1');
    const found = [...text.matchAll(this.#pattern)];
    const last = found.at(-1);
    this.#rest = text.slice(last ? last.index + last[0].length : 0).slice(-LONGEST);
    return found.map(([, primary]) => primary !== undefined);
  }
}

export class TerminalQuestions {
  readonly #questions = new SequenceFinder(QUESTION);
  readonly #answers = new SequenceFinder(ANSWER);
  /** Those that have no answer yet, in their order: whether each is DA1. */
  readonly #asked: boolean[] = [];
  #settled: (() => void) | undefined;

  /** Questions that have no answer yet. */
  get open(): number {
    return this.#asked.length;
  }

  /** What goes to the terminal. */
  printed(bytes: Uint8Array): void {
    this.#asked.push(...this.#questions.take(bytes));
    // A guest that asks without end is not kept count of.
    if (this.#asked.length > MAX_ASKED) this.#asked.splice(0, this.#asked.length - MAX_ASKED);
  }

  /** What comes from the terminal. */
  typed(bytes: Uint8Array): void {
    for (const attributes of this.#answers.take(bytes)) {
      const at = this.#asked.indexOf(attributes);
      // What was asked before DA1 and has no answer by now will have none.
      if (at >= 0) this.#asked.splice(attributes ? 0 : at, attributes ? at + 1 : 1);
    }
    if (this.open === 0) this.#settled?.();
  }

  /**
   * Resolves when every question has its answer or will have none, or after this time.
   * @param ask writes to the terminal, which is asked what it answers in any case.
   */
  async answered(timeoutMs: number, ask: (question: string) => void): Promise<void> {
    if (this.open === 0) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#settled = resolve;
    this.#asked.push(true);
    ask(ATTRIBUTES);
    const timer = setTimeout(resolve, timeoutMs);
    await promise;
    clearTimeout(timer);
    this.#settled = undefined;
  }
}
