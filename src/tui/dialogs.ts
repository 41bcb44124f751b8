/** What stands in front of the panes when something is to be chosen, filled in or read. */
import { literal } from '../client/code.ts';
import { COMMANDS } from '../repl/commands.ts';
import { INFO } from '../repl/info.ts';
import { type Action, formsOf } from './actions/action.ts';
import { ACTIONS, actionsIn } from './actions.ts';
import { type Change, PARTS, type Part, partMeant } from './changes.ts';
import { deviceText, vcpuText } from './inside.ts';
import { keyLabel } from './keys.ts';
import { Form } from './overlays/form.ts';
import { type Choice, Picker, type PickerOptions } from './overlays/picker.ts';
import { type ViewedText, Viewer } from './overlays/viewer.ts';
import { checkPlug, costOf, plugForms, plugKinds } from './plug_form.ts';
import type { Station } from './station.ts';

/** What is refused at once is refused within this time; what takes longer is told in the status line. */
const REFUSED_WITHIN_MS = 700;

/** Is it a command of the REPL with something behind it, or code? */
const isReplLine = (text: string) => {
  const [word, ...rest] = text.trim().split(/\s+/);
  return (rest.length > 0 && Object.hasOwn(COMMANDS, word)) || /^(await\b|vm\b)/.test(word);
};

/** The table that a row of the memory pane is about. */
const memoryTable = (row: string) => (/^node \d+$/.test(row) ? 'numa' : 'memory');

export class Dialogs {
  readonly #station: Station;

  constructor(station: Station) {
    this.#station = station;
  }

  get lookForm(): string | undefined {
    const { chosen, focus, model } = this.#station;
    if (chosen === undefined) return undefined;
    if (focus === 'vcpus') return `await vm.cpus[${chosen.slice(3)}].registers()`;
    if (focus === 'memory') return `await vm.info('${memoryTable(chosen)}')`;
    if (focus !== 'pci') return undefined;
    const inMemory = model.devices?.mmio.some(({ name }) => name === chosen);
    return inMemory ? `await vm.info('queues', '${chosen}')` : `(await vm.pci('${chosen}')).decode()`;
  }

  open(): void {
    const { chosen, focus, vm, model } = this.#station;
    if (chosen === undefined) return;
    if (focus === 'vcpus') this.#view(`vCPU ${chosen.slice(3)}`, () => vcpuText(vm, Number(chosen.slice(3))));
    else if (focus === 'pci') this.#view(chosen, () => deviceText(vm, chosen));
    else if (focus === 'memory') this.#view(chosen, async () => (await vm.info(memoryTable(chosen))).text);
    else {
      const event = model.events[Number(chosen) - model.forgotten];
      if (event) this.#view(event.kind, async () => `${event.at.toISOString()}\n\n${event.text}`);
    }
  }

  #view(title: string, load: () => Promise<ViewedText>): void {
    this.#station.overlay = new Viewer(
      title,
      load,
      () => this.#station.changed(),
      () => this.#station.closeOverlay(),
    );
  }

  chooseInfo(): void {
    const choices = Object.entries(INFO).map(
      ([topic, { help, changes }]): Choice => ({
        label: topic,
        detail: help,
        disabled: changes && this.#station.readonly ? 'the workstation is read-only' : undefined,
        run: () => this.#view(`info ${topic}`, async () => (await this.#station.vm.info(topic)).text),
      }),
    );
    this.#pick('tables', 'info ', () => choices);
  }

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
    this.#station.overlay = new Form({
      title: `plug: ${kind}`,
      fields,
      check: (values) => checkPlug(kind, values),
      tell: (values) => [costOf(kind, values, this.#station.model), ...plugForms(kind, values, this.#station.model)],
      submit: (values) => {
        const device = checkPlug(kind, values);
        const { placed, off } = this.#nextPlace();
        const form = `await vm.plug(${literal(device)})`;
        const done = this.#station.change(`plug ${kind}`, form, () => this.#station.vm.plug(device));
        return Promise.race([done, placed]).finally(off);
      },
      close: () => this.#station.closeOverlay(),
      changed: () => this.#station.changed(),
    });
    this.#station.changed();
  }

  /** Some device has its place in the machine: what comes after that is told by its stages. */
  #nextPlace(): { readonly placed: Promise<void>; readonly off: () => void } {
    const { promise: placed, resolve } = Promise.withResolvers<void>();
    const off = this.#station.machine.onEvent((event) => {
      if (event.type === 'ended' || (event.type === 'request' && event.request.stage === 'reserved')) resolve();
    });
    return { placed, off };
  }

  /** Does something to a part of the machine, after a choice where several may be meant. */
  withPart(part: Part, title: string, run: (name: string) => void): void {
    const meant = partMeant(this.#station, part);
    if (meant !== undefined) {
      run(meant);
      return;
    }
    const choices = PARTS[part](this.#station).map(
      (name): Choice => ({ label: name, detail: '', run: () => run(name) }),
    );
    this.#pick(`${title}: which ${part}?`, '', () => choices);
  }

  /** Has a change filled in, and does it. */
  fillInChange(change: Change): void {
    const { title, fields, check, tell, repl, qmp, run } = change;
    this.#station.overlay = new Form({
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
        const done = this.#station.change(title, repl(values), () => run(values));
        const { promise: late, resolve } = Promise.withResolvers<void>();
        const off = this.#station.model.clock.after(REFUSED_WITHIN_MS, resolve);
        return Promise.race([done, late]).finally(off);
      },
      close: () => this.#station.closeOverlay(),
      changed: () => this.#station.changed(),
    });
    this.#station.changed();
  }

  #pick(
    title: string,
    prompt: string,
    choices: () => readonly Choice[],
    otherwise?: Omit<NonNullable<PickerOptions['otherwise']>, 'detail'>,
  ): void {
    this.#station.overlay = new Picker({
      title,
      prompt,
      choices,
      close: () => this.#station.closeOverlay(),
      ...(otherwise && { otherwise: { detail: 'a line for the REPL', ...otherwise } }),
    });
    this.#station.changed();
  }

  #choiceOf(action: Action, keys: boolean): Choice {
    return {
      label: action.title,
      ...(keys && { key: action.keys.map((key) => keyLabel(key, this.#station.unicode)).join(' ') }),
      detail: action.help,
      forms: formsOf(action, this.#station),
      words: `${action.id} ${action.words ?? ''}`,
      disabled: this.#station.whyNot(action),
      run: () => this.#station.perform(action),
    };
  }

  showHelp(): void {
    this.#pick(`keys in ${this.#station.focus}`, 'help ', () =>
      actionsIn(this.#station.focus).map((action) => this.#choiceOf(action, true)),
    );
  }

  showPalette(): void {
    this.#pick('palette', ':', () => ACTIONS.map((action) => this.#choiceOf(action, true)), {
      run: (text) => this.#replLine(text),
      isMeant: isReplLine,
    });
  }

  #replLine(text: string): void {
    if (this.#station.readonly) {
      this.#station.say('The workstation is read-only, and the REPL can do anything.', 'bad');
      return;
    }
    this.#station.focusOn('repl');
    // Instead of what is half typed there (readline: to the end of the line, and all of it away).
    this.#station.repl.send(Buffer.from(`\x05\x15${text}\r`));
  }
}
