/** Lines of `nemu qmp`: `command key=value…`, and how they are completed from the server's schema. */
import { NemuError } from '../client/errors.ts';
import { didYouMean } from '../client/suggest.ts';
import type { Member, QmpClient, Schema } from './client.ts';
import { isObject, type Json, JsonError, type JsonObject, JsonStream } from './json.ts';

/** Words of a line as a shell splits them: quotes hold them together. @throws NemuError USAGE */
export function splitWords(line: string): string[] {
  const words: string[] = [];
  let word: string | undefined;
  let quote: string | undefined;
  for (let at = 0; at < line.length; at++) {
    const character = line[at];
    if (quote !== undefined) {
      if (character === quote) quote = undefined;
      else if (character === '\\' && quote === '"' && '"\\'.includes(line[at + 1])) word += line[++at];
      else word += character;
    } else if (character === '"' || character === "'") {
      quote = character;
      word ??= '';
    } else if (/\s/.test(character)) {
      if (word !== undefined) words.push(word);
      word = undefined;
    } else word = (word ?? '') + character;
  }
  if (quote !== undefined) throw new NemuError('USAGE', `A quote (${quote}) is not closed.`);
  if (word !== undefined) words.push(word);
  return words;
}

export interface QmpLine {
  readonly command: string;
  readonly args: JsonObject;
}

/**
 * A command and its arguments: `key=value`, `a.b=value` for a member of a member, or JSON for all of them.
 * @param more what the command takes besides what the schema has.
 * @throws NemuError USAGE
 */
export function parseLine(
  [command, ...words]: readonly string[],
  schema: Schema,
  more: readonly Member[] = [],
): QmpLine {
  const commands = schema.commands;
  if (!commands.includes(command)) {
    const near = didYouMean(command, commands);
    throw new NemuError('USAGE', `This server has no command "${command}".`, {
      hint: near ? `Did you mean ${near}?` : 'An empty line and Tab lists them.',
    });
  }
  if (words.length === 1 && words[0].startsWith('{')) {
    const [value] = new JsonStream().push(Buffer.from(words[0]));
    if (!isObject(value)) {
      const why = value instanceof JsonError ? value.message : 'it is not whole';
      throw new NemuError('USAGE', `These arguments are no JSON object: ${why}.`);
    }
    return { command, args: value };
  }
  const members = schema.argumentsOf(command);
  const args: Record<string, Json> = {};
  for (const word of words) {
    const equals = word.indexOf('=');
    if (equals < 1) {
      throw new NemuError('USAGE', `"${word}" is no argument.`, {
        hint: `Arguments are written key=value; ${command} takes ${members.map(({ name }) => name).join(', ') || 'none'}.`,
      });
    }
    const [path, typed] = [word.slice(0, equals), word.slice(equals + 1)];
    const type = schema.typeOf(command, path.split('.')) ?? more.find(({ name }) => name === path)?.type ?? '';
    set(args, path.split('.'), schema.convert(type, typed));
  }
  return { command, args };
}

/** A line for this server; what a device takes is asked for, by its driver. @throws NemuError USAGE */
export async function readLine(client: QmpClient, words: readonly string[]): Promise<QmpLine> {
  const schema = await client.schema();
  const driver = words.find((word) => word.startsWith('driver='))?.slice('driver='.length);
  const more = words[0] === 'device_add' && driver ? await client.propertiesOf(driver) : [];
  return parseLine(words, schema, more);
}

function set(object: Record<string, Json>, [first, ...rest]: readonly string[], value: Json): void {
  if (rest.length === 0) {
    Object.defineProperty(object, first, { value, enumerable: true, configurable: true, writable: true });
    return;
  }
  const inner = Object.hasOwn(object, first) && isObject(object[first]) ? { ...object[first] } : {};
  set(inner, rest, value);
  object[first] = inner;
}

/** @returns what the last word can become, and that word: as node:readline wants it. */
export function complete(line: string, schema: Schema, own: readonly string[]): [string[], string] {
  const last = /\S*$/.exec(line)?.[0] ?? '';
  const before = line.slice(0, line.length - last.length).trim();
  const starting = (words: readonly string[]) => words.filter((word) => word.startsWith(last));
  if (before === '') return [starting([...schema.commands, ...own]), last];
  const [command] = before.split(/\s+/);
  const members = schema.argumentsOf(command);
  const equals = last.indexOf('=');
  if (equals > 0) {
    const member = members.find(({ name }) => name === last.slice(0, equals));
    const values = member ? schema.valuesOf(member.type) : [];
    return [starting(values.map((value) => `${last.slice(0, equals)}=${value}`)), last];
  }
  const given = new Set(before.split(/\s+/).map((word) => word.split('=')[0]));
  return [starting(members.filter(({ name }) => !given.has(name)).map(({ name }) => `${name}=`)), last];
}
