/** The workstation without its terminal: what has the focus, what is chosen, what a key does. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { NemuError } from '../client/errors.ts';
import type { MachineClient } from '../client/machine_client.ts';
import type { Vm } from '../repl/vm.ts';
import { type Action, formsOf } from './actions/action.ts';
import { REDRAW } from './actions/workstation.ts';
import { actionFor } from './actions.ts';
import type { Colours } from './colours.ts';
import { ConsoleFiles, type FileKind } from './console_files.ts';
import { CopyMode } from './copy_mode.ts';
import { Dialogs } from './dialogs.ts';
import { GLYPHS, type Glyphs } from './graph.ts';
import { LAYOUTS, type LayoutName, PANES, type PaneName } from './layout.ts';
import { filterOf, ListState } from './list_state.ts';
import type { MachineModel } from './model.ts';
import { lineOf, type Overlay } from './overlays/overlay.ts';
import { type Answer, Question } from './overlays/question.ts';
import { eventLine } from './panes/events.ts';
import { fromHome } from './path_text.ts';
import { TerminalSelection } from './selection.ts';
import { plainText, THEMES, type Theme, type ThemeName, themeNamed } from './style.ts';
import type { TerminalPane } from './terminal_pane.ts';
import type { BufferCell, Selection } from './terminal_view.ts';

/** What the terminal around it does for the workstation. */
export interface StationHost {
  /** Hands the whole terminal to one of the panes' terminals, until it is given back. */
  zoom(pane: TerminalPane): Promise<void>;
  /** Clears the terminal, and draws all of it. */
  redraw(): void;
  /** Keys go to a pane raw, or come here. */
  typing(pane: TerminalPane | undefined): void;
  /** Hands text to the clipboard of the terminal. @returns what to tell of it. */
  copy(text: string): string;
  /** A shell of the host, in a terminal beside the consoles. */
  shell?(): TerminalPane;
  /** The host's gdb on the machine, in such a terminal. */
  gdb?(): TerminalPane;
  /** @param machine what is to become of it, where it is this process's. */
  leave(machine: 'ends' | 'stays'): void;
}

export interface StationOptions {
  readonly model: MachineModel;
  readonly consoles: readonly TerminalPane[];
  readonly repl: TerminalPane;
  /** Where machines run, for the header. */
  readonly place: string;
  readonly readonly: boolean;
  /** The machine is another process's, and goes on without the workstation. */
  readonly attached: boolean;
  /** It is this process's, and can go on in the background. */
  readonly canStay: boolean;
  readonly theme: ThemeName;
  readonly glyphs: Glyphs;
  readonly unicode: boolean;
  /** What the terminal can show of a guest's colours. */
  readonly colours: Colours;
  /** Where exported files go. */
  readonly exports: string;
  readonly host: StationHost;
}

/** How long a message is news. */
const NOTICE_MS = 8000;

/** A message of the status line. */
export interface Notice {
  readonly text: string;
  readonly level: 'info' | 'good' | 'bad';
}

export class Station {
  readonly model: MachineModel;
  readonly vm: Vm;
  readonly repl: TerminalPane;
  readonly place: string;
  readonly readonly: boolean;
  readonly unicode: boolean;
  readonly colours: Colours;
  readonly lists: Readonly<Record<PaneName, ListState>>;
  focus: PaneName = 'console';
  layout: LayoutName = 'normal';
  /** Which of the two has the place below the console. */
  bottom: 'repl' | 'events' = 'events';
  console = 0;
  theme: Theme;
  glyphs: Glyphs;
  overlay: Overlay | undefined;
  #notice: (Notice & { readonly at: number }) | undefined;
  /** The terminal that keys go to. */
  typingInto: TerminalPane | undefined;
  /** The one that has the whole terminal. */
  zoomed: TerminalPane | undefined;
  /** Keys mark text in a pane. */
  copying: CopyMode | undefined;
  /** What the mouse has marked. */
  #marked: { readonly pane: TerminalPane; readonly cells: TerminalSelection } | undefined;
  /** The pane whose filter is being typed. */
  filtering: PaneName | undefined;
  #unseen = false;
  readonly files: ConsoleFiles;
  readonly dialogs: Dialogs;
  readonly #consoles: TerminalPane[];
  /** What was shown before a program of the host was opened, by its pane: what is shown again when it goes. */
  readonly #before = new WeakMap<TerminalPane, TerminalPane>();
  readonly #host: StationHost;
  readonly #exports: string;
  readonly #attached: boolean;
  readonly #canStay: boolean;

