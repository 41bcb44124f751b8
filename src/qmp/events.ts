/** Every event of the protocol, and how the machine's own events become them. */
import * as z from 'zod';
import type { LiveRequest } from '../client/live.ts';
import type { EndReason, MachineEvent } from '../client/machine_client.ts';
import type { EventDefinition } from './command.ts';
import { bool, int, none, str } from './types.ts';

const shutdownCause = z.enum([
  ...(['none', 'host-error', 'host-qmp-quit', 'host-qmp-system-reset', 'host-signal', 'host-ui'] as const),
  ...(['guest-shutdown', 'guest-reset', 'guest-panic', 'subsystem-reset', 'snapshot-load'] as const),
]);
export type ShutdownCause = z.output<typeof shutdownCause>;
const cause = z.strictObject({ guest: bool, reason: shutdownCause });
const panicAction = z.strictObject({ action: z.enum(['pause', 'poweroff', 'run']) });
const device = z.strictObject({ device: str.optional(), path: str });

export const ospmStatus = z.strictObject({
  device: str.optional(),
  slot: str,
  'slot-type': z.enum(['DIMM', 'CPU']),
  source: int,
  status: int,
});
export type OspmStatus = z.output<typeof ospmStatus>;

export const watchdogAction = z.enum(['reset', 'shutdown', 'poweroff', 'pause', 'debug', 'none', 'inject-nmi']);

/** Where the clock of the board stands. */
export const RTC_PATH = '/machine/unattached/rtc';

const define = <N extends string, D extends z.ZodType>(name: N, summary: string, data: D) => ({ name, summary, data });

export const EVENTS = [
  define('SHUTDOWN', 'the machine ends', cause),
  define('POWERDOWN', 'the power button was pressed through QMP', none),
  define('RESET', 'the machine was reset', cause),
  define('STOP', 'the machine stands still', none),
  define('RESUME', 'the machine runs', none),
  define('WATCHDOG', 'the guest did not feed its watchdog', z.strictObject({ action: watchdogAction })),
  define('GUEST_PANICKED', 'the guest kernel panicked', panicAction),
  define('GUEST_CRASHLOADED', 'the guest kernel panicked and runs its crash kernel', panicAction),
  define('DEVICE_DELETED', 'a device is out of the machine', device),
  define('DEVICE_UNPLUG_GUEST_ERROR', 'the guest does not let go of a device', device),
  define('MEM_UNPLUG_ERROR', 'the guest does not let go of a DIMM', z.strictObject({ device: str, msg: str })),
  define(
    'MEMORY_DEVICE_SIZE_CHANGE',
    'the guest has another part of a virtio-mem device plugged',
    z.strictObject({ id: str.optional(), size: int, 'qom-path': str }),
  ),
  define('ACPI_DEVICE_OST', 'the guest answered about a vCPU or a DIMM (_OST)', z.strictObject({ info: ospmStatus })),
  define(
    'DUMP_COMPLETED',
    'a dump of the memory is done, or failed',
    z.strictObject({
      result: z.strictObject({ status: z.enum(['none', 'active', 'completed', 'failed']), completed: int, total: int }),
      error: str.optional(),
    }),
  ),
  define(
    'BALLOON_CHANGE',
    'the guest has another amount of RAM left beside the balloon',
    z.strictObject({ actual: int }),
  ),
  define('RTC_CHANGE', 'the guest has set its clock', z.strictObject({ offset: int, 'qom-path': str })),
  define('VSERPORT_CHANGE', 'a program in the guest opened or closed a port', z.strictObject({ id: str, open: bool })),
  define(
    'BLOCK_IO_ERROR',
    'a request failed; it may have stopped the machine',
    z.strictObject({
      ...{ device: str, 'node-name': str.optional(), operation: z.enum(['read', 'write']) },
      ...{ action: z.enum(['ignore', 'report', 'stop']), nospace: bool.optional(), reason: str },
    }),
  ),
] as const satisfies readonly EventDefinition[];

type Definition = (typeof EVENTS)[number];
export type EventName = Definition['name'];
export type EventData<N extends EventName> = z.input<Extract<Definition, { name: N }>['data']>;

/** An event as it goes out, without its time. */
export type QmpEvent = { readonly [N in EventName]: { readonly event: N; readonly data: EventData<N> } }[EventName];

const event = <N extends EventName>(name: N, data: EventData<N>) => ({ event: name, data }) as QmpEvent;

const CAUSES: Readonly<Record<EndReason, ShutdownCause>> = {
  poweroff: 'guest-shutdown',
  reset: 'guest-reset',
  panic: 'guest-panic',
  'triple-fault': 'guest-reset',
  'debug-exit': 'guest-shutdown',
  'internal-error': 'host-error',
  'engine-error': 'host-error',
  quit: 'host-ui',
};
const PANIC_ACTIONS = { stop: 'poweroff', pause: 'pause', continue: 'run' } as const;

/** What translating needs to know besides the event. */
export interface EventContext {
  readonly onPanic: keyof typeof PANIC_ACTIONS;
  /** Why the next reset or end happens, where QMP asked for it. */
  readonly asked: ShutdownCause | undefined;
  /** The machine ran, or stood still, before this event. */
  readonly wasRunning: boolean | undefined;
  /** What peers call the device of this id. */
  readonly peer: (id: string) => string;
  /** The node of a peer's that a disk is on. */
  readonly node: (disk: string) => string | undefined;
  readonly nameOf: (request: LiveRequest) => { readonly device?: string; readonly path: string };
  /** The last answer about the device that was told. */
  readonly lastOst: (request: LiveRequest) => string | undefined;
}

