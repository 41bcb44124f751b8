/** Parts of lines of the human monitor. */
import { parseSize } from '../client/sizes.ts';
import type { Monitor } from './monitor.ts';

export type Teller = (monitor: Monitor, words: readonly string[], cpu: number) => Promise<string[]> | string[];
export interface Entry {
  readonly help: string;
  /** It takes no words. */
  readonly alone?: boolean;
  readonly tell: Teller;
}

/** A line that says less or other than its command takes. */
export class UsageError extends Error {}

export const hex = (value: number, digits = 0) => `0x${value.toString(16).padStart(digits, '0')}`;

export const done = async (action: Promise<unknown>): Promise<string[]> => {
  await action;
  return [];
};

/** What acts: the same as the command of the protocol. */
export const run = (monitor: Monitor, name: string, args = {}) =>
  monitor.execute(name, args, { negotiated: true, inner: true, negotiate: () => {} });

/** A word that has to be there. @throws UsageError */
export function wanted(command: string, word: string | undefined, what = 'string'): string {
  if (word === undefined) throw new UsageError(`${command}: ${what} expected`);
  return word;
}

/** @throws UsageError */
export function switchOf(word: string | undefined): boolean {
  if (word !== 'on' && word !== 'off') throw new UsageError("Expected 'on' or 'off'");
  return word === 'on';
}

/** Bytes: `10M`, and MiB without a unit. @throws UsageError */
export function mebibytes(word: string | undefined): number {
  if (word === undefined || !/^\d+(\.\d+)?[KMGTBkmgtb]?$/.test(word)) throw new UsageError('invalid size');
  return parseSize(/\d$/.test(word) ? `${word}M` : word.replace(/[Bb]$/, ''));
}

/**
 * A number, or a sum of numbers: decimal, hexadecimal, or `$` and a register.
 * @throws UsageError with the first character that is no part of one.
 */
export function expression(text: string | undefined, registers: Readonly<Record<string, string>> = {}): bigint {
  if (text === undefined || text === '') throw new UsageError('unexpected end of expression');
  let sum = 0n;
  for (const [, sign, term] of text.matchAll(/([+-]?)([^+-]*)/g)) {
    if (sign === '' && term === '') continue;
    const value = term.startsWith('$') ? registers[term.slice(1)] : /^(0x[\da-f]+|\d+)$/i.exec(term)?.[0];
    if (term === '') throw new UsageError('unexpected end of expression');
    if (value === undefined && term.startsWith('$')) throw new UsageError('unknown register');
    if (value === undefined) throw new UsageError(`invalid char '${term[0]}' in expression`);
    sum += sign === '-' ? -BigInt(value) : BigInt(value);
  }
  return BigInt.asUintN(64, sum);
}

/** `pc-dimm,id=d1,memdev=m1`: the first word, and the pairs; what has no value is on. */
export function optionsOf(text: string): { readonly first: string; readonly pairs: readonly [string, string][] } {
  const [first, ...rest] = text.split(',');
  return {
    first,
    pairs: rest.map((item): [string, string] => {
      const equals = item.indexOf('=');
      return equals < 0 ? [item, 'on'] : [item.slice(0, equals), item.slice(equals + 1)];
    }),
  };
}