  constructor(options: StationOptions) {
    const { model, consoles, repl, place, readonly, theme, glyphs, unicode, host } = options;
    this.model = model;
    this.vm = model.vm;
    this.#consoles = [...consoles];
    this.repl = repl;
    this.place = place;
    this.readonly = readonly;
    this.theme = themeNamed(theme);
    this.glyphs = glyphs;
    this.unicode = unicode;
    this.colours = options.colours;
    this.#exports = options.exports;
    this.files = new ConsoleFiles(options.exports, this.machine.description.name, (text) => this.say(text, 'bad'));
    this.#attached = options.attached;
    this.#canStay = options.canStay;
    this.#host = host;
    this.dialogs = new Dialogs(this);
    this.lists = Object.fromEntries(PANES.map((pane) => [pane, new ListState(pane === 'events')])) as Record<
      PaneName,
      ListState
    >;
  }

  get machine(): MachineClient {
    return this.vm.machine;
  }

  changed(): void {
    this.model.changed();
  }

  get unseen(): boolean {
    return this.#unseen;
  }

  /** The screen has no room for the panes, as the last frame found out: nobody sees what would be typed into one. */
  set unseen(unseen: boolean) {
    this.#unseen = unseen;
    // A frame is being made, and does not change what it shows.
    if (unseen && this.typingInto) queueMicrotask(() => this.stopTyping());
  }

  get consoles(): readonly TerminalPane[] {
    return this.#consoles;
  }

  addConsole(pane: TerminalPane): void {
    this.#consoles.push(pane);
    this.changed();
  }

