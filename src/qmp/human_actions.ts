/** What makes and changes things, in lines of the human monitor. */
import type * as z from 'zod';
import { forwardNote, listenerOf, unforwardNote } from '../client/notes.ts';
import { parseSize } from '../client/sizes.ts';
import { findCard } from './commands/net.ts';
import { QmpError } from './errors.ts';
import { done, type Entry, mebibytes, optionsOf, run, switchOf, UsageError, wanted } from './human_line.ts';
import type { JsonObject } from './json.ts';
import type { Monitor } from './monitor.ts';
import { forwardOf, netdevOptions } from './netdevs.ts';
import { OBJECT_TYPES } from './objects.ts';

const inner = (schema: z.ZodType): z.ZodType => {
  const { innerType } = schema.def as { innerType?: z.ZodType };
  return innerType ? inner(innerType) : schema;
};

/** Text as the type wants it; what is no such value stays text, and is refused as that. @throws QmpError */
function textValue(name: string, schema: z.ZodType | undefined, text: string): unknown {
  const type = schema && (inner(schema).def as { type: string }).type;
  if (type === 'number') {
    if (!/^\d+(\.\d+)?[KMGTkmgt]?$/.test(text)) throw new QmpError(`Parameter '${name}' expects size`);
    return parseSize(text);
  }
  if (type !== 'boolean') return text;
  if (text !== 'on' && text !== 'off') throw new QmpError(`Parameter '${name}' expects 'on' or 'off'`);
  return text === 'on';
}

/** `memory-backend-ram,id=m,size=1M` */
function objectOf(text: string): JsonObject {
  const { first, pairs } = optionsOf(text);
  const properties = OBJECT_TYPES.find(({ name }) => name === first)?.properties ?? {};
  return {
    'qom-type': first,
    ...Object.fromEntries(pairs.map(([name, value]) => [name, textValue(name, properties[name], value)])),
  } as JsonObject;
}

/** `user,id=n,hostfwd=tcp::2222-:22` */
function netdevOf(text: string): JsonObject {
  const { first, pairs } = optionsOf(text);
  const shape = netdevOptions.options.find(({ shape: { type } }) => type.value === first)?.shape as
    | Record<string, z.ZodType>
    | undefined;
  const forwards = pairs.filter(([name]) => name === 'hostfwd').map(([, str]) => ({ str }));
  const others = pairs.filter(([name]) => name !== 'hostfwd');
  return {
    type: first,
    ...Object.fromEntries(others.map(([name, value]) => [name, textValue(name, shape?.[name], value)])),
    ...(forwards.length > 0 && { hostfwd: forwards }),
  } as JsonObject;
}

/** The card that is meant, or the first with user networking. @returns what is wrong, where there is none. */
async function userCard(monitor: Monitor, name: string | undefined): Promise<{ card: string } | { problem: string }> {
  const cards = await monitor.machine.nets();
  if (name === undefined) {
    const first = cards.find(({ type }) => type === 'user');
    return first ? { card: first.name } : { problem: 'user mode network stack not in use' };
  }
  const found = await findCard(monitor, name);
  if (found === undefined) return { problem: `unrecognized netdev id '${name}'` };
  const user = cards.find((each) => each.name === found)?.type === 'user';
  return user ? { card: found } : { problem: `the device '${name}' is not a user network` };
}

async function addForward(monitor: Monitor, words: readonly string[]): Promise<string[]> {
  const rule = wanted('hostfwd_add', words.at(-1));
  const found = await userCard(monitor, words.length > 1 ? words[0] : undefined);
  if ('problem' in found) return [found.problem];
  const forward = forwardOf({ str: rule });
  const after = await monitor.machine.changeNet(found.card, { action: 'forward', add: [forward] });
  await monitor.did(forwardNote(after, forward));
  return [];
}

async function removeForward(monitor: Monitor, words: readonly string[]): Promise<string[]> {
  const rule = wanted('hostfwd_remove', words.at(-1));
  const found = await userCard(monitor, words.length > 1 ? words[0] : undefined);
  if ('problem' in found) return [found.problem];
  const [, protocol = 'tcp', address = '', port] = /^(tcp|udp)?:([\d.]*):(\d+)$/.exec(rule) ?? [];
  if (port === undefined) return ['invalid format'];
  const forwards = (await monitor.machine.nets()).find(({ name }) => name === found.card)?.hostForwards ?? [];
  const there = forwards.find(
    (each) =>
      each.protocol === protocol && each.hostPort === Number(port) && (address === '' || each.hostAddress === address),
  );
  if (!there) return [`host forwarding rule for ${rule} not found`];
  const listener = listenerOf(there);
  const after = await monitor.machine.changeNet(found.card, { action: 'forward', remove: [listener] });
  await monitor.did(unforwardNote(after, listener, there));
  return [`host forwarding rule for ${rule} removed`];
}

async function gdbServer({ surroundings: { gdbServer: server } }: Monitor, device = 'tcp::1234'): Promise<string[]> {
  if (!server) return ['gdb cannot connect to this machine'];
  if (device === 'none') {
    server.stop();
    return ['Disabled gdbserver'];
  }
  await server.listen(device);
  return [`Waiting for gdb connection on device '${device}'`];
}

export const CHANGE_ACTIONS: Readonly<Record<string, Entry>> = {
  block_resize: {
    help: "device size -- give a disk's image another size, in MiB or with a unit",
    tell: (monitor, [device, size]) =>
      done(
        run(monitor, 'block_resize', {
          device: wanted('block_resize', device, 'block device name'),
          size: mebibytes(size),
        }),
      ),
  },
  gdbserver: {
    help: '[device] -- have gdb connect at tcp::1234, or elsewhere; none ends that',
    tell: (monitor, [device]) => gdbServer(monitor, device),
  },
  hostfwd_add: {
    help: '[netdev] [tcp|udp]:[address]:port-[address]:port -- lead a port of the host into the guest',
    tell: addForward,
  },
  hostfwd_remove: { help: '[netdev] [tcp|udp]:[address]:port -- end that', tell: removeForward },
  netdev_add: {
    help: "type,id=ID[,name=value…] -- make the host's side of a network card",
    tell: (monitor, words) => done(run(monitor, 'netdev_add', netdevOf(words.join(' ')))),
  },
  netdev_del: {
    help: 'id -- take it back',
    tell: (monitor, [id]) => done(run(monitor, 'netdev_del', { id: wanted('netdev_del', id) })),
  },
  object_add: {
    help: 'type,id=ID[,name=value…] -- make memory for a device, or a name',
    tell: (monitor, words) => {
      if (words.length === 0) throw new UsageError('object_add: string expected');
      return done(run(monitor, 'object-add', objectOf(words.join(' '))));
    },
  },
  object_del: {
    help: 'id -- take it back',
    tell: (monitor, [id]) => done(run(monitor, 'object-del', { id: wanted('object_del', id) })),
  },
  set_link: {
    help: "name on|off -- put a card's cable in, or take it out",
    tell: (monitor, [name, up]) => done(run(monitor, 'set_link', { name: wanted('set_link', name), up: switchOf(up) })),
  },
};
