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
    const { shape, element }: Definition = definition(at);
    const next: z.ZodType | undefined = shape ? shape[String(step)] : element;
    if (!next) return [];
    at = unwrap(next);
  }
  return Object.keys(definition(at).shape ?? {});
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