/** Another request's answer is another one, though it may say the same. */
export const ostKey = ({ id, ost }: LiveRequest): string | undefined => ost && `${id} ${ost.event} ${ost.status}`;

/** What there is to tell of a device that has not answered. */
export const noAnswer = (kind: OspmStatus['slot-type'], slot: number, device: string | undefined): OspmStatus => ({
  ...(device !== undefined && { device }),
  ...{ slot: String(slot), 'slot-type': kind, source: 0, status: 0 },
});

export function ospmStatusOf(request: LiveRequest, device: string | undefined): OspmStatus | undefined {
  const { device: live, ost } = request;
  if (!ost || (live.kind !== 'cpu' && live.kind !== 'memory')) return undefined;
  return {
    ...(device !== undefined && { device }),
    slot: String(live.kind === 'cpu' ? live.index : live.slot),
    ...{ 'slot-type': live.kind === 'cpu' ? 'CPU' : 'DIMM', source: ost.event, status: ost.status },
  };
}

/** What peers are told when this happens in the machine. */
export function translate(happened: MachineEvent, context: EventContext): QmpEvent[] {
  switch (happened.type) {
    case 'state':
      if (happened.state === 'paused' && context.wasRunning !== false) return [event('STOP', {})];
      if (happened.state === 'running' && context.wasRunning === false) return [event('RESUME', {})];
      return [];
    case 'reset': {
      const guest = happened.cause !== 'the user';
      return [event('RESET', { guest, reason: guest ? 'guest-reset' : (context.asked ?? 'host-ui') })];
    }
    case 'panic':
      return [event('GUEST_PANICKED', { action: PANIC_ACTIONS[context.onPanic] })];
    case 'crash-loaded':
      return [event('GUEST_CRASHLOADED', { action: 'run' })];
    case 'watchdog': {
      const action = watchdogAction.safeParse(happened.action === 'nmi' ? 'inject-nmi' : happened.action);
      return [event('WATCHDOG', { action: action.data ?? 'none' })];
    }
    case 'disk-error': {
      const node = context.node(happened.disk);
      return [
        event('BLOCK_IO_ERROR', {
          ...{ device: context.peer(happened.disk), ...(node !== undefined && { 'node-name': node }) },
          ...{ operation: happened.operation === 'read' ? 'read' : 'write' },
          ...{
            action: happened.action,
            nospace: happened.errno === 'ENOSPC',
            reason: `${happened.errno} at byte ${happened.offset}`,
          },
        }),
      ];
    }
    case 'clock-set':
      return [event('RTC_CHANGE', { offset: happened.offset, 'qom-path': RTC_PATH })];
    case 'port':
      return [event('VSERPORT_CHANGE', { id: context.peer(happened.name), open: happened.open })];
    case 'ended': {
      const reason = happened.end.reason === 'quit' ? (context.asked ?? 'host-ui') : CAUSES[happened.end.reason];
      return [event('SHUTDOWN', { guest: reason.startsWith('guest-'), reason })];
    }
    case 'memory-size': {
      const id = context.peer(happened.device);
      return [
        event('MEMORY_DEVICE_SIZE_CHANGE', { id, size: happened.plugged, 'qom-path': `/machine/peripheral/${id}` }),
      ];
    }
    case 'request':
      return translateRequest(happened.request, context);
    default:
      return [];
  }
}

function translateRequest(request: LiveRequest, context: EventContext): QmpEvent[] {
  const name = context.nameOf(request);
  const events: QmpEvent[] = [];
  const ost = ospmStatusOf(request, name.device);
  if (ost && ostKey(request) !== context.lastOst(request)) events.push(event('ACPI_DEVICE_OST', { info: ost }));
  const { action, stage, history, reason = 'no reason is known.' } = request;
  if (stage === 'removed') events.push(...goneOf(request, name));
  else if (stage === 'refused' && action === 'unplug') {
    events.push(event('DEVICE_UNPLUG_GUEST_ERROR', name));
    if (request.device.kind === 'memory') {
      events.push(event('MEM_UNPLUG_ERROR', { device: name.device ?? request.device.id, msg: reason }));
    }
  } else if (stage === 'refused' && action === 'plug' && history.some((each) => each.stage === 'notified')) {
    // Whoever plugged it was told that it is there.
    events.push(...goneOf(request, name));
  }
  return events;
}

const ON_SERIAL_BUS: readonly string[] = ['virtio-console', 'virtio-port'];

/**
 * What is behind a virtio device's bus has a path alone. It is told of last, where QEMU does so first: a client that waits
 * for the next event of this kind gets the one with the device's id.
 */
function goneOf({ device: live }: LiveRequest, name: ReturnType<EventContext['nameOf']>): QmpEvent[] {
  // Consoles and ports are on a bus of their own there.
  const behind = live.kind === 'pci' && live.type.startsWith('virtio-') && !ON_SERIAL_BUS.includes(live.type);
  return [
    event('DEVICE_DELETED', name),
    ...(behind ? [event('DEVICE_DELETED', { path: `${name.path}/virtio-backend` })] : []),
  ];
}
