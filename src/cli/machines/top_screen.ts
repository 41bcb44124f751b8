/** The list of `nemu top`: what is shown, which machine is chosen, and what keys mean. It knows no terminal. */
import { prose, twoColumns } from '../../repl/prose.ts';
import { keyLabel } from '../../tui/keys.ts';
import { filterOf, ListState } from '../../tui/list_state.ts';
import { edited } from '../../tui/overlays/overlay.ts';
import { type Line, line, type Style, span, toWidth } from '../../tui/style.ts';
import { type Fit, LoadLines } from './load_lines.ts';
import { COLUMNS, type Load, NAME_COLUMN, NOTHING, type Order, sortLoads } from './loads.ts';

/** What a key asks of others: the terminal is handed to a command, or a command ends a machine. */
export type TopAction =
  | { readonly kind: 'leave' | 'redraw' }
  | { readonly kind: 'attach' | 'console' | 'logs' | 'stop' | 'kill'; readonly name: string };

const LEAST_ROWS = 3;
const LEAST_COLUMNS = 20;
/** From so many rows on there is one for keys below the one that tells what is shown. */
const ROWS_FOR_KEYS = 6;

const MOVES: Readonly<Record<string, (page: number) => number>> = {
  up: () => -1,
  k: () => -1,
  down: () => 1,
  j: () => 1,
  pageup: (page) => -page,
  pagedown: (page) => page,
  home: () => -Number.MAX_SAFE_INTEGER,
  g: () => -Number.MAX_SAFE_INTEGER,
  end: () => Number.MAX_SAFE_INTEGER,
  G: () => Number.MAX_SAFE_INTEGER,
};

const COMMANDS = { enter: 'attach', c: 'console', l: 'logs' } as const;

const QUESTIONS = {
  stop: (name: string) => `Have the guest of ${name} power off?`,
  kill: (name: string) => `End ${name} at once? What its guest has not written is lost.`,
};

/** Below the list, as many as there is room for. */
const HINTS = ['q quit', '? keys', 'Enter attach', 'c console', 'l log', '/ filter', 's stop', 'K kill', '< > r sort'];

const helpRows = (unicode: boolean): [string, string][] => {
  const labels = (...names: string[]) => names.map((name) => keyLabel(name, unicode)).join(' ');
  return [
    [labels('up', 'down', 'k', 'j'), 'one machine up, down'],
    [labels('pageup', 'pagedown'), 'a screen up, down'],
    [labels('home', 'end', 'g', 'G'), 'the first machine, the last'],
    ['Enter', 'shows it in the workstation (nemu attach); q comes back'],
    ['c', 'its console (nemu console); Ctrl-] comes back'],
    ['l', 'its log, as it grows (nemu logs -f); Ctrl-C comes back'],
    ['s', 'has its guest power off (nemu stop), when you say yes'],
    ['K', 'ends it at once (nemu kill), when you say yes'],
    ['/', 'only names with a text or a regular expression in them; behind ! those without'],
    ['Esc', 'all names'],
    [`< > ${labels('left', 'right')}`, 'sorts by another column'],
    ['r', 'sorts the other way round'],
    ['Ctrl-l', 'draws all anew'],
    ['q Ctrl-C Ctrl-]', 'leaves; the machines go on'],
  ];
};

export interface TopScreenOptions {
  readonly unicode: boolean;
  readonly order?: Order;
}

export class TopScreen {
  readonly #unicode: boolean;
  readonly #list = new ListState();
  /** Undefined before the first look. */
  #loads: readonly Load[] | undefined;
  #lines: LoadLines;
  #order: Order;
  #filter = '';
  #mode: 'list' | 'filter' | 'help' = 'list';
  #asked: { readonly kind: 'stop' | 'kill'; readonly name: string } | undefined;
  #notice: { readonly text: string; readonly style: Style } | undefined;
  /** All names, in their order, and those that pass the filter. */
  #names: readonly string[] = [];
  #passing: readonly string[] = [];
  #columns = 80;
  #rows = 24;

  constructor({ unicode, order }: TopScreenOptions) {
    this.#unicode = unicode;
    this.#order = order ?? { column: NAME_COLUMN, reversed: false };
    this.#lines = new LoadLines([], unicode);
  }

  get loads(): readonly Load[] {
    return this.#loads ?? [];
  }

  /** The name of the machine that keys are for. */
  get selected(): string | undefined {
    return this.#list.selected;
  }

