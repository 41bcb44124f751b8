/** Commands about the protocol itself. */
import * as z from 'zod';
import { command } from '../command.ts';
import { QmpError } from '../errors.ts';
import { EVENTS } from '../events.ts';
import { schemaInfo } from '../introspect.ts';
import { int, none, str } from '../types.ts';
import { VERSION } from '../version.ts';

const yankInstance = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('block-node'), 'node-name': str }),
  z.strictObject({ type: z.literal('chardev'), id: str }),
  z.strictObject({ type: z.literal('migration') }),
]);
const names = z.array(z.strictObject({ name: str }));

export const CONTROL = [
  command({
    name: 'qmp_capabilities',
    summary: 'ends the negotiation; `oob` allows commands out of band',
    args: z.strictObject({ enable: z.array(z.enum(['oob'])).optional() }),
    returns: none,
    first: true,
    run: (_monitor, { enable = [] }, caller) => {
      caller.negotiate(enable);
      return {};
    },
  }),
  command({
    name: 'query-version',
    summary: 'whose protocol this is, and who speaks it',
    args: none,
    returns: z.strictObject({ qemu: z.strictObject({ major: int, minor: int, micro: int }), package: str }),
    oob: true,
    run: () => VERSION,
  }),
  command({
    name: 'query-commands',
    summary: 'names of all commands',
    args: none,
    returns: names,
    oob: true,
    run: ({ commands }) => [...commands.keys()].map((name) => ({ name })),
  }),
  command({
    name: 'query-events',
    summary: 'names of all events',
    args: none,
    returns: names,
    features: ['deprecated'],
    run: () => EVENTS.map(({ name }) => ({ name })),
  }),
  command({
    name: 'query-qmp-schema',
    summary: 'every command, event and type',
    args: none,
    returns: z.array(schemaInfo),
    run: ({ schema }) => schema,
  }),
  command({
    name: 'query-yank',
    summary: 'connections that could be cut: there are none',
    args: none,
    returns: z.array(yankInstance),
    oob: true,
    run: () => [],
  }),
  command({
    name: 'yank',
    summary: 'cuts connections, of which there are none',
    changes: true,
    args: z.strictObject({ instances: z.array(yankInstance) }),
    returns: none,
    oob: true,
    run: (_monitor, { instances }) => {
      if (instances.length > 0) throw new QmpError('Instance not found', 'DeviceNotFound');
      return {};
    },
  }),
];
