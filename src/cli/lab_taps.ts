/**
 * Tap interfaces of this host for cards in the lab. The engine's tap is an interface of the lab; a bridge there joins it
 * with a card that the lab is given, and that card is on this host's tap interface.
 */
import { existsSync, readFileSync } from 'node:fs';
import type { NetDescription } from '../client/description.ts';
import { NemuError } from '../client/errors.ts';
import type { LiveRequest } from '../client/live.ts';
import { type NetChangeInput, parseNetChange } from '../client/live_change.ts';
import type { NetReport } from '../client/machine_client.ts';
import type { Lab } from '../lab/lab.ts';
import { FREE_ROOT_PORTS } from '../lab/lab_qemu.ts';
import { openTap } from '../net/tap.ts';
import { asNemuError } from '../vmm/backend_error.ts';

type TapNet = Pick<NetDescription, 'ifname' | 'queues'>;

const DEFAULT_MTU = '1500';
/** A card that was pulled leaves its port when the lab's kernel has let go of it. */
const UNPLUG_MS = 10_000;
const UNPLUG_POLL_MS = 50;

export class LabTaps {
  readonly #lab: Pick<Lab, 'exec' | 'qmp'>;
  readonly #free = [...FREE_ROOT_PORTS];
  /** By the interface's name. */
  readonly #open = new Map<string, { readonly port: string; joined?: Promise<void> }>();

  constructor(lab: Pick<Lab, 'exec' | 'qmp'>) {
    this.#lab = lab;
  }

  /**
   * Takes the interface of this host for a card, before the engine opens its own of that name.
   * @returns its name.
   * @throws NemuError NET, LAB_TAP
   */
  async open({ ifname, queues }: TapNet): Promise<string> {
    const name = takeOnce(ifname, queues);
    const port = this.#free.shift();
    if (port === undefined) {
      throw new NemuError(
        'LAB_TAP',
        `The lab has ${FREE_ROOT_PORTS.length} places for tap interfaces; all are taken.`,
        {
          hint: 'Use --net user for the others, or --on kvm.',
        },
      );
    }
    const multi = queues > 1;
    try {
      const backend = { type: 'tap', id: netdevOf(port), ifname: name, script: 'no', downscript: 'no' };
      await this.#lab.qmp('netdev_add', { ...backend, ...(multi && { queues }) });
      const card = { driver: 'virtio-net-pci', id: port.replace('port', 'tap'), bus: port, netdev: netdevOf(port) };
      // A queue has two vectors, and the card two more for its configuration and its control queue.
      await this.#lab.qmp('device_add', {
        ...{ ...card, mac: macOf(port), romfile: '' },
        ...(multi && { mq: true, vectors: 2 * queues + 2 }),
      });
    } catch (cause) {
      await this.#lab.qmp('netdev_del', { id: netdevOf(port) }).catch(() => {});
      this.#free.push(port);
      throw new NemuError('LAB_TAP', `The lab cannot use the tap interface ${name}: ${(cause as Error).message}`, {
        hint: 'Use --net user, or --on kvm.',
        cause,
      });
    }
    this.#open.set(name, { port });
    return name;
  }

  /** Joins what the engine has opened with this host's, once. @throws NemuError LAB_TAP */
  async connect(name: string): Promise<void> {
    const tap = this.#open.get(name);
    if (!tap) return;
    tap.joined ??= this.#join(name, tap.port);
    await tap.joined;
  }

  async #join(name: string, port: string): Promise<void> {
    const { status, stderr } = await this.#lab.exec(JOIN, {
      env: { TAP: name, BRIDGE: bridgeOf(port), MAC: macOf(port), MTU: mtuOf(name) },
    });
    if (status === 0) return;
    throw new NemuError(
      'LAB_TAP',
      `The lab could not join its tap interface ${name} with this host's: ${stderr}`.trim(),
    );
  }

  async close(name: string): Promise<void> {
    const port = this.#open.get(name)?.port;
    if (port === undefined) return;
    this.#open.delete(name);
    await this.#lab.exec(`ip link del ${bridgeOf(port)}`);
    const id = port.replace('port', 'tap');
    // The interface of this host is free with its back end; the card follows.
    await this.#lab.qmp('device_del', { id });
    await this.#lab.qmp('netdev_del', { id: netdevOf(port) });
    const end = performance.now() + UNPLUG_MS;
    while (performance.now() < end) {
      const there = (await this.#lab.qmp('qom-list', { path: '/machine/peripheral' })) as { name: string }[];
      if (!there.some((each) => each.name === id)) {
        this.#free.push(port);
        return;
      }
      await new Promise((resolve) => setTimeout(resolve, UNPLUG_POLL_MS));
    }
  }

  /** A card that came is joined; one that went, or never came, leaves its interface. */
  async settled({ action, stage, device }: LiveRequest): Promise<void> {
    if (device.kind !== 'pci' || device.plug?.type !== 'virtio-net' || device.plug.ifname === undefined) return;
    const { ifname } = device.plug;
    if (stage === (action === 'plug' ? 'refused' : 'removed')) await this.close(ifname);
    else if (action === 'plug') await this.connect(ifname);
  }

  /** Opens what is new first, and closes what is no more when the engine has done its part. */
  async changeNet(
    net: NetReport | undefined,
    input: NetChangeInput,
    engine: (change: NetChangeInput) => Promise<NetReport>,
  ): Promise<NetReport> {
    const change = parseNetChange(input);
    if (change.action !== 'backend') return engine(change);
    const before = net?.type === 'tap' ? net.ifname : undefined;
    if (change.backend.type !== 'tap') {
      const report = await engine(change);
      if (before !== undefined) await this.close(before);
      return report;
    }
    const report = await this.aroundPlug(change.backend, (ifname) =>
      engine({ ...change, backend: { ...change.backend, ifname } }),
    );
    if (before !== undefined && before !== change.backend.ifname) await this.close(before);
    return report;
  }

  /** The interface is taken first, and joined when `engine` has opened its own. @throws NemuError NET, LAB_TAP */
  async aroundPlug<T>(tap: TapNet, engine: (ifname: string) => Promise<T>): Promise<T> {
    const ifname = await this.open(tap);
    try {
      const result = await engine(ifname);
      await this.connect(ifname);
      return result;
    } catch (error) {
      await this.close(ifname);
      throw error;
    }
  }
}

