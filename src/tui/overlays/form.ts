import { NemuError } from '../../client/errors.ts';
import { type Line, span } from '../style.ts';
import { CURSOR, edited, endOf, type Overlay, type OverlayView, windowAround } from './overlay.ts';
import { wrap } from './question.ts';

/** A field of a form, as the option schema has it. */
export interface Field {
  readonly name: string;
  readonly type: 'text' | 'number' | 'boolean' | 'choice';
  readonly choices?: readonly string[];
  readonly description: string;
  readonly required: boolean;
  /** What holds when nothing is given, as text. */
  readonly standard?: string;
}

export interface FormOptions {
  readonly title: string;
  readonly fields: readonly Field[];
  /** Checks what was given so far. @throws NemuError that says what is wrong. */
  readonly check: (values: Readonly<Record<string, unknown>>) => void;
  /** What it will cost, and the typed form. */
  readonly tell: (values: Readonly<Record<string, unknown>>) => readonly string[];
  /** Settles when it is under way, or with what is against it: then the form stays, with what was typed. */
  readonly submit: (values: Readonly<Record<string, unknown>>) => Promise<unknown>;
  readonly close: () => void;
  readonly changed: () => void;
}

/** As people write them; what is none of these is refused where values are checked. */
const BOOLEANS: Readonly<Record<string, boolean>> = {
  ...{ true: true, on: true, yes: true },
  ...{ false: false, off: false, no: false },
};

const textOf = (error: unknown) => (error instanceof NemuError ? error.text : (error as Error).message);

/** Options of a device to fill in: defaults are shown, values are checked as they are typed. */
export class Form implements Overlay {
  readonly #options: FormOptions;
  readonly #texts = new Map<string, string>();
  #selected = 0;
  #insisted = false;
  /** It was asked for, and nothing is known of it yet. */
  #asked = false;
  #closed = false;
  /** Why it was refused, until something else is typed. */
  #refused: string | undefined;

  constructor(options: FormOptions) {
    this.#options = options;
  }

  get values(): Record<string, unknown> {
    const values: Record<string, unknown> = {};
    for (const { name, type } of this.#options.fields) {
      const text = this.#texts.get(name);
      if (text === undefined || text === '') continue;
      if (type === 'boolean') values[name] = BOOLEANS[text.toLowerCase()] ?? text;
      else values[name] = type === 'number' && /^(0x[0-9a-f]+|\d+)$/i.test(text) ? Number(text) : text;
    }
    return values;
  }

  get #problem(): string | undefined {
    if (this.#refused !== undefined) return this.#refused;
    try {
      this.#options.check(this.values);
      return undefined;
    } catch (error) {
      return textOf(error);
    }
  }

  view(width: number, height: number): OverlayView {
    const { fields } = this.#options;
    const inside = Math.min(width, 84);
    const nameWidth = Math.max(...fields.map(({ name }) => name.length));
    const problem = this.#problem;
    const missing = fields.some(({ name, required }) => required && !this.#texts.get(name));
    const below: Line[] = [
      [],
      ...wrap(fields[this.#selected]?.description ?? '', inside).map((text): Line => [span(text, 'dim')]),
      ...(problem !== undefined && (!missing || this.#insisted)
        ? wrap(problem, inside).map((text): Line => [span(text, 'bad')])
        : this.#options
            .tell(this.values)
            .flatMap((text) => wrap(text, inside))
            .map((text): Line => [span(text, 'accent')])),
    ];
    const { shown, from } = windowAround(fields, this.#selected, Math.max(1, height - below.length));
    const rows = shown.map(({ name, choices, required, standard, type }, index): Line => {
      const chosen = from + index === this.#selected;
      const text = this.#texts.get(name) ?? '';
      const hint = required ? 'needed' : (standard ?? 'not set');
      const more = choices ?? (type === 'boolean' ? ['true', 'false'] : []);
      return [
        span(`${name.padEnd(nameWidth)}${required ? '*' : ' '} `, chosen ? 'focus' : 'text'),
        span(chosen ? endOf(text, inside - nameWidth - 3) : text, 'bold'),
        ...(chosen ? CURSOR : []),
        ...(text === '' ? [span(` ${hint}`, 'dim')] : []),
        ...(chosen && more.length > 0 ? [span(`  ‹ ${more.join(' | ')} ›`, 'dim')] : []),
      ];
    });
    return {
      title: this.#options.title,
      lines: [...rows, ...below],
      presses: shown.map((_, index) => () => this.#choose(from + index)),
      width: inside,
      hint: this.#asked
        ? 'waiting for the machine · Esc: leave it to it'
        : 'arrows: field · type, or ←→ where there is a choice · Enter: do it · Esc: back',
    };
  }

  key(name: string, text: string): void {
    const { fields } = this.#options;
    const field = fields[this.#selected];
    if (name === 'esc') this.#close();
    else if (this.#asked) return;
    else if (name === 'up' || name === 'shift-tab')
      this.#selected = (this.#selected + fields.length - 1) % fields.length;
    else if (name === 'down' || name === 'tab') this.#selected = (this.#selected + 1) % fields.length;
    else if (name === 'enter') this.#submit();
    else if (field && (name === 'left' || name === 'right' || name === 'space') && this.#choicesOf(field).length > 0) {
      const choices = ['', ...this.#choicesOf(field)];
      const at = choices.indexOf(this.#texts.get(field.name) ?? '');
      this.#set(field, choices[(at + (name === 'left' ? choices.length - 1 : 1)) % choices.length]);
    } else if (field) {
      const after = edited(this.#texts.get(field.name) ?? '', name, text);
      if (after !== undefined) this.#set(field, after);
    }
  }

  #choose(index: number): void {
    if (!this.#asked) this.#selected = index;
  }

  #set({ name }: Field, text: string): void {
    this.#texts.set(name, text);
    this.#refused = undefined;
  }

  paste(text: string): void {
    const field = this.#options.fields[this.#selected];
    if (field && !this.#asked) this.#set(field, (this.#texts.get(field.name) ?? '') + text);
  }

  #choicesOf({ choices, type }: Field): readonly string[] {
    return choices ?? (type === 'boolean' ? ['true', 'false'] : []);
  }

  #submit(): void {
    this.#insisted = true;
    this.#refused = undefined;
    if (this.#problem !== undefined) return;
    this.#asked = true;
    this.#options.submit(this.values).then(
      () => this.#close(),
      (error: unknown) => {
        this.#asked = false;
        this.#refused = textOf(error);
        this.#options.changed();
      },
    );
  }

  /** Once: another one may stand in its place by then. */
  #close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#options.close();
  }
}
