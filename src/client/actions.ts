/**
 * What was done to a machine by those who use it, in the order in which it was done, with what takes it back. It is the
 * machine's: who comes later, or from another terminal, sees the same, and may undo it.
 */
import * as z from 'zod';
import { NemuError } from './errors.ts';
import type { LiveDevice } from './live.ts';
import { changeSchema, doChange, inflate, type MachineChange } from './machine_change.ts';
import type { MachineClient } from './machine_client.ts';

const code = z.string().min(1).max(20_000);
/** vCPUs come and go together, and each is a change. */
const changes = z.array(changeSchema).max(256);

export const actionSchema = z.strictObject({
  code: code.describe('its typed form'),
  steps: z.array(code).max(256).optional().describe('the same for a script, where the code leaves a choice'),
  redo: changes.optional().describe('what does it again'),
  undo: z.strictObject({ code, changes }).optional().describe('what takes it back, where something does'),
  holds: code.optional().describe('what holds afterwards, as an expression'),
  gives: z.tuple([code, z.unknown()]).readonly().optional().describe('an expression, and what it gives afterwards'),
});
/** One live action, as data. */
export type NotedAction = Readonly<z.output<typeof actionSchema>>;

export interface DoneAction extends NotedAction {
  readonly id: number;
  /** ISO 8601. */
  readonly at: string;
}

/** What became of the list. */
export type ActionsChange = { readonly did: DoneAction } | { readonly undid: number } | { readonly redid: number };

export interface ActionsReport {
  readonly done: readonly DoneAction[];
  readonly undone: readonly DoneAction[];
}

export interface Actions extends ActionsReport {
  /** Whether others see them, who may be in another folder. */
  readonly shared: boolean;
  /** @returns the function that ends it. */
  onChange(listener: (change: ActionsChange) => void): () => void;
  /** Writes an action down that was done. What was undone before cannot be redone after it. */
  add(action: NotedAction): Promise<void>;
  /**
   * Takes the last action back that something takes back; those after it stay done.
   * @returns what was done for it, and what was stepped over. @throws NemuError UNDO, or as the change does.
   */
  undo(): Promise<string>;
  /** Does again what was undone last. @returns what was done. @throws NemuError UNDO, or as the change does. */
  redo(): Promise<string>;
}

/** The oldest are forgotten: each may be a few kilobytes, and a script may do any number. */
const MOST = 1000;

/** The list alone, which each side has. */
class ActionList implements ActionsReport {
  readonly done: DoneAction[] = [];
  readonly undone: DoneAction[] = [];
  readonly #listeners = new Set<(change: ActionsChange) => void>();

