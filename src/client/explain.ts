/** What is wrong with a description, in sentences that name the field. */
import type * as z from 'zod';
import { didYouMean } from './suggest.ts';

export type FieldPath = readonly (string | number)[];

export interface Problem {
  readonly path: FieldPath;
  readonly message: string;
}

/** Schemas wrap each other: what of the definition leads inwards. */
interface Definition {
  readonly type: string;
  readonly shape?: Readonly<Record<string, z.ZodType>>;
  readonly element?: z.ZodType;
  /** Of a tuple. */
  readonly items?: readonly z.ZodType[];
  readonly innerType?: z.ZodType;
  readonly in?: z.ZodType;
  readonly out?: z.ZodType;
}

const definition = (schema: z.ZodType) => schema.def as unknown as Definition;

/** The schema that describes the fields or items themselves, without defaults and conversions around it. */
function unwrap(schema: z.ZodType): z.ZodType {
  const { innerType, in: before, out } = definition(schema);
  if (innerType) return unwrap(innerType);
  // A conversion stands before what it makes, or behind what it takes.
  if (before && out) return unwrap(definition(before).type === 'transform' ? out : before);
  return schema;
}

/** Names of the fields that there are at a place, as far as the place has fields. */
export function fieldsAt(schema: z.ZodType, path: FieldPath): string[] {
  let at: z.ZodType | undefined = unwrap(schema);
  for (const step of path) {
    const next: z.ZodType | undefined = inside(at, step);
    if (!next) return [];
    at = unwrap(next);
  }
  return Object.keys(definition(at).shape ?? {});
}

function inside(schema: z.ZodType, step: string | number): z.ZodType | undefined {
  const { shape, element, items } = definition(unwrap(schema));
  return shape ? shape[String(step)] : (items?.[Number(step)] ?? element);
}

/** What the schema says of a place, in the words that help has. */
function descriptionAt(schema: z.ZodType, path: FieldPath): string | undefined {
  let at: z.ZodType | undefined = schema;
  for (const step of path) at = at && inside(at, step);
  return at?.description;
}

/** A schema's complaints, each with its field; unknown fields each for itself, with what may have been meant. */
export function explain(schema: z.ZodType, issues: readonly z.core.$ZodIssue[]): Problem[] {
  return issues.flatMap((issue): Problem[] => {
    const path = issue.path as FieldPath;
    if (issue.code !== 'unrecognized_keys') return [{ path, message: issue.message }];
    const known = fieldsAt(schema, path);
    return issue.keys.map((key) => {
      const near = didYouMean(key, known);
      const hint = near ? `Did you mean ${near}?` : `There is ${known.join(', ')}.`;
      return { path: [...path, key], message: `There is no such field. ${hint}` };
    });
  });
}

const TYPES: Readonly<Record<string, string>> = {
  int: 'a whole number',
  number: 'a number',
  string: 'text',
  boolean: 'true or false',
  object: 'an object of options',
  array: 'a list',
};

/** What a place takes, by what is wrong there; undefined where the complaint itself is a sentence. */
function taken(issue: z.core.$ZodIssue): string | undefined {
  if (issue.code === 'invalid_type') return TYPES[issue.expected];
  if (issue.code === 'invalid_value') return issue.values.map(String).join(' or ');
  if (issue.code === 'too_small' && issue.origin !== 'string') {
    return issue.inclusive ? `${issue.minimum} or more` : `more than ${issue.minimum}`;
  }
  if (issue.code === 'too_small' && issue.minimum === 1) return 'text that is not empty';
  return issue.code === 'too_big' && issue.origin !== 'string' ? `${issue.maximum} at most` : undefined;
}

const said = (value: unknown) =>
  typeof value === 'object' && value !== null
    ? 'what is given'
    : typeof value === 'string'
      ? `"${value}"`
      : String(value);

/**
 * The same for somebody who wrote a call and not a file: what each option takes, what it is, and what it was given.
 * @param value that the schema complains of. @param names of its items where it is a list of arguments.
 */
export function tell(
  schema: z.ZodType,
  value: unknown,
  issues: readonly z.core.$ZodIssue[],
  names: readonly string[] = [],
): string {
  return issues
    .flatMap((issue) => {
      const takes = taken(issue);
      const label = (path: FieldPath) =>
        (names.length === 0 ? path : path.length > 1 ? path.slice(1) : [names[Number(path[0])] ?? 'argument']).join(
          '.',
        );
      if (takes === undefined) {
        return explain(schema, [issue]).map(({ path, message }) => [label(path), message].filter(Boolean).join(': '));
      }
      const path = issue.path as FieldPath;
      let given = value;
      for (const step of path) given = (given as Record<string | number, unknown> | undefined)?.[step];
      const what = descriptionAt(schema, path);
      const asked = `${label(path)} ${given === undefined ? 'is missing: it takes' : 'takes'} ${takes}`.trim();
      return [`${asked}${what ? ` (${what})` : ''}${given === undefined ? '' : `, not ${said(given)}`}.`];
    })
    .join('; ');
}