/** Opens and closes an interface as the engine would, for its errors. @returns its name. @throws NemuError NET */
function takeOnce(ifname: string | undefined, queues: number): string {
  try {
    const backends = openTap({ queues, ...(ifname !== undefined && { ifname }) }, { add() {}, remove() {} });
    const name = backends[0]!.name.replace(/\.0$/, '');
    for (const backend of backends) backend.close();
    return name;
  } catch (cause) {
    throw asNemuError('NET', cause);
  }
}

const netdevOf = (port: string) => `${port}-net`;
const bridgeOf = (port: string) => `br-${port}`;
/** A local address, which only the lab's kernel sees: what goes over the bridge has the guest's. */
const macOf = (port: string) => `02:6e:65:6d:75:0${FREE_ROOT_PORTS.indexOf(port)}`;

function mtuOf(name: string): string {
  const file = `/sys/class/net/${name}/mtu`;
  return existsSync(file) ? readFileSync(file, 'latin1').trim() : DEFAULT_MTU;
}

/** For the lab's shell: waits for its card, which has the address MAC, and for the engine's TAP, and bridges them. */
const JOIN = `
set -e
find_card() {
  card=$(grep -l "$MAC" /sys/class/net/*/address | head -n 1)
  card=\${card%/address}
  card=\${card##*/}
}
waited=0
until find_card; [ -n "$card" ] && [ -e "/sys/class/net/$TAP" ]; do
  waited=$((waited + 1))
  [ $waited -le 200 ] || { echo "the lab's card did not appear" >&2; exit 1; }
  sleep 0.05
done
modprobe bridge
brctl addbr $BRIDGE
# Nothing of the lab's own goes over it, and nothing waits.
for each in $BRIDGE $card "$TAP"; do
  v6="/proc/sys/net/ipv6/conf/$each/disable_ipv6"
  [ ! -e "$v6" ] || echo 1 >"$v6"
done
echo 0 >/sys/class/net/$BRIDGE/bridge/forward_delay
echo 0 >/sys/class/net/$BRIDGE/bridge/multicast_snooping
for each in $card "$TAP"; do
  ip link set "$each" mtu $MTU up
  brctl addif $BRIDGE "$each"
done
ip link set $BRIDGE up
`;
