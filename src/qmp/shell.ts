/** Lines of `nemu qmp`: `command key=value…`, a message as JSON, or a command of the human monitor. */
import { NemuError } from '../client/errors.ts';
import { didYouMean } from '../client/suggest.ts';
import { splitWords } from '../client/words.ts';
import type { Member, QmpClient, Schema } from './client.ts';
import { isObject, type Json, JsonError, type JsonObject, JsonStream } from './json.ts';

/** @param others of the human monitor. */
function noCommand(command: string, { commands }: Schema, others: readonly string[]): NemuError {
  const near = didYouMean(command, [...commands, ...others]);
  const more = others.length > 0 ? '; human-monitor-command command-line=help lists those of the human monitor' : '';
  return new NemuError('USAGE', `This server has no command "${command}".`, {
    hint: near ? `Did you mean ${near}?` : `Tab on an empty line lists them${more}.`,
  });
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
  if (!schema.commands.includes(command)) throw noCommand(command, schema, []);
  if (words.length === 1 && words[0].startsWith('{')) {
    const [value] = new JsonStream().push(Buffer.from(words[0]));
    if (value instanceof JsonError || !isObject(value)) {
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

/**
 * The message that a line stands for. What a device takes is asked for, by its driver.
 * @param given a line, or its words. @throws NemuError USAGE
 */
export async function messageOf(client: QmpClient, given: string | readonly string[]): Promise<JsonObject> {
  const line = typeof given === 'string' ? given.trim() : given.join(' ');
  if (line.startsWith('{')) return messageOfJson(line);
  const words = typeof given === 'string' ? splitWords(given) : given;
  const schema = await client.schema();
  if (!schema.commands.includes(words[0])) {
    const others = await monitorCommands(client);
    if (!others.includes(words[0])) throw noCommand(words[0], schema, others);
    return { execute: 'human-monitor-command', arguments: { 'command-line': line } };
  }
  const driver = words.find((word) => word.startsWith('driver='))?.slice('driver='.length);
  const more = words[0] === 'device_add' && driver ? await client.propertiesOf(driver) : [];
  const { command, args } = parseLine(words, schema, more);
  return { execute: command, ...(Object.keys(args).length > 0 && { arguments: args }) };
}

/** @throws NemuError USAGE */
function messageOfJson(line: string): JsonObject {
  const [message, ...more] = new JsonStream().push(Buffer.from(line));
  const hint = 'A line that begins with { is sent as it is: {"execute": "query-status"}.';
  const broken = [message, ...more].find((each) => each instanceof JsonError);
  if (broken || !isObject(message) || more.length > 0) {
    const why = broken ? broken.message : message === undefined ? 'it is not whole' : 'there is more behind it';
    throw new NemuError('USAGE', `This line is no JSON object: ${why}.`, { hint });
  }
  if (typeof (message.execute ?? message['exec-oob']) !== 'string') {
    throw new NemuError('USAGE', 'This message has no command: "execute" or "exec-oob" is missing.', { hint });
  }
  return message;
}

/** Commands of the human monitor, by its own help: `c|cont  -- go on`. */
export async function monitorCommands(client: QmpClient): Promise<string[]> {
  return (await client.monitor('help')).split('\n').flatMap((line) => /^\S+/.exec(line)?.[0].split('|') ?? []);
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
