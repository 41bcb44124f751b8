/** Values of command-line options as people write them: `2G`, `size=2G,backend=file`, `sockets=2,cores=4`. */
import type { MachineInput } from './description.ts';
import { NemuError } from './errors.ts';
import { parseSize } from './sizes.ts';
import { didYouMean } from './suggest.ts';

/** How one key of an option is read. */
export type Kind = 'text' | 'number' | 'switch' | 'list' | 'words';
export interface Key {
  readonly kind: Kind;
  /** Name in the machine description, when it is not the key itself. */
  readonly field?: string;
}
export type Keys = Readonly<Record<string, Key>>;

/**
 * Reads `VALUE,key=value,…`.
 * @param option the option's name, for messages.
 * @param positional key of a first item without `=`.
 * @throws NemuError `USAGE`.
 */
export function parseKeyValues(option: string, text: string, keys: Keys, positional?: string): Record<string, unknown> {
  const out: Record<string, unknown> = {};
  for (const [index, item] of text.split(',').entries()) {
    const equals = item.indexOf('=');
    const name = equals < 0 && index === 0 && positional ? positional : equals < 0 ? item : item.slice(0, equals);
    const key = Object.hasOwn(keys, name) ? keys[name] : undefined;
    if (!key) {
      const near = didYouMean(name, Object.keys(keys));
      throw new NemuError('USAGE', `${option}: there is no "${name}".`, {
        hint: near ? `Did you mean ${near}=?` : `It takes ${Object.keys(keys).join('=, ')}=.`,
      });
    }
    const field = key.field ?? name;
    const again = field in out;
    if (again && key.kind !== 'list') throw new NemuError('USAGE', `${option}: ${name} is given twice.`);
    const value = equals < 0 && !(index === 0 && positional) ? 'on' : equals < 0 ? item : item.slice(equals + 1);
    const converted = convert(option, name, key.kind, value);
    // A list may come in pieces, as QEMU writes it: cpus=0-3,cpus=8.
    out[field] = again ? [...(out[field] as number[]), ...(converted as number[])] : converted;
  }
  return out;
}

function convert(option: string, name: string, kind: Kind, value: string): unknown {
  switch (kind) {
    case 'text':
      if (value === '') throw new NemuError('USAGE', `${option}: ${name}= needs a value.`);
      return value;
    case 'number':
      if (!/^\d+$/.test(value)) throw new NemuError('USAGE', `${option}: ${name}=${value} is not a whole number.`);
      return Number(value);
    case 'switch':
      if (['on', 'yes', 'true'].includes(value)) return true;
      if (['off', 'no', 'false'].includes(value)) return false;
      throw new NemuError('USAGE', `${option}: ${name}=${value} is neither on nor off.`);
    case 'words':
      return value.split('+');
    case 'list':
      return numberList(option, value);
  }
}

/** `0-3+8` as numbers. */
export function numberList(option: string, text: string): number[] {
  return text.split('+').flatMap((part) => {
    const match = /^(\d+)(?:-(\d+))?$/.exec(part);
    const first = Number(match?.[1]);
    const last = Number(match?.[2] ?? match?.[1]);
    if (!match || last < first || last - first > 4096) {
      throw new NemuError('USAGE', `${option}: "${text}" is not a list of numbers.`, { hint: 'Write it like 0-3+8.' });
    }
    return Array.from({ length: last - first + 1 }, (_, i) => first + i);
  });
}

const CPU_KEYS: Keys = {
  count: { kind: 'number' },
  max: { kind: 'number' },
  sockets: { kind: 'number' },
  cores: { kind: 'number' },
  threads: { kind: 'number' },
  without: { kind: 'words' },
};

/** `4`, `2,max=8`, or `count=8,sockets=2,cores=2,threads=2,without=avx+pku`; without a count, the product. */
export function parseCpus(text: string): NonNullable<MachineInput['cpus']> {
  const cpus = parseKeyValues('--cpus', text, CPU_KEYS, 'count') as NonNullable<MachineInput['cpus']>;
  if (cpus.count === undefined) cpus.count = (cpus.sockets ?? 1) * (cpus.cores ?? 1) * (cpus.threads ?? 1);
  return cpus;
}

/** `0,1,2-3`: one item a vCPU, each a host CPU, a range, or a sum like `0+4`. */
export const parsePinning = (text: string): number[][] => text.split(',').map((item) => numberList('--pin', item));

const MEMORY_BACKEND_KEYS: Keys = {
  backend: { kind: 'text' },
  path: { kind: 'text' },
  share: { kind: 'switch' },
  hugepages: { kind: 'text' },
  thp: { kind: 'switch' },
  prealloc: { kind: 'switch' },
  'prealloc-threads': { kind: 'number', field: 'preallocThreads' },
  lock: { kind: 'switch' },
  'host-nodes': { kind: 'list', field: 'hostNodes' },
  policy: { kind: 'text' },
};
const MEMORY_KEYS: Keys = {
  size: { kind: 'text' },
  max: { kind: 'text' },
  slots: { kind: 'number' },
  ...MEMORY_BACKEND_KEYS,
};

