/** What can be changed of a machine's parts while it runs: each as a form, with what does the same elsewhere. */
import { literal, memberCode } from '../client/code.ts';
import { netThrottleSchema, throttleSchema } from '../client/description.ts';
import { NemuError } from '../client/errors.ts';
import { tell } from '../client/explain.ts';
import { parseDiskChange } from '../client/live_change.ts';
import { readLimits } from '../client/options.ts';
import { formatSize, parseSize } from '../client/sizes.ts';
import { Disk } from '../repl/disks.ts';
import { Net } from '../repl/nets.ts';
import type { PaneName } from './layout.ts';
import type { Field } from './overlays/form.ts';
import type { Station } from './station.ts';

export type Values = Readonly<Record<string, unknown>>;

/** A form whose answer changes something. */
export interface Change {
  readonly title: string;
  readonly fields: readonly Field[];
  /** @throws NemuError that says what is wrong. */
  readonly check: (values: Values) => void;
  /** What there is to know before, a sentence each. */
  readonly tell: (values: Values) => readonly string[];
  readonly repl: (values: Values) => string;
  readonly qmp?: (values: Values) => string;
  readonly run: (values: Values) => Promise<unknown>;
}

const text = (value: unknown): string => String(value ?? '');
const sizeField = (description: string, standard?: string): Field => ({
  ...{ name: 'size', type: 'text', description, required: true },
  ...(standard !== undefined && { standard }),
});

/** Bytes of a field. @throws NemuError for what is no size. */
const bytesOf = (values: Values): number => parseSize(text(values.size ?? 0));

/** Names of a machine's parts that a change is for, as they were last told. */
export const PARTS = {
  disk: ({ model }: Station) => model.disks.map(({ name }) => name),
  'network card': ({ model }: Station) => model.nets.map(({ name }) => name),
  'virtio-mem device': ({ model }: Station) => (model.plugged?.memory.virtio ?? []).map(({ id }) => id),
  'device of PCI that can go': ({ model }: Station) => (model.plugged?.pci.devices ?? []).map(({ id }) => id),
} as const;
export type Part = keyof typeof PARTS;

/** Why nothing can be done to such a part now. @param panes where one may be chosen. */
export function whyNotPart(station: Station, part: Part, panes: readonly PaneName[]): string | undefined {
  const names = PARTS[part](station);
  if (names.length === 0) return `the machine has no ${part}`;
  const { chosen } = station;
  const other = panes.includes(station.focus) && chosen !== undefined && !names.includes(chosen);
  return other ? `${chosen} is no ${part}` : undefined;
}

/** The one of these parts that is chosen, or the only one. */
export function partMeant(station: Station, part: Part): string | undefined {
  const names = PARTS[part](station);
  const { chosen } = station;
  return chosen !== undefined && names.includes(chosen) ? chosen : names.length === 1 ? names[0] : undefined;
}

export function balloonChange({ vm, model }: Station): Change {
  const all = () => vm.memory.size;
  return {
    title: 'balloon',
    fields: [sizeField('bytes that the guest leaves to the host: 256M; 0 gives it all back')],
    check: (values) => {
      const bytes = bytesOf(values);
      if (bytes >= all()) {
        throw new NemuError('BALLOON', `The guest has ${formatSize(all())}: ${formatSize(bytes)} leave it nothing.`);
      }
    },
    tell: () => [`It holds ${formatSize(model.balloon?.actual ?? 0)} now. A guest short of memory may keep its own.`],
    repl: ({ size }) => `await vm.memory.balloon(${literal(text(size))})`,
    qmp: (values) => `balloon value=${all() - bytesOf(values)}`,
    run: ({ size }) => vm.memory.balloon(text(size)),
  };
}

export function memoryChange({ vm, model }: Station, id: string): Change {
  const device = model.plugged?.memory.virtio.find((each) => each.id === id);
  return {
    title: `memory of ${id}`,
    fields: [sizeField(`bytes of it that the guest is to have plugged, by ${formatSize(device?.block ?? 0)}`)],
    check: (values) => {
      const bytes = bytesOf(values);
      if (!device) throw new NemuError('NO_DEVICE', `${id} is not in the machine any more.`);
      if (bytes > device.size || bytes % device.block !== 0) {
        throw new NemuError(
          'MEMORY_SIZE',
          `${id} has at most ${formatSize(device.size)}, in blocks of ${formatSize(device.block)}.`,
        );
      }
    },
    tell: () => [`${formatSize(device?.plugged ?? 0)} are plugged now. The guest takes and gives blocks as it can.`],
    repl: ({ size }) => `await vm.memory.resize(${literal(id)}, ${literal(text(size))})`,
    qmp: (values) => `qom-set path=/machine/peripheral/${id} property=requested-size value=${bytesOf(values)}`,
    run: ({ size }) => vm.memory.resize(id, text(size)),
  };
}

export function diskResize({ vm, model }: Station, name: string): Change {
  const now = model.disks.find((disk) => disk.name === name)?.size ?? 0;
  const options = ({ shrink }: Values) => (shrink === true ? ', { shrink: true }' : '');
  const smaller = (values: Values) => bytesOf(values) < now;
  return {
    title: `resize disk ${name}`,
    fields: [
      sizeField('of the whole disk: 20G', formatSize(now)),
      {
        ...{ name: 'shrink', type: 'boolean', required: false, standard: 'false' },
        description: 'a smaller disk is meant, and what is behind its end may be lost',
      },
    ],
    check: (values) => {
      parseDiskChange({ action: 'resize', size: bytesOf(values) });
      if (smaller(values) && values.shrink !== true) {
        throw new NemuError('CHANGE', `${name} has ${formatSize(now)}: shrink says that less is meant.`);
      }
    },
    tell: (values) => [
      `It has ${formatSize(now)} now.`,
      ...(smaller(values) ? ['What is behind the new end is lost; a guest that uses it fails.'] : []),
    ],
    repl: (values) => `await ${memberCode('vm.disks', name)}.resize(${literal(text(values.size))}${options(values)})`,
    qmp: (values) => `block_resize device=${name} size=${bytesOf(values)}`,
    run: async (values) => {
      await new Disk(vm, name).resize(text(values.size), values.shrink === true ? { shrink: true } : {});
    },
  };
}

