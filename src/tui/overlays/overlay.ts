/** What stands in front of the panes and has the keys: help, palette, questions, forms, texts. */
import { stripVTControlCharacters } from 'node:util';
import { type Line, span, widthOf } from '../style.ts';

export interface OverlayView {
  readonly title: string;
  readonly lines: readonly Line[];
  /** What a press of the mouse does, by line. */
  readonly presses: readonly ((() => void) | undefined)[];
  /** Cells inside the frame that it would like; the screen bounds them. */
  readonly width: number;
  /** Keys, below the frame. */
  readonly hint: string;
}

export interface Overlay {
  /** @param width, height the most that there is inside a frame. */
  view(width: number, height: number): OverlayView;
  /** @param name of the key (keys.ts). @param text what it types. */
  key(name: string, text: string): void;
  /** @param text one line of it. */
  paste?(text: string): void;
}

/** The part of a list that shows its chosen row. */
export function windowAround<T>(
  items: readonly T[],
  selected: number,
  height: number,
): { from: number; shown: readonly T[] } {
  const from = Math.max(0, Math.min(selected - Math.floor(height / 2), items.length - height));
  return { from, shown: items.slice(from, from + height) };
}

/** Do the letters of the pattern stand in the text, in their order? Words of it are looked for by themselves. */
export function matches(text: string, pattern: string): boolean {
  const lower = text.toLowerCase();
  return pattern
    .toLowerCase()
    .split(/\s+/)
    .every((word) => lower.includes(word));
}

/** Where the next letter goes; the room behind it is not marked. */
export const CURSOR: Line = [span(' ', 'selected'), span('')];

/** As much of the end of a text as there is room for: while it is typed, that is what is being typed. */
export function endOf(text: string, width: number): string {
  if (widthOf(text) <= width) return text;
  const letters = [...text];
  let from = letters.length;
  for (let used = 1; from > 0; from--) {
    used += widthOf(letters[from - 1]);
    if (used > width) break;
  }
  return `…${letters.slice(from).join('')}`;
}

/** More than anybody means as one line. */
const MAX_PASTED = 4096;

/** What is pasted, as far as it is one line: the first one, without what only a terminal would understand. */
export const lineOf = (pasted: string): string =>
  stripVTControlCharacters(pasted.slice(0, MAX_PASTED).split(/[\r\n]/)[0] ?? '')
    .replaceAll('\t', ' ')
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is taken out
    .replaceAll(/[\x00-\x1f\x7f-\x9f]/g, '');

/** Editing of one line of text. @returns the text after the key, or undefined for a key that edits nothing. */
export function edited(text: string, name: string, typed: string): string | undefined {
  if (name === 'backspace' || name === 'delete') return [...text].slice(0, -1).join('');
  if (name === 'ctrl-u') return '';
  if (name === 'ctrl-w') return text.replace(/\S*\s*$/, '');
  if (name === 'space') return `${text} `;
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are not typed into a line
  if (typed !== '' && !name.startsWith('ctrl-') && !name.startsWith('alt-') && !/[\x00-\x1f\x7f]/.test(typed))
    return text + typed;
  return undefined;
}
