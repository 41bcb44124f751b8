/** The way from a machine as it is to one that a file describes: what can be done while it runs, and what cannot. */
import { isDeepStrictEqual } from 'node:util';
import { literal } from '../client/code.ts';
import {
  type ConfigInput,
  diskName,
  type MachineDescription,
  type NetBackendInput,
  type NetDescription,
  parseMachine,
} from '../client/description.ts';
import { BOOT_TYPES, type DeviceType } from '../client/device_schema.ts';
import type { FieldPath } from '../client/explain.ts';
import { BULK_PORT } from '../client/guest_session.ts';
import type { PlugInput } from '../client/live.ts';
import { formatSize } from '../client/sizes.ts';
import { pinningFor } from './description.ts';
import type { Net } from './nets.ts';
import { behind } from './room.ts';
import type { Vm } from './vm.ts';

/** One difference. */
export interface Step {
  readonly action: 'plug' | 'unplug' | 'change' | 'restart';
  /** What it is about: a device's id, or a field of the description. */
  readonly subject: string;
  /** From what to what, in words. */
  readonly detail: string;
  /** What does it; undefined where only a new start does. */
  readonly code?: string;
  /** What it plugs. */
  readonly plugs?: PlugInput;
  readonly run?: (vm: Vm) => Promise<unknown>;
}

type Fields = Readonly<Record<string, unknown>>;
const SIZES = new Set(['size', 'memory.size', 'memory.max', 'labelSize', 'requested', 'block']);

const shown = (field: string, value: unknown) =>
  value === undefined ? 'none' : SIZES.has(field) ? formatSize(value as number) : literal(value);

const restart = (subject: string, detail: string): Step => ({ action: 'restart', subject, detail });

function* differing(given: Fields, wanted: Fields, now: Fields): Generator<string> {
  for (const field of Object.keys(given)) {
    if (given[field] !== undefined && !isDeepStrictEqual(wanted[field], now[field])) yield field;
  }
}

const change = (wanted: Fields, now: Fields, field: string) =>
  `${field}: ${shown(field, now[field])} → ${shown(field, wanted[field])}`;

/** Items of a list with the ids that they have, or get when they have none. */
interface Item {
  readonly id: string;
  /** As it was written, and with defaults. */
  readonly given: Fields;
  readonly wanted: Fields;
}

function items(
  given: readonly object[] | undefined,
  wanted: readonly object[],
  idOf: (index: number) => string,
): Item[] | undefined {
  const taken = new Set(given?.map((each) => (each as { id?: string }).id));
  return given?.map((each, index): Item => {
    const id = (each as { id?: string }).id ?? firstFree(idOf, taken);
    taken.add(id);
    return { id, given: each as Fields, wanted: wanted[index] as Fields };
  });
}

interface Kind {
  readonly plug: (item: Item) => PlugInput;
  /** Fields that can change while the machine runs, and the steps for those of them that do. */
  readonly liveFields?: readonly string[];
  readonly change?: (item: Item, fields: ReadonlySet<string>, now: Fields) => Step[];
}

const changeStep = (subject: string, detail: string, code: string, run: Step['run']): Step => ({
  ...{ action: 'change', subject, detail, code },
  ...(run && { run }),
});

function diskChanges({ id, wanted }: Item, fields: ReadonlySet<string>, now: Fields): Step[] {
  const { file, format, throttle = {} } = wanted as { file: string; format?: 'raw' | 'qcow2'; throttle?: object };
  const how = format === undefined ? {} : { format };
  const code = `vm.disks[${literal(id)}]`;
  return [
    ...(fields.has('format') && !fields.has('file')
      ? [restart(`${id}.format`, `${shown('format', now.format)} → ${shown('format', wanted.format)}`)]
      : []),
    ...(fields.has('file')
      ? [
          changeStep(id, change(wanted, now, 'file'), `${code}.change(${literal(file)}, ${literal(how)})`, (vm) =>
            vm.disks[id].change(file, how),
          ),
        ]
      : []),
    ...(fields.has('throttle')
      ? [
          changeStep(id, change(wanted, now, 'throttle'), `${code}.throttle(${literal(throttle)})`, (vm) =>
            vm.disks[id].throttle(throttle),
          ),
        ]
      : []),
  ];
}

const BACKEND = ['type', 'ifname', 'queues', 'net', 'hostname', 'restrict', 'hostForwards'] as const;

