/**
 * The machine description: one schema from which command-line options, `machine.yaml`, dry runs and the
 * wire format derive. Sizes are bytes here; people write `2G`.
 */
import * as z from 'zod';
import { DEVICE_ALIASES, type DeviceType, otherDevices, PLACE, problemsOfDevices, streams } from './device_schema.ts';
import { NemuError } from './errors.ts';
import { explain, type FieldPath } from './explain.ts';
import { checkNuma, numaSchema, withMemoryOfNodes, withPackagesOfNodes } from './numa.ts';
import { nvdimmPersistenceSchema, nvdimmSchema, problemOfPmem } from './nvdimm.ts';
import { byteSize } from './sizes.ts';

export { parseSize } from './sizes.ts';

const MiB = 2 ** 20;

/** Memory comes and goes in sections of 128 MiB in Linux on x86-64 (SECTION_SIZE_BITS of asm/sparsemem.h). */
export const DIMM_ALIGNMENT = 128 * MiB;

const cpuList = z.array(z.number().int().min(0).max(1023));

/** Features that can be taken from a guest; src/vmm/x86/features.ts has where each stands in CPUID. */
export const CPU_FEATURES = [
  'xsave',
  'avx',
  'fma',
  'f16c',
  'pcid',
  'x2apic',
  'tsc_deadline_timer',
  'aes',
  'rdrand',
  'hypervisor',
  'fsgsbase',
  'avx2',
  'smep',
  'erms',
  'invpcid',
  'rtm',
  'avx512f',
  'rdseed',
  'smap',
  'sha_ni',
  'umip',
  'pku',
  'la57',
  'rdpid',
  'pdpe1gb',
  'rdtscp',
] as const;

export const cpusSchema = z
  .strictObject({
    count: z.number().int().min(1).max(254).default(1).describe('vCPUs at boot'),
    max: z.number().int().min(1).max(254).optional().describe('vCPUs that there is room for: the rest can be plugged'),
    sockets: z.number().int().min(1).max(254).optional().describe('packages; by default what the other counts leave'),
    cores: z.number().int().min(1).max(254).optional().describe('cores a package'),
    threads: z.number().int().min(1).max(2).optional().describe('threads a core'),
    without: z
      .array(z.enum(CPU_FEATURES))
      .default([])
      .describe('features of the host that the guest does not get, by their names in /proc/cpuinfo'),
    pin: z.array(cpuList).optional().describe('host CPUs for each vCPU, in order; [] for any'),
  })
  .transform((cpus, context) => {
    const { count, max, without, pin } = cpus;
    const problem = (message: string) => {
      context.addIssue({ code: 'custom', message });
      return z.NEVER;
    };
    const all = max ?? count;
    if (all < count) return problem(`There are ${count} vCPUs at boot, but max=${max} leaves room for fewer.`);
    const threads = cpus.threads ?? 1;
    // Like QEMU since 6.2: what is not said becomes cores of one package. Room counts like what is there.
    const cores = cpus.cores ?? Math.max(1, Math.floor(all / ((cpus.sockets ?? 1) * threads)));
    const sockets = cpus.sockets ?? Math.max(1, Math.ceil(all / (cores * threads)));
    if (sockets * cores * threads !== all) {
      return problem(
        `${sockets} sockets of ${cores} cores of ${threads} threads are ${sockets * cores * threads} processors, not ${all}.`,
      );
    }
    if (pin && !(pin.length === count || pin.length === all)) {
      return problem(`Pinning names host CPUs for ${pin.length} vCPUs, but there are ${count}.`);
    }
    // Always in this order: a description that is read again is printed the same.
    return { count, ...(max !== undefined && { max }), sockets, cores, threads, without, ...(pin && { pin }) };
  });

/** Slots for DIMMs when room is asked for without a number, and the most that the ACPI interface has. */
const DEFAULT_SLOTS = 8;
const MAX_SLOTS = 256;

