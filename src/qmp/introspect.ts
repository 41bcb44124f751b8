/** `query-qmp-schema`: the commands' and events' types as SchemaInfo (QEMU's QAPI introspection). */
import * as z from 'zod';
import type { Command, EventDefinition } from './command.ts';
import { baseOf, withBase } from './types.ts';

const member = z.strictObject({ name: z.string(), type: z.string(), default: z.unknown().optional() });
const features = z.array(z.string()).optional();
const common = { name: z.string(), features };
const infos = z.discriminatedUnion('meta-type', [
  z.strictObject({
    ...common,
    'meta-type': z.literal('builtin'),
    'json-type': z.enum(['string', 'number', 'int', 'boolean', 'null', 'object', 'array', 'value']),
  }),
  z.strictObject({
    ...common,
    'meta-type': z.literal('enum'),
    members: z.array(z.strictObject({ name: z.string() })),
    values: z.array(z.string()),
  }),
  z.strictObject({ ...common, 'meta-type': z.literal('array'), 'element-type': z.string() }),
  z.strictObject({
    ...common,
    'meta-type': z.literal('object'),
    members: z.array(member),
    tag: z.string().optional(),
    variants: z.array(z.strictObject({ case: z.string(), type: z.string() })).optional(),
  }),
  z.strictObject({
    ...common,
    'meta-type': z.literal('alternate'),
    members: z.array(z.strictObject({ type: z.string() })),
  }),
  z.strictObject({
    ...common,
    'meta-type': z.literal('command'),
    'arg-type': z.string(),
    'ret-type': z.string(),
    'allow-oob': z.boolean().optional(),
  }),
  z.strictObject({ ...common, 'meta-type': z.literal('event'), 'arg-type': z.string() }),
]);
export const schemaInfo = withBase(infos, Object.keys(common));
export type SchemaInfo = z.output<typeof schemaInfo>;
type JsonType = Extract<SchemaInfo, { 'meta-type': 'builtin' }>['json-type'];

/** As much of a schema's definition as leads to its parts. */
interface Definition {
  readonly type: string;
  readonly format?: string;
  readonly shape?: Readonly<Record<string, z.ZodType>>;
  readonly element?: z.ZodType;
  readonly innerType?: z.ZodType;
  readonly in?: z.ZodType;
  readonly out?: z.ZodType;
  readonly options?: readonly z.ZodType[];
  readonly discriminator?: string;
  readonly entries?: Readonly<Record<string, string>>;
  readonly values?: readonly unknown[];
}
const definitionOf = (schema: z.ZodType) => schema.def as unknown as Definition;

const OPTIONAL = new Set(['optional', 'default', 'prefault']);

function unwrap(schema: z.ZodType): { readonly schema: z.ZodType; readonly optional: boolean } {
  const { type, innerType, in: before, out } = definitionOf(schema);
  if (innerType) {
    const inner = unwrap(innerType);
    return { schema: inner.schema, optional: OPTIONAL.has(type) || inner.optional };
  }
  // A conversion stands before what it makes, or behind what it takes.
  if (before && out) return unwrap(definitionOf(before).type === 'transform' ? out : before);
  return { schema, optional: false };
}

export function introspect(commands: readonly Command[], events: readonly EventDefinition[]): SchemaInfo[] {
  const types = new TypeTable();
  const entities = [
    ...commands.map((each): SchemaInfo => {
      const [args, returns] = [types.name(each.args), types.name(each.returns)];
      return {
        ...{ name: each.name, 'meta-type': 'command', 'arg-type': args, 'ret-type': returns },
        ...(each.oob && { 'allow-oob': true }),
        ...(each.features && { features: [...each.features] }),
      };
    }),
    ...events.map(({ name, data }): SchemaInfo => ({ name, 'meta-type': 'event', 'arg-type': types.name(data) })),
  ];
  return [...entities, ...types.all];
}

class TypeTable {
  readonly #named = new Map<z.ZodType, string>();
  readonly #infos = new Map<string, SchemaInfo>();
  /** Enumerations by their values: equal ones are one type. */
  readonly #enums = new Map<string, string>();
  #next = 0;

  constructor() {
    // As in QEMU, nothing is type 0.
    this.#object(this.#masked(), []);
  }