/** `2G`, or `size=2G,backend=file,path=F,share=on,…`. */
export function parseMemory(text: string): NonNullable<MachineInput['memory']> {
  const memory = parseKeyValues('--memory', text, MEMORY_KEYS, 'size') as NonNullable<MachineInput['memory']>;
  if (memory.path !== undefined && memory.backend === undefined) memory.backend = 'file';
  return memory;
}

const DIMM_KEYS: Keys = {
  size: { kind: 'text' },
  id: { kind: 'text' },
  node: { kind: 'number' },
  ...MEMORY_BACKEND_KEYS,
};

/** `1G`, or `size=1G,id=more,node=1,…`. */
export function parseDimm(text: string): NonNullable<MachineInput['dimms']>[number] {
  const dimm = parseKeyValues('--dimm', text, DIMM_KEYS, 'size');
  if (dimm.path !== undefined && dimm.backend === undefined) dimm.backend = 'file';
  return dimm as NonNullable<MachineInput['dimms']>[number];
}

const NVDIMM_KEYS: Keys = {
  file: { kind: 'text' },
  size: { kind: 'text' },
  'label-size': { kind: 'text', field: 'labelSize' },
  readonly: { kind: 'switch' },
  share: { kind: 'switch' },
  node: { kind: 'number' },
  id: { kind: 'text' },
};

/** `pm.img`, or `file=pm.img,size=256M,label-size=128K,…`; a comma in a name is written twice. */
export function parseNvdimm(text: string): NonNullable<MachineInput['nvdimms']>[number] {
  const COMMA = '\u0000';
  const { file, ...rest } = parseKeyValues('--nvdimm', text.replaceAll(',,', COMMA), NVDIMM_KEYS, 'file');
  if (file === undefined) throw new NemuError('USAGE', '--nvdimm needs a file.', { hint: '--nvdimm pm.img,size=256M' });
  return { ...rest, file: String(file).replaceAll(COMMA, ',') };
}

const SERIAL_KEYS: Keys = { port: { kind: 'text' }, flow: { kind: 'text' } };

/** `com2`, or `com2,flow=wait`. */
export const parseSerial = (text: string) =>
  parseKeyValues('--serial', text, SERIAL_KEYS, 'port') as NonNullable<MachineInput['serial']>[number];

/** `name=opt/org.example/x,string=…` or `…,file=…`; a comma in a string is written twice. */
export function parseFwCfg(text: string): NonNullable<MachineInput['fwCfg']>[number] {
  const keys: Keys = { name: { kind: 'text' }, string: { kind: 'text' }, file: { kind: 'text' } };
  const COMMA = '\u0000';
  const raw = parseKeyValues('--fw-cfg', text.replaceAll(',,', COMMA), keys, 'name');
  return Object.fromEntries(
    Object.entries(raw).map(([key, value]) => [key, String(value).replaceAll(COMMA, ',')]),
  ) as NonNullable<MachineInput['fwCfg']>[number];
}

export const DISK_KEYS: Keys = {
  file: { kind: 'text' },
  id: { kind: 'text' },
  format: { kind: 'text' },
  readonly: { kind: 'switch' },
  serial: { kind: 'text' },
  queues: { kind: 'number' },
  cache: { kind: 'text' },
  packed: { kind: 'switch' },
  werror: { kind: 'text' },
  rerror: { kind: 'text' },
  port: { kind: 'text' },
};

/** Limits of a disk; those of bytes are sizes. */
export const THROTTLE_KEYS: Keys = {
  iops: { kind: 'number' },
  'iops-read': { kind: 'number', field: 'iopsRead' },
  'iops-write': { kind: 'number', field: 'iopsWrite' },
  'iops-max': { kind: 'number', field: 'iopsMax' },
  bps: { kind: 'text' },
  'bps-read': { kind: 'text', field: 'bpsRead' },
  'bps-write': { kind: 'text', field: 'bpsWrite' },
  'bps-max': { kind: 'text', field: 'bpsMax' },
};

/** `disk.img`, or `file=disk.img,readonly=on,…`; a comma in a name is written twice. */
export function parseDisk(text: string, option = '--disk'): NonNullable<MachineInput['disks']>[number] {
  const COMMA = '\u0000';
  const raw = parseKeyValues(option, text.replaceAll(',,', COMMA), { ...DISK_KEYS, ...THROTTLE_KEYS }, 'file');
  const throttle = takeLimits(raw, THROTTLE_KEYS);
  const file = typeof raw.file === 'string' ? raw.file.replaceAll(COMMA, ',') : undefined;
  if (file === undefined)
    throw new NemuError('USAGE', `${option} needs a file.`, {
      hint: `${option}${option === '--disk' ? ' ' : ',file='}disk.img`,
    });
  return { ...raw, file, ...(throttle && { throttle }) } as NonNullable<MachineInput['disks']>[number];
}

export const NET_KEYS: Keys = {
  type: { kind: 'text' },
  id: { kind: 'text' },
  mac: { kind: 'text' },
  mtu: { kind: 'number' },
  packed: { kind: 'switch' },
  ifname: { kind: 'text' },
  queues: { kind: 'number' },
  net: { kind: 'text' },
  hostname: { kind: 'text' },
  restrict: { kind: 'switch' },
  port: { kind: 'text' },
  link: { kind: 'switch' },
};

