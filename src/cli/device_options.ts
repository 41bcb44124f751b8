/** `--device TYPE,key=value…`. */
import { DEVICE_ALIASES, type DeviceDescription, type DeviceInput, deviceSchema } from '../client/device_schema.ts';
import { NemuError } from '../client/errors.ts';
import { didYouMean } from '../client/suggest.ts';
import { type Keys, parseKeyValues } from './options.ts';

const FLOW = { kind: 'text' } as const;

const KEYS: Readonly<Record<DeviceDescription['type'], Keys>> = {
  'virtio-balloon': {
    'deflate-on-oom': { kind: 'switch', field: 'deflateOnOom' },
    'free-page-reporting': { kind: 'switch', field: 'reporting' },
  },
  'virtio-console': { id: { kind: 'text' }, flow: FLOW },
  'virtio-port': { name: { kind: 'text' }, flow: FLOW },
  i6300esb: { action: { kind: 'text' } },
};

/** What each option takes, for people: `--device help`, `--device TYPE,help`. */
export function deviceHelp(type?: string): string {
  const types = type === undefined ? Object.keys(KEYS) : [typeOf(type)];
  return types
    .map((name) => {
      const schema = deviceSchema.options.find((each) => each.shape.type.value === name);
      const shape = (schema?.shape ?? {}) as Record<string, { description?: string }>;
      const rows = Object.entries(KEYS[name as DeviceDescription['type']]).map(([key, { field }]) =>
        `  ${`${key}=`.padEnd(22)} ${shape[field ?? key]?.description ?? ''}`.trimEnd(),
      );
      return [name, ...rows].join('\n');
    })
    .join('\n');
}

function typeOf(text: string): DeviceDescription['type'] {
  const type = Object.hasOwn(DEVICE_ALIASES, text) ? DEVICE_ALIASES[text] : text;
  if (Object.hasOwn(KEYS, type)) return type as DeviceDescription['type'];
  const known = [...Object.keys(KEYS), ...Object.keys(DEVICE_ALIASES)];
  const near = didYouMean(text, known);
  throw new NemuError('USAGE', `--device: there is no "${text}".`, {
    hint: near
      ? `Did you mean ${near}?`
      : `There are ${Object.keys(KEYS).join(', ')}; disks and cards have --disk and --net.`,
  });
}

/** @throws NemuError USAGE */
export function parseDevice(text: string): DeviceInput {
  const [first, ...rest] = text.split(',');
  const type = typeOf(first);
  const values = rest.length > 0 ? parseKeyValues(`--device ${type}`, rest.join(','), KEYS[type]) : {};
  return { type, ...values } as DeviceInput;
}
