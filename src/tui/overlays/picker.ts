import { type Line, line, shortened, span, widthOf } from '../style.ts';
import { CURSOR, edited, endOf, matches, type Overlay, type OverlayView } from './overlay.ts';
import { wrap } from './question.ts';

export interface Choice {
  readonly label: string;
  /** Key that does the same, without the list. */
  readonly key?: string;
  readonly detail?: string;
  /** The same elsewhere, a line each: shown whole below the list. */
  readonly forms?: readonly string[];
  /** More words to find it by. */
  readonly words?: string;
  /** Why it cannot be chosen now. */
  readonly disabled?: string | undefined;
  run(): void;
}

export interface PickerOptions {
  readonly title: string;
  readonly prompt: string;
  readonly choices: () => readonly Choice[];
  readonly close: () => void;
  /** What Enter does with a text that matches nothing. */
  readonly otherwise?: {
    readonly detail: string;
    /** It is meant even where something matches, unless that is named so. */
    readonly isMeant: (text: string) => boolean;
    run(text: string): void;
  };
}

/** Cells that a list takes at most: longer lines are not read any more. */
const WIDEST = 96;

/** What there is to know of a choice, in lines. */
function wrapped({ detail = '', forms = [], disabled }: Choice, width: number) {
  const help = [...(disabled === undefined ? [] : [`not now: ${disabled}`]), detail]
    .filter((text) => text !== '')
    .join(' · ');
  return {
    help: help === '' ? [] : wrap(help, width),
    forms: forms.flatMap((form) => wrap(form, width)),
  };
}

/** Rows below the list: as many as any choice needs, so that the list stays where it is, and a third at most. */
function aboutHeight(choices: readonly Choice[], width: number, height: number): number {
  const needed = choices.map((choice) => {
    const { help, forms } = wrapped(choice, width);
    return help.length + forms.length;
  });
  return Math.min(Math.floor(height / 3), Math.max(0, ...needed));
}

/** Where there is little room, the help is cut, and not what can be typed elsewhere. */
function aboutLines(choice: Choice | undefined, width: number, height: number): Line[] {
  const { help, forms } = choice ? wrapped(choice, width) : { help: [], forms: [] };
  const room = Math.max(0, height - forms.length);
  const kept = help.slice(0, room);
  if (kept.length < help.length && kept.length > 0) kept.push(shortened(`${kept.pop()} …`, width));
  const lines = [...kept.map((text) => line(text, 'dim')), ...forms.map((text) => line(text, 'accent'))];
  return Array.from({ length: height }, (_, row) => lines[row] ?? []);
}

/** A list that narrows as one types; Enter does what is chosen. */
export class Picker implements Overlay {
  readonly #options: PickerOptions;
  #text = '';
  #selected = 0;
  /** The first row that is shown. */
  #top = 0;
  #page = 10;

  constructor(options: PickerOptions) {
    this.#options = options;
  }

  get #found(): readonly Choice[] {
    const choices = this.#options.choices();
    if (this.#text.trim() === '') return choices;
    const found = choices.filter(({ label, detail, forms = [], words }) =>
      matches(`${label} ${detail ?? ''} ${forms.join(' ')} ${words ?? ''}`, this.#text),
    );
    // Those whose name begins so come first.
    const starts = ({ label }: Choice) => Number(!label.toLowerCase().startsWith(this.#text.toLowerCase()));
    const { otherwise } = this.#options;
    // Then it is what Enter does, as if nothing matched.
    if (otherwise?.isMeant(this.#text) && found.every((choice) => starts(choice) === 1)) return [];
    return found.toSorted((a, b) => starts(a) - starts(b));
  }

  view(width: number, height: number): OverlayView {
    const found = this.#found;
    this.#selected = Math.max(0, Math.min(this.#selected, found.length - 1));
    const all = this.#options.choices();
    const inside = Math.min(width, WIDEST);
    const about = aboutHeight(all, inside, height);
    this.#page = Math.max(1, height - 3 - about);
    // A row that is pressed stays where it is, to be pressed again.
    const top = Math.max(this.#selected - this.#page + 1, Math.min(this.#top, this.#selected));
    this.#top = Math.max(0, Math.min(top, found.length - this.#page));
    const from = this.#top;
    const shown = found.slice(from, from + this.#page);
    const keyWidth = Math.max(0, ...all.map(({ key }) => key?.length ?? 0));
    const labelWidth = Math.min(34, Math.max(10, ...all.map(({ label }) => label.length)));
    const rows: Line[] = shown.map(({ label, key = '', detail = '', disabled }, index) => {
      const chosen = from + index === this.#selected;
      const base = chosen ? 'selected' : disabled === undefined ? 'text' : 'dim';
      return [
        ...(keyWidth > 0 ? [span(`${key.padStart(keyWidth)}  `, chosen ? 'selected' : 'key')] : []),
        span(label.padEnd(labelWidth), base),
        span(`  ${disabled === undefined ? detail : `not now: ${disabled}`}`, chosen ? 'selected' : 'dim'),
      ];
    });
    const { prompt, otherwise } = this.#options;
    const presses: (() => void)[] = shown.map((_, index) => () => this.#press(from + index));
    if (found.length === 0) {
      rows.push(line(otherwise && this.#text !== '' ? `Enter: ${otherwise.detail}` : 'Nothing matches.', 'dim'));
      presses.push(() => this.key('enter', ''));
    }
    const typed = endOf(this.#text, inside - widthOf(prompt) - 1);
    return {
      title: this.#options.title,
      lines: [
        [span(prompt, 'key'), span(typed), ...CURSOR],
        [],
        ...rows,
        ...(about > 0 ? [[], ...aboutLines(found[this.#selected], inside, about)] : []),
      ],
      presses: [undefined, undefined, ...presses],
      width: inside,
      hint: 'type to narrow · arrows: choose · Enter: do · Esc: back',
    };
  }

  key(name: string, text: string): void {
    const found = this.#found;
    if (name === 'esc') {
      this.#options.close();
    } else if (name === 'up') this.#selected--;
    else if (name === 'down') this.#selected++;
    else if (name === 'pageup') this.#selected -= this.#page;
    else if (name === 'pagedown') this.#selected += this.#page;
    else if (name === 'enter') this.#choose(found[this.#selected]);
    else if (name === 'tab' && found[this.#selected]) this.#text = found[this.#selected].label;
    else {
      const after = edited(this.#text, name, text);
      if (after !== undefined) {
        this.#text = after;
        this.#selected = 0;
      }
    }
    this.#selected = Math.max(0, Math.min(this.#selected, this.#found.length - 1));
  }

  paste(text: string): void {
    this.#text += text;
  }

  /** As in the lists of panes: what is chosen is done when it is pressed again. */
  #press(row: number): void {
    if (row === this.#selected) this.#choose(this.#found[row]);
    else this.#selected = row;
  }

  #choose(choice: Choice | undefined): void {
    if (choice?.disabled !== undefined) return;
    if (!choice && this.#text.trim() === '') return;
    this.#options.close();
    if (choice) choice.run();
    else this.#options.otherwise?.run(this.#text);
  }
}