/** Limits of a network card; those of bytes are sizes. */
const NET_THROTTLE_KEYS: Keys = {
  pps: { kind: 'number' },
  'pps-rx': { kind: 'number', field: 'ppsRx' },
  'pps-tx': { kind: 'number', field: 'ppsTx' },
  'pps-max': { kind: 'number', field: 'ppsMax' },
  bps: { kind: 'text' },
  'bps-rx': { kind: 'text', field: 'bpsRx' },
  'bps-tx': { kind: 'text', field: 'bpsTx' },
  'bps-max': { kind: 'text', field: 'bpsMax' },
};

/** Takes limits out of what was read. @returns undefined for none. */
function takeLimits(raw: Record<string, unknown>, keys: Keys): Record<string, number> | undefined {
  const limits: Record<string, number> = {};
  for (const [key, { field = key, kind }] of Object.entries(keys)) {
    if (raw[field] === undefined) continue;
    limits[field] = kind === 'text' ? parseSize(String(raw[field])) : Number(raw[field]);
    delete raw[field];
  }
  return Object.keys(limits).length > 0 ? limits : undefined;
}

/** `iops=500,bps=10M`: limits of a disk or of a network card, of which all are given or not. @throws NemuError USAGE */
export function parseLimits(text: string, what: 'disk' | 'net'): Record<string, number> {
  const keys = what === 'disk' ? THROTTLE_KEYS : NET_THROTTLE_KEYS;
  return (text === '' ? undefined : takeLimits(parseKeyValues('throttle', text, keys), keys)) ?? {};
}

/** The same, each limit as a text of its own, by its name in the description. @throws NemuError USAGE, SIZE_FORMAT */
export function readLimits(values: Readonly<Record<string, unknown>>, what: 'disk' | 'net'): Record<string, number> {
  const keys = what === 'disk' ? THROTTLE_KEYS : NET_THROTTLE_KEYS;
  const raw: Record<string, unknown> = {};
  for (const [key, { field = key, kind }] of Object.entries(keys)) {
    if (values[field] !== undefined) raw[field] = convert('throttle', key, kind, String(values[field]));
  }
  return takeLimits(raw, keys) ?? {};
}

/** `user,hostfwd=tcp::2222-:22`, `tap,ifname=tap0`, or `none`, which gives undefined. */
export function parseNet(text: string, option = '--net'): NonNullable<MachineInput['nets']>[number] | undefined {
  if (text === 'none') return undefined;
  const items = text.split(',');
  const isForward = (item: string) => item.startsWith('hostfwd=');
  const rest = items.filter((item) => !isForward(item)).join(',');
  const net = parseKeyValues(option, rest || 'user', { ...NET_KEYS, ...NET_THROTTLE_KEYS }, 'type');
  const throttle = takeLimits(net, NET_THROTTLE_KEYS);
  const hostForwards = items.filter(isForward).map((item) => parseForward(item.slice('hostfwd='.length)));
  return { ...net, ...(throttle && { throttle }), ...(hostForwards.length > 0 && { hostForwards }) } as NonNullable<
    MachineInput['nets']
  >[number];
}

/** QEMU's form, `[tcp|udp]:[address]:port-[address]:port`; and the short one, `2222:22`. */
export function parseForward(text: string) {
  const short = /^(\d+):(\d+)$/.exec(text);
  if (short) return { protocol: 'tcp' as const, hostPort: Number(short[1]), guestPort: Number(short[2]) };
  const full = /^(tcp|udp)?:([\d.]*):(\d+)-([\d.]*):(\d+)$/.exec(text);
  if (!full) {
    throw new NemuError('USAGE', `--net: hostfwd=${text} is no forwarding.`, {
      hint: 'Write it like hostfwd=tcp::2222-:22, or hostfwd=2222:22.',
    });
  }
  const [, protocol = 'tcp', hostAddress, hostPort, guestAddress, guestPort] = full;
  return {
    protocol: protocol as 'tcp' | 'udp',
    ...(hostAddress && { hostAddress }),
    hostPort: Number(hostPort),
    ...(guestAddress && { guestAddress }),
    guestPort: Number(guestPort),
  };
}

const PCIE_KEYS: Keys = { 'root-ports': { kind: 'number', field: 'rootPorts' }, buses: { kind: 'number' } };

/** `4`, or `root-ports=4,buses=6`. */
export const parsePcie = (text: string) =>
  parseKeyValues('--pcie', text, PCIE_KEYS, 'root-ports') as NonNullable<MachineInput['pcie']>;

/** Seconds, or a number with `ms`, `s`, `m` or `h`; gives milliseconds. */
export function parseDuration(text: string): number {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h)?$/.exec(text);
  if (!match) {
    throw new NemuError('USAGE', `"${text}" is not a time.`, { hint: 'Write seconds, or 500ms, 90s, 5m, 1h.' });
  }
  return Number(match[1]) * { ms: 1, s: 1000, m: 60_000, h: 3_600_000 }[match[2] ?? 's']!;
}
