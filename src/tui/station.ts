/** The workstation without its terminal: what has the focus, what is chosen, what a key does. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { NemuError } from '../client/errors.ts';
import type { MachineClient } from '../client/machine_client.ts';
import { INFO } from '../repl/info.ts';
import { literal } from '../repl/values.ts';
import type { Vm } from '../repl/vm.ts';
import { ACTIONS, type Action, actionFor, actionsIn } from './actions.ts';
import { type Change, PARTS, type Part, partMeant } from './changes.ts';
import type { Colours } from './colours.ts';
import { ConsoleFiles, type FileKind } from './console_files.ts';
import { GLYPHS, type Glyphs } from './graph.ts';
import { functionText, vcpuText } from './inside.ts';
import { keyLabel } from './keys.ts';
import { LAYOUTS, type LayoutName, PANES, type PaneName } from './layout.ts';
import { ListState } from './list_state.ts';
import type { MachineModel } from './model.ts';
import { Form } from './overlays/form.ts';
import type { Overlay } from './overlays/overlay.ts';
import { type Choice, Picker } from './overlays/picker.ts';
import { type Answer, Question } from './overlays/question.ts';
import { Viewer } from './overlays/viewer.ts';
import { checkPlug, costOf, plugForms, plugKinds } from './plug_form.ts';
import { THEMES, type Theme, type ThemeName, themeNamed } from './style.ts';
import type { TerminalPane } from './terminal_pane.ts';

/** What the terminal around it does for the workstation. */
export interface StationHost {
  /** Hands the whole terminal to one of the panes' terminals, until it is given back. */
  zoom(pane: TerminalPane): Promise<void>;
  /** Keys go to a pane raw, or come here. */
  typing(pane: TerminalPane | undefined): void;
  /** A shell of the host, in a terminal beside the consoles. */
  shell?(): TerminalPane;
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
  notice: Notice | undefined;
  /** The terminal that keys go to. */
  typingInto: TerminalPane | undefined;
  /** The one that has the whole terminal. */
  zoomed: TerminalPane | undefined;
  /** The pane whose filter is being typed. */
  filtering: PaneName | undefined;
  readonly files: ConsoleFiles;
  readonly #consoles: TerminalPane[];
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

  get consoles(): readonly TerminalPane[] {
    return this.#consoles;
  }

  addConsole(pane: TerminalPane): void {
    this.#consoles.push(pane);
    this.changed();
  }

  /** Whoever typed into it, or looked at it, is at another one. */
  removeConsole(pane: TerminalPane): void {
    const at = this.#consoles.indexOf(pane);
    if (at < 0) return;
    if (this.typingInto === pane) this.stopTyping();
    this.files.end(pane);
    this.#consoles.splice(at, 1);
    if (this.console > at || this.console === this.#consoles.length) this.console = Math.max(0, this.console - 1);
    this.changed();
  }

  get hasShell(): boolean {
    return this.#host.shell !== undefined;
  }

  /** Opens a shell of the host, and types into it. @throws what the host says against it. */
  async shell(): Promise<string> {
    const pane = this.#host.shell?.();
    if (!pane) return 'there is none here';
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
    this.notice = undefined;
    this.model.touch();
    if (this.overlay) this.overlay.key(name, text);
    else if (this.filtering) this.#filterKey(this.filtering, name, text);
    else if (!this.#move(name)) {
      const action = actionFor(name, this.focus);
      if (action) this.perform(action);
      else if (name === 'esc') this.#up();
    }
    this.changed();
  }

  paste(text: string): void {
    this.overlay?.paste?.(text);
    this.changed();
  }

  #up(): void {
    if (this.lists[this.focus].filter !== '') this.lists[this.focus].filter = '';
    else if (this.terminalOf(this.focus)?.scrolledBack) this.terminalOf(this.focus)?.scroll(-Infinity);
    else if (this.layout !== 'normal') this.layout = 'normal';
  }