function netChanges({ id, given, wanted }: Item, fields: ReadonlySet<string>, now: Fields): Step[] {
  const { link, throttle = {} } = wanted as unknown as NetDescription;
  const code = `vm.nets[${literal(id)}]`;
  const step = (detail: string, call: string, run: (net: Net) => Promise<unknown>) =>
    changeStep(id, detail, `${code}.${call}`, (vm) => run(vm.nets[id]));
  const moved = BACKEND.filter((field) => fields.has(field));
  // What the file does not say of the network stays, unless it is another kind of network.
  const kept = wanted.type === now.type ? now : {};
  const backend = Object.fromEntries(
    BACKEND.map((field) => [field, field in given ? wanted[field] : kept[field]]).filter(
      ([, value]) => value !== undefined,
    ),
  ) as unknown as NetBackendInput;
  return [
    ...(moved.length > 0
      ? [
          step(moved.map((field) => change(wanted, now, field)).join(', '), `backend(${literal(backend)})`, (net) =>
            net.backend(backend),
          ),
        ]
      : []),
    ...(fields.has('link') ? [step(change(wanted, now, 'link'), `link(${link})`, (net) => net.link(link))] : []),
    ...(fields.has('throttle')
      ? [step(change(wanted, now, 'throttle'), `throttle(${literal(throttle)})`, (net) => net.throttle(throttle))]
      : []),
  ];
}

function deviceChanges({ id, wanted }: Item, fields: ReadonlySet<string>, now: Fields): Step[] {
  if (!fields.has('requested')) return [];
  const { requested } = wanted as { requested: number };
  const code = `vm.memory.resize(${literal(id)}, ${requested})`;
  return [changeStep(id, change(wanted, now, 'requested'), code, (vm) => vm.memory.resize(id, requested))];
}

const pci = (type: DeviceType, { id, wanted }: Item, options: Fields = {}) =>
  ({ kind: 'pci', type, ...wanted, ...(type !== 'virtio-port' && { id }), ...options }) as unknown as PlugInput;

const KINDS: Readonly<Record<'dimms' | 'nvdimms' | 'disks' | 'nets' | 'devices', Kind>> = {
  dimms: { plug: ({ id, wanted }) => ({ kind: 'memory', ...wanted, id }) as unknown as PlugInput },
  nvdimms: { plug: ({ id, wanted }) => ({ kind: 'nvdimm', ...wanted, id }) as unknown as PlugInput },
  disks: {
    plug: (item) => pci('virtio-blk', item),
    liveFields: ['file', 'format', 'throttle'],
    change: diskChanges,
  },
  nets: {
    plug: ({ id, wanted: { type, ...wanted }, given }) => pci('virtio-net', { id, wanted, given }, { backend: type }),
    liveFields: [...BACKEND, 'link', 'throttle'],
    change: netChanges,
  },
  devices: {
    plug: (item) => pci(item.wanted.type as DeviceType, item),
    liveFields: ['requested'],
    change: deviceChanges,
  },
};

const staysPut = (type: unknown) => BOOT_TYPES.includes(type as DeviceType);

/** Differences of a list, whose items have ids on both sides. */
function* listSteps(
  wanted: readonly Item[] | undefined,
  now: readonly Fields[],
  kind: Kind,
  fixed: ReadonlySet<string>,
): Generator<Step> {
  if (!wanted) return;
  for (const { id, type } of now as readonly { id: string; type?: string }[]) {
    if (wanted.some((item) => item.id === id)) continue;
    if (staysPut(type) || fixed.has(id)) {
      yield restart(id, 'not in the description');
      continue;
    }
    const code = `vm.unplug(${literal(id)})`;
    const step = { action: 'unplug', subject: id, detail: 'not in the description' } as const;
    if (type !== 'virtio-mem') {
      yield { ...step, code, run: (vm) => vm.unplug(id) };
      continue;
    }
    // What the guest has of it plugged goes first.
    yield {
      ...{ ...step, code: `await vm.memory.resize(${literal(id)}, 0); await ${code}` },
      run: async (vm) => {
        await vm.memory.resize(id, 0);
        return vm.unplug(id);
      },
    };
  }
  for (const item of wanted) {
    const there = now.find(({ id }) => id === item.id);
    if (!there) {
      if (staysPut(item.wanted.type)) {
        yield restart(item.id, `none → ${item.wanted.type}`);
        continue;
      }
      const plug = kind.plug(item);
      yield {
        ...{ action: 'plug', subject: item.id, detail: plugText(plug), code: `vm.plug(${literal(plug)})` },
        plugs: plug,
        run: (vm) => vm.plug(plug),
      };
      continue;
    }
    const fields = new Set([...differing(item.given, item.wanted, there)].filter((field) => field !== 'id'));
    yield* kind.change?.(item, fields, there) ?? [];
    for (const field of fields) {
      if (kind.liveFields?.includes(field)) continue;
      yield restart(`${item.id}.${field}`, `${shown(field, there[field])} → ${shown(field, item.wanted[field])}`);
    }
  }
}

