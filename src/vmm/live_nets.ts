import type { HostForward, NetBackendDescription } from '../client/description.ts';
import { NemuError } from '../client/errors.ts';
import type { NetChange } from '../client/live_change.ts';
import type { NetDirectionReport, NetReport } from '../client/machine_client.ts';
import type { VirtioNet } from '../devices/virtio/net.ts';
import type { NetBackend } from '../net/backend.ts';
import { listensAt, SlirpBackend } from '../net/slirp.ts';
import { SoftOffloads } from '../net/soft_offloads.ts';
import { asNemuError } from './backend_error.ts';
import { LATENCY_BUCKETS } from './latency.ts';
import type { MeteredNet, NetDirection, WaitMeter } from './metered_net.ts';

/** A network card of the machine: what it is plugged into now, and the device. */
export interface LiveNet {
  readonly net: MeteredNet;
  readonly device: VirtioNet;
  readonly mac: string;
  readonly waits: Readonly<Record<NetDirection, WaitMeter>>;
  /** Its present back end. Which ports are forwarded, user networking itself knows. */
  description: NetBackendDescription;
  slirp: SlirpBackend | undefined;
}

export interface LiveNetsOptions {
  /** @throws NemuError NET */
  readonly open: (net: NetBackendDescription) => NetBackend[];
}

/** The network cards of a machine and what can be changed of them while the guest runs. */
export class LiveNets {
  readonly #options: LiveNetsOptions;
  readonly #nets = new Map<string, LiveNet>();

  constructor(options: LiveNetsOptions) {
    this.#options = options;
  }

  add(name: string, net: LiveNet): void {
    this.#nets.set(name, net);
  }

  /** It was taken out. */
  remove(name: string): void {
    this.#nets.delete(name);
  }

  report(): NetReport[] {
    return [...this.#nets].map(([name, net]) => report(name, net));
  }

  /** @throws NemuError NET or CHANGE with the reason; then nothing was touched. */
  change(name: string, change: NetChange): NetReport {
    const card = this.#nets.get(name);
    if (!card) {
      throw new NemuError('NET', `There is no network card "${name}".`, {
        hint: `There are ${[...this.#nets.keys()].join(', ') || 'none'}.`,
      });
    }
    if (change.action === 'throttle') card.net.limits = change.limits;
    else if (change.action === 'link') card.device.setLink(change.up);
    else if (change.action === 'forward') forward(name, card, change);
    else this.#exchange(name, card, change.backend);
    return report(name, card);
  }

  #exchange(name: string, card: LiveNet, backend: NetBackendDescription): void {
    const pairs = card.net.ports.length;
    if (backend.queues !== pairs) {
      throw new NemuError('CHANGE', `${name} has ${pairs} pairs of queues, the new network ${backend.queues}.`, {
        hint: pairs > 1 ? `Use a tap with queues=${pairs}.` : 'Leave out queues.',
      });
    }
    // Ports that both forward are handed over, when the rest is known to work.
    const { hostForwards, ...rest } = backend;
    const opened = this.#options.open({ ...rest, hostForwards: [] });
    const slirp = slirpOf(opened);
    // What the card has promised to its driver holds on any network.
    const promised = card.device.offersOffloads;
    const next = opened.map((each) => (promised && !each.headerSize ? new SoftOffloads(each) : each));
    let before: readonly NetBackend[];
    try {
      if (slirp) handOver(hostForwards, card.slirp, slirp);
      before = card.net.exchange(next);
    } catch (error) {
      for (const each of opened) each.close();
      throw error;
    }
    card.description = backend;
    card.slirp = slirp;
    for (const each of before) each.close();
  }
}

/** User networking among back ends. */
export const slirpOf = ([first]: readonly NetBackend[]): SlirpBackend | undefined =>
  first instanceof SlirpBackend ? first : undefined;

