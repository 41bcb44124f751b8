/** `--device TYPE,key=value…`. */
import { type DeviceInput, deviceSchema, deviceType } from '../client/description.ts';
import { DEVICE_ALIASES, type DeviceType } from '../client/device_schema.ts';
import { NemuError } from '../client/errors.ts';
import {
  DISK_KEYS,
  type Keys,
  NET_KEYS,
  parseDisk,
  parseKeyValues,
  parseNet,
  THROTTLE_KEYS,
} from '../client/options.ts';
import { didYouMean } from '../client/suggest.ts';

const TEXT = { kind: 'text' } as const;
const FLOW = TEXT;
const COMMON: Keys = { id: TEXT, port: TEXT };
const { type: _, ...CARD_KEYS } = NET_KEYS;

const KEYS: Readonly<Record<DeviceType, Keys>> = {
  'virtio-blk': { ...DISK_KEYS, ...THROTTLE_KEYS },
  'virtio-net': { backend: TEXT, ...CARD_KEYS, hostfwd: { kind: 'text', field: 'hostForwards' } },
  'virtio-rng': COMMON,
  'virtio-balloon': {
    ...COMMON,
    'deflate-on-oom': { kind: 'switch', field: 'deflateOnOom' },
    'free-page-reporting': { kind: 'switch', field: 'reporting' },
  },
  'virtio-console': { ...COMMON, flow: FLOW },
  'virtio-port': { name: TEXT, port: TEXT, flow: FLOW },
  i6300esb: { ...COMMON, action: TEXT },
  'virtio-mem': {
    ...{
      ...COMMON,
      size: TEXT,
      requested: TEXT,
      block: TEXT,
      node: { kind: 'number' },
      backend: TEXT,
      hugepages: TEXT,
    },
    ...{ thp: { kind: 'switch' }, 'host-nodes': { kind: 'list', field: 'hostNodes' }, policy: TEXT },
  },
  'pcie-switch': { ...COMMON, ports: { kind: 'number' } },
  'pci-bridge': COMMON,
  'virtio-pmem': { ...COMMON, file: TEXT, size: TEXT, share: { kind: 'switch' } },
};

/** What each option takes, for people: `--device help`, `--device TYPE,help`. */
export function deviceHelp(type?: string): string {
  const types = type === undefined ? Object.keys(KEYS) : [typeOf(type)];
  return types
    .map((name) => {
      const schema = deviceSchema.options.find((each) => each.shape.type.value === name);
      const shape = (schema?.shape ?? {}) as Record<string, { description?: string }>;
      const rows = Object.entries(KEYS[name as DeviceType]).map(([key, { field }]) =>
        `  ${`${key}=`.padEnd(22)} ${shape[field ?? key]?.description ?? ''}`.trimEnd(),
      );
      return [name, ...rows].join('\n');
    })
    .join('\n');
}

function typeOf(text: string): DeviceType {
  const type = deviceType(text);
  if (Object.hasOwn(KEYS, type)) return type as DeviceType;
  const known = [...Object.keys(KEYS), ...Object.keys(DEVICE_ALIASES)];
  const near = didYouMean(text, known);
  throw new NemuError('USAGE', `--device: there is no "${text}".`, {
    hint: near ? `Did you mean ${near}?` : `There are ${Object.keys(KEYS).join(', ')}.`,
  });
}

/** @throws NemuError USAGE */
export function parseDevice(text: string): DeviceInput {
  const [first, ...rest] = text.split(',');
  const type = typeOf(first);
  const option = `--device ${type}`;
  if (type === 'virtio-blk') return { type, ...parseDisk(rest.join(','), option) };
  if (type === 'virtio-net') {
    const backend = rest.find((item) => item.startsWith('backend='))?.slice('backend='.length) ?? 'user';
    const card = parseNet([backend, ...rest.filter((item) => !item.startsWith('backend='))].join(','), option);
    const { type: side, ...options } = card as NonNullable<typeof card>;
    return { type, backend: side, ...options };
  }
  const values = rest.length > 0 ? parseKeyValues(option, rest.join(','), KEYS[type]) : {};
  return { type, ...values } as DeviceInput;
}
