/** Ports of this host that lead into a guest in the lab: through the lab's own network first, then its user networking. */
import type { HostForward } from '../client/description.ts';
import { NemuError } from '../client/errors.ts';
import type { LiveRequest } from '../client/live.ts';
import { type NetChangeInput, parseNetChange } from '../client/live_change.ts';
import type { NetReport } from '../client/machine_client.ts';
import type { Lab } from '../lab/lab.ts';

type Listener = Pick<HostForward, 'protocol' | 'hostAddress' | 'hostPort'>;

/** What arrives in the lab is for any of its addresses. */
export const atAnyAddress = <L extends Listener>(forward: L): L => ({ ...forward, hostAddress: '0.0.0.0' });

const keyOf = ({ protocol, hostPort }: Listener) => `${protocol} ${hostPort}`;
const same = (a: Listener, b: Listener) => keyOf(a) === keyOf(b) && a.hostAddress === b.hostAddress;

export class LabPorts {
  readonly #lab: Pick<Lab, 'forward' | 'unforward'>;
  /** By protocol and number: where this host listens. */
  readonly #open = new Map<string, Listener>();
  /** Where it listened for cards that went. */
  readonly #closed = new Map<string, Listener>();

  constructor(lab: Pick<Lab, 'forward' | 'unforward'>) {
    this.#lab = lab;
  }

  /** @throws NemuError LAB_FORWARD */
  async open(listener: Listener): Promise<void> {
    const other = this.#open.get(keyOf(listener));
    if (other) {
      throw new NemuError(
        'LAB_FORWARD',
        `The ${other.protocol} port ${other.hostPort} is forwarded into the lab already.`,
        {
          hint: 'In the lab a port is forwarded once, whatever the address: take another port.',
        },
      );
    }
    await this.#lab.forward(listener.protocol, listener.hostAddress, listener.hostPort);
    this.#open.set(keyOf(listener), listener);
  }

  /** Those of a card that is plugged by `engine`: all of them, or none. @throws NemuError LAB_FORWARD */
  async aroundPlug<T>(listeners: readonly Listener[], engine: () => Promise<T>): Promise<T> {
    await this.#openForPlug(listeners);
    try {
      return await engine();
    } catch (error) {
      for (const each of listeners) await this.#close(this.#open.get(keyOf(each)));
      throw error;
    }
  }

  async #openForPlug(listeners: readonly Listener[]): Promise<void> {
    const opened: Listener[] = [];
    try {
      for (const each of listeners) {
        // A card that is plugged again is described as the lab had it.
        const before = each.hostAddress === '0.0.0.0' ? this.#closed.get(keyOf(each)) : undefined;
        const wanted = before ?? each;
        await this.open(wanted);
        opened.push(wanted);
      }
    } catch (error) {
      for (const each of opened) await this.#close(each);
      throw error;
    }
  }

  /** A card that went, or never came, has its ports no more. */
  async settled({ action, stage, device }: LiveRequest): Promise<void> {
    const gone = action === 'plug' ? stage === 'refused' : stage === 'removed';
    if (!gone || device.kind !== 'pci' || device.plug?.type !== 'virtio-net') return;
    for (const { protocol = 'tcp', hostAddress = '127.0.0.1', hostPort } of device.plug.hostForwards ?? []) {
      await this.#close(this.#open.get(keyOf({ protocol, hostAddress, hostPort })));
    }
  }

  async #close(listener: Listener | undefined): Promise<void> {
    if (!listener || !this.#open.delete(keyOf(listener))) return;
    this.#closed.set(keyOf(listener), listener);
    await this.#lab.unforward(listener.protocol, listener.hostAddress, listener.hostPort);
  }

  /** A report of the lab's engine with the addresses of this host. */
  told(report: NetReport): NetReport {
    const hostForwards = report.hostForwards.map((each) => ({
      ...each,
      hostAddress: this.#open.get(keyOf(each))?.hostAddress ?? each.hostAddress,
    }));
    return { ...report, hostForwards };
  }

  /** Opens what is new first, and closes what is no more when the engine has done its part. */
  async changeNet(
    net: NetReport | undefined,
    input: NetChangeInput,
    engine: (change: NetChangeInput) => Promise<NetReport>,
  ): Promise<NetReport> {
    const change = parseNetChange(input);
    const there = net?.hostForwards ?? [];
    if (change.action === 'forward') {
      // The lab has one network: an address that it does not know of is the engine's to refuse.
      const remove = change.remove.map((each) =>
        there.some((other) => same(other, each)) ? atAnyAddress(each) : each,
      );
      return this.#around(change.add, change.remove, () =>
        engine({ ...change, add: change.add.map(atAnyAddress), remove }),
      );
    }
    if (change.action === 'backend') {
      const { hostForwards } = change.backend;
      const added = hostForwards.filter((each) => !there.some((other) => same(other, each)));
      const removed = there.filter((each) => !hostForwards.some((other) => same(other, each)));
      return this.#around(added, removed, () =>
        engine({ ...change, backend: { ...change.backend, hostForwards: hostForwards.map(atAnyAddress) } }),
      );
    }
    return engine(change);
  }

  async #around<T>(added: readonly Listener[], removed: readonly Listener[], action: () => Promise<T>): Promise<T> {
    const opened: Listener[] = [];
    const stays = (each: Listener, others: readonly Listener[]) => others.some((other) => same(each, other));
    try {
      for (const each of added.filter((each) => !stays(each, removed))) {
        await this.open(each);
        opened.push(each);
      }
      const result = await action();
      for (const each of removed.filter((each) => !stays(each, added))) await this.#close(each);
      return result;
    } catch (error) {
      for (const each of opened) await this.#close(each);
      throw error;
    }
  }
}