  /** Whoever typed into it, or looked at it, is at another one. */
  removeConsole(pane: TerminalPane): void {
    if (this.copying?.pane === pane) this.stopCopying();
    if (this.marking === pane) this.unmark();
    const at = this.#consoles.indexOf(pane);
    if (at < 0) return;
    const shown = this.#consoles[this.console];
    const next = shown === pane ? this.#before.get(pane) : shown;
    if (this.typingInto === pane) this.stopTyping();
    this.files.end(pane);
    this.#consoles.splice(at, 1);
    const found = next ? this.#consoles.indexOf(next) : -1;
    this.console = found >= 0 ? found : Math.max(0, Math.min(at, this.#consoles.length - 1));
    this.changed();
  }

  get hasShell(): boolean {
    return this.#host.shell !== undefined;
  }

  get hasGdb(): boolean {
    return this.#host.gdb !== undefined;
  }

  /** Opens a shell of the host, and types into it. @throws what the host says against it. */
  shell = (): string => this.#typeInto(this.#host.shell?.());

  /** Opens the host's gdb on the machine, and types into it. @throws what the host says against it. */
  gdb = (): string => this.#typeInto(this.#host.gdb?.());

  #typeInto(pane: TerminalPane | undefined): string {
    if (!pane) return 'there is none here';
    const shown = this.#consoles[this.console];
    if (shown) this.#before.set(pane, shown);
    this.console = this.#consoles.indexOf(pane);
    this.focusOn('console');
    this.type();
    return `${pane.name}; Ctrl-] comes back from it`;
  }

  /** The terminal in a pane, where there is one. */
  terminalOf(pane: PaneName): TerminalPane | undefined {
    if (pane === 'console') return this.consoles[this.console];
    return pane === 'repl' ? this.repl : undefined;
  }

  // --- keys -----------------------------------------------------------------------------------------------

  key(name: string, text: string): void {
    if (REDRAW.keys.includes(name)) {
      this.redraw();
      return;
    }
    if (this.unseen && !this.overlay && name !== 'esc') {
      // What the screen speaks of; whatever else a key did would not be seen.
      if (name === 'q' || name === 'ctrl-c') this.leave();
      return;
    }
    this.dropNotice();
    this.model.touch();
    this.unmark();
    // Where it does not leave the workstation, it goes back.
    const typed = name === 'ctrl-c' ? 'esc' : name;
    if (this.overlay) this.overlay.key(typed, text);
    else if (this.copying) this.copying.key(name);
    else if (this.filtering) this.#filterKey(this.filtering, typed, text);
    else {
      const action = actionFor(name, this.focus);
      if (action) this.perform(action);
    }
    this.changed();
  }

  paste(text: string): void {
    const plain = lineOf(text);
    if (this.overlay) this.overlay.paste?.(plain);
    else if (this.filtering && !this.unseen) this.lists[this.filtering].filter += plain;
    this.changed();
  }

  /** One step back to what is shown at first. */
  back(): void {
    if (this.lists[this.focus].filter !== '') this.lists[this.focus].filter = '';
    else if (this.terminalOf(this.focus)?.scrolledBack) this.terminalOf(this.focus)?.scroll(-Infinity);
    else if (this.layout !== 'normal') this.layout = 'normal';
  }

  /** Rows that the pane in focus shows. */
  get page(): number {
    return this.terminalOf(this.focus)?.terminal.rows ?? this.lists[this.focus].page;
  }

  /** @param rows down, when positive. */
  scroll(pane: PaneName, rows: number): void {
    const terminal = this.terminalOf(pane);
    if (terminal) terminal.scroll(-rows);
    else this.lists[pane].move(rows);
    this.changed();
  }

  // --- actions --------------------------------------------------------------------------------------------

  /** Why an action cannot be done now. */
  whyNot(action: Action): string | undefined {
    if (action.changes && this.readonly) return 'the workstation is read-only';
    if (action.panes && !action.anywhere && !action.panes.includes(this.focus))
      return `it belongs to ${action.panes.join(', ')}`;
    return action.disabled?.(this);
  }

  /** Does an action, after a question where it has one; tells what it is in the REPL. */
  perform(action: Action): void {
    const reason = this.whyNot(action);
    if (reason !== undefined) {
      this.say(`${action.title}: not now, ${reason}.`, 'bad');
      return;
    }
    const question = action.confirm?.(this);
    if (question === undefined) {
      this.#do(action);
      return;
    }
    const run = () => {
      // What was asked about may have gone meanwhile, and something else be meant now.
      if (action.confirm?.(this) === question) this.#do(action);
      else this.say(`${action.title}: not now, what was asked about has changed meanwhile.`, 'bad');
    };
    this.ask([question, ...formsOf(action, this)].join('\n'), [{ key: 'y', text: action.title, run }]);
  }

  #do(action: Action): void {
    const form = action.changes && !action.asks ? action.repl?.(this) : undefined;
    if (form !== undefined) this.model.say('action', form);
    try {
      const result = action.run(this);
      if (!(result instanceof Promise)) return;
      if (form !== undefined) this.model.own(form, result);
      this.follow(action.title, result);
    } catch (error) {
      // The machine of this process must not end with it.
      this.follow(action.title, Promise.reject(error));
    }
  }

  /** Makes a change that has a typed form, and tells how it ended. */
  change<T>(title: string, form: string, run: () => Promise<T>): Promise<T> {
    this.model.say('action', form);
    const done = run();
    this.model.own(form, done);
    this.follow(title, done);
    return done;
  }

  /** Tells how something ended. */
  follow(title: string, result: Promise<unknown>): void {
    result.then(
      (value) => {
        const text = typeof value === 'string' ? `${title}: ${value}` : `${title}: done.`;
        // The next key takes it from the status line.
        if (typeof value === 'string') this.model.say('action', text);
        this.say(text, 'good');
      },
      (error: Error) => {
        const text = error instanceof NemuError ? error.text.replaceAll('\n', ' ') : error.message;
        this.model.say('action', `${title}: ${text}`, 'bad');
        this.say(text, 'bad');
      },
    );
  }

  say(text: string, level: Notice['level'] = 'info'): void {
    this.#notice = { text, level, at: this.model.clock.wall() };
    this.changed();
  }

