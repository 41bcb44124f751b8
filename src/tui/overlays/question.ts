import { clip, type Line, line, shortened, span, widthOf } from '../style.ts';
import type { Overlay, OverlayView } from './overlay.ts';

export interface Answer {
  readonly key: string;
  readonly text: string;
  run(): void;
}

/** A question before something is done. Esc is always an answer: nothing is done. */
export class Question implements Overlay {
  readonly #question: string;
  readonly #answers: readonly Answer[];
  readonly #close: () => void;

  constructor(question: string, answers: readonly Answer[], close: () => void) {
    this.#question = question;
    this.#answers = answers;
    this.#close = close;
  }

  view(width: number, height: number): OverlayView {
    const inside = Math.min(width, 64);
    const all = wrap(this.#question, inside);
    // The answers are seen in any case, below an empty line.
    const text = all.slice(0, Math.max(1, height - this.#answers.length - 2));
    if (text.length < all.length) text.push(shortened(`${text.pop()} …`, inside));
    const lines: Line[] = [
      ...text.map((each) => line(each)),
      [],
      ...this.#answers.map(({ key, text: what }): Line => [span(` ${key} `, 'key'), span(` ${what}`)]),
      [span('Esc', 'key'), span(' not now')],
    ];
    const widest = Math.max(...text.map(widthOf), ...this.#answers.map(({ text: what }) => widthOf(what) + 4));
    const keys = [...this.#answers.map(({ key }) => key), 'esc'];
    return {
      title: 'Sure?',
      lines,
      presses: [...Array<undefined>(text.length + 1), ...keys.map((key) => () => this.key(key))],
      width: Math.min(width, widest),
      hint: '',
    };
  }

  key(name: string): void {
    const answer = this.#answers.find(({ key }) => key === name);
    if (answer || name === 'esc' || name === 'q') this.#close();
    answer?.run();
  }
}

/** Words in lines of at most `width` cells; a word that is longer goes on in the next line. */
export function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  for (const paragraph of text.split('\n')) {
    let current = '';
    for (let word of paragraph.split(' ')) {
      if (current !== '' && widthOf(current) + 1 + widthOf(word) > width) {
        lines.push(current);
        current = '';
      }
      while (widthOf(word) > width) {
        const head = clip(word, width);
        // A character may be wider than the line.
        if (head === '') break;
        lines.push(head);
        word = word.slice(head.length);
      }
      current = current === '' ? word : `${current} ${word}`;
    }
    lines.push(current);
  }
  return lines;
}
