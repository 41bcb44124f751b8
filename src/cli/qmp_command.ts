/** `nemu qmp SOCKET [command key=value…]`: one command, or a shell. */
import { createInterface } from 'node:readline/promises';
import type { WriteStream } from 'node:tty';
import { NemuError } from '../client/errors.ts';
import { QmpClient, QmpCommandError, type QmpNotice } from '../qmp/client.ts';
import { encode, type Json } from '../qmp/json.ts';
import { messageOf } from '../qmp/shell.ts';
import { completeLine } from '../qmp/shell_completion.ts';
import { shellHelp } from '../qmp/shell_help.ts';
import { prose } from '../repl/prose.ts';
import { EXIT } from './exit_codes.ts';

/** Where a machine's QMP server listens: a path, as QEMU writes it too. */
const socketOf = (name: string): string => name.replace(/^unix:/, '').replace(/,.*$/, '');

/** A whole number beyond 2^53 keeps its digits. */
function pretty(value: Json): string {
  if (typeof value === 'string') return value.replaceAll('\r\n', '\n').trimEnd();
  const text = JSON.stringify(value, (_key, each) => (typeof each === 'bigint' ? `\u0000${each}\u0000` : each), 2);
  return text.replace(/"\\u0000(-?\d+)\\u0000"/g, '$1');
}

/** @param name a socket. @returns the exit status. */
export async function runQmp(name: string, words: readonly string[]): Promise<number> {
  const client = await QmpClient.connect(socketOf(name));
  try {
    if (words.length > 0) return await runOnce(client, words);
    const { stdin: input, stdout: output } = process;
    return await runShell(client, { input, output, terminal: Boolean(input.isTTY && output.isTTY) });
  } finally {
    client.close();
  }
}

async function runOnce(client: QmpClient, words: readonly string[]): Promise<number> {
  const message = await messageOf(client, words);
  try {
    process.stdout.write(`${pretty(await client.send(message))}\n`);
    return EXIT.OK;
  } catch (error) {
    if (!(error instanceof QmpCommandError)) throw error;
    process.stderr.write(`nemu: ${error.errorClass}: ${error.message}\n`);
    return EXIT.HOST;
  }
}

const OWN_WORDS = ['help', 'exit', 'info'];

export interface ShellStreams {
  readonly input: NodeJS.ReadableStream;
  readonly output: NodeJS.WritableStream;
  readonly terminal: boolean;
}

/** Lines of a person or a pipe, until they end or the server does. */
export async function runShell(client: QmpClient, { input, output, terminal }: ShellStreams): Promise<number> {
  const schema = await client.schema();
  const shell = createInterface({
    ...{ input, output, terminal, prompt: terminal ? 'qmp> ' : '' },
    completer: (line: string) => completeLine(line, client, OWN_WORDS),
  });
  const say = (text: string) => {
    const shown = prose(text, terminal ? (output as Partial<WriteStream>).columns : undefined);
    output.write(terminal ? `\r\x1b[K${shown}\n` : `${shown}\n`);
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
  let interrupt: (() => void) | undefined;
  // Without a listener of its own, readline ends with the input.
  shell.on('SIGINT', () => {
    if (interrupt) interrupt();
    else if (shell.line !== '') {
      shell.write(null, { ctrl: true, name: 'e' });
      shell.write(null, { ctrl: true, name: 'u' });
    } else {
      say('Ctrl-D leaves.');
      prompt();
    }
  });
  let status: number = EXIT.OK;
  prompt();
  // Input that has ended may still have lines.
  for await (const line of shell) {
    if (line.trim() === 'exit') break;
    const interrupted = Promise.withResolvers<Answer>();
    interrupt = () =>
      interrupted.resolve({ text: 'Interrupted: the server may still do it. Its answer is not shown.', well: false });
    const { text, well } = await Promise.race([runLine(client, line), interrupted.promise]);
    interrupt = undefined;
    if (text !== '') say(text);
    if (!well) status = EXIT.HOST;
    prompt();
  }
  shell.close();
  return terminal ? EXIT.OK : status;
}

interface Answer {
  readonly text: string;
  /** Whether it did what it was asked. */
  readonly well: boolean;
}

async function runLine(client: QmpClient, line: string): Promise<Answer> {
  try {
    if (line.trim() === '') return { text: '', well: true };
    const help = /^\s*help(?:\s+(\S+))?(?:\s+(\S+))?\s*$/.exec(line);
    if (help) return { text: await shellHelp(client, help[1], help[2]), well: true };
    return { text: pretty(await client.send(await messageOf(client, line))), well: true };
  } catch (error) {
    if (error instanceof QmpCommandError) return { text: `${error.errorClass}: ${error.message}`, well: false };
    if (error instanceof NemuError) return { text: error.text, well: false };
    throw error;
  }
}

const eventLine = ({ event, data, timestamp }: QmpNotice) => {
  const at = new Date(timestamp.seconds * 1000 + timestamp.microseconds / 1000).toISOString().slice(11, 23);
  return `${at} ${event}${data ? ` ${encode(data)}` : ''}`;
};
