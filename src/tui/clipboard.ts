/** The clipboard of the user's terminal. */

/** Bytes that a text may have: more is not taken by most terminals. */
const MAX_COPIED = 74_994;

/**
 * Has a terminal put text into its clipboard (XTerm's ctlseqs, OSC 52).
 * @param write writes to the terminal.
 * @returns what to tell the user.
 */
export function copyText(text: string, write: (sequence: string) => void): string {
  if (text.trim() === '') return 'There is no text there.';
  const bytes = Buffer.from(text);
  if (bytes.length > MAX_COPIED) {
    return `${bytes.length} bytes are more than a terminal's clipboard takes, which is ${MAX_COPIED}: nothing was copied.`;
  }
  write(`\x1b]52;c;${bytes.toString('base64')}\x07`);
  return `Copied ${[...text].length} characters.`;
}