  /** Until something else is done, or it is no news any more. */
  get notice(): Notice | undefined {
    const { clock } = this.model;
    return this.#notice && clock.wall() - this.#notice.at <= NOTICE_MS ? this.#notice : undefined;
  }

  dropNotice(): void {
    this.#notice = undefined;
  }

  ask(question: string, answers: readonly Answer[]): void {
    this.overlay = new Question(question, answers, () => this.closeOverlay());
    this.changed();
  }

  closeOverlay(): void {
    this.overlay = undefined;
    this.changed();
  }

  // --- panes ----------------------------------------------------------------------------------------------

  focusOn(pane: PaneName): void {
    this.focus = pane;
    if (pane === 'repl' || pane === 'events') this.bottom = pane;
  }

  moveFocus(step: number): void {
    this.focusOn(PANES[(PANES.indexOf(this.focus) + step + PANES.length) % PANES.length]);
  }

  changeLayout(step: number): void {
    this.layout = LAYOUTS[(LAYOUTS.indexOf(this.layout) + step + LAYOUTS.length) % LAYOUTS.length];
  }

  nextTheme(): void {
    this.theme = themeNamed(THEMES[(THEMES.indexOf(this.theme.name as ThemeName) + 1) % THEMES.length]);
    this.say(`theme: ${this.theme.name}`);
  }

  nextGlyphs(): void {
    const usable = this.unicode ? GLYPHS : (['plain'] as const);
    this.glyphs = usable[(usable.indexOf(this.glyphs as 'plain') + 1) % usable.length];
    this.say(`graphs: ${this.glyphs}`);
  }

  toggleDirtyRate(): void {
    const { dirty } = this.model;
    if (dirty.on) dirty.stop();
    else dirty.start();
    this.say(dirty.on ? 'writes to memory are measured every two seconds' : 'writes to memory are not measured');
  }

  nextConsole(step: number): void {
    const { length } = this.#consoles;
    if (length > 0) this.console = (this.console + step + length) % length;
  }

  /** What is chosen in the pane in focus. */
  get chosen(): string | undefined {
    return this.lists[this.focus].selected;
  }

  get whyNotUnplug(): string | undefined {
    const { chosen } = this;
    if (chosen === undefined) return 'nothing is chosen';
    const { plugged } = this.model;
    const known = plugged && [
      ...plugged.cpus.present,
      ...plugged.memory.dimms,
      ...plugged.nvdimms,
      ...plugged.pci.devices,
    ];
    return known?.some(({ id }) => id === chosen) ? undefined : `${chosen} is a part of the machine and stays`;
  }

  unplug(): Promise<unknown> {
    return this.vm.unplug(this.chosen ?? '');
  }

  // --- terminals ------------------------------------------------------------------------------------------

  type(): void {
    const pane = this.terminalOf(this.focus);
    if (!pane) return;
    pane.scroll(-Infinity);
    this.typingInto = pane;
    this.#host.typing(pane);
    this.changed();
  }

  /** Keys come to the workstation again. */
  stopTyping(): void {
    this.typingInto = undefined;
    this.#host.typing(undefined);
    this.changed();
  }

  async zoom(): Promise<void> {
    const pane = this.terminalOf(this.focus);
    if (!pane) return;
    this.zoomed = pane;
    try {
      await this.#host.zoom(pane);
    } finally {
      this.zoomed = undefined;
    }
  }

  redraw(): void {
    this.#host.redraw();
  }

  filterOf(pane: PaneName): string {
    return this.lists[pane].filter;
  }

  startFilter(): void {
    this.filtering = this.focus;
    this.lists[this.focus].filter = '';
  }

  /** Nobody types it any more; what was typed holds. */
  keepFilter(): void {
    if (this.filtering) this.lists[this.filtering].keep();
    this.filtering = undefined;
  }

  /** @param on from where it was found last. */
  find(pane: PaneName, up: boolean, on = true): void {
    const text = this.filterOf(pane);
    if (this.terminalOf(pane)?.find(text, { up, on })) return;
    this.say(`"${text}" is not ${on ? (up ? 'above' : 'below') : 'there'}.`, 'bad');
  }