/** Where memory is from, whether it is there at boot or is plugged. */
export const memoryBackendFields = {
  backend: z.enum(['anonymous', 'memfd', 'file']).default('anonymous'),
  path: z.string().min(1).optional().describe('file behind the memory (backend=file)'),
  share: z.boolean().default(false).describe('the guest writes to the file, and others see it'),
  hugepages: z.enum(['2M', '1G']).optional().describe('hugetlbfs page size'),
  thp: z.boolean().default(true).describe('advise transparent huge pages'),
  prealloc: z.boolean().default(false).describe('touch every page before the guest starts'),
  preallocThreads: z.number().int().min(1).max(64).default(4),
  lock: z.boolean().default(false).describe('mlock: never swapped'),
  hostNodes: z.array(z.number().int().min(0).max(63)).min(1).optional().describe('host NUMA nodes'),
  policy: z.enum(['bind', 'preferred', 'interleave']).default('bind'),
} as const;

/** What of a backend contradicts itself. */
export function checkMemoryBackend(
  memory: { backend: string; path?: string | undefined; hugepages?: string | undefined },
  problem: (message: string) => void,
): void {
  if (memory.backend === 'file' && !memory.path) problem('Memory with backend=file needs path=FILE.');
  if (memory.path && memory.backend !== 'file') problem(`Memory with path=${memory.path} needs backend=file.`);
  if (memory.path && memory.hugepages) {
    problem('hugepages= makes its own hugetlbfs memory: leave it out for a file (the file system decides there).');
  }
}

/** A DIMM, whether it is there at boot or is plugged. */
export const dimmFields = {
  size: byteSize.describe('bytes, a multiple of 128 MiB'),
  node: z.int().min(0).max(127).optional().describe('NUMA node of the guest; 0 without'),
  ...memoryBackendFields,
} as const;

/** What of a DIMM contradicts itself. */
export function checkDimm(
  dimm: { size: number } & Parameters<typeof checkMemoryBackend>[0],
  problem: (message: string) => void,
): void {
  if (dimm.size % DIMM_ALIGNMENT !== 0) {
    problem(`A DIMM of ${dimm.size} bytes is not a multiple of 128 MiB, in which Linux takes memory.`);
  }
  checkMemoryBackend(dimm, problem);
}

export const memorySchema = z
  .strictObject({
    size: byteSize.prefault('512M').describe('bytes of RAM at boot'),
    max: byteSize.optional().describe('bytes that there is room for: the rest can be plugged'),
    slots: z
      .number()
      .int()
      .min(1)
      .max(MAX_SLOTS)
      .optional()
      .describe(`DIMMs that can be plugged; ${DEFAULT_SLOTS} with max alone`),
    ...memoryBackendFields,
  })
  .superRefine((memory, context) => {
    const problem = (message: string) => context.addIssue({ code: 'custom', message });
    if (memory.size % 4096 !== 0) problem(`Memory of ${memory.size} bytes is not a multiple of the page size, 4096.`);
    if (memory.size < 2 * MiB) problem(`Memory of ${memory.size} bytes is less than the least, 2 MiB.`);
    if (memory.size > 2 ** 45) problem(`Memory of ${memory.size} bytes is more than the most, 32 TiB.`);
    checkMemoryBackend(memory, problem);
    if (memory.slots !== undefined && memory.max === undefined) problem('slots= for DIMMs needs max=SIZE too.');
    if (memory.max === undefined) return;
    if (memory.max <= memory.size) problem(`max=${memory.max} bytes leaves no room above the ${memory.size} at boot.`);
    if (memory.max > 2 ** 45) problem(`max=${memory.max} bytes is more than the most, 32 TiB.`);
  })
  // Always in this order: a description that is read again is printed the same.
  .transform(({ size, max, slots, ...backend }) => ({
    size,
    ...(max !== undefined && { max, slots: slots ?? DEFAULT_SLOTS }),
    ...backend,
  }));

export const kernelSchema = z.strictObject({
  image: z.string().min(1).describe('bzImage, ELF64 (PVH or plain) or Multiboot 1 file'),
  initrd: z.array(z.string().min(1)).default([]).describe('files that are put behind each other'),
  cmdline: z.string().default(''),
});

export const UART_NAMES = ['com1', 'com2', 'com3', 'com4'] as const;
export type UartName = (typeof UART_NAMES)[number];