  #move(name: string): boolean {
    const steps: Readonly<Record<string, number>> = {
      ...{ up: -1, k: -1, down: 1, j: 1, pageup: -10, pagedown: 10, home: -Infinity, g: -Infinity },
      ...{ end: Infinity, G: Infinity },
    };
    if (name === 'left' || name === 'h' || name === 'right' || name === 'l') {
      this.moveFocus(name === 'left' || name === 'h' ? -1 : 1);
      return true;
    }
    if (!Object.hasOwn(steps, name)) return false;
    this.scroll(this.focus, steps[name]);
    return true;
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
    if (question === undefined) this.#do(action);
    else
      this.ask(`${question}${formsOf(action, this)}`, [{ key: 'y', text: action.title, run: () => this.#do(action) }]);
  }

  #do(action: Action): void {
    const form = action.repl?.(this);
    if (action.changes && form !== undefined && !action.asks) this.model.say('action', form);
    const result = action.run(this);
    if (result instanceof Promise) this.follow(action.title, result);
  }

  /** Tells how something ended. */
  follow(title: string, result: Promise<unknown>): void {
    result.then(
      (value) => this.say(typeof value === 'string' ? `${title}: ${value}` : `${title}: done.`, 'good'),
      (error: Error) => {
        const text = error instanceof NemuError ? error.text.replaceAll('\n', ' ') : error.message;
        this.model.say('action', `${title}: ${text}`, 'bad');
        this.say(text, 'bad');
      },
    );
  }

  say(text: string, level: Notice['level'] = 'info'): void {
    this.notice = { text, level };
    this.changed();
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

  // --- looking inside -------------------------------------------------------------------------------------

  get lookForm(): string | undefined {
    const { chosen, focus } = this;
    if (chosen === undefined) return undefined;
    if (focus === 'vcpus') return `await vm.cpus[${chosen.slice(3)}].registers()`;
    return focus === 'pci' ? `(await vm.pci('${chosen}')).decode()` : undefined;
  }

  open(): void {
    const { chosen, focus, vm } = this;
    if (chosen === undefined) return;
    if (focus === 'vcpus') this.#view(`vCPU ${chosen.slice(3)}`, () => vcpuText(vm, Number(chosen.slice(3))));
    else if (focus === 'pci') this.#view(chosen, () => functionText(vm, chosen));
    else if (focus === 'memory') this.#view(chosen, async () => (await vm.info('memory')).text);
    else {
      const event = this.model.events[Number(chosen) - this.model.forgotten];
      if (event) this.#view(event.kind, async () => `${event.at.toISOString()}\n\n${event.text}`);
    }
  }

  #view(title: string, load: () => Promise<string>): void {
    this.overlay = new Viewer(
      title,
      load,
      () => this.changed(),
      () => this.closeOverlay(),
    );
  }

  chooseInfo(): void {
    const choices = Object.entries(INFO).map(
      ([topic, { help }]): Choice => ({
        label: topic,
        detail: help,
        run: () => this.#view(`info ${topic}`, async () => (await this.vm.info(topic)).text),
      }),
    );
    this.#pick('tables', 'info ', () => choices);
  }

  // --- plugging -------------------------------------------------------------------------------------------

  choosePlug(): void {
    const choices = plugKinds().map(
      ({ name: kind, fields }): Choice => ({
        label: kind,
        detail: fields.map(({ name }) => name).join(', '),
        run: () => this.#fillIn(kind),
      }),
    );
    this.#pick('plug a device', '', () => choices);
  }

  #fillIn(kind: string): void {
    const fields = plugKinds().find(({ name }) => name === kind)?.fields ?? [];
    this.overlay = new Form({
      title: `plug: ${kind}`,
      fields,
      check: (values) => checkPlug(kind, values),
      tell: (values) => [costOf(kind, values, this.model), ...plugForms(kind, values, this.model)],
      submit: (values) => {
        const device = checkPlug(kind, values);
        this.model.say('action', `await vm.plug(${literal(device)})`);
        this.follow(`plug ${kind}`, this.vm.plug(device));
      },
      close: () => this.closeOverlay(),
    });
    this.changed();
  }

  // --- changing parts of the machine ----------------------------------------------------------------------

  /** Does something to a part of the machine, after a choice where several may be meant. */
  withPart(part: Part, title: string, run: (name: string) => void): void {
    const meant = partMeant(this, part);
    if (meant !== undefined) {
      run(meant);
      return;
    }
    const choices = PARTS[part](this).map((name): Choice => ({ label: name, detail: '', run: () => run(name) }));
    this.#pick(`${title}: which ${part}?`, '', () => choices);
  }

