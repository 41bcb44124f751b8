/** What `netdev_add` makes: the host's side of a network card. */
import { isIPv4 } from 'node:net';
import * as z from 'zod';
import type { MachineInput } from '../client/description.ts';
import { deviceNotFound, QmpError } from './errors.ts';
import { bool, isUint32, requireId, str, uint, withBase } from './types.ts';

const id = str;
export const netdevOptions = withBase(
  z.discriminatedUnion('type', [
    z.strictObject({
      ...{ type: z.literal('user'), id, net: str.optional(), hostname: str.optional(), restrict: bool.optional() },
      ...{ hostfwd: z.array(z.strictObject({ str })).optional(), ipv4: bool.optional(), ipv6: bool.optional() },
    }),
    z.strictObject({
      ...{ type: z.literal('tap'), id, ifname: str.optional(), queues: uint.optional() },
      ...{ script: str.optional(), downscript: str.optional(), vhost: bool.optional() },
    }),
  ]),
  ['id'],
);
type Options = z.output<typeof netdevOptions>;
type NetInput = NonNullable<MachineInput['nets']>[number];
type Forward = NonNullable<NetInput['hostForwards']>[number];

export interface Netdev {
  readonly id: string;
  /** What a card takes of it. */
  readonly net: NetInput;
  /** `set_link` may take its cable out before a card has it. */
  link: boolean;
  /** The card that it is in, by the machine's id. */
  usedBy: string | undefined;
}

/** `tcp::2222-:22`. @throws QmpError */
export function forwardOf({ str: text }: { readonly str: string }): Forward {
  const bad = (what: string) => new QmpError(`Invalid host forwarding rule '${text}' (${what})`);
  const match = /^([^:]*):([^:]*):([^:-]*)-([^:]*):([^:]*)$/.exec(text);
  if (!match) throw bad('No : separators');
  const [, protocol = '', hostAddress, hostPort, guestAddress, guestPort] = match;
  if (!['', 'tcp', 'udp'].includes(protocol)) throw bad('Bad protocol name');
  if (hostAddress && !isIPv4(hostAddress)) throw bad('Bad host address');
  if (!isPort(hostPort, 0)) throw bad('Bad host port');
  if (guestAddress && !isIPv4(guestAddress)) throw bad('Bad guest address');
  if (!isPort(guestPort, 1)) throw bad('Bad guest port');
  return {
    protocol: (protocol || 'tcp') as Forward['protocol'],
    ...(hostAddress && { hostAddress }),
    hostPort: Number(hostPort),
    ...(guestAddress && { guestAddress }),
    guestPort: Number(guestPort),
  };
}

const isPort = (text: string, least: number) =>
  /^\d{1,5}$/.test(text) && Number(text) >= least && Number(text) <= 65535;

/** A network is an address, with its mask or the number of its bits. @throws QmpError with QEMU's words. */
function requireNetwork(text: string): void {
  const [address, mask, ...more] = text.split('/');
  if (!isIPv4(address)) throw new QmpError('Failed to parse netmask');
  if (mask === undefined || (more.length === 0 && isIPv4(mask))) return;
  if (!/^\d+$/.test(mask) || more.length > 0) throw new QmpError('Failed to parse netmask (trailing chars)');
  if (Number(mask) < 4 || Number(mask) > 32) throw new QmpError('Invalid netmask provided (must be in range 4-32)');
}

function netOf(options: Options): NetInput {
  if (options.type === 'tap') {
    const { ifname, queues, script = 'no', downscript = 'no', vhost } = options;
    if (vhost) throw new QmpError('Packets of a tap go through this process: vhost must be off');
    const run = [script, downscript].find((each) => each !== 'no' && each !== '');
    if (run !== undefined) throw new QmpError(`No script is run for an interface: '${run}' must be 'no'`);
    if (queues !== undefined && !isUint32(queues)) throw new QmpError("Parameter 'queues' expects uint32_t");
    return { type: 'tap', ...(ifname !== undefined && { ifname }), ...(queues !== undefined && { queues }) };
  }
  const { net, hostname, restrict, hostfwd, ipv4 = true, ipv6 } = options;
  if (net !== undefined) requireNetwork(net);
  if (!ipv4 || ipv6) throw new QmpError('User networking has IPv4 alone: ipv4 must be on, and ipv6 off');
  return {
    type: 'user',
    ...(net !== undefined && { net }),
    ...(hostname !== undefined && { hostname }),
    ...(restrict !== undefined && { restrict }),
    ...(hostfwd && { hostForwards: hostfwd.map(forwardOf) }),
  };
}

export class Netdevs {
  readonly #all = new Map<string, Netdev>();

  get all(): Netdev[] {
    return [...this.#all.values()];
  }

  /** @throws QmpError */
  add(options: Options): void {
    requireId(options.id);
    if (this.#all.has(options.id)) throw new QmpError(`Duplicate ID '${options.id}'`);
    this.#all.set(options.id, { id: options.id, net: netOf(options), link: true, usedBy: undefined });
  }

  /** Gives a back end to a card. @throws QmpError */
  take(name: string, device: string): Netdev {
    const netdev = this.#all.get(name);
    if (!netdev) throw new QmpError(`Property 'virtio-net-pci.netdev' can't find value '${name}'`);
    if (netdev.usedBy !== undefined) {
      throw new QmpError(`Property 'virtio-net-pci.netdev' can't take value '${name}', it's in use`);
    }
    netdev.usedBy = device;
    return netdev;
  }

  release(device: string): void {
    for (const netdev of this.#all.values()) if (netdev.usedBy === device) netdev.usedBy = undefined;
  }

  /** A card that has it keeps it, with its cable out: the back end is the card's from then on. @throws QmpError */
  delete(name: string): void {
    const netdev = this.#all.get(name);
    if (!netdev) throw deviceNotFound(name);
    this.#all.delete(name);
  }
}