  #filterKey(pane: PaneName, name: string, text: string): void {
    const list = this.lists[pane];
    if (name === 'esc') {
      list.filter = '';
      this.filtering = undefined;
    } else if (name === 'enter') {
      this.keepFilter();
      if (this.terminalOf(pane) && list.filter !== '') this.find(pane, true, false);
    } else list.type(name, text);
  }

  // --- marking text ---------------------------------------------------------------------------------------

  /** Has keys mark text in the pane in focus, until it is copied or let be. */
  startCopying(): void {
    const pane = this.terminalOf(this.focus);
    if (!pane) return;
    this.copying = new CopyMode(pane, (text) => {
      this.copying = undefined;
      if (text !== undefined) this.say(this.#host.copy(text));
    });
  }

  stopCopying(): void {
    this.copying?.close();
    this.copying = undefined;
  }

  /** What is marked in a pane. */
  selectionIn(pane: TerminalPane): Selection | undefined {
    if (this.copying?.pane === pane) return this.copying.selection;
    const { pane: marked, cells } = this.#marked ?? {};
    return marked === pane && cells && !cells.isOneCell ? cells.cells : pane.found;
  }

  /** The mouse went down in a pane, and marks from here on. */
  mark(pane: TerminalPane, cell: BufferCell): void {
    this.unmark();
    this.#marked = { pane, cells: new TerminalSelection(pane.terminal, cell) };
  }

  /** The pane in which the mouse marks. */
  get marking(): TerminalPane | undefined {
    return this.#marked?.pane;
  }

  markTo(cell: BufferCell): void {
    this.#marked?.cells.to(cell);
    this.changed();
  }

  /** The mouse went up: what is marked is copied. */
  copyMarked(): void {
    const cells = this.#marked?.cells;
    if (!cells || cells.isOneCell) this.unmark();
    else this.say(this.#host.copy(cells.text));
  }

  unmark(): void {
    this.#marked?.cells.release();
    this.#marked = undefined;
  }

  toggleTimestamps(): void {
    const pane = this.terminalOf(this.focus);
    if (pane) pane.timestamps = !pane.timestamps;
  }

  /** Begins or ends a file of the console in focus. @throws Error of the system. */
  async toggleFile(kind: FileKind): Promise<string> {
    const pane = this.terminalOf(this.focus);
    return pane ? this.files.toggle(pane, kind) : 'there is no console';
  }

  // --- leaving --------------------------------------------------------------------------------------------

  /** Those that the filter shows. @throws Error of the system. */
  async exportEvents(): Promise<string> {
    const path = join(this.#exports, `events-${new Date().toISOString().replaceAll(':', '')}.jsonl`);
    const all = [...this.model.events];
    const passes = filterOf(this.filterOf('events'));
    const shown = all.filter((event) => passes(plainText(eventLine(event))));
    await writeFile(path, shown.map((event) => `${JSON.stringify(event)}\n`).join(''));
    return `${shown.length} of ${all.length} are in ${fromHome(path)}`;
  }

  leave(): void {
    const { state } = this.machine;
    if (this.#attached || state === 'ended' || state === 'closed') {
      this.#host.leave('ends');
      return;
    }
    const { name } = this.machine.description;
    const what = state === 'created' ? 'has not been started' : `is ${state}`;
    this.ask(`The guest ${what}, and this process is its machine.`, [
      // A guest that stands still does not heed it.
      ...(this.readonly || state !== 'running'
        ? []
        : [
            {
              key: 'o',
              text: 'press the power button, and leave when the guest has powered off',
              run: () => {
                void this.machine.ended().then(() => this.#host.leave('ends'));
                this.follow('power button', this.machine.powerButton());
              },
            },
          ]),
      ...(this.#canStay
        ? [
            {
              key: 'b',
              text: `leave it running in the background; nemu attach ${name} comes back`,
              run: () => this.#host.leave('stays'),
            },
          ]
        : []),
      { key: 'y', text: 'end the guest at once, and leave', run: () => this.#host.leave('ends') },
    ]);
  }
}
