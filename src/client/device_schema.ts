/**
 * Devices that a machine has when they are asked for: `--device TYPE,key=value…`, `devices:` in a file, and
 * `plug` while it runs. Disks and network cards have their schemas in description.ts, which puts all together.
 */
import * as z from 'zod';
import { NemuError } from './errors.ts';
import { byteSize, byteSizeOrNone } from './sizes.ts';

const ID = z
  .string()
  .regex(
    /^[A-Za-z][A-Za-z0-9._-]{0,63}$/,
    'An id starts with a letter and has letters, digits, dots, dashes and underscores.',
  );
const FLOW = z.enum(['drop', 'wait']);

/** Where a device stands, by the name of the place. */
export const PLACE = z
  .string()
  .regex(/^[A-Za-z][A-Za-z0-9._-]{0,63}$/, 'A port is named like rp0 or sw0.1, a slot of the root bus like slot4.')
  .optional()
  .describe(
    'where it stands: a port (rp0, sw0.1), a slot of the root bus (slot4), a place behind a bridge (br0.1, br0)',
  );

const balloon = z.strictObject({
  type: z.literal('virtio-balloon'),
  id: ID.optional().describe('its name; balloon without one'),
  port: PLACE,
  deflateOnOom: z.boolean().default(false).describe('the guest takes pages back when it runs out of memory'),
  reporting: z.boolean().default(true).describe('the guest tells of pages that are free, and the host has them back'),
});

const consolePort = z.strictObject({
  type: z.literal('virtio-console'),
  id: ID.optional().describe('name of the console; hvc0, hvc1 and so on without one'),
  port: PLACE,
  flow: FLOW.default('drop').describe('without a reader: lose bytes (counted), or hold the guest'),
});

const port = z.strictObject({
  type: z.literal('virtio-port'),
  name: ID.describe('the guest has it as /dev/virtio-ports/NAME'),
  port: PLACE,
  flow: FLOW.default('wait').describe('without a reader: lose bytes (counted), or hold the guest'),
});

const watchdog = z.strictObject({
  type: z.literal('i6300esb'),
  id: ID.optional().describe('its name; watchdog without one'),
  port: PLACE,
  action: z
    .enum(['reset', 'poweroff', 'pause', 'nmi', 'none'])
    .default('reset')
    .describe('what happens when the guest does not feed it'),
});

const rng = z.strictObject({
  type: z.literal('virtio-rng'),
  id: ID.optional().describe('its name; rng without one'),
  port: PLACE,
});

const pcieSwitch = z.strictObject({
  type: z.literal('pcie-switch'),
  id: ID.optional().describe('its name; sw0, sw1 and so on without one'),
  port: PLACE,
  ports: z.int().min(1).max(32).default(4).describe('hot-plug ports that it has; each takes a bus number'),
});

const pciBridge = z.strictObject({
  type: z.literal('pci-bridge'),
  id: ID.optional().describe('its name; br0, br1 and so on without one'),
  port: PLACE,
});

const pmem = z.strictObject({
  type: z.literal('virtio-pmem'),
  id: ID.optional().describe('its name; pmem0, pmem1 and so on without one'),
  port: PLACE,
  file: z.string().min(1).describe('file behind the memory; it is made when it does not exist'),
  size: byteSize.optional().describe('bytes; what an existing file has, without'),
  share: z.boolean().default(true).describe('off: what the guest writes is lost with the machine'),
});

const MiB = 2 ** 20;
const LEAST_BLOCK = 2 * MiB;
const MOST_BLOCK = 1024 * MiB;
/** Each block has its state: what there are of them stays countable. */
const MOST_BLOCKS = 2 ** 20;

const memory = z.strictObject({
  type: z.literal('virtio-mem'),
  id: ID.optional().describe('its name; vm0, vm1 and so on without one'),
  port: PLACE,
  size: byteSize.describe('the most that the guest can be asked to plug of it'),
  requested: byteSizeOrNone.prefault(0).describe('what the guest is asked to plug at first; nothing without'),
  block: byteSize.prefault('2M').describe('what is plugged and unplugged at once: a power of two, 2M to 1G'),
  node: z.int().min(0).max(127).default(0).describe('NUMA node of the guest'),
  backend: z.enum(['anonymous', 'memfd']).default('anonymous').describe('where the memory is from'),
  hugepages: z.enum(['2M', '1G']).optional().describe('hugetlbfs page size; no block is smaller'),
  thp: z.boolean().default(true).describe('advise transparent huge pages'),
  hostNodes: z.array(z.number().int().min(0).max(63)).min(1).optional().describe('host NUMA nodes'),
  policy: z.enum(['bind', 'preferred', 'interleave']).default('bind').describe('how it is spread over hostNodes'),
});
export type VirtioMemDescription = z.output<typeof memory>;