/** A serial port: its name, or also what happens when nobody takes its output. */
const serialSchema = z.preprocess(
  (value) => (typeof value === 'string' ? { port: value } : value),
  z.strictObject({
    port: z.enum(UART_NAMES),
    flow: z
      .enum(['drop', 'wait'])
      .default('drop')
      .describe('without a reader: lose bytes (counted), or hold the guest'),
  }),
) as z.ZodPipe<
  z.ZodTransform<unknown, UartName | { port: UartName; flow?: 'drop' | 'wait' | undefined }>,
  z.ZodObject<{
    port: z.ZodEnum<{ [K in UartName]: K }>;
    flow: z.ZodDefault<z.ZodEnum<{ drop: 'drop'; wait: 'wait' }>>;
  }>
>;

function unique(ids: readonly (string | undefined)[]): boolean {
  const named = ids.filter((id) => id !== undefined);
  return new Set(named).size === named.length;
}

export const ID = z
  .string()
  .regex(
    /^[A-Za-z][A-Za-z0-9._-]{0,31}$/,
    'An id starts with a letter and has letters, digits, dots, dashes and underscores.',
  );
/** One that is there at boot; it can go, as one that was plugged. */
export const dimmSchema = z
  .strictObject({ id: ID.optional().describe('name; dimm0, dimm1 and so on by its slot without one'), ...dimmFields })
  .superRefine((dimm, context) => checkDimm(dimm, (message) => context.addIssue({ code: 'custom', message })));

const ERROR_POLICY = ['report', 'stop', 'ignore', 'enospc'] as const;

const perSecond = z.int().min(1).max(1e12).optional();

/** Limits of a disk; what is not given is not limited. */
export const throttleSchema = z.strictObject({
  iops: perSecond.describe('requests in a second'),
  iopsRead: perSecond.describe('reads in a second'),
  iopsWrite: perSecond.describe('writes in a second'),
  iopsMax: perSecond.describe('requests that may come at once, with iops'),
  bps: perSecond.describe('bytes in a second'),
  bpsRead: perSecond.describe('bytes read in a second'),
  bpsWrite: perSecond.describe('bytes written in a second'),
  bpsMax: perSecond.describe('bytes that may come at once, with bps'),
});
export type ThrottleInput = z.input<typeof throttleSchema>;

/** Limits of a network card; what is not given is not limited. `rx` is what the guest receives. */
export const netThrottleSchema = z.strictObject({
  pps: perSecond.describe('packets in a second'),
  ppsRx: perSecond.describe('packets received in a second'),
  ppsTx: perSecond.describe('packets sent in a second'),
  ppsMax: perSecond.describe('packets that may come at once; a tenth of a second without'),
  bps: perSecond.describe('bytes in a second'),
  bpsRx: perSecond.describe('bytes received in a second'),
  bpsTx: perSecond.describe('bytes sent in a second'),
  bpsMax: perSecond.describe('bytes that may come at once; a tenth of a second without'),
});
export type NetThrottleInput = z.input<typeof netThrottleSchema>;

export const diskSchema = z.strictObject({
  file: z.string().min(1).describe('image or block device'),
  id: ID.optional().describe('name of the disk; vda, vdb and so on without one'),
  format: z.enum(['raw', 'qcow2']).optional().describe('found out by the first bytes where it is not said'),
  readonly: z.boolean().default(false),
  serial: z.string().max(20).optional(),
  queues: z.int().min(1).max(64).default(1),
  cache: z.enum(['writeback', 'none']).default('writeback').describe("with the host's page cache, or past it"),
  packed: z.boolean().default(false).describe('packed virtqueues'),
  werror: z.enum(ERROR_POLICY).default('enospc').describe('what a failed write does; enospc stops when space is short'),
  rerror: z.enum(['report', 'stop', 'ignore']).default('report').describe('what a failed read does'),
  throttle: throttleSchema.optional().describe('limits on requests and bytes in a second'),
  port: PLACE,
});

const MAC = z
  .string()
  .regex(/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i, 'An address is written like 52:54:00:12:34:56.')
  .toLowerCase()
  .refine((text) => !(Number.parseInt(text.slice(0, 2), 16) & 1), 'This is a group address.');
const PORT = z.int().min(1).max(65535);

const IPV4 = z.ipv4('An address is written like 127.0.0.1.');

