/** What members are called with: what cannot be is told in a sentence, before the machine is asked for anything. */

import { literal } from '../client/code.ts';
import { NemuError } from '../client/errors.ts';
import { formatSize, parseSize } from '../client/sizes.ts';

/** Bytes that one call reads: what is read is held, and printed, at once. */
export const MOST_READ = 64 << 20;

/** An object of fields; one of another context too. */
export const isPlain = (value: unknown): value is object =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** @param call with such an object, as it is written. @throws NemuError USAGE */
export function requireObject(value: unknown, call: string): void {
  if (isPlain(value)) return;
  throw new NemuError('USAGE', `${literal(value)} is no object of options.`, { hint: `It is called so: ${call}.` });
}

/** @param what it is, in words. @param call with such a text, as it is written. @throws NemuError USAGE */
export function requireText(value: unknown, what: string, call: string): asserts value is string {
  if (typeof value === 'string' && value !== '') return;
  throw new NemuError('USAGE', `${literal(value)} is not ${what}.`, { hint: `It is called so: ${call}.` });
}

/** @throws NemuError USAGE */
export function requireCount(count: unknown, what: string): void {
  if (Number.isSafeInteger(count) && (count as number) >= 1) return;
  throw new NemuError('USAGE', `${literal(count)} is no number of ${what}: give a whole number, 1 or more.`);
}

/** Bytes, from `'512M'` or a number. @throws NemuError USAGE, SIZE_FORMAT */
export function bytesOf(size: unknown): number {
  const bytes = typeof size === 'string' ? parseSize(size) : size;
  if (Number.isSafeInteger(bytes) && (bytes as number) >= 0) return bytes as number;
  throw new NemuError('USAGE', `${literal(size)} is no size.`, {
    hint: "Write '512M' or '2G', or a whole number of bytes.",
  });
}

/** Bytes to read. @throws NemuError USAGE */
export function lengthOf(length: unknown): number {
  if (!Number.isSafeInteger(length) || (length as number) < 0) {
    throw new NemuError('USAGE', `${literal(length)} is no number of bytes: give a whole number.`);
  }
  if ((length as number) <= MOST_READ) return length as number;
  throw new NemuError('USAGE', `${length} bytes are more than can be read at once: ${formatSize(MOST_READ)}.`, {
    hint: 'Read them piece by piece.',
  });
}

/** Digits that are an address; other text is a symbol's name. */
export const isDigits = (text: string): boolean => /^(0x[0-9a-f]+|\d+)$/i.test(text);

/** A virtual address; one below zero counts from the end. @throws NemuError USAGE */
export function addressOf(value: unknown): bigint {
  const isNumber = typeof value === 'bigint' || Number.isInteger(value);
  const at = isNumber || (typeof value === 'string' && isDigits(value)) ? BigInt(value as bigint) : undefined;
  if (at !== undefined && at < 1n << 64n && at >= -(1n << 63n)) return BigInt.asUintN(64, at);
  throw new NemuError('USAGE', `${literal(value)} is no address.`, {
    hint: 'An address is a whole number of 64 bits, as 0xffffffff81000000n.',
  });
}
