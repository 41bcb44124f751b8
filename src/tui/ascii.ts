/** Text for terminals that show ASCII alone: other characters that take the same cells. */
import { GRAPHEMES, type Line, widthOf } from './style.ts';

/** What stands for what the workstation draws and writes. */
const STAND_INS: Readonly<Record<string, string>> = {
  ...{ '…': '~', '·': '|', '×': 'x', '●': '*', '–': '-', µ: 'u' },
  ...{ '←': '<', '→': '>', '↑': '^', '↓': 'v', '‹': '<', '›': '>' },
  ...{ '┌': '+', '┐': '+', '└': '+', '┘': '+', '├': '+', '─': '-', '│': '|' },
  ...{ '█': '#', '░': '.' },
};

/** Whatever else there is, of a guest or in a name, is a question mark for each of its cells. */
export function ascii(text: string): string {
  if (/^[\x20-\x7e]*$/.test(text)) return text;
  let out = '';
  for (const { segment } of GRAPHEMES.segment(text)) {
    out += STAND_INS[segment] ?? (/^[\x20-\x7e]$/.test(segment) ? segment : '?'.repeat(widthOf(segment)));
  }
  return out;
}

/** Cells of an emulated terminal stay as they are: what a guest may print is between it and the terminal. */
export const asciiLine = (spans: Line): Line =>
  spans.map((each) => (each.sgr === undefined ? { ...each, text: ascii(each.text) } : each));
