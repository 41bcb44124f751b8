/** Commands about the machine as a whole. */
import * as z from 'zod';
import { cpusSchema, diskSchema, MACHINE_TYPES, memorySchema, netSchema } from '../../client/description.ts';
import type { EndReason } from '../../client/machine_client.ts';
import { NMI, PAUSED, POWER_BUTTON, RESET, RESUMED } from '../../client/notes.ts';
import { command } from '../command.ts';
import { CPU_TYPE } from '../devices.ts';
import { QmpError } from '../errors.ts';
import { humanMonitor } from '../human_monitor.ts';
import type { Monitor } from '../monitor.ts';
import { bool, int, none, str } from '../types.ts';
import { jobStatus, jobType } from './jobs.ts';

const runState = z.enum([
  ...(['debug', 'inmigrate', 'internal-error', 'io-error', 'paused', 'postmigrate', 'prelaunch'] as const),
  ...(['finish-migrate', 'restore-vm', 'running', 'save-vm', 'shutdown', 'suspended', 'watchdog'] as const),
  ...(['guest-panicked', 'colo'] as const),
]);

const END_STATES: Readonly<Partial<Record<EndReason, z.output<typeof runState>>>> = {
  panic: 'guest-panicked',
  'internal-error': 'internal-error',
  'engine-error': 'internal-error',
};

function stateOf({ machine, pausedBy }: Monitor): z.output<typeof runState> {
  switch (machine.state) {
    case 'created':
      return 'prelaunch';
    case 'running':
      return 'running';
    case 'paused':
      return pausedBy ?? 'paused';
    case 'ended':
    case 'closed':
      return (machine.end && END_STATES[machine.end.reason]) ?? 'shutdown';
  }
}

export function statusOf(monitor: Monitor) {
  const status = stateOf(monitor);
  return { status, singlestep: false, running: status === 'running' };
}

type ParameterType = 'string' | 'boolean' | 'number' | 'size';

/** `hostNodes` as `host-nodes`: how options are written. */
const kebab = (name: string) => name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);

interface JsonSchema {
  readonly type?: string;
  readonly description?: string;
  readonly default?: unknown;
  readonly properties?: Readonly<Record<string, JsonSchema>>;
}

/** Options of `nemu run`, from the machine's own schema. */
function optionOf(option: string, schema: z.ZodType) {
  const { properties = {} } = z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any' }) as JsonSchema;
  const parameters = Object.entries(properties).map(([name, { type, description, default: standard }]) => ({
    name: kebab(name),
    type: typeOf(name, type),
    ...(description !== undefined && { help: description }),
    ...(['string', 'number', 'boolean'].includes(typeof standard) && { default: String(standard) }),
  }));
  return { option, parameters };
}

function typeOf(name: string, type: string | undefined): ParameterType {
  if (name === 'size' || (name === 'max' && type === undefined)) return 'size';
  if (type === 'integer' || type === 'number') return 'number';
  return type === 'boolean' ? 'boolean' : 'string';
}

const commandLine = () => [
  optionOf('smp-opts', cpusSchema),
  optionOf('memory', memorySchema),
  optionOf('drive', diskSchema),
  optionOf('netdev', netSchema),
];

