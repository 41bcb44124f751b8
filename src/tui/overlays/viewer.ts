import { clipStart, type Line, line, span, visible, widthOf } from '../style.ts';
import { edited, endOf, type Overlay, type OverlayView } from './overlay.ts';

interface TextLine {
  readonly text: string;
  /** Cells. */
  readonly width: number;
}

const measured = (text: string): TextLine => ({ text, width: widthOf(text) });

/** Cells that it has inside its frame at least. */
const LEAST_WIDTH = 20;

/** A text, or how it is with so many cells in a row. */
export type ViewedText = string | ((width: number) => string);

/** A text to look through: scrolling, and a filter of its lines. */
export class Viewer implements Overlay {
  readonly #title: string;
  readonly #close: () => void;
  readonly #load: () => Promise<void>;
  /** Times that the text was asked for. */
  #asked = 0;
  #text: ViewedText = '…';
  #lines: readonly TextLine[] = [];
  #width = 0;
  #top = 0;
  #left = 0;
  #height = 10;
  #filter: string | undefined;
  #typing = false;

  /** @param load the text; asked for again by `r` @param changed there is something new to draw */
  constructor(title: string, load: () => Promise<ViewedText>, changed: () => void, close: () => void) {
    this.#title = title;
    this.#close = close;
    this.#load = async () => {
      const asked = ++this.#asked;
      const text = await load().catch((error: Error) => error.message);
      // An answer that comes late tells less than the one that was asked for after it.
      if (asked !== this.#asked) return;
      this.#text = text;
      this.#layOut();
      changed();
    };
    void this.#load();
  }

  #layOut(): void {
    const text = typeof this.#text === 'string' ? this.#text : this.#text(this.#width);
    this.#lines = text.split('\n').map((each) => measured(visible(each)));
  }

  view(width: number, height: number): OverlayView {
    this.#height = height;
    if (width !== this.#width) {
      this.#width = width;
      this.#layOut();
    }
    const lines = this.#shown;
    this.#top = Math.max(0, Math.min(this.#top, lines.length - height));
    const longest = lines.reduce((most, each) => Math.max(most, each.width), LEAST_WIDTH);
    this.#left = Math.max(0, Math.min(this.#left, longest - width));
    const rows: Line[] = lines
      .slice(this.#top, this.#top + height)
      .map(({ text }) => line(clipStart(text, this.#left)));
    if (lines.length === 0) rows.push(line('Nothing matches.', 'dim'));
    const filter = this.#filter === undefined ? '' : ` /${this.#filter}`;
    const place =
      lines.length > height ? ` ${this.#top + 1}-${Math.min(lines.length, this.#top + height)} of ${lines.length}` : '';
    return {
      title: `${this.#title}${filter}${place}`,
      lines: this.#typing
        ? [...rows.slice(0, height - 1), [span('/', 'key'), span(endOf(this.#filter ?? '', width - 1))]]
        : rows,
      presses: [],
      width: Math.min(width, longest),
      hint: 'arrows, PgUp, PgDn: move · /: filter · r: again · Esc: back',
    };
  }

  get #shown(): readonly TextLine[] {
    const filter = this.#filter?.toLowerCase();
    return filter ? this.#lines.filter(({ text }) => text.toLowerCase().includes(filter)) : this.#lines;
  }

  paste(text: string): void {
    if (this.#typing) this.#filter = (this.#filter ?? '') + text;
  }

  key(name: string, text: string): void {
    if (this.#typing) {
      if (name === 'enter' || name === 'esc') this.#typing = false;
      if (name === 'esc') this.#filter = undefined;
      const after = edited(this.#filter ?? '', name, text);
      if (after !== undefined) this.#filter = after;
      return;
    }
    const moves: Readonly<Record<string, number>> = {
      ...{ up: -1, k: -1, down: 1, j: 1, pageup: -this.#height, pagedown: this.#height, space: this.#height },
      ...{ home: -1e9, g: -1e9, end: 1e9, G: 1e9 },
    };
    if (name in moves) this.#top = Math.max(0, this.#top + moves[name]);
    else if (name === 'left' || name === 'h') this.#left = Math.max(0, this.#left - 8);
    else if (name === 'right' || name === 'l') this.#left += 8;
    else if (name === '/') {
      this.#typing = true;
      this.#filter = '';
    } else if (name === 'r') void this.#load();
    else if (name === 'esc' && this.#filter) this.#filter = undefined;
    else if (name === 'esc' || name === 'q' || name === 'enter') this.#close();
  }
}