  get all(): SchemaInfo[] {
    return [...this.#infos.values()];
  }

  /** Names of types say nothing: clients follow them from a command. */
  #masked(): string {
    return String(this.#next++);
  }

  name(given: z.ZodType): string {
    const { schema } = unwrap(given);
    const known = this.#named.get(schema);
    if (known !== undefined) return known;
    const definition = definitionOf(schema);
    switch (definition.type) {
      case 'string':
      case 'template_literal':
        return this.#builtin('str', 'string');
      case 'number':
        return definition.format === 'safeint' ? this.#builtin('int', 'int') : this.#builtin('number', 'number');
      case 'bigint':
        return this.#builtin('int', 'int');
      case 'boolean':
        return this.#builtin('bool', 'boolean');
      case 'null':
        return this.#builtin('null', 'null');
      case 'unknown':
      case 'any':
        return this.#builtin('any', 'value');
      case 'array': {
        const element = this.name(definition.element as z.ZodType);
        const name = `[${element}]`;
        this.#infos.set(name, { name, 'meta-type': 'array', 'element-type': element });
        return name;
      }
      case 'enum':
        return this.#enum(Object.values(definition.entries ?? {}));
      case 'literal':
        return this.#enum((definition.values ?? []).map(String));
      case 'object':
        return this.#objectOf(schema, definition.shape ?? {});
      case 'union':
        return definition.discriminator === undefined
          ? this.#alternate(schema, definition.options ?? [])
          : this.#union(schema, definition.discriminator, definition.options ?? []);
      default:
        throw new TypeError(`QAPI has no type for a schema of ${definition.type}.`);
    }
  }

  #builtin(name: string, json: JsonType): string {
    this.#infos.set(name, { name, 'meta-type': 'builtin', 'json-type': json });
    return name;
  }

  #enum(values: readonly string[]): string {
    const key = values.join('\0');
    const known = this.#enums.get(key);
    if (known !== undefined) return known;
    const name = this.#masked();
    this.#enums.set(key, name);
    this.#infos.set(name, {
      ...{ name, 'meta-type': 'enum', values: [...values] },
      members: values.map((value) => ({ name: value })),
    });
    return name;
  }

  #object(name: string, members: z.output<typeof member>[]): string {
    this.#infos.set(name, { name, 'meta-type': 'object', members });
    return name;
  }

  #objectOf(schema: z.ZodType, shape: Readonly<Record<string, z.ZodType>>): string {
    if (Object.keys(shape).length === 0) return '0';
    const name = this.#masked();
    // Before its members: one of them may be of this type.
    this.#named.set(schema, name);
    this.#infos.set(name, { name, 'meta-type': 'object', members: [] });
    return this.#object(name, this.#members(shape));
  }

  #members(shape: Readonly<Record<string, z.ZodType>>) {
    return Object.entries(shape).map(([name, each]) => ({
      ...{ name, type: this.name(each) },
      ...(unwrap(each).optional && { default: null }),
    }));
  }

  #alternate(schema: z.ZodType, options: readonly z.ZodType[]): string {
    const name = this.#masked();
    this.#named.set(schema, name);
    const members = options.map((each) => ({ type: this.name(each) }));
    this.#infos.set(name, { name, 'meta-type': 'alternate', members });
    return name;
  }

  /** A flat union: its base, and what more there is for each value of the tag. */
  #union(schema: z.ZodType, tag: string, options: readonly z.ZodType[]): string {
    const name = this.#masked();
    this.#named.set(schema, name);
    const shapes = options.map((each) => definitionOf(unwrap(each).schema).shape ?? {});
    const shared = baseOf(schema);
    const cases = shapes.map((shape) => String((definitionOf(shape[tag]).values ?? [])[0]));
    const base = Object.fromEntries(shared.map((key) => [key, shapes[0][key]]));
    const variants = shapes.map((shape, index) => {
      const own = Object.entries(shape).filter(([key]) => key !== tag && !shared.includes(key));
      return { case: cases[index], type: this.name(z.strictObject(Object.fromEntries(own))) };
    });
    const members = [{ name: tag, type: this.#enum(cases) }, ...this.#members(base)];
    this.#infos.set(name, { name, 'meta-type': 'object', members, tag, variants });
    return name;
  }
}
