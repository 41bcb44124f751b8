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
  selected: string | undefined;
  readonly #tail: boolean;
  #filter = '';
  /** What was chosen before a filter that may be dropped again, and whether that was at the end. */
  #before: { readonly selected: string | undefined; readonly atEnd: boolean } | undefined;
  #keys: readonly string[] = [];
  #top = 0;
  #atEnd = true;
  /** Rows that are shown at a time. */
  page = 1;

  /** @param tail the list grows at its end, and stays there until somebody moves. */
  constructor(tail = false) {
    this.#tail = tail;
  }

  get filter(): string {
    return this.#filter;
  }

  /** Dropped before it was kept, it leaves things as they were before it. */
  set filter(text: string) {
    if (this.#filter === '' && text !== '') this.#before = { selected: this.selected, atEnd: this.#atEnd };
    else if (this.#filter !== '' && text === '') {
      this.selected = this.#before ? this.#before.selected : this.selected;
      // The last that matched is not the last of all.
      this.#atEnd = this.#before?.atEnd ?? false;
      this.#before = undefined;
    }
    this.#filter = text;
  }

  /** What is chosen among those that match stays so without the filter. */
  keep(): void {
    this.#before = undefined;
  }

  /** Takes the rows as they are now. @returns those that are shown in `height`, and which of them is chosen. */
  window(rows: readonly Row[], height: number): { readonly rows: readonly Row[]; readonly from: number } {
    this.page = Math.max(1, height);
    const passes = filterOf(this.filter);
    const shown = this.filter === '' ? rows : rows.filter(({ line, text }) => passes(text ?? plainText(line)));
    const place = Math.max(0, this.#keys.indexOf(this.selected ?? ''));
    this.#keys = shown.flatMap(({ key }) => (key === undefined ? [] : [key]));
    const former = this.#before?.selected;
    if (this.#tail && this.#atEnd) this.selected = this.#keys.at(-1);
    else if (former !== undefined && this.#keys.includes(former)) this.selected = former;
    else if (this.selected === undefined || !this.#keys.includes(this.selected)) {
      // What comes to stand in the place of one that has gone, or the last.
      this.selected = this.#keys[Math.min(place, this.#keys.length - 1)];
    }
    if (this.filter === '') this.#atEnd = this.selected === this.#keys.at(-1);
    const at = shown.findIndex(({ key }) => key !== undefined && key === this.selected);
    if (at >= 0) this.#top = Math.max(at - height + 1, Math.min(this.#top, at));
    this.#top = Math.max(0, Math.min(this.#top, shown.length - height));
    return { rows: shown.slice(this.#top, this.#top + height), from: this.#top };
  }

  move(rows: number): void {
    this.keep();
    const at = Math.max(0, this.#keys.indexOf(this.selected ?? ''));
    const next = Math.max(0, Math.min(this.#keys.length - 1, at + rows));
    this.selected = this.#keys[next];
    this.#atEnd = next === this.#keys.length - 1;
  }

  choose(key: string): void {
    this.keep();
    this.selected = key;
    this.#atEnd = this.#keys.at(-1) === key;
  }

  type(name: string, text: string): void {
    this.filter = edited(this.filter, name, text) ?? this.filter;
  }
}