export const MACHINE = [
  command({
    name: 'query-status',
    summary: 'whether the machine runs, and why not',
    args: none,
    returns: z.strictObject({ running: bool, singlestep: bool, status: runState }),
    oob: true,
    run: statusOf,
  }),
  command({
    name: 'stop',
    summary: 'stops every vCPU',
    changes: true,
    args: none,
    returns: none,
    oob: true,
    run: async (monitor) => {
      if (monitor.machine.state !== 'running') return {};
      await monitor.machine.pause();
      await monitor.did(PAUSED);
      return {};
    },
  }),
  command({
    name: 'cont',
    summary: 'lets the vCPUs go on',
    changes: true,
    args: none,
    returns: none,
    run: async (monitor) => {
      if (['running', 'created'].includes(monitor.machine.state)) return {};
      await monitor.machine.resume();
      await monitor.did(RESUMED);
      return {};
    },
  }),
  command({
    name: 'system_reset',
    summary: 'hard reset, as by the button',
    changes: true,
    args: none,
    returns: none,
    run: async (monitor) => {
      await monitor.asking('host-qmp-system-reset', () => monitor.machine.reset());
      await monitor.did(RESET);
      return {};
    },
  }),
  command({
    name: 'system_powerdown',
    summary: 'presses the ACPI power button',
    changes: true,
    args: none,
    returns: none,
    run: async (monitor) => {
      await monitor.machine.powerButton();
      await monitor.did(POWER_BUTTON);
      monitor.emit('POWERDOWN', {});
      return {};
    },
  }),
  command({
    name: 'quit',
    summary: 'ends the machine at once',
    changes: true,
    args: none,
    returns: none,
    oob: true,
    run: (monitor) => {
      // The answer goes before the end: whoever made the machine may end with it.
      setImmediate(() => void monitor.asking('host-qmp-quit', () => monitor.machine.close()));
      return {};
    },
  }),
  command({
    name: 'inject-nmi',
    summary: 'sends an NMI to every vCPU',
    changes: true,
    args: none,
    returns: none,
    oob: true,
    run: async (monitor) => {
      await monitor.machine.nmi();
      await monitor.did(NMI);
      return {};
    },
  }),
  command({
    name: 'human-monitor-command',
    summary: 'a line of the human monitor: `info status` and others',
    args: z.strictObject({ 'command-line': str, 'cpu-index': int.optional() }),
    returns: str,
    run: async (monitor, { 'command-line': line, 'cpu-index': cpu }) => {
      const { present } = (await monitor.machine.plugged()).cpus;
      if (cpu !== undefined && !present.some(({ index }) => index === cpu)) {
        throw new QmpError("Parameter 'cpu-index' expects a CPU number");
      }
      return humanMonitor(monitor, line, cpu);
    },
  }),
  command({
    name: 'query-name',
    summary: "the machine's name",
    args: none,
    returns: z.strictObject({ name: str.optional() }),
    run: ({ machine }) => ({ name: machine.description.name }),
  }),
  command({
    name: 'query-uuid',
    summary: "the machine's UUID: zeros, for it has none",
    args: none,
    returns: z.strictObject({ UUID: str }),
    run: () => ({ UUID: '00000000-0000-0000-0000-000000000000' }),
  }),
  command({
    name: 'query-kvm',
    summary: 'whether KVM is used: always',
    args: none,
    returns: z.strictObject({ enabled: bool, present: bool }),
    run: () => ({ enabled: true, present: true }),
  }),
  command({
    name: 'query-target',
    summary: "the guest's architecture",
    args: none,
    returns: z.strictObject({ arch: z.enum(['aarch64', 'x86_64']) }),
    run: () => ({ arch: 'x86_64' as const }),
  }),
  command({
    name: 'query-machines',
    summary: 'boards that there are',
    args: none,
    returns: z.array(
      z.strictObject({
        ...{ name: str, alias: str.optional(), 'is-default': bool.optional(), 'cpu-max': int },
        ...{ 'hotpluggable-cpus': bool, 'numa-mem-supported': bool, deprecated: bool },
        ...{ 'default-cpu-type': str.optional(), 'default-ram-id': str.optional() },
      }),
    ),
    run: () =>
      MACHINE_TYPES.map((name) => ({
        ...{ name, ...(name === 'q35' && { 'is-default': true }), 'cpu-max': 254, 'hotpluggable-cpus': true },
        ...{ 'numa-mem-supported': false, deprecated: false, 'default-cpu-type': CPU_TYPE },
      })),
  }),
  command({
    name: 'query-current-machine',
    summary: 'what this board can do',
    args: none,
    returns: z.strictObject({ 'wakeup-suspend-support': bool }),
    run: () => ({ 'wakeup-suspend-support': false }),
  }),
  command({
    name: 'query-command-line-options',
    summary: "options of the machine's description",
    args: z.strictObject({ option: str.optional() }),
    returns: z.array(
      z.strictObject({
        option: str,
        parameters: z.array(
          z.strictObject({
            ...{ name: str, type: z.enum(['string', 'boolean', 'number', 'size']) },
            ...{ help: str.optional(), default: str.optional() },
          }),
        ),
      }),
    ),
    run: (_monitor, { option }) => {
      const found = commandLine().filter((each) => option === undefined || each.option === option);
      if (found.length === 0) throw new QmpError(`invalid option name: ${option}`);
      return found;
    },
  }),
  command({
    name: 'query-jobs',
    summary: 'long operations: none',
    args: none,
    returns: z.array(
      z.strictObject({
        ...{ id: str, type: jobType, status: jobStatus, 'current-progress': int, 'total-progress': int },
        error: str.optional(),
      }),
    ),
    run: () => [],
  }),
];
