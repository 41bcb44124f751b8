/** A terminal that a guest has used, put back for the shell. */

/**
 * Colours, cursor, keypad, mouse and paste as they are at first. CAN comes before: a sequence of which the guest had
 * written a part would take the next character with it (ECMA-48, 8.3.6).
 */
export const RESET_MODES =
  '\x18\x1b[0m\x1b[?25h\x1b[?1l\x1b>\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?2004l\x1b[?7h\x1b7\x1b[r\x1b8';

// biome-ignore lint/suspicious/noControlCharactersInRegex: set and reset of a private mode (ECMA-48)
const ALTERNATE = /\x1b\[\?(?:1049|1047|47)([hl])/g;
const SEQUENCE_BYTES = 8;

/** Knows whether the alternate screen is shown: leaving it where it is not would move the cursor. */
export class AlternateScreen {
  #shown = false;
  /** The end of what came last: a sequence may come in pieces. */
  #tail = '';

  saw(bytes: Uint8Array): void {
    const text = this.#tail + Buffer.from(bytes).toString('latin1');
    for (const [, how] of text.matchAll(ALTERNATE)) this.#shown = how === 'h';
    this.#tail = text.slice(-SEQUENCE_BYTES);
  }

  /** What leaves it, where it is shown. */
  leave(): string {
    return this.#shown ? '\x1b[?1049l' : '';
  }
}