/** What is plugged, in a few words. */
function plugText(plug: PlugInput): string {
  const { kind, type = kind, file, size, backend } = plug as Record<string, unknown> & { kind: string; type?: string };
  const words = [
    file,
    typeof size === 'number' ? formatSize(size) : undefined,
    type === 'virtio-net' ? backend : undefined,
  ];
  return [type, ...words.filter((word) => word !== undefined)].join(' ');
}

/** How many switches a device is behind. @param ports where each stands, by id. */
function depthOf(id: string, ports: ReadonlyMap<string, string>): number {
  const seen = new Set<string>();
  for (let at = ports.get(id); at !== undefined && !seen.has(at); at = ports.get(behind(at) as string)) seen.add(at);
  return seen.size;
}

/** Names that devices have which are given none. */
const DEFAULT_IDS: Readonly<Record<string, (index: number) => string>> = {
  'virtio-rng': (index) => (index === 0 ? 'rng' : `rng${index}`),
  'virtio-balloon': () => 'balloon',
  i6300esb: () => 'watchdog',
  'pcie-switch': (index) => `sw${index}`,
  'pci-bridge': (index) => `br${index}`,
  'virtio-pmem': (index) => `pmem${index}`,
  'virtio-mem': (index) => `vm${index}`,
  'virtio-console': (index) => `hvc${index}`,
};

/** The first name that nobody has; the name itself where a type has but one. */
function firstFree(name: (index: number) => string, taken: ReadonlySet<string | undefined>): string {
  for (let index = 0; ; index++) {
    if (!taken.has(name(index)) || name(index) === name(index + 1)) return name(index);
  }
}

/** Those of the machine; the agent's port came with it, and is no difference to a description that does not name it. */
const devicesThere = (now: readonly object[], wanted: readonly Item[] | undefined): Fields[] =>
  deviceItems([], now)
    .filter(({ id }) => id !== BULK_PORT || wanted?.some((item) => item.id === BULK_PORT))
    .map(({ id, wanted: each }) => ({ ...each, id }));

/** Devices of a description, each with its id; `rng: true` is one of them. */
function deviceItems(given: readonly object[], wanted: readonly object[]): Item[] {
  const named = (device: Fields) => (device.id ?? device.name) as string | undefined;
  const taken = new Set((wanted as readonly Fields[]).map(named));
  return (wanted as readonly Fields[]).map((device, index) => {
    const type = device.type as string;
    const id = named(device) ?? firstFree(DEFAULT_IDS[type] ?? (() => type), taken);
    taken.add(id);
    return { id, given: (given[index] ?? device) as Fields, wanted: device };
  });
}

const RNG = { type: 'virtio-rng', id: 'rng' } as const;

/** Fields that are compared one by one, and those that are one thing. */
const PARTS = ['memory', 'kernel', 'pcie'] as const;
const WHOLES = [
  ...[
    'name',
    'machine',
    'numa',
    'serial',
    'nvdimmPersistence',
    'rtc',
    'pvpanic',
    'debugExit',
    'i8042',
    'hpet',
    'fwCfg',
  ],
  ...['onReset', 'onTripleFault', 'onPanic'],
] as const;

function* cpuSteps(given: NonNullable<ConfigInput['cpus']>, wanted: MachineDescription, now: MachineDescription) {
  const { count } = wanted.cpus;
  const [from, to]: readonly [Fields, Fields] = [now.cpus, wanted.cpus];
  for (const field of differing(given, to, from)) {
    if (field === 'count') continue;
    yield restart(`cpus.${field}`, `${shown('cpus', from[field])} → ${shown('cpus', to[field])}`);
  }
  if (given.count === undefined || count === now.cpus.count) return;
  const detail = `${now.cpus.count} → ${count}`;
  const more = count - now.cpus.count;
  if (now.cpus.max === undefined || count > now.cpus.max) yield restart('cpus.count', detail);
  else if (more > 0) yield changeStep('cpus', detail, `vm.cpus.add(${more})`, (vm) => vm.cpus.add(more));
  else yield changeStep('cpus', detail, `vm.cpus.remove(${-more})`, (vm) => vm.cpus.remove(-more));
}

