/** What clients make beside devices. */
import * as z from 'zod';
import { command } from '../command.ts';
import { QmpError } from '../errors.ts';
import { makeObject, memoryPolicy, objectSchema } from '../objects.ts';
import { bool, int, none, requireId, str } from '../types.ts';

export const OBJECT = [
  command({
    name: 'object-add',
    summary: 'makes memory for a device, or a name for its random bytes or its thread',
    changes: true,
    args: objectSchema,
    returns: none,
    run: ({ objects }, object) => {
      requireId(object.id);
      if (objects.has(object.id)) {
        throw new QmpError(`attempt to add duplicate property '${object.id}' to object (type 'container')`);
      }
      objects.set(object.id, makeObject(object));
      return {};
    },
  }),
  command({
    name: 'object-del',
    summary: 'takes back what `object-add` made',
    changes: true,
    args: z.strictObject({ id: str }),
    returns: none,
    run: ({ objects, memory }, { id }) => {
      if (!objects.has(id)) throw new QmpError(`object '${id}' not found`);
      if (memory.some((each) => each.id === id && each.usedBy !== undefined)) {
        throw new QmpError(`object '${id}' is in use, can not be deleted`);
      }
      objects.delete(id);
      return {};
    },
  }),
  command({
    name: 'query-memdev',
    summary: 'memory that `object-add` made',
    args: none,
    returns: z.array(
      z.strictObject({
        ...{ id: str.optional(), size: int, merge: bool, dump: bool, prealloc: bool, share: bool },
        ...{ reserve: bool.optional(), 'host-nodes': z.array(int), policy: memoryPolicy },
      }),
    ),
    run: (monitor) =>
      monitor.memory.map(({ id, size, dump, merge, reserve, plug }) => ({
        ...{ id, size, merge, dump, reserve, prealloc: plug.prealloc, share: plug.share },
        'host-nodes': plug.hostNodes ?? [],
        policy: plug.hostNodes ? plug.policy : ('default' as const),
      })),
  }),
  command({
    name: 'query-iothreads',
    summary: "iothread objects: all devices have the machine's one thread, whose process is told",
    args: none,
    returns: z.array(
      z.strictObject({
        ...{ id: str, 'thread-id': int, 'poll-max-ns': int, 'poll-grow': int, 'poll-shrink': int },
        'aio-max-batch': int,
      }),
    ),
    run: ({ objects }) =>
      [...objects.values()].flatMap((object) => {
        if (object.type !== 'iothread') return [];
        const setting = (name: string) => Number(object.settings[name] ?? 0);
        return {
          ...{ id: object.id, 'thread-id': process.pid, 'poll-max-ns': setting('poll-max-ns') },
          ...{ 'poll-grow': setting('poll-grow'), 'poll-shrink': setting('poll-shrink') },
          'aio-max-batch': setting('aio-max-batch'),
        };
      }),
  }),
];
