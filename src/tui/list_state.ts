import { edited } from './overlays/overlay.ts';
import type { Row } from './panes/pane.ts';
import { plainText } from './style.ts';

/** A filter is a regular expression, or the text itself where it is none; behind `!`, what does not match is shown. */
export function filterOf(filter: string): (text: string) => boolean {
  const inverse = filter.startsWith('!');
  const pattern = inverse ? filter.slice(1) : filter;
  if (pattern === '') return () => true;
  let expression: RegExp | undefined;
  try {
    expression = new RegExp(pattern, 'i');
  } catch {
    // It is a text then.
  }
  const wanted = pattern.toLowerCase();
  return (text) => (expression ? expression.test(text) : text.toLowerCase().includes(wanted)) !== inverse;
}

/** Which row of a list is chosen, what of the list is shown, and its filter. */
export class ListState {
  filter = '';
  selected: string | undefined;
  readonly #tail: boolean;
  #keys: readonly string[] = [];
  #top = 0;
  #atEnd = true;
  /** Rows that are shown at a time. */
  page = 1;

  /** @param tail the list grows at its end, and stays there until somebody moves. */
  constructor(tail = false) {
    this.#tail = tail;
  }

  /** Takes the rows as they are now. @returns those that are shown in `height`, and which of them is chosen. */
  window(rows: readonly Row[], height: number): { readonly rows: readonly Row[]; readonly from: number } {
    this.page = Math.max(1, height);
    const passes = filterOf(this.filter);
    const shown = this.filter === '' ? rows : rows.filter(({ line }) => passes(plainText(line)));
    const before = Math.max(0, this.#keys.indexOf(this.selected ?? ''));
    this.#keys = shown.flatMap(({ key }) => (key === undefined ? [] : [key]));
    if (this.#tail && this.#atEnd) this.selected = this.#keys.at(-1);
    else if (this.selected === undefined || !this.#keys.includes(this.selected)) {
      // What comes to stand in the place of one that has gone, or the last.
      this.selected = this.#keys[Math.min(before, this.#keys.length - 1)];
    }
    const at = shown.findIndex(({ key }) => key !== undefined && key === this.selected);
    if (at >= 0) this.#top = Math.max(at - height + 1, Math.min(this.#top, at));
    this.#top = Math.max(0, Math.min(this.#top, shown.length - height));
    return { rows: shown.slice(this.#top, this.#top + height), from: this.#top };
  }

  move(rows: number): void {
    const at = Math.max(0, this.#keys.indexOf(this.selected ?? ''));
    const next = Math.max(0, Math.min(this.#keys.length - 1, at + rows));
    this.selected = this.#keys[next];
    this.#atEnd = next === this.#keys.length - 1;
  }

  choose(key: string): void {
    this.selected = key;
    this.#atEnd = this.#keys.at(-1) === key;
  }

  type(name: string, text: string): void {
    this.filter = edited(this.filter, name, text) ?? this.filter;
  }
}
