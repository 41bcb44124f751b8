/** What can be plugged and with which options, by the schema: for the short form, completion and help. */
import * as z from 'zod';
import { deviceType } from '../client/description.ts';
import { DEVICE_ALIASES } from '../client/device_schema.ts';
import { pluggable } from '../client/live.ts';
import { formatSize } from '../client/sizes.ts';
import { table } from '../client/text_table.ts';

export interface Property {
  readonly type?: string;
  readonly enum?: readonly unknown[];
  readonly anyOf?: readonly Property[];
  /** Of a size, which people write with a unit behind it. */
  readonly unit?: string;
  readonly default?: unknown;
  readonly description?: string;
}

export type Pluggable = (typeof pluggable)[number];

export const nameOf = ({ type, kind }: Pluggable): string => type ?? kind;
export const findPluggable = (word: string) => pluggable.find((each) => nameOf(each) === deviceType(word));
/** Everything that can be plugged, by its names. */
export const plugTypes = (): string[] => [...pluggable.map(nameOf), ...Object.keys(DEVICE_ALIASES)];
/** Options are written as on the command line: `deflate-on-oom`. */
export const dashed = (field: string) => field.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);

/** What has options: what can be plugged, and what can be set. */
export type Options = { readonly schema: z.ZodType };

function propertiesOf({ schema }: Options): [field: string, property: Property, required: boolean][] {
  const { properties = {}, required = [] } = z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any' }) as {
    properties?: Record<string, Property>;
    required?: readonly string[];
  };
  return Object.entries(properties)
    .filter(([field]) => field !== 'kind' && field !== 'type')
    .map(([field, property]) => [field, property, required.includes(field)]);
}

/** Options of one thing, but those that are a list or a group. */
export const optionsOf = (what: Options): Map<string, { field: string; property: Property }> =>
  new Map(
    propertiesOf(what)
      .filter(([, { type }]) => type !== 'array' && type !== 'object')
      .map(([field, property]) => [dashed(field), { field, property }]),
  );

export const isNumber = ({ type, anyOf, unit }: Property): boolean =>
  unit === undefined && (type === 'number' || type === 'integer' || (anyOf?.every(isNumber) ?? false));

function typeText(field: string, property: Property): string {
  if (property.enum) return property.enum.join('|');
  if (property.type === 'boolean') return 'on|off';
  if (property.unit !== undefined) return 'SIZE';
  if (isNumber(property)) return 'NUMBER';
  if (property.type === 'array') return 'LIST';
  if (property.type === 'object') return '{…}';
  return field === 'file' || field === 'path' ? 'FILE' : 'TEXT';
}

function defaultText({ default: value, unit, type }: Property): string {
  if (value === undefined || (Array.isArray(value) && value.length === 0)) return '';
  if (type === 'boolean') return value ? 'on' : 'off';
  return unit !== undefined && typeof value === 'number' && value > 0 ? formatSize(value) : String(value);
}

/** A line for each option: its type, its default, and what it is. */
export function plugHelp(what: Pluggable): string {
  const rows = propertiesOf(what).map(([field, property, required]) => {
    const standard = defaultText(property);
    const note = required ? '(needed)' : standard && `(${standard})`;
    return [`  ${dashed(field)}=`, typeText(field, property), [property.description, note].filter(Boolean).join(' ')];
  });
  return [`plug ${nameOf(what)} [KEY=VALUE…]`, table(['  option', 'takes', 'what it is'], rows)].join('\n');
}

/** Where code plugs something: what is in front of the options, and what it plugs. */
const CALLS: readonly (readonly [RegExp, (match: RegExpExecArray) => string | undefined])[] = [
  [/vm\.pci\.plug\(\s*(?:'([\w-]+)'|"([\w-]+)")\s*,\s*\{([^{}]*)$/, ([, single, double]) => single ?? double],
  [/vm\.memory\.plug\([^{}()]*,\s*\{()()([^{}]*)$/, () => 'memory'],
  [/vm\.nvdimm\.plug\(\s*\{()()([^{}]*)$/, () => 'nvdimm'],
  [/vm\.plug\(\s*\{([^{}]*)()([^{}]*)$/, ([, fields]) => /(?:type|kind):\s*['"](?!pci)([\w-]+)/.exec(fields)?.[1]],
];

/** What an option takes and is, by `name=value` or a field's `name: `. */
export function optionText(what: Options, word: string): string | undefined {
  const name = dashed(/^[\w-]+/.exec(word)?.[0] ?? '');
  const found = propertiesOf(what).find(([field]) => dashed(field) === name);
  if (!found) return undefined;
  const [field, property, required] = found;
  return [typeText(field, property), property.description, required && '(needed)'].filter(Boolean).join('  ');
}

/** Words that may stand at the end of code that plugs something, the part that they are for, and what each is. */
export function typedCompletions(
  code: string,
): [words: string[], part: string, what?: (word: string) => string | undefined] | undefined {
  const type = /vm\.pci\.plug\(\s*(['"])([\w-]*)$/.exec(code);
  if (type) {
    const [, quote, part] = type;
    const types = pluggable.flatMap((each) => each.type ?? []).filter((name) => name.startsWith(part));
    return [types.map((name) => `${name}${quote}`), part];
  }
  for (const [pattern, plugged] of CALLS) {
    const match = pattern.exec(code);
    const what = match && findPluggable(plugged(match) ?? '');
    if (!what) continue;
    const fields = match[3] || match[1];
    const properties = new Map(propertiesOf(what).map(([field, property]) => [field, property]));
    const value = /(\w+):\s*(['"]?)([\w-]*)$/.exec(fields);
    if (value) {
      const [, field, quote, part] = value;
      const property = properties.get(field);
      const values = property?.type === 'boolean' ? (quote ? [] : ['true', 'false']) : (property?.enum ?? []);
      const words = values.map((each) => (property?.enum ? `${quote || "'"}${each}${quote || "'"}` : String(each)));
      const typed = `${quote}${part}`;
      return [words.filter((word) => word.startsWith(typed)), typed];
    }
    const part = /(?:^|,)\s*(\w*)$/.exec(fields)?.[1];
    if (part === undefined) return undefined;
    const used = new Set([...fields.matchAll(/(\w+):/g)].map(([, field]) => field));
    return [
      [...properties.keys()].filter((field) => !used.has(field) && field.startsWith(part)).map((field) => `${field}: `),
      part,
      (word) => optionText(what, word),
    ];
  }
  return undefined;
}
