/** What management programs ask before they trust a machine with anything. */
import * as z from 'zod';
import type { MachineDescription } from '../../client/description.ts';
import { command } from '../command.ts';
import { CPU_TYPE } from '../devices.ts';
import { QmpError } from '../errors.ts';
import { watchdogAction } from '../events.ts';
import type { Monitor } from '../monitor.ts';
import { any, bool, int, none, str } from '../types.ts';

const model = z.strictObject({ name: str, props: any.optional() });
/** Models that are all of the host's processor. */
const MODELS = ['host', 'max'];

function expand({ name, props }: z.output<typeof model>, type: 'static' | 'full') {
  if (!MODELS.includes(name)) throw new QmpError(`CPU model '${name}' not found`);
  const given = z.record(str, any).optional().safeParse(props);
  if (!given.success) throw new QmpError("Invalid parameter type for 'model.props', expected: object");
  const [unknown] = Object.keys(given.data ?? {});
  if (unknown !== undefined) throw new QmpError(`Property '${CPU_TYPE}.${unknown}' not found`);
  if (type === 'static') {
    throw new QmpError(`CPU model '${name}' has no static expansion: it is what the host's processor and KVM have`);
  }
  // Its features are KVM's business: none of them can be switched.
  return { model: { name, props: {} } };
}

const provider = z.enum(['kvm']);
const statsFilter = { providers: z.array(z.strictObject({ provider, names: z.array(str).optional() })).optional() };

/** Names of the same in both worlds. */
const REBOOT = { reset: 'reset', stop: 'shutdown' } as const;
const PANIC: Readonly<Record<MachineDescription['onPanic'], readonly string[]>> = {
  pause: ['pause'],
  stop: ['shutdown', 'exit-failure'],
  continue: ['none'],
};
const WATCHDOG: Readonly<Record<string, 'reset' | 'poweroff' | 'pause' | 'nmi' | 'none'>> = {
  ...{ reset: 'reset', poweroff: 'poweroff', pause: 'pause', none: 'none' },
  'inject-nmi': 'nmi',
};

async function setWatchdog(monitor: Monitor, action: z.output<typeof watchdogAction>): Promise<void> {
  const wanted = Object.hasOwn(WATCHDOG, action) ? WATCHDOG[action] : undefined;
  if (wanted === undefined) throw new QmpError(`A watchdog here cannot do '${action}'`);
  const { devices } = (await monitor.machine.plugged()).pci;
  for (const { id, type, plug } of devices) {
    const present = plug && 'action' in plug ? (plug.action ?? 'reset') : 'reset';
    if (type === 'i6300esb' && present !== wanted) {
      throw new QmpError(`'${monitor.names.peer(id)}' was plugged with the action '${present}', which stays`);
    }
  }
  monitor.watchdogAction = wanted;
}

const actions = z.strictObject({
  reboot: z.enum(['reset', 'shutdown']).optional(),
  shutdown: z.enum(['poweroff', 'pause']).optional(),
  panic: z.enum(['pause', 'shutdown', 'exit-failure', 'none']).optional(),
  watchdog: watchdogAction.optional(),
});

/** What a machine does is said at its start. @throws QmpError for anything else. */
async function setActions(monitor: Monitor, wanted: z.output<typeof actions>): Promise<void> {
  const { onReset, onPanic } = monitor.machine.description;
  const refuse = (what: string, present: string) =>
    new QmpError(`What a ${what} does is said at the start: '${present}' stays`);
  if (wanted.reboot !== undefined && wanted.reboot !== REBOOT[onReset]) throw refuse('reset', onReset);
  if (wanted.shutdown === 'pause') throw new QmpError('A machine that powers off ends: shutdown must be poweroff');
  if (wanted.panic !== undefined && !PANIC[onPanic].includes(wanted.panic)) {
    throw refuse('panic', onPanic);
  }
  if (wanted.watchdog !== undefined) await setWatchdog(monitor, wanted.watchdog);
}

export const PROBE = [
  command({
    name: 'query-cpu-definitions',
    summary: 'CPU models: the host',
    args: none,
    returns: z.array(
      z.strictObject({ name: str, typename: str, static: bool, deprecated: bool, 'migration-safe': bool.optional() }),
    ),
    run: () => [{ name: 'host', typename: CPU_TYPE, static: false, deprecated: false, 'migration-safe': false }],
  }),
  command({
    name: 'query-cpu-model-expansion',
    summary: 'what a CPU model stands for: the host is the host, with nothing to switch',
    args: z.strictObject({ type: z.enum(['static', 'full']), model }),
    returns: z.strictObject({ model }),
    run: (_monitor, args) => expand(args.model, args.type),
  }),
  command({
    name: 'query-migrate',
    summary: 'migration: there was none',
    args: none,
    returns: none,
    run: () => ({}),
  }),
  command({
    name: 'query-migrate-capabilities',
    summary: 'what migration can do: nothing yet',
    args: none,
    returns: z.array(z.strictObject({ capability: z.enum(['events']), state: bool })),
    run: () => [],
  }),
  command({
    name: 'query-migrate-parameters',
    summary: 'how migration goes: there is none yet',
    args: none,
    returns: none,
    run: () => ({}),
  }),
  command({
    name: 'query-stats',
    summary: "KVM's statistics: none are read",
    args: z.discriminatedUnion('target', [
      z.strictObject({ target: z.literal('vm'), ...statsFilter }),
      z.strictObject({ target: z.literal('vcpu'), ...statsFilter, vcpus: z.array(str).optional() }),
    ]),
    returns: z.array(
      z.strictObject({
        ...{ provider, 'qom-path': str.optional() },
        stats: z.array(z.strictObject({ name: str, value: z.union([int, bool, z.array(int)]) })),
      }),
    ),
    run: () => [],
  }),
  command({
    name: 'query-stats-schemas',
    summary: 'what `query-stats` has: nothing',
    args: z.strictObject({ provider: provider.optional() }),
    returns: z.array(
      z.strictObject({
        ...{ provider, target: z.enum(['vm', 'vcpu']) },
        stats: z.array(
          z.strictObject({
            name: str,
            type: z.enum(['cumulative', 'instant', 'peak', 'linear-histogram', 'log2-histogram']),
            unit: z.enum(['bytes', 'seconds', 'cycles', 'boolean']).optional(),
            ...{ base: int.optional(), exponent: int, 'bucket-size': int.optional() },
          }),
        ),
      }),
    ),
    run: () => [],
  }),
  command({
    name: 'query-fdsets',
    summary: 'descriptors that were handed over: none can be',
    args: none,
    returns: z.array(
      z.strictObject({ 'fdset-id': int, fds: z.array(z.strictObject({ fd: int, opaque: str.optional() })) }),
    ),
    run: () => [],
  }),
  command({
    name: 'query-display-options',
    summary: 'the display: none',
    args: none,
    returns: z.discriminatedUnion('type', [z.strictObject({ type: z.literal('none') })]),
    run: () => ({ type: 'none' as const }),
  }),
  command({
    name: 'watchdog-set-action',
    summary: 'what a watchdog does that is plugged from now on',
    changes: true,
    args: z.strictObject({ action: watchdogAction }),
    returns: none,
    run: async (monitor, { action }) => {
      await setWatchdog(monitor, action);
      return {};
    },
  }),
  command({
    name: 'set-action',
    summary: 'what resets, panics and watchdogs do: as it was said at the start, but for the watchdog',
    changes: true,
    args: actions,
    returns: none,
    run: async (monitor, wanted) => {
      await setActions(monitor, wanted);
      return {};
    },
  }),
];
