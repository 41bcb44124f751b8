/** Cells that a character takes in an emulated terminal: the same as when the workstation draws it. */
import type { IUnicodeVersionProvider } from '@xterm/headless';
import stringWidth from 'string-width';

/** Below this all are of one cell, control characters aside, which do not come here. */
const FIRST_OTHER = 0x300;
const known = new Map<number, 0 | 1 | 2>();
/** Characters that are remembered; a guest may print any. */
const MAX_KNOWN = 20_000;

function wcwidth(code: number): 0 | 1 | 2 {
  if (code < FIRST_OTHER) return code < 0x20 || (code >= 0x7f && code < 0xa0) || code === 0xad ? 0 : 1;
  // Those that make one picture of two characters: skin tones change the one before, letters of flags stand in pairs.
  if (code >= 0x1f3fb && code <= 0x1f3ff) return 0;
  if (code >= 0x1f1e6 && code <= 0x1f1ff) return 1;
  const before = known.get(code);
  if (before !== undefined) return before;
  // Surrogates by themselves are of no width, and no text.
  const width =
    code >= 0xd800 && code < 0xe000 ? 0 : (Math.min(2, stringWidth(String.fromCodePoint(code))) as 0 | 1 | 2);
  if (known.size < MAX_KNOWN) known.set(code, width);
  return width;
}

/**
 * Instead of xterm's own table, which is that of Unicode 6 and has emoji in one cell.
 * Properties are a number of xterm's (its `UnicodeService`): bit 0 joins the character to the one before, bits 1 and 2
 * are the width.
 */
export const cellWidths: IUnicodeVersionProvider = {
  version: 'workstation',
  wcwidth,
  charProperties(code: number, preceding: number): number {
    const width = wcwidth(code);
    const before = (preceding >> 1) & 3;
    const joins = width === 0 && before > 0;
    return ((joins ? before : width) << 1) | Number(joins);
  },
};