const spelled = ({ protocol, hostAddress, hostPort }: Pick<HostForward, 'protocol' | 'hostAddress' | 'hostPort'>) =>
  `${protocol} ${hostAddress}:${hostPort}`;

/** @throws NemuError NET; then all is as it was. */
function forward(name: string, { slirp }: LiveNet, change: Extract<NetChange, { action: 'forward' }>): void {
  if (!slirp) {
    throw new NemuError('CHANGE', `${name} is on a tap, which forwards no ports.`, {
      hint: 'Ports are forwarded by user networking; on a tap the host reaches the guest at its own address.',
    });
  }
  const { add, remove } = change;
  const missing = remove.find((wanted) => !slirp.forwards.some((each) => listensAt(each, wanted)));
  if (missing) {
    const there = slirp.forwards.map(spelled).join(', ');
    throw new NemuError('CHANGE', `${name} does not forward ${spelled(missing)}.`, {
      hint: there ? `It forwards ${there}.` : 'It forwards nothing.',
    });
  }
  const removed: HostForward[] = [];
  const added: HostForward[] = [];
  try {
    for (const wanted of remove) removed.push(...taken(slirp, wanted));
    for (const wanted of add) {
      slirp.addForward(withoutUndefined(wanted));
      added.push(wanted);
    }
  } catch (cause) {
    for (const each of added) slirp.removeForward(each);
    for (const each of removed) slirp.addForward(withoutUndefined(each));
    throw asNemuError('NET', cause);
  }
}

/** Forwards ports of one user network by another. @throws NemuError NET; then all is as it was. */
function handOver(wanted: readonly HostForward[], from: SlirpBackend | undefined, to: SlirpBackend): void {
  const removed = wanted.flatMap((each) => (from ? taken(from, each) : []));
  try {
    for (const each of wanted) to.addForward(withoutUndefined(each));
  } catch (cause) {
    for (const each of wanted) to.removeForward(each);
    for (const each of removed) from?.addForward(withoutUndefined(each));
    throw asNemuError('NET', cause);
  }
}

function taken(slirp: SlirpBackend, listener: Pick<HostForward, 'protocol' | 'hostAddress' | 'hostPort'>) {
  const found = slirp.removeForward(listener);
  return found ? [found as HostForward] : [];
}

const withoutUndefined = ({ guestAddress, ...forward }: HostForward) => ({
  ...forward,
  ...(guestAddress !== undefined && { guestAddress }),
});

function report(name: string, { net, device, mac, waits, description, slirp }: LiveNet): NetReport {
  const { counters } = device;
  const { lost, sent } = net;
  const direction = (
    which: NetDirection,
    [packets, bytes, dropped, errors]: readonly [number, number, number, number],
  ): NetDirectionReport => ({
    ...{ packets, bytes, dropped, errors, throttled: net.waits(which) },
    ...{ waited: waits[which].count, totalWaitUs: Math.round(waits[which].totalUs) },
    wait: waits[which].histogram(packets),
  });
  const { type, queues, ifname, net: network, hostname, restrict } = description;
  const tap = type === 'tap' ? net.ports[0]?.name.replace(/\.\d+$/, '') : undefined;
  return {
    ...{ name, mac, link: device.linkUp, type, queues },
    ...(type === 'tap' && { ifname: ifname ?? tap ?? '' }),
    ...(type === 'user' && { restrict }),
    ...(network !== undefined && { net: network }),
    ...(hostname !== undefined && { hostname }),
    hostForwards: (slirp?.forwards ?? []) as readonly HostForward[],
    throttle: net.limits,
    waitBoundsUs: LATENCY_BUCKETS,
    rx: direction('rx', [
      ...([counters.rxFrames, counters.rxBytes, counters.rxDropped + lost.rxDropped, counters.rxErrors] as const),
    ]),
    tx: direction('tx', [sent.packets, sent.bytes, counters.txDropped, counters.txErrors + lost.txErrors]),
  };
}