export const hostForwardSchema = z.strictObject({
  protocol: z.enum(['tcp', 'udp']).default('tcp'),
  hostAddress: IPV4.default('127.0.0.1'),
  hostPort: PORT,
  guestAddress: IPV4.optional(),
  guestPort: PORT,
});
export type HostForwardInput = z.input<typeof hostForwardSchema>;
export type HostForward = z.output<typeof hostForwardSchema>;

/** What a card is plugged into. */
const netBackendFields = {
  type: z.enum(['user', 'tap']),
  ifname: z.string().min(1).max(15).optional().describe('tap: name of the interface'),
  queues: z.int().min(1).max(32).default(1).describe('tap: pairs of queues'),
  net: z.string().optional().describe('user: IPv4 network, 10.0.2.0/24 without one'),
  hostname: z.string().optional().describe('user: name that DHCP gives'),
  restrict: z.boolean().default(false).describe('user: nothing but what is forwarded gets in or out'),
  hostForwards: z.array(hostForwardSchema).default([]),
} as const;
const plainBackend = z.strictObject(netBackendFields);
const backendRules = <S extends z.ZodType<z.output<typeof plainBackend>>>(schema: S): S =>
  schema
    .refine(({ type, ifname, queues }) => type === 'tap' || (ifname === undefined && queues === 1), {
      message: 'ifname= and queues= are for tap.',
    })
    .refine(({ type, net, hostForwards }) => type === 'user' || (net === undefined && hostForwards.length === 0), {
      message: 'net= and hostfwd= are for user.',
    });

export const netBackendSchema = backendRules(plainBackend);
export type NetBackendInput = z.input<typeof netBackendSchema>;
export type NetBackendDescription = z.output<typeof netBackendSchema>;

const netFields = z.strictObject({
  ...netBackendFields,
  id: ID.optional().describe('name of the card; net0, net1 and so on without one'),
  mac: MAC.optional().describe('its Ethernet address'),
  mtu: z.int().min(68).max(65535).optional().describe('bytes of the largest packet'),
  packed: z.boolean().default(false),
  port: PLACE,
  link: z.boolean().default(true).describe('the cable is in at first'),
  throttle: netThrottleSchema.optional().describe('limits on packets and bytes in a second'),
});
export const netSchema = backendRules(netFields);

/** A disk and a network card as devices among the others; `backend` is what the type of a card is elsewhere. */
const diskDevice = diskSchema.extend({ type: z.literal('virtio-blk') });
const { type: backend, ...cardFields } = netFields.shape;
const netDevice = z.strictObject({
  type: z.literal('virtio-net'),
  backend: backend.default('user').describe("the host's side: user, or tap"),
  ...cardFields,
});

/** Every device that a machine can have, by its type. */
export const deviceSchemas = [diskDevice, netDevice, ...otherDevices] as const;
export const deviceSchema = z.discriminatedUnion('type', deviceSchemas);
export type DeviceDescription = z.output<typeof deviceSchema>;
export type DeviceInput = z.input<typeof deviceSchema>;

/** KVM's slots that are kept for them. */
export const MOST_PMEMS = 16;

const devicesSchema = z
  .array(deviceSchema)
  .default([])
  .superRefine((devices, context) => {
    const problem = (message: string) => context.addIssue({ code: 'custom', message });
    for (const text of problemsOfDevices(devices)) problem(text);
    const names = [
      ...streams(devices).map(({ name }) => name),
      // A console's id is its stream's name.
      ...devices.flatMap((each) =>
        each.type === 'virtio-port' || each.type === 'virtio-console' ? [] : (each.id ?? []),
      ),
    ];
    const twice = names.find((name, index) => names.indexOf(name) !== index);
    if (twice !== undefined) problem(`Two devices have the name ${twice}.`);
    const pmems = devices.filter((device) => device.type === 'virtio-pmem');
    if (pmems.length > MOST_PMEMS) problem(`A machine has ${MOST_PMEMS} virtio-pmem at most, not ${pmems.length}.`);
    for (const text of pmems.map(problemOfPmem)) if (text !== undefined) problem(text);
  })
  .describe('entropy, balloon, consoles, ports, watchdog, switches, memory by blocks; disks and network cards too');

export const MACHINE_TYPES = ['q35', 'pc', 'minimal'] as const;