export function diskMedium({ vm, model }: Station, name: string): Change {
  const now = model.disks.find((disk) => disk.name === name);
  const options = ({ format }: Values) => (format === undefined ? {} : { format: format as 'raw' | 'qcow2' });
  const code = (values: Values) => (values.format === undefined ? '' : `, ${literal(options(values))}`);
  return {
    title: `medium of disk ${name}`,
    fields: [
      { name: 'file', type: 'text', required: true, description: 'image or block device' },
      {
        ...{ name: 'format', type: 'choice', choices: ['raw', 'qcow2'], required: false },
        description: 'found out by the first bytes where it is not said',
      },
    ],
    check: (values) => void parseDiskChange({ action: 'medium', file: text(values.file), ...options(values) }),
    tell: () => [
      `${now?.file ?? 'Another image'} is in it now.`,
      'The guest keeps what it has cached of it: nothing there should be mounted.',
    ],
    repl: (values) => `await ${memberCode('vm.disks', name)}.change(${literal(text(values.file))}${code(values)})`,
    qmp: ({ file, format }) =>
      `blockdev-change-medium id=${name} filename=${text(file)}${format === undefined ? '' : ` format=${text(format)}`}`,
    run: async (values) => {
      await new Disk(vm, name).change(text(values.file), options(values));
    },
  };
}

/** A field for each limit, with its words. */
const limitFields = (shape: Readonly<Record<string, { readonly description?: string | undefined }>>): Field[] =>
  Object.entries(shape).map(([name, { description = '' }]) => ({ name, type: 'text', description, required: false }));
/** QEMU's names, all of which its command wants. */
const QMP_LIMITS = [
  ['bps', 'bps'],
  ['bps_rd', 'bpsRead'],
  ['bps_wr', 'bpsWrite'],
  ['iops', 'iops'],
  ['iops_rd', 'iopsRead'],
  ['iops_wr', 'iopsWrite'],
] as const;
const QMP_BURSTS = [
  ['bps_max', 'bpsMax'],
  ['iops_max', 'iopsMax'],
] as const;

/** @throws NemuError that says what a limit takes. */
function checkLimits(schema: typeof throttleSchema | typeof netThrottleSchema, limits: object): void {
  const parsed = schema.safeParse(limits);
  if (!parsed.success) throw new NemuError('DESCRIPTION', tell(schema, limits, parsed.error.issues));
}

export function diskThrottle({ vm, model }: Station, name: string): Change {
  const now = model.disks.find((disk) => disk.name === name)?.throttle ?? {};
  return {
    title: `limits of disk ${name}`,
    fields: limitFields(throttleSchema.shape),
    check: (values) => checkLimits(throttleSchema, readLimits(values, 'disk')),
    tell: () => [`Now: ${Object.keys(now).length > 0 ? literal(now) : 'none'}. What is left empty has no limit.`],
    repl: (values) => `await ${memberCode('vm.disks', name)}.throttle(${literal(readLimits(values, 'disk'))})`,
    qmp: (values) => {
      const limits = readLimits(values, 'disk');
      const words = [
        ...QMP_LIMITS.map(([word, field]) => `${word}=${limits[field] ?? 0}`),
        ...QMP_BURSTS.flatMap(([word, field]) => (limits[field] === undefined ? [] : [`${word}=${limits[field]}`])),
      ];
      return `block_set_io_throttle id=${name} ${words.join(' ')}`;
    },
    run: (values) => new Disk(vm, name).throttle(readLimits(values, 'disk')),
  };
}

export function netThrottle({ vm, model }: Station, name: string): Change {
  const now = model.nets.find((net) => net.name === name)?.throttle ?? {};
  return {
    title: `limits of network card ${name}`,
    fields: limitFields(netThrottleSchema.shape),
    check: (values) => checkLimits(netThrottleSchema, readLimits(values, 'net')),
    tell: () => [`Now: ${Object.keys(now).length > 0 ? literal(now) : 'none'}. What is left empty has no limit.`],
    repl: (values) => `await ${memberCode('vm.nets', name)}.throttle(${literal(readLimits(values, 'net'))})`,
    run: (values) => new Net(vm, name).throttle(readLimits(values, 'net')),
  };
}

/** Takes a device out without the guest, after a question. */
export function forceUnplug(station: Station, id: string): void {
  const form = `await vm.unplug('${id}', { force: true })`;
  const run = () => void station.change(`take ${id} out`, form, () => station.vm.unplug(id, { force: true }));
  station.ask(
    `Take ${id} out at once? What the guest has not written to it is lost, and what uses it fails.\nREPL: ${form}`,
    [{ key: 'y', text: 'take out by force', run }],
  );
}

/** Pulls the cable of a network card out, or puts it in. */
export function toggleLink(station: Station, name: string): void {
  const { vm, model } = station;
  const up = model.nets.find((net) => net.name === name)?.link === false;
  void station.change('cable', `await ${memberCode('vm.nets', name)}.link(${up})`, async () => {
    await new Net(vm, name).link(up);
    await model.refresh();
    return `${name} is ${up ? 'in' : 'out'}`;
  });
}