  /** Takes what machines do now. */
  take(loads: readonly Load[]): void {
    this.#loads = loads;
    this.#lines = new LoadLines(loads, this.#unicode);
    this.#arrange();
  }

  /** Tells something in place of the keys, until the next thing is told, Esc, or `hush`. */
  say(text: string, style: Style = 'text'): void {
    this.#notice = { text: this.#plain(text), style };
  }

  hush(): void {
    this.#notice = undefined;
  }

  /** @param name of the key (keys.ts). @param text what it types. */
  key(name: string, text = ''): TopAction | undefined {
    if (name === 'ctrl-c' || name === 'ctrl-]') return { kind: 'leave' };
    if (name === 'ctrl-l') return { kind: 'redraw' };
    // What is not seen is not done.
    if (this.#isTooSmall) return name === 'q' ? { kind: 'leave' } : undefined;
    let action: TopAction | undefined;
    if (this.#mode === 'help') this.#mode = 'list';
    else if (this.#asked) action = this.#answer(name);
    else if (this.#mode === 'filter') this.#typeFilter(name, text);
    else action = this.#press(name);
    // Keys that come at once with this one are for the list as it is behind it.
    this.#arrange();
    return action;
  }

  /** @param text one line: no key of it does anything. */
  paste(text: string): void {
    if (this.#mode !== 'filter' || this.#isTooSmall) return;
    this.#filter += text;
    this.#arrange();
  }

  #answer(name: string): TopAction | undefined {
    const asked = this.#asked;
    this.#asked = undefined;
    return name === 'y' || name === 'Y' ? asked : undefined;
  }

  #typeFilter(name: string, text: string): void {
    if (name === 'enter' || (name === 'backspace' && this.#filter === '')) this.#mode = 'list';
    else if (name === 'esc') this.#unfilter();
    else if (name.length > 1 && Object.hasOwn(MOVES, name)) this.#move(name);
    else this.#filter = edited(this.#filter, name, text) ?? this.#filter;
  }

  #unfilter(): void {
    this.#mode = 'list';
    this.#filter = '';
  }

  #move(name: string): void {
    this.#list.move(MOVES[name](this.#height));
  }

  #press(name: string): TopAction | undefined {
    const { selected } = this;
    if (Object.hasOwn(MOVES, name)) {
      this.#move(name);
      return undefined;
    }
    switch (name) {
      case 'q':
      case 'Q':
        return { kind: 'leave' };
      case '?':
      case 'h':
        this.#mode = 'help';
        break;
      case '/':
        this.#mode = 'filter';
        break;
      case 'esc':
        this.hush();
        this.#unfilter();
        break;
      case '<':
      case 'left':
        this.#sortBeside(-1);
        break;
      case '>':
      case 'right':
        this.#sortBeside(1);
        break;
      case 'r':
        this.#order = { ...this.#order, reversed: !this.#order.reversed };
        break;
      case 'enter':
      case 'c':
      case 'l':
        return selected === undefined ? undefined : { kind: COMMANDS[name], name: selected };
      case 's':
      case 'K':
        if (selected !== undefined) this.#asked = { kind: name === 's' ? 'stop' : 'kill', name: selected };
        break;
    }
    return undefined;
  }

  /** The next column that is shown, round and round. */
  #sortBeside(step: number): void {
    const shown = this.#fit.shown.map(({ column }) => column);
    let at = COLUMNS.indexOf(this.#order.column);
    do at = (at + step + COLUMNS.length) % COLUMNS.length;
    while (!shown.includes(COLUMNS[at]));
    this.#order = { column: COLUMNS[at], reversed: false };
  }

  get #fit(): Fit {
    return this.#lines.fit(this.#columns);
  }

  get #footerRows(): number {
    return this.#rows < ROWS_FOR_KEYS ? 1 : 2;
  }

  /** Rows for machines. */
  get #height(): number {
    return Math.max(1, this.#rows - 1 - this.#footerRows);
  }