const machineFields = z.strictObject({
  name: z
    .string()
    .regex(
      /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/,
      'A name starts with a letter or digit and has letters, digits, dots, dashes and underscores, 63 at most.',
    )
    .default('nemu'),
  machine: z
    .enum(MACHINE_TYPES)
    .default('q35')
    .describe(
      'board: q35 with PCI Express, pc with i440FX and PIIX, or minimal with virtio devices in memory and no PCI',
    ),
  cpus: cpusSchema.prefault({}),
  memory: memorySchema.prefault({}),
  numa: numaSchema.optional().describe('nodes that processors and memory belong to'),
  kernel: kernelSchema,
  serial: z
    .array(serialSchema)
    .prefault(['com1'])
    .refine((list) => new Set(list.map(({ port }) => port)).size === list.length, {
      message: 'Each serial port can be named once.',
    })
    .describe('16550A ports that exist'),
  pcie: z
    .strictObject({
      rootPorts: z
        .int()
        .min(0)
        .max(64)
        .default(2)
        .describe('hot-plug slots that are there at boot: rp0, rp1 and so on'),
      buses: z
        .int()
        .min(1)
        .max(64)
        .optional()
        .describe(
          'bus numbers kept behind each of them; without it 6 behind rp0, for a switch with 4 ports, and 1 behind the others',
        ),
    })
    .refine(({ rootPorts, buses = 1 }) => rootPorts * buses <= 255, {
      message: 'There are 255 bus numbers: rootPorts times buses is more.',
    })
    .prefault({}),
  disks: z
    .array(diskSchema)
    .default([])
    .refine((list) => unique(list.map(({ id }) => id)), { message: 'Two disks have the same id.' }),
  nets: z
    .array(netSchema)
    .default([])
    .refine((list) => unique(list.map(({ id }) => id)), { message: 'Two network cards have the same id.' }),
  dimms: z
    .array(dimmSchema)
    .default([])
    .refine((list) => unique(list.map(({ id }) => id)), { message: 'Two DIMMs have the same id.' })
    .describe('memory that is there at boot in slots, and can go; it needs memory.max'),
  nvdimms: z
    .array(nvdimmSchema)
    .default([])
    .refine((list) => unique(list.map(({ id }) => id)), { message: 'Two NVDIMMs have the same id.' })
    .describe('persistent memory that is there at boot'),
  nvdimmPersistence: nvdimmPersistenceSchema
    .default('none')
    .describe('what the host keeps of unflushed data of NVDIMMs when its power fails: nothing, unless it is so built'),
  rng: z.boolean().default(false).describe('virtio entropy device'),
  devices: devicesSchema,
  rtc: z.boolean().default(true).describe('MC146818 clock and CMOS'),
  pvpanic: z.boolean().default(true),
  debugExit: z.boolean().default(false).describe('isa-debug-exit at port 0xf4'),
  i8042: z.boolean().default(false).describe('keyboard controller'),
  hpet: z.boolean().default(false).describe('high precision event timer'),
  fwCfg: z
    .array(
      z
        .strictObject({
          name: z.string().min(1).max(55),
          string: z.string().optional(),
          file: z.string().min(1).optional(),
        })
        .refine((item) => (item.string === undefined) !== (item.file === undefined), {
          message: 'A fw_cfg item has either string= or file=.',
        }),
    )
    .default([])
    .describe('files that the guest can read through fw_cfg'),
  onReset: z.enum(['reset', 'stop']).default('reset').describe('what a guest reset does'),
  onTripleFault: z.enum(['stop', 'reset']).default('stop').describe('what a triple fault does'),
  onPanic: z.enum(['stop', 'pause', 'continue']).default('stop').describe('what a guest panic does'),
});

/** A machine as a file describes it: the kernel may come from elsewhere. */
export const configSchema = machineFields.extend({ kernel: kernelSchema.partial().optional() });
export type ConfigInput = z.input<typeof configSchema>;

/** vCPUs that a machine has room for, the ones at boot among them. */
export const possibleCpus = (cpus: { readonly count: number; readonly max?: number | undefined }): number =>
  cpus.max ?? cpus.count;

