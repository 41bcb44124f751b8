/** Devices that a machine has when they are asked for: `--device TYPE,key=value…`, `devices:` in a file. */
import * as z from 'zod';
import { NemuError } from './errors.ts';

const ID = z
  .string()
  .regex(
    /^[A-Za-z][A-Za-z0-9._-]{0,63}$/,
    'An id starts with a letter and has letters, digits, dots, dashes and underscores.',
  );
const FLOW = z.enum(['drop', 'wait']);

const balloon = z.strictObject({
  type: z.literal('virtio-balloon'),
  deflateOnOom: z.boolean().default(false).describe('the guest takes pages back when it runs out of memory'),
  reporting: z.boolean().default(true).describe('the guest tells of pages that are free, and the host has them back'),
});

const consolePort = z.strictObject({
  type: z.literal('virtio-console'),
  id: ID.optional().describe('name of the console; hvc0, hvc1 and so on without one'),
  flow: FLOW.default('drop').describe('without a reader: lose bytes (counted), or hold the guest'),
});

const port = z.strictObject({
  type: z.literal('virtio-port'),
  name: ID.describe('the guest has it as /dev/virtio-ports/NAME'),
  flow: FLOW.default('wait').describe('without a reader: lose bytes (counted), or hold the guest'),
});

const watchdog = z.strictObject({
  type: z.literal('i6300esb'),
  action: z
    .enum(['reset', 'poweroff', 'pause', 'nmi', 'none'])
    .default('reset')
    .describe('what happens when the guest does not feed it'),
});

/** Kernel modules that drive each type: the guest that runs our init loads them. */
export const DEVICE_MODULES: Readonly<Record<DeviceDescription['type'], readonly string[]>> = {
  'virtio-balloon': ['virtio_balloon'],
  'virtio-console': ['virtio_console'],
  'virtio-port': ['virtio_console'],
  i6300esb: ['i6300esb'],
};

/** QEMU's names for the same, and short ones. */
export const DEVICE_ALIASES: Readonly<Record<string, DeviceDescription['type']>> = {
  'virtio-balloon-pci': 'virtio-balloon',
  balloon: 'virtio-balloon',
  virtconsole: 'virtio-console',
  virtserialport: 'virtio-port',
  watchdog: 'i6300esb',
};

export const deviceSchema = z.discriminatedUnion('type', [balloon, consolePort, port, watchdog]);
export type DeviceDescription = z.output<typeof deviceSchema>;
export type DeviceInput = z.input<typeof deviceSchema>;

export const devicesSchema = z
  .array(deviceSchema)
  .default([])
  .superRefine((devices, context) => {
    const problem = (message: string) => context.addIssue({ code: 'custom', message });
    for (const type of ['virtio-balloon', 'i6300esb'] as const) {
      if (devices.filter((device) => device.type === type).length > 1) problem(`A machine has one ${type} at most.`);
    }
    const names = streams(devices).map(({ name }) => name);
    const twice = names.find((name, index) => names.indexOf(name) !== index);
    if (twice !== undefined) problem(`Two devices have the name ${twice}.`);
  })
  .describe('balloon, consoles, ports, watchdog');

const side = z.int().min(1).max(1000);

/** Size of a terminal. @throws NemuError CONSOLE_SIZE */
export function parseConsoleSize(rows: number, columns: number): { rows: number; columns: number } {
  const result = z.strictObject({ rows: side, columns: side }).safeParse({ rows, columns });
  if (result.success) return result.data;
  throw new NemuError(
    'CONSOLE_SIZE',
    `A terminal of ${rows} rows and ${columns} columns cannot be: each is 1 to 1000.`,
  );
}

/** A byte stream of a virtio console or port, with the name that `MachineClient.console` knows it by. */
export interface Stream {
  readonly name: string;
  readonly console: boolean;
  readonly flow: 'drop' | 'wait';
}

/** Consoles first, in the order in which the guest numbers them. */
export function streams(devices: readonly DeviceDescription[]): Stream[] {
  const consoles = devices.filter((device) => device.type === 'virtio-console');
  const ports = devices.filter((device) => device.type === 'virtio-port');
  return [
    ...consoles.map(({ id, flow }, index) => ({ name: id ?? `hvc${index}`, console: true, flow })),
    ...ports.map(({ name, flow }) => ({ name, console: false, flow })),
  ];
}
