/** `nemu qmp SOCKET [command key=value…]`: one command, or a shell. */
import { createInterface } from 'node:readline/promises';
import { NemuError } from '../client/errors.ts';
import { QmpClient, QmpCommandError, type QmpNotice } from '../qmp/client.ts';
import { encode, type Json } from '../qmp/json.ts';
import { complete, parseLine, readLine, splitWords } from '../qmp/shell.ts';
import { EXIT } from './exit_codes.ts';

/** Where a machine's QMP server listens: a path, as QEMU writes it too. */
const socketOf = (name: string): string => name.replace(/^unix:/, '').replace(/,.*$/, '');

/** A whole number beyond 2^53 keeps its digits. */
function pretty(value: Json): string {
  if (typeof value === 'string') return value.trimEnd();
  const text = JSON.stringify(value, (_key, each) => (typeof each === 'bigint' ? `\u0000${each}\u0000` : each), 2);
  return text.replace(/"\\u0000(-?\d+)\\u0000"/g, '$1');
}

/** @param name a socket. @returns the exit status. */
export async function runQmp(name: string, words: readonly string[]): Promise<number> {
  const client = await QmpClient.connect(socketOf(name));
  try {
    if (words.length > 0) return await runOnce(client, words);
    return await runShell(client);
  } finally {
    client.close();
  }
}

async function runOnce(client: QmpClient, words: readonly string[]): Promise<number> {
  const { command, args } = await readLine(client, words);
  try {
    process.stdout.write(`${pretty(await client.execute(command, args))}\n`);
    return EXIT.OK;
  } catch (error) {
    if (!(error instanceof QmpCommandError)) throw error;
    process.stderr.write(`nemu: ${error.errorClass}: ${error.message}\n`);
    return EXIT.HOST;
  }
}

const OWN_WORDS = ['help', 'exit'];
const HELP = `A line is a command with key=value arguments, or with a JSON object.
Tab completes commands, arguments and their values; exit or Ctrl-d leaves.
`;

/** Lines from standard input, until it ends or the server does. */
async function runShell(client: QmpClient): Promise<number> {
  const schema = await client.schema();
  const terminal = Boolean(process.stdin.isTTY && process.stdout.isTTY);
  const shell = createInterface({
    ...{ input: process.stdin, output: process.stdout, terminal, prompt: terminal ? 'qmp> ' : '' },
    completer: (line: string) => complete(line, schema, OWN_WORDS),
  });
  const say = (text: string) => {
    if (terminal) process.stdout.write(`\r\x1b[K${text}\n`);
    else process.stdout.write(`${text}\n`);
  };
  if (terminal) say(`Connected to ${client.version}. ${schema.commands.length} commands; help tells more.`);
  let open = true;
  shell.once('close', () => {
    open = false;
  });
  const prompt = (keepCursor = false) => {
    if (open) shell.prompt(keepCursor);
  };
  client.onEvent = (notice) => {
    say(eventLine(notice));
    if (terminal) prompt(true);
  };
  client.onClose = () => shell.close();
  let status: number = EXIT.OK;
  prompt();
  // Input that has ended may still have lines.
  for await (const line of shell) {
    if (line.trim() === 'exit') break;
    if (!(await runLine(client, line, say))) status = EXIT.HOST;
    prompt();
  }
  shell.close();
  return terminal ? EXIT.OK : status;
}

/** @returns whether it went well. */
async function runLine(client: QmpClient, line: string, say: (text: string) => void): Promise<boolean> {
  try {
    const words = splitWords(line);
    if (words.length === 0) return true;
    if (words[0] === 'help') {
      say(words[1] === undefined ? HELP.trimEnd() : await usage(client, words[1]));
      return true;
    }
    const { command, args } = await readLine(client, words);
    say(pretty(await client.execute(command, args)));
    return true;
  } catch (error) {
    if (error instanceof QmpCommandError) say(`${error.errorClass}: ${error.message}`);
    else if (error instanceof NemuError) say(error.text);
    else throw error;
    return false;
  }
}

async function usage(client: QmpClient, command: string): Promise<string> {
  const schema = await client.schema();
  parseLine([command], schema);
  const rows = schema.argumentsOf(command).map(({ name, type, optional }) => {
    const values = schema.valuesOf(type).slice(0, 12).join('|');
    return `  ${optional ? `[${name}=]` : `${name}=`}${values ? ` ${values}` : ''}`;
  });
  return [command, ...rows].join('\n');
}

const eventLine = ({ event, data, timestamp }: QmpNotice) => {
  const at = new Date(timestamp.seconds * 1000 + timestamp.microseconds / 1000).toISOString().slice(11, 23);
  return `${at} ${event}${data ? ` ${encode(data)}` : ''}`;
};
