/** QAPI's types in zod: from one declaration come the check of what peers send and `query-qmp-schema`. */
import * as z from 'zod';
import { QmpError } from './errors.ts';
import type { Json } from './json.ts';

export const str = z.string();
export const int = z.int();
/** A whole number that may be larger than a number of ours: an address, most of all. */
export const int64 = z.preprocess(
  (value) => (typeof value === 'number' && Number.isSafeInteger(value) ? BigInt(value) : value),
  z.bigint(),
) as z.ZodPipe<z.ZodTransform<unknown, number | bigint>, z.ZodBigInt>;
export const bool = z.boolean();
export const any = z.unknown();
export const none = z.strictObject({});

const ID = /^[A-Za-z][A-Za-z0-9._-]*$/;
/** @throws QmpError for what QEMU takes as no id. */
export function requireId(id: unknown): asserts id is string {
  if (typeof id !== 'string' || !ID.test(id)) throw new QmpError("Parameter 'id' expects an identifier");
}

const bases = new WeakMap<z.ZodType, readonly string[]>();
/** Members that are of a flat union itself and not of its branches; clients look for the others below a branch. */
export const baseOf = (union: z.ZodType): readonly string[] => bases.get(union) ?? [];
export function withBase<T extends z.ZodType>(union: T, base: readonly string[]): T {
  bases.set(union, base);
  return union;
}

/** Names of JSON types in messages. */
const EXPECTED: Readonly<Record<string, string>> = {
  string: 'string',
  enum: 'string',
  literal: 'string',
  int: 'integer',
  bigint: 'integer',
  // No command takes numbers that are not whole.
  number: 'integer',
  boolean: 'boolean',
  array: 'array',
  object: 'object',
  record: 'object',
  null: 'null',
};

/** `a.b[0]`, as QEMU names a parameter. */
const nameOf = (path: readonly PropertyKey[]) =>
  path.reduce<string>(
    (name, step) => (typeof step === 'number' ? `${name}[${step}]` : name ? `${name}.${String(step)}` : String(step)),
    '',
  );

function problemOf(issue: z.core.$ZodIssue): string {
  const name = nameOf(issue.path);
  const missing = (path: readonly PropertyKey[]) => `Parameter '${nameOf(path)}' is missing`;
  const wrongType = (expected: string) =>
    `Invalid parameter type for '${name}', expected: ${EXPECTED[expected] ?? expected}`;
  const last = issue.path.at(-1);
  // Of a value that is none of a list, QEMU names the member alone.
  const notAccepted = (value: string) =>
    `Parameter '${typeof last === 'string' ? last : name}' does not accept value '${value}'`;
  switch (issue.code) {
    case 'invalid_type':
      return issue.input === undefined ? missing(issue.path) : wrongType(issue.expected);
    case 'invalid_value':
      if (issue.input === undefined) return missing(issue.path);
      return typeof issue.input === 'string' ? notAccepted(issue.input) : wrongType('string');
    case 'invalid_union': {
      const tag = issue.discriminator;
      if (issue.input === undefined) return missing(issue.path);
      if (tag === undefined) {
        // An alternate: the branch that got furthest knows what is wrong.
        const inner = issue.errors.map(([first]) => first).find((each) => each.path.length > 0);
        return inner
          ? problemOf({ ...inner, path: [...issue.path, ...inner.path] })
          : `Invalid parameter type for '${name}'`;
      }
      const value = (issue.input as Record<string, unknown> | undefined)?.[tag];
      // The path of the issue is the tag's already.
      if (value === undefined) return missing(issue.path);
      return typeof value === 'string' ? notAccepted(value) : wrongType('string');
    }
    case 'unrecognized_keys':
      return `Parameter '${nameOf([...issue.path, issue.keys[0]])}' is unexpected`;
    default:
      return `Parameter '${name}': ${issue.message}`;
  }
}

/**
 * What a peer sent, as a command's arguments.
 * @throws QmpError with QEMU's words, which clients match.
 */
export function parseArguments<T extends z.ZodType>(schema: T, value: Json): z.output<T> {
  const result = schema.safeParse(value, { reportInput: true });
  if (result.success) return result.data;
  const { issues } = result.error;
  // Members are visited before it is looked for others.
  const first = issues.find(({ code }) => code !== 'unrecognized_keys') ?? issues[0];
  throw new QmpError(problemOf(first));
}