  /** Puts the machines in their order, with the cursor on the one that had it. @returns the names to be seen. */
  #arrange(): readonly string[] {
    const before = this.#names;
    this.#names = sortLoads(this.loads, this.#order).map(({ name }) => name);
    this.#passing = this.#names.filter(filterOf(this.#filter));
    const { selected } = this.#list;
    const at = selected === undefined || this.#names.includes(selected) ? -1 : before.indexOf(selected);
    if (at >= 0) {
      // One that has gone hands the cursor to the one behind it.
      const is = (name: string) => this.#passing.includes(name);
      const next = before.slice(at).find(is) ?? before.slice(0, at).findLast(is);
      if (next !== undefined) this.#list.choose(next);
    }
    const rows = this.#passing.map((name) => ({ key: name, line: line(name) }));
    return this.#list.window(rows, this.#height).rows.map(({ key = '' }) => key);
  }

  /** @returns a line for each row of the terminal, as wide as that. */
  frame(columns: number, rows: number): Line[] {
    this.#columns = columns;
    this.#rows = rows;
    const lines = this.#isTooSmall ? [line('Too small; q leaves.')] : this.#shown();
    return Array.from({ length: rows }, (_, row) => toWidth(lines[row] ?? [], columns, this.#ellipsis));
  }

  get #isTooSmall(): boolean {
    return this.#columns < LEAST_COLUMNS || this.#rows < LEAST_ROWS;
  }

  #shown(): Line[] {
    const fit = this.#fit;
    const head = this.#mode === 'help' ? line('nemu top', 'title') : this.#lines.head(fit, this.#order);
    const body = this.#body(fit);
    return [head, ...Array.from({ length: this.#height }, (_, row) => body[row] ?? []), ...this.#footer(fit)];
  }

  #body(fit: Fit): Line[] {
    if (this.#mode === 'help') return this.#prose(twoColumns(helpRows(this.#unicode)).join('\n'));
    const names = this.#arrange();
    if (names.length > 0) return names.map((name) => this.#lines.row(name, fit, name === this.selected));
    if (this.#loads === undefined) return this.#prose(this.#plain('Looking at the machines …'));
    return this.#prose(
      this.#loads.length === 0 ? NOTHING : `No name passes the filter ${this.#filter}; Esc shows all.`,
    );
  }

  #prose(text: string): Line[] {
    return prose(text, this.#columns)
      .split('\n')
      .map((each) => line(each));
  }

  #footer(fit: Fit): Line[] {
    const [status, keys] = [this.#status(fit), line(this.#whole(HINTS, this.#separator), 'dim')];
    const rows = this.#footerRows;
    if (this.#mode === 'help') return [[], line('any key comes back', 'dim')].slice(-rows);
    if (this.#asked) {
      const { kind, name } = this.#asked;
      return this.#told(`[y/n] ${QUESTIONS[kind](name)}`, 'warn', status);
    }
    if (this.#mode === 'filter') {
      // Its end is where somebody types.
      const room = this.#columns - 2;
      const typing = [span(`/${this.#filter.slice(-room)}`, 'key'), span(' ', 'selected')];
      return [status, typing].slice(-rows);
    }
    if (this.#notice) return this.#told(this.#notice.text, this.#notice.style, status);
    return [status, keys].slice(0, rows);
  }

  /** A sentence in the footer, which has all of it when it needs that. */
  #told(text: string, style: Style, status: Line): Line[] {
    const rows = this.#footerRows;
    const [first, ...rest] = prose(text, this.#columns).split('\n');
    const lines = rest.length === 0 || rows === 1 ? [text] : [first, rest.join(' ')];
    return [status, ...lines.map((each) => line(each, style))].slice(-rows);
  }

  /** What of all there is is to be seen. */
  #status({ hidden }: Fit): Line {
    const { column } = this.#order;
    const all = this.#passing.length;
    const at = this.#passing.indexOf(this.selected ?? '') + 1;
    const parts = [
      `${at}/${all}`,
      ...(this.#filter === '' ? [] : [`filter ${this.#filter}: ${all} of ${this.#names.length}`]),
      ...(hidden.includes(column) ? [`by ${column.head}`] : []),
    ];
    const begun = parts.join(this.#separator);
    if (hidden.length === 0) return line(begun, 'dim');
    const names = hidden.map(({ head }) => head);
    const before = `${begun}${this.#separator}hidden: `;
    return line(before + this.#whole(names, ', ', this.#columns - before.length), 'dim');
  }

  /** As many words as there is room for, each whole, and a sign that there are more. */
  #whole(words: readonly string[], separator: string, width = this.#columns): string {
    for (let count = words.length; count > 0; count--) {
      const text = words.slice(0, count).join(separator) + (count < words.length ? separator + this.#ellipsis : '');
      if (text.length <= width) return text;
    }
    return this.#ellipsis;
  }

  get #ellipsis(): string {
    return this.#unicode ? '…' : '~';
  }

  get #separator(): string {
    return this.#unicode ? ' · ' : ' | ';
  }

  #plain(text: string): string {
    return this.#unicode ? text : text.replaceAll(' …', '...').replaceAll('…', '...');
  }
}
