/** Reading saved state back: it comes from a file or a peer, so every field is checked before it is used. */

/** @throws Error unless `state` is an object of this kind and version. */
export function requireKind(state: unknown, kind: string, version: number): Record<string, unknown> {
  if (typeof state !== 'object' || state === null) throw new Error(`The state of ${kind} is not an object.`);
  const fields = state as Record<string, unknown>;
  if (fields.kind !== kind || fields.version !== version) {
    throw new Error(
      `A state of kind ${String(fields.kind)} version ${String(fields.version)} is not ${kind} version ${version}.`,
    );
  }
  return fields;
}

/** An integer field within bounds. @throws Error that names the field and its value. */
export function integerIn(fields: Record<string, unknown>, name: string, least: number, most: number): number {
  const value = fields[name];
  if (typeof value !== 'number' || !Number.isInteger(value) || value < least || value > most) {
    throw new Error(`The state field ${name} is ${String(value)}, not an integer from ${least} to ${most}.`);
  }
  return value;
}

export const byteIn = (fields: Record<string, unknown>, name: string): number => integerIn(fields, name, 0, 0xff);

export function booleanIn(fields: Record<string, unknown>, name: string): boolean {
  const value = fields[name];
  if (typeof value !== 'boolean') throw new Error(`The state field ${name} is ${String(value)}, not true or false.`);
  return value;
}

/** A list of bytes no longer than `most`. */
export function bytesIn(fields: Record<string, unknown>, name: string, most: number): number[] {
  const value = fields[name];
  if (!Array.isArray(value) || value.length > most) {
    throw new Error(`The state field ${name} is not a list of ${most} bytes or fewer.`);
  }
  for (const byte of value) {
    if (!Number.isInteger(byte) || byte < 0 || byte > 0xff)
      throw new Error(`The state field ${name} holds ${String(byte)}.`);
  }
  return [...(value as number[])];
}

/** A list of different numbers from 0 to `count` − 1. @throws Error that names the field and what is wrong. */
export function numbersIn(fields: Record<string, unknown>, name: string, count: number): number[] {
  const value = fields[name];
  if (!Array.isArray(value) || value.length > count || new Set(value).size !== value.length) {
    throw new Error(`The state field ${name} is not a list of different numbers below ${count}.`);
  }
  for (const number of value) {
    if (!Number.isInteger(number) || number < 0 || number >= count) {
      throw new Error(`The state field ${name} holds ${String(number)}, not a number below ${count}.`);
    }
  }
  return [...(value as number[])];
}

/** A non-negative time in nanoseconds, saved as a decimal string. */
export function nanosecondsIn(fields: Record<string, unknown>, name: string): bigint {
  const value = fields[name];
  if (typeof value !== 'string' || !/^\d{1,19}$/.test(value)) {
    throw new Error(`The state field ${name} is ${String(value)}, not nanoseconds.`);
  }
  return BigInt(value);
}