/**
 * What leads from the machine as it is to a description. A field, list or option that the description does not say
 * stays as it is; a list that it has is the whole list.
 * @param place names where a field is written, for its problem.
 * @param fixed consoles and ports that are one device together, none of which can go alone.
 * @throws NemuError DESCRIPTION for one that could not be.
 */
export function planSteps(
  now: MachineDescription,
  given: ConfigInput,
  place?: (path: FieldPath) => string | undefined,
  fixed: ReadonlySet<string> = new Set(),
): Step[] {
  const { count, without, pin, max } = now.cpus;
  const topology = given.cpus?.max ?? given.cpus?.sockets ?? given.cpus?.cores ?? given.cpus?.threads;
  // A count within the room that there is leaves the topology as it is.
  const fits = topology === undefined && max !== undefined && (given.cpus?.count ?? count) <= max;
  const pinned = pin && {
    pin: pinningFor(pin, { count: given.cpus?.count ?? count, ...(max !== undefined && { max }) }),
  };
  const wanted = parseMachine(
    {
      ...now,
      ...given,
      cpus: given.cpus ? { ...(fits ? now.cpus : { without }), ...pinned, ...given.cpus } : now.cpus,
      memory: { ...now.memory, ...given.memory },
      kernel: { ...now.kernel, ...given.kernel },
      pcie: { ...now.pcie, ...given.pcie },
    },
    place,
  );
  const steps: Step[] = [];
  for (const field of WHOLES) {
    if ((given as Fields)[field] === undefined) continue;
    const [from, to] = [(now as Fields)[field], (wanted as Fields)[field]];
    if (!isDeepStrictEqual(from, to)) steps.push(restart(field, `${shown(field, from)} → ${shown(field, to)}`));
  }
  for (const part of PARTS) {
    for (const field of differing(given[part] ?? {}, wanted[part], now[part])) {
      const [from, to] = [(now[part] as Fields)[field], (wanted[part] as Fields)[field]];
      steps.push(restart(`${part}.${field}`, `${shown(`${part}.${field}`, from)} → ${shown(`${part}.${field}`, to)}`));
    }
  }
  if (given.cpus) steps.push(...cpuSteps(given.cpus, wanted, now));
  const lists = {
    dimms: items(given.dimms, wanted.dimms, (index) => `dimm${index}`),
    nvdimms: items(given.nvdimms, wanted.nvdimms, (index) => `nvdimm${index}`),
    disks: items(given.disks, wanted.disks, diskName),
    nets: items(given.nets, wanted.nets, (index) => `net${index}`),
    devices: given.devices && [
      ...deviceItems(given.devices, wanted.devices),
      ...(wanted.rng ? deviceItems([RNG], [RNG]) : []),
    ],
  };
  for (const list of Object.keys(lists) as (keyof typeof lists)[]) {
    const there = list === 'devices' ? devicesThere(now.devices, lists.devices) : now[list];
    steps.push(...listSteps(lists[list], there as readonly Fields[], KINDS[list], fixed));
  }
  // Without a list of devices it is about that one alone.
  if (given.devices === undefined && given.rng !== undefined) {
    const there = now.devices.filter(({ type }) => type === 'virtio-rng');
    steps.push(
      ...listSteps(
        given.rng ? deviceItems([RNG], [RNG]) : [],
        given.rng && there.length > 0 ? [RNG] : there,
        KINDS.devices,
        fixed,
      ),
    );
  }
  // What goes makes room for what comes. A switch comes before what stands behind it, and goes after it.
  const order = ({ action }: Step) => ['restart', 'unplug', 'change', 'plug'].indexOf(action);
  const ports = new Map(
    [now, wanted].flatMap(({ disks, nets, devices }) =>
      [
        ...disks.map((disk, index) => ({ ...disk, id: disk.id ?? diskName(index) })),
        ...nets.map((net, index) => ({ ...net, id: net.id ?? `net${index}` })),
        ...deviceItems([], devices).map(({ id, wanted: { port } }) => ({ id, port: port as string | undefined })),
      ].flatMap(({ id, port }): [string, string][] => (port === undefined ? [] : [[id, port]])),
    ),
  );
  const depth = ({ action, subject, detail }: Step) => {
    if (action !== 'plug' && action !== 'unplug') return 0;
    // A device that names a switch is behind it; one that names nothing may have a port of a switch that comes.
    const behindIt = depthOf(subject, ports) * 2 + (detail === 'pcie-switch' ? 0 : 1);
    return action === 'plug' ? behindIt : -behindIt;
  };
  return steps.toSorted((a, b) => order(a) - order(b) || depth(a) - depth(b));
}
