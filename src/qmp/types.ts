/** QAPI's types in zod: from one declaration come the check of what peers send and `query-qmp-schema`. */
import * as z from 'zod';
import { QmpError } from './errors.ts';
import type { Json, JsonObject } from './json.ts';

export const str = z.string();
export const int = z.int();
const UINT64 = 'uint64';
/** The same where QEMU has no sign, of which it says so. */
export const uint = z.int({ error: UINT64 });
/** A whole number that may be larger than a number of ours: an address, most of all. */
export const int64 = z.preprocess(
  (value) => (typeof value === 'number' && Number.isSafeInteger(value) ? BigInt(value) : value),
  z.bigint().refine((value) => value <= 2n ** 63n - 1n),
) as z.ZodPipe<z.ZodTransform<unknown, number | bigint>, z.ZodBigInt>;
export const bool = z.boolean();
export const any = z.unknown();
export const none = z.strictObject({});

const ID = /^[A-Za-z][A-Za-z0-9._-]*$/;
export const isUint32 = (value: number): boolean => value >= 0 && value < 2 ** 32;

/** Whether QEMU takes it as an id, or as the name of a block node. */
export const isId = (text: string): boolean => ID.test(text);
/** @throws QmpError for what QEMU takes as no id. */
export function requireId(id: unknown): asserts id is string {
  if (typeof id !== 'string' || !isId(id)) throw new QmpError("Parameter 'id' expects an identifier");
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

/** What members are that are one thing or another, in QEMU's words. */
const ALTERNATES: Readonly<Record<string, string>> = { file: 'BlockdevRef', backing: 'BlockdevRefOrNull' };

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
      if (issue.input === undefined) return missing(issue.path);
      return issue.message === UINT64 ? `Parameter '${name}' expects uint64` : wrongType(issue.expected);
    case 'invalid_value':
      if (issue.input === undefined) return missing(issue.path);
      if (typeof issue.values[0] === 'number') {
        return typeof issue.input === 'number' ? notAccepted(String(issue.input)) : wrongType('int');
      }
      return typeof issue.input === 'string' ? notAccepted(issue.input) : wrongType('string');
    case 'invalid_union': {
      const tag = issue.discriminator;
      if (issue.input === undefined) return missing(issue.path);
      if (tag === undefined) {
        // An alternate: the branch that got furthest knows what is wrong.
        const inner = issue.errors.map(([first]) => first).find((each) => each.path.length > 0);
        return inner
          ? problemOf({ ...inner, path: [...issue.path, ...inner.path] })
          : wrongType(ALTERNATES[String(last)] ?? 'value');
      }
      const value = (issue.input as Record<string, unknown> | undefined)?.[tag];
      // The path of the issue is the tag's already.
      if (value === undefined) return missing(issue.path);
      return typeof value === 'string' ? notAccepted(value) : wrongType('string');
    }
    case 'unrecognized_keys':
      return `Parameter '${nameOf([...issue.path, issue.keys[0]])}' is unexpected`;
    case 'custom':
      return wrongType('int');
    default:
      return `Parameter '${name}': ${issue.message}`;
  }
}

const INT64_MAX = 2n ** 63n - 1n;
/**
 * A whole number is of 64 bits here, and ours have 53: one beyond that is the largest of ours, which is too large for
 * all that takes a number, and is told so by what is done with it.
 */
const narrowed = (value: bigint): number => (value < 0n ? Number.MIN_SAFE_INTEGER : Number.MAX_SAFE_INTEGER);

/** A copy with another value in a place. */
function withValue(value: Json, [step, ...rest]: readonly PropertyKey[], inner: Json): Json {
  if (step === undefined) return inner;
  if (Array.isArray(value)) return value.map((each, at) => (at === step ? withValue(each, rest, inner) : each));
  const object = value as JsonObject;
  return { ...object, [step]: withValue(object[String(step)], rest, inner) };
}

/**
 * What a peer sent, as a command's arguments.
 * @throws QmpError with QEMU's words, which clients match.
 */
export function parseArguments<T extends z.ZodType>(schema: T, value: Json): z.output<T> {
  const result = schema.safeParse(value, { reportInput: true });
  if (result.success) return result.data;
  const { issues } = result.error;
  const large = issues.find(({ code, input }) => code === 'invalid_type' && typeof input === 'bigint');
  if (large && (large.input as bigint) <= INT64_MAX) {
    return parseArguments(schema, withValue(value, large.path, narrowed(large.input as bigint)));
  }
  // Members are visited before it is looked for others.
  const first = issues.find(({ code }) => code !== 'unrecognized_keys') ?? issues[0];
  throw new QmpError(problemOf(first));
}