  /** Has a change filled in, and does it. */
  fillInChange(change: Change): void {
    const { title, fields, check, tell, repl, qmp, run } = change;
    this.overlay = new Form({
      ...{ title, fields, check },
      tell: (values) => {
        try {
          check(values);
        } catch {
          return tell({});
        }
        return [...tell(values), `REPL: ${repl(values)}`, ...(qmp ? [`QMP: ${qmp(values)}`] : [])];
      },
      submit: (values) => {
        this.model.say('action', repl(values));
        this.follow(title, run(values));
      },
      close: () => this.closeOverlay(),
    });
    this.changed();
  }

  // --- help and palette -----------------------------------------------------------------------------------

  #pick(title: string, prompt: string, choices: () => readonly Choice[], otherwise?: (text: string) => void): void {
    this.overlay = new Picker({
      title,
      prompt,
      choices,
      close: () => this.closeOverlay(),
      ...(otherwise && { otherwise: { detail: 'a line for the REPL', run: otherwise } }),
    });
    this.changed();
  }

  #choiceOf(action: Action, keys: boolean): Choice {
    const forms = [action.repl?.(this), action.qmp?.(this)].filter((text) => text !== undefined);
    return {
      label: action.title,
      ...(keys && { key: action.keys.map((key) => keyLabel(key, this.unicode)).join(' ') }),
      detail: `${action.help}${forms.length > 0 ? ` · ${forms.join(' · ')}` : ''}`,
      words: `${action.id} ${action.words ?? ''}`,
      disabled: this.whyNot(action),
      run: () => this.perform(action),
    };
  }

  showHelp(): void {
    this.#pick(`keys in ${this.focus}`, 'help ', () =>
      actionsIn(this.focus).map((action) => this.#choiceOf(action, true)),
    );
  }

  showPalette(): void {
    this.#pick(
      'palette',
      ':',
      () => ACTIONS.map((action) => this.#choiceOf(action, true)),
      (text) => this.#replLine(text),
    );
  }

  #replLine(text: string): void {
    if (this.readonly) {
      this.say('The workstation is read-only, and the REPL can do anything.', 'bad');
      return;
    }
    this.focusOn('repl');
    this.repl.send(Buffer.from(`${text}\r`));
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

  filterOf(pane: PaneName): string {
    return this.lists[pane].filter;
  }

  startFilter(): void {
    this.filtering = this.focus;
    this.lists[this.focus].filter = '';
  }

  find(up: boolean): void {
    const text = this.filterOf(this.focus);
    if (!this.terminalOf(this.focus)?.find(text, up)) this.say(`"${text}" is not ${up ? 'above' : 'below'}.`, 'bad');
  }

  #filterKey(pane: PaneName, name: string, text: string): void {
    const list = this.lists[pane];
    if (name === 'esc') {
      list.filter = '';
      this.filtering = undefined;
    } else if (name === 'enter') {
      this.filtering = undefined;
      if (this.terminalOf(pane) && list.filter !== '') this.find(true);
    } else list.type(name, text);
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

  async exportEvents(): Promise<string> {
    const path = join(this.#exports, `events-${new Date().toISOString().replaceAll(':', '')}.jsonl`);
    await writeFile(path, this.model.events.map((event) => `${JSON.stringify(event)}\n`).join(''));
    return `${this.model.events.length} events are in ${path}.`;
  }

  leave(): void {
    const { state } = this.machine;
    if (this.#attached || state === 'ended' || state === 'closed') {
      this.#host.leave('ends');
      return;
    }
    const { name } = this.machine.description;
    this.ask('The guest is running, and this process is its machine.', [
      {
        key: 'o',
        text: 'press the power button, and leave when the guest has powered off',
        run: () => {
          void this.machine.ended().then(() => this.#host.leave('ends'));
          this.follow('power button', this.machine.powerButton());
        },
      },
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

/** The same in the REPL and in QMP, for a question. */
function formsOf(action: Action, station: Station): string {
  const repl = action.repl?.(station);
  const qmp = action.qmp?.(station);
  return `${repl === undefined ? '' : `\nREPL: ${repl}`}${qmp === undefined ? '' : `\nQMP: ${qmp}`}`;
}