/** What of a virtio-mem device contradicts itself. */
function* problemsOfMemory({ id, size, requested, block, hugepages }: VirtioMemDescription): Generator<string> {
  const whose = id === undefined ? 'virtio-mem' : `virtio-mem ${id}`;
  if (!Number.isInteger(Math.log2(block)) || block < LEAST_BLOCK || block > MOST_BLOCK) {
    yield `${whose}: a block of ${block} bytes is no power of two from 2 MiB to 1 GiB.`;
    return;
  }
  for (const [name, value] of Object.entries({ size, requested })) {
    if (value % block !== 0)
      yield `${whose}: ${name}=${value} is not a multiple of the block size, ${block / MiB} MiB.`;
  }
  if (requested > size) yield `${whose}: requested=${requested} is more than its size, ${size} bytes.`;
  if (hugepages === '1G' && block < MOST_BLOCK) yield `${whose}: with hugepages=1G, block=1G is needed.`;
  if (size > block * MOST_BLOCKS) {
    yield `${whose}: size=${size} is more than ${MOST_BLOCKS} blocks of ${block / MiB} MiB: use larger ones, with block=.`;
  }
}

/** What of a list of devices contradicts itself, besides each one's own fields. */
export function* problemsOfDevices(devices: readonly { readonly type: string }[]): Generator<string> {
  for (const type of SINGLE_TYPES) {
    if (devices.filter((device) => device.type === type).length > 1) yield `A machine has one ${type} at most.`;
  }
  for (const device of devices) {
    if (device.type === 'virtio-mem') yield* problemsOfMemory(device as VirtioMemDescription);
  }
}

/** All but disks and network cards. */
export const otherDevices = [rng, balloon, consolePort, port, watchdog, pcieSwitch, pciBridge, pmem, memory] as const;
export type OtherDevice = z.output<(typeof otherDevices)[number]>;
export type DeviceType = OtherDevice['type'] | 'virtio-blk' | 'virtio-net';

/** Kernel modules that drive each type: the guest that runs our init loads them. */
export const DEVICE_MODULES: Readonly<Record<DeviceType, readonly string[]>> = {
  'virtio-blk': ['virtio_blk'],
  'virtio-net': ['virtio_net'],
  'virtio-rng': ['virtio_rng'],
  'virtio-balloon': ['virtio_balloon'],
  'virtio-console': ['virtio_console'],
  'virtio-port': ['virtio_console'],
  i6300esb: ['i6300esb'],
  // In the kernel.
  'pcie-switch': [],
  'pci-bridge': [],
  'virtio-pmem': ['virtio_pmem', 'nd_pmem'],
  'virtio-mem': ['virtio_mem'],
};

/** QEMU's names for the same, and short ones. */
export const DEVICE_ALIASES: Readonly<Record<string, DeviceType>> = {
  'virtio-blk-pci': 'virtio-blk',
  disk: 'virtio-blk',
  'virtio-net-pci': 'virtio-net',
  nic: 'virtio-net',
  'virtio-rng-pci': 'virtio-rng',
  rng: 'virtio-rng',
  'virtio-balloon-pci': 'virtio-balloon',
  balloon: 'virtio-balloon',
  virtconsole: 'virtio-console',
  virtserialport: 'virtio-port',
  watchdog: 'i6300esb',
  switch: 'pcie-switch',
  'pcie-pci-bridge': 'pci-bridge',
  'virtio-pmem-pci': 'virtio-pmem',
  pmem: 'virtio-pmem',
  'virtio-mem-pci': 'virtio-mem',
};

/** Of these a machine has what it has at the start. */
export const BOOT_TYPES: readonly DeviceType[] = ['pci-bridge'];

/** Of these a machine has one at most. */
export const SINGLE_TYPES: readonly DeviceType[] = ['virtio-balloon', 'i6300esb'];

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
export function streams(devices: readonly { readonly type: string }[]): Stream[] {
  const others = devices as readonly OtherDevice[];
  const consoles = others.filter((device) => device.type === 'virtio-console');
  const ports = others.filter((device) => device.type === 'virtio-port');
  return [
    ...consoles.map(({ id, flow }, index) => ({ name: id ?? `hvc${index}`, console: true, flow })),
    ...ports.map(({ name, flow }) => ({ name, console: false, flow })),
  ];
}
