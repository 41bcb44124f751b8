/** Network cards of the machine, as the REPL has them. */
import { inspect } from 'node:util';
import type { NotedAction } from '../client/actions.ts';
import { memberCode } from '../client/code.ts';
import type { HostForward, HostForwardInput, NetBackendInput, NetThrottleInput } from '../client/description.ts';
import { NemuError } from '../client/errors.ts';
import type { UnplugOptions } from '../client/live.ts';
import type { NetChangeInput } from '../client/live_change.ts';
import type { NetReport } from '../client/machine_client.ts';
import {
  backendNote,
  forwardNote,
  type Listener,
  linkNote,
  listenerOf,
  netThrottleNote,
  unforwardNote,
} from '../client/notes.ts';
import { requireObject } from './arguments.ts';
import type { Done } from './values.ts';
import type { Vm } from './vm.ts';

/** A network card, by its name. */
export class Net {
  readonly name: string;
  readonly #vm: Vm;

  constructor(vm: Vm, name: string) {
    this.#vm = vm;
    this.name = name;
  }

  /** What it is plugged into and what it did so far: packets, bytes, losses and waits, by direction. */
  async statistics(): Promise<NetReport> {
    const found = (await this.#vm.machine.nets()).find(({ name }) => name === this.name);
    if (found) return found;
    throw new NemuError('NET', `There is no network card "${this.name}" any more.`);
  }

  /** Limits its packets and bytes in a second: `{ pps: 1000, bpsRx: 10e6 }`; `{}` for none. */
  async throttle(limits: NetThrottleInput): Promise<void> {
    requireObject(limits, `${this.#code}.throttle({ pps: 1000 })`);
    await this.#do(netThrottleNote(await this.statistics(), limits), { action: 'throttle', limits });
  }

  /** Pulls the cable out, with false, or puts it in. */
  async link(up: boolean): Promise<void> {
    await this.#do(linkNote(await this.statistics(), up), { action: 'link', up });
  }

  /** Plugs the card into another network: `{ type: 'tap', ifname: 'tap0' }`, `{ type: 'user' }`. */
  async backend(backend: NetBackendInput): Promise<NetState> {
    requireObject(backend, `${this.#code}.backend({ type: 'tap', ifname: 'tap0' })`);
    return this.#do(backendNote(await this.statistics(), backend), { action: 'backend', backend });
  }

  /** Leads a port of the host into the guest: `forward({ hostPort: 2222, guestPort: 22 })`. */
  async forward(forward: HostForwardInput): Promise<NetState> {
    requireObject(forward, `${this.#code}.forward({ hostPort: 2222, guestPort: 22 })`);
    return this.#forwarding({ add: [forward] }, (after) => forwardNote(after, forward));
  }

  /** Ends that; connections that there are go on. A number is a port of TCP at 127.0.0.1. */
  async unforward(which: number | Omit<HostForwardInput, 'guestPort'>): Promise<NetState> {
    if (typeof which !== 'number') requireObject(which, `${this.#code}.unforward(2222)`);
    const listener = listenerOf(typeof which === 'number' ? { hostPort: which } : which);
    const found = (await this.statistics()).hostForwards.find(
      ({ protocol, hostAddress, hostPort }) =>
        protocol === (listener.protocol ?? 'tcp') &&
        hostAddress === (listener.hostAddress ?? '127.0.0.1') &&
        hostPort === listener.hostPort,
    );
    return this.#forwarding({ remove: [listener] }, (after) => unforwardNote(after, which, found));
  }

  /** Takes it out when the guest lets go; with `force`, at once. @throws NemuError REFUSED with the guest's reason. */
  unplug(options: UnplugOptions = {}): Promise<Done> {
    return this.#vm.unplug(this.name, options);
  }

  #forwarding(
    change: { readonly add?: HostForwardInput[]; readonly remove?: Listener[] },
    note: (after: NetReport) => NotedAction,
  ): Promise<NetState> {
    return this.#vm.journal.do({
      run: () => this.#change({ action: 'forward', ...change }),
      note: ({ report }) => note(report),
    });
  }

  get #code(): string {
    return memberCode('vm.nets', this.name);
  }

  #do(note: NotedAction, change: NetChangeInput): Promise<NetState> {
    return this.#vm.journal.do({ ...note, run: () => this.#change(change) });
  }

  async #change(change: NetChangeInput): Promise<NetState> {
    return new NetState(await this.#vm.machine.changeNet(this.name, change));
  }

  [inspect.custom](): string {
    return `network card ${this.name}`;
  }
}

/** A card as it is after a change; prints as a line. */
export class NetState {
  readonly report: NetReport;

  constructor(report: NetReport) {
    this.report = report;
  }

  [inspect.custom](): string {
    const { name, link } = this.report;
    return `${name}: ${networkText(this.report)}, link ${link ? 'up' : 'down'}`;
  }
}

/** What a card is plugged into, in words. */
export function networkText({ type, ifname, net, hostForwards }: NetReport): string {
  return [type, ...(ifname ? [ifname] : []), ...(net ? [net] : []), ...hostForwards.map(forwardText)].join(' ');
}

const forwardText = ({ protocol, hostAddress, hostPort, guestAddress, guestPort }: HostForward) =>
  `${protocol}:${hostAddress}:${hostPort}→${guestAddress ? `${guestAddress}:` : ''}${guestPort}`;