/** One field's rules are the field's; those between fields are here. */
export const machineSchema = machineFields.superRefine((machine, context) => {
  if (machine.dimms.length > 0 && machine.memory.max === undefined) {
    context.addIssue({
      code: 'custom',
      path: ['dimms'],
      message: 'DIMMs stand in the room above the memory at boot: memory.max says how much there is.',
    });
  }
  const nodes = machine.numa?.nodes.length ?? 1;
  for (const device of machine.devices) {
    if (device.type !== 'virtio-mem' || device.node < nodes) continue;
    context.addIssue({
      code: 'custom',
      path: ['devices'],
      message: `virtio-mem: there is no node ${device.node}: nodes 0 to ${nodes - 1} are made with --numa node,…`,
    });
  }
  if (machine.numa) checkNuma(machine.numa, possibleCpus(machine.cpus), machine.memory, context);
});

export type MachineInput = z.input<typeof machineSchema>;
export type MachineDescription = z.output<typeof machineSchema>;
export type MemoryDescription = MachineDescription['memory'];
export type DiskDescription = MachineDescription['disks'][number];
export type DimmDescription = MachineDescription['dimms'][number];
export type NetDescription = MachineDescription['nets'][number];
export type NumaDescription = NonNullable<MachineDescription['numa']>;
export type CpusDescription = MachineDescription['cpus'];

/**
 * Fills defaults in and checks a description from the command line, a file or the wire.
 * @param place names where a field was written, for its problem.
 * @throws NemuError `DESCRIPTION` that names each field and what is wrong with it.
 */
export function parseMachine(
  input: unknown,
  place: (path: FieldPath) => string | undefined = () => undefined,
): MachineDescription {
  const result = machineSchema.safeParse(withPackagesOfNodes(withMemoryOfNodes(withDevicesApart(input))));
  if (result.success) return result.data;
  const problems = explain(machineSchema, result.error.issues).map(({ path, message }) =>
    [place(path), path.join('.'), message].filter(Boolean).join(': '),
  );
  throw new NemuError('DESCRIPTION', `The machine description is not valid: ${problems.join('; ')}`);
}

/** A device's type by any of its names. */
export const deviceType = (name: string): string =>
  Object.hasOwn(DEVICE_ALIASES, name) ? (DEVICE_ALIASES[name] as DeviceType) : name;

/** A device with its type in our spelling; what is none is left as it is. */
export function withOwnType<T>(device: T): T {
  const { type } = (device ?? {}) as { type?: unknown };
  return typeof type === 'string' ? { ...device, type: deviceType(type) } : device;
}

/** A description in which disks and network cards that stand among `devices` are with the others of their kind. */
export function withDevicesApart<T>(input: T): T {
  const { devices, disks, nets } = (input ?? {}) as { devices?: unknown; disks?: unknown; nets?: unknown };
  if (!Array.isArray(devices)) return input;
  const moved: Record<'virtio-blk' | 'virtio-net', unknown[]> = { 'virtio-blk': [], 'virtio-net': [] };
  const others: unknown[] = [];
  for (const device of devices.map(withOwnType)) {
    const { type, ...options } = (device ?? {}) as Record<string, unknown>;
    if (type === 'virtio-blk') moved[type].push(options);
    else if (type === 'virtio-net') moved[type].push(asNet(options));
    else others.push(device);
  }
  const also = (list: unknown, more: unknown[]) =>
    more.length > 0 ? [...(Array.isArray(list) ? list : []), ...more] : list;
  return {
    ...input,
    devices: others,
    ...(disks !== undefined || moved['virtio-blk'].length > 0 ? { disks: also(disks, moved['virtio-blk']) } : {}),
    ...(nets !== undefined || moved['virtio-net'].length > 0 ? { nets: also(nets, moved['virtio-net']) } : {}),
  };
}

/** A card's options with its back end as `nets` has it. */
export function asNet<T extends { backend?: unknown }>({ backend = 'user', ...options }: T) {
  return { ...options, type: backend as NetDescription['type'] };
}

/** `vda` … `vdz`, `vdaa` …, as Linux counts. */
export function diskName(index: number): string {
  const letters = 'abcdefghijklmnopqrstuvwxyz';
  const last = letters[index % 26];
  return index < 26 ? `vd${last}` : `${diskName(Math.floor(index / 26) - 1)}${last}`;
}
