/** Network cards of the machine, as the REPL has them. */
import { inspect } from 'node:util';
import type { HostForward, HostForwardInput, NetBackendInput, NetThrottleInput } from '../client/description.ts';
import { NemuError } from '../client/errors.ts';
import type { UnplugOptions } from '../client/live.ts';
import type { NetChangeInput } from '../client/live_change.ts';
import type { MachineChange } from '../client/machine_change.ts';
import type { NetReport } from '../client/machine_client.ts';
import { requireObject } from './arguments.ts';
import type { Action } from './journal.ts';
import { type Done, literal, memberCode } from './values.ts';
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
    const before = (await this.statistics()).throttle;
    await this.#do('throttle', [limits, before], this.#gives('throttle', limits), (which) => ({
      action: 'throttle',
      limits: which,
    }));
  }

  /** Pulls the cable out, with false, or puts it in. */
  async link(up: boolean): Promise<void> {
    const before = (await this.statistics()).link;
    await this.#do('link', [up, before], this.#gives('link', up), (which) => ({ action: 'link', up: which }));
  }

  /** Plugs the card into another network: `{ type: 'tap', ifname: 'tap0' }`, `{ type: 'user' }`. */
  async backend(backend: NetBackendInput): Promise<NetState> {
    requireObject(backend, `${this.#code}.backend({ type: 'tap', ifname: 'tap0' })`);
    const before = backendOf(await this.statistics());
    const gives = this.#gives('type', backend.type);
    return this.#do('backend', [backend, before], gives, (which) => ({ action: 'backend', backend: which }));
  }

  /** Leads a port of the host into the guest: `forward({ hostPort: 2222, guestPort: 22 })`. */
  async forward(forward: HostForwardInput): Promise<NetState> {
    requireObject(forward, `${this.#code}.forward({ hostPort: 2222, guestPort: 22 })`);
    return this.#forwarding(`forward(${literal(forward)})`, { add: [forward] }, `unforward(${literal(forward)})`, {
      remove: [listenerOf(forward)],
    });
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
    return this.#forwarding(`unforward(${literal(which)})`, { remove: [listener] }, `forward(${literal(found)})`, {
      add: found ? [found] : [],
    });
  }

  /** Takes it out when the guest lets go; with `force`, at once. @throws NemuError REFUSED with the guest's reason. */
  unplug(options: UnplugOptions = {}): Promise<Done> {
    return this.#vm.unplug(this.name, options);
  }

  #forwarding(code: string, change: Forwarding, undo: string, inverse: Forwarding): Promise<NetState> {
    let forwards: NetReport['hostForwards'] = [];
    const gives = (): Action['gives'] => this.#gives('hostForwards', forwards);
    return this.#vm.journal.do({
      code: `${this.#code}.${code}`,
      run: async () => {
        const state = await this.#change({ action: 'forward', ...change });
        forwards = state.report.hostForwards;
        return state;
      },
      get gives() {
        return gives();
      },
      redo: [this.#changeOf({ action: 'forward', ...change })],
      undo: { code: `${this.#code}.${undo}`, changes: [this.#changeOf({ action: 'forward', ...inverse })] },
    });
  }

  get #code(): string {
    return memberCode('vm.nets', this.name);
  }

  /** What a field of the statistics is after a change. */
  #gives(field: keyof NetReport, value: unknown): NonNullable<Action['gives']> {
    return [`(await ${this.#code}.statistics()).${field}`, value];
  }

  #do<T>(
    method: string,
    [wanted, before]: readonly [T, T],
    gives: NonNullable<Action['gives']>,
    change: (which: T) => NetChangeInput,
  ): Promise<NetState> {
    return this.#vm.journal.do({
      gives,
      code: `${this.#code}.${method}(${literal(wanted)})`,
      run: () => this.#change(change(wanted)),
      redo: [this.#changeOf(change(wanted))],
      undo: { code: `${this.#code}.${method}(${literal(before)})`, changes: [this.#changeOf(change(before))] },
    });
  }

  #changeOf(change: NetChangeInput): MachineChange {
    return { method: 'changeNet', parameters: [this.name, change] };
  }

  async #change(change: NetChangeInput): Promise<NetState> {
    return new NetState(await this.#vm.machine.changeNet(this.name, change));
  }

  [inspect.custom](): string {
    return `network card ${this.name}`;
  }
}

interface Forwarding {
  readonly add?: HostForwardInput[];
  readonly remove?: Omit<HostForwardInput, 'guestPort' | 'guestAddress'>[];
}

const listenerOf = ({ protocol, hostAddress, hostPort }: Omit<HostForwardInput, 'guestPort'>) => ({
  ...(protocol !== undefined && { protocol }),
  ...(hostAddress !== undefined && { hostAddress }),
  hostPort,
});

/** What plugs a card into the network again where it is now. */
export function backendOf({ type, queues, ifname, net, hostname, restrict, hostForwards }: NetReport): NetBackendInput {
  if (type === 'tap') return { type, queues, ...(ifname !== undefined && { ifname }) };
  return {
    ...{ type, ...(net !== undefined && { net }), ...(hostname !== undefined && { hostname }) },
    ...(restrict && { restrict }),
    ...(hostForwards.length > 0 && { hostForwards: [...hostForwards] }),
  };
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
