/** Network cards. */
import * as z from 'zod';
import { linkNote } from '../../client/notes.ts';
import { command } from '../command.ts';
import { deviceNotFound, QmpError } from '../errors.ts';
import type { Monitor } from '../monitor.ts';
import { netdevOptions } from '../netdevs.ts';
import { bool, int, none, str } from '../types.ts';

/** @returns the machine's name of a card, by its own or by that of the back end that is in it. */
export async function findCard(monitor: Monitor, name: string): Promise<string | undefined> {
  const netdev = monitor.netdevs.all.find(({ id }) => id === name);
  const own = netdev?.usedBy ?? monitor.names.own(name);
  return (await monitor.machine.nets()).find((each) => each.name === own)?.name;
}

async function setLink(monitor: Monitor, name: string, up: boolean): Promise<void> {
  const netdev = monitor.netdevs.all.find(({ id }) => id === name);
  const card = await findCard(monitor, name);
  if (netdev) netdev.link = up;
  else if (card === undefined) throw deviceNotFound(name);
  const before = card !== undefined && (await monitor.machine.nets()).find((each) => each.name === card);
  if (!before) return;
  await monitor.machine.changeNet(before.name, { action: 'link', up });
  await monitor.did(linkNote(before, up));
}

const rxState = z.enum(['normal', 'none', 'all']);
const addresses = z.array(str);

/** What a card lets through: everything, whatever its driver asks for. */
async function rxFilters(monitor: Monitor, name: string | undefined) {
  const cards = await monitor.machine.nets();
  const wanted = name === undefined ? undefined : monitor.names.own(name);
  if (name !== undefined && !cards.some((each) => each.name === wanted)) {
    const isBackEnd = monitor.netdevs.all.some(({ id }) => id === name);
    throw new QmpError(isBackEnd ? `net client(${name}) isn't a NIC` : `invalid net client name: ${name}`);
  }
  return cards
    .filter((each) => wanted === undefined || each.name === wanted)
    .map((card) => ({
      ...{ name: monitor.names.peer(card.name), promiscuous: true, multicast: 'all' as const, unicast: 'all' as const },
      ...{ vlan: 'all' as const, 'broadcast-allowed': true, 'multicast-overflow': false, 'unicast-overflow': false },
      ...{ 'main-mac': card.mac, 'vlan-table': [], 'unicast-table': [], 'multicast-table': [] },
    }));
}

export const NET = [
  command({
    name: 'netdev_add',
    summary: "makes the host's side of a network card",
    changes: true,
    args: netdevOptions,
    returns: none,
    run: ({ netdevs }, options) => {
      netdevs.add(options);
      return {};
    },
  }),
  command({
    name: 'netdev_del',
    summary: 'takes back what `netdev_add` made',
    changes: true,
    args: z.strictObject({ id: str }),
    returns: none,
    run: async (monitor, { id }) => {
      const card = monitor.netdevs.all.find((each) => each.id === id)?.usedBy;
      // As in QEMU, a card that has it stands there without.
      if (card !== undefined) await setLink(monitor, id, false);
      monitor.netdevs.delete(id);
      return {};
    },
  }),
  command({
    name: 'query-rx-filter',
    summary: 'what cards let through: everything',
    args: z.strictObject({ name: str.optional() }),
    returns: z.array(
      z.strictObject({
        ...{ name: str, promiscuous: bool, multicast: rxState, unicast: rxState, vlan: rxState },
        ...{ 'broadcast-allowed': bool, 'multicast-overflow': bool, 'unicast-overflow': bool, 'main-mac': str },
        ...{ 'vlan-table': z.array(int), 'unicast-table': addresses, 'multicast-table': addresses },
      }),
    ),
    run: (monitor, { name }) => rxFilters(monitor, name),
  }),
  command({
    name: 'set_link',
    summary: "puts a card's cable in, or takes it out",
    changes: true,
    args: z.strictObject({ name: str, up: bool }),
    returns: none,
    run: async (monitor, { name, up }) => {
      await setLink(monitor, name, up);
      return {};
    },
  }),
];