  onChange(listener: (change: ActionsChange) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  protected changed(change: ActionsChange): void {
    if ('did' in change) {
      this.done.push(change.did);
      this.undone.length = 0;
      if (this.done.length > MOST) this.done.shift();
    } else if ('undid' in change) move(change.undid, this.done, this.undone);
    else move(change.redid, this.undone, this.done);
    for (const listener of this.#listeners) listener(change);
  }
}

function move(id: number, from: DoneAction[], to: DoneAction[]): void {
  const at = from.findIndex((each) => each.id === id);
  if (at >= 0) to.push(...from.splice(at, 1));
}

/** The list beside the machine, where it is undone. */
class OwnActions extends ActionList implements Actions {
  readonly shared = false;
  readonly #machine: MachineClient;
  #nextId = 1;
  /** The undo or redo that is under way: the next one begins when it has ended, and sees what it left. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(machine: MachineClient) {
    super();
    this.#machine = machine;
  }

  async add(action: NotedAction): Promise<void> {
    this.changed({ did: { ...action, id: this.#nextId++, at: new Date().toISOString() } });
  }

  undo(): Promise<string> {
    return this.#inTurn(async () => {
      const at = this.done.findLastIndex(({ undo }) => undo);
      const over = this.done.slice(at + 1).map((action) => action.code);
      const last = this.done[at];
      if (!last?.undo) {
        if (over.length > 0) {
          throw new NemuError('UNDO', `Nothing is left that could be undone: ${over.join(', ')} cannot be.`);
        }
        throw new NemuError('UNDO', 'Nothing was done that could be undone.', {
          hint: 'history tells what was done; what was started with the machine goes by unplug ID.',
        });
      }
      await this.#do(last.undo.changes);
      this.changed({ undid: last.id });
      return over.length === 0 ? last.undo.code : `${last.undo.code} (${over.join(', ')} cannot be undone)`;
    });
  }

  redo(): Promise<string> {
    return this.#inTurn(async () => {
      const last = this.undone.at(-1);
      if (!last) throw new NemuError('UNDO', 'Nothing was undone that could be done again.');
      await this.#do(last.redo ?? []);
      this.changed({ redid: last.id });
      return last.code;
    });
  }

  async #do(changes: readonly MachineChange[]): Promise<void> {
    for (const change of changes) {
      if (WITH_GUEST.has(change.method)) requireGuestTime(this.#machine);
      const [parameter] = change.parameters;
      if (change.method === 'balloon' && typeof parameter === 'number') await inflate(this.#machine, parameter);
      else if (!(await this.#isSo(change))) await doChange(this.#machine, change);
    }
  }

  /** What came or went meanwhile by itself, or by another's doing, is as it should be. */
  async #isSo({ method, parameters: [parameter] }: MachineChange): Promise<boolean> {
    if (method === 'unplug') return !(await this.#devices()).some(({ id }) => id === parameter);
    if (method !== 'plug') return false;
    const { kind, index } = parameter as { kind?: unknown; index?: unknown };
    return kind === 'cpu' && (await this.#devices()).some(({ id }) => id === `cpu${index}`);
  }

  async #devices(): Promise<readonly Pick<LiveDevice, 'id'>[]> {
    const { cpus, memory, nvdimms, pci } = await this.#machine.plugged();
    return [...cpus.present, ...memory.dimms, ...memory.virtio, ...nvdimms, ...pci.devices];
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(work);
    this.#turn = result.catch(() => {});
    return result;
  }
}

/** Changes that the guest has a part in. */
const WITH_GUEST = new Set(['plug', 'unplug', 'resizeMemory']);

/** @throws NemuError STATE while a machine is paused: its guest has no time to answer in, and none to be late in. */
export function requireGuestTime({ state }: MachineClient): void {
  if (state !== 'paused') return;
  throw new NemuError('STATE', 'The machine is paused: its guest hears of nothing until it is resumed.', {
    hint: 'resume, then try again.',
  });
}

/** The list of a machine that another process has: what it was told of it. */
export class RemoteActions extends ActionList implements Actions {
  readonly shared = true;
  readonly #call: (method: ActionMethod, parameters: unknown[]) => Promise<unknown>;

  constructor(
    { done, undone }: ActionsReport,
    call: (method: ActionMethod, parameters: unknown[]) => Promise<unknown>,
  ) {
    super();
    this.done.push(...done);
    this.undone.push(...undone);
    this.#call = call;
  }

  /** What the other side told. */
  receive(change: ActionsChange): void {
    this.changed(change);
  }

  add = async (action: NotedAction): Promise<void> => void (await this.#call('addAction', [action]));
  undo = async (): Promise<string> => (await this.#call('undoAction', [])) as string;
  redo = async (): Promise<string> => (await this.#call('redoAction', [])) as string;
}

/** Calls about the actions of a machine that is shared. */
export const ACTION_METHODS = ['addAction', 'undoAction', 'redoAction'] as const;
export type ActionMethod = (typeof ACTION_METHODS)[number];

/** What every user of a machine in this process writes into. */
const KNOWN = new WeakMap<MachineClient, Actions>();

export function actionsOf(machine: MachineClient): Actions {
  const known = KNOWN.get(machine) ?? new OwnActions(machine);
  KNOWN.set(machine, known);
  return known;
}

/** Those of a machine that is attached to are kept where it is. */
export function keptElsewhere(machine: MachineClient, actions: RemoteActions): void {
  KNOWN.set(machine, actions);
}
