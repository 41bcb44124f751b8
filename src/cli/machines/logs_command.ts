/** `nemu logs` and `nemu events`: what was written down of a machine, while it runs and afterwards. */

import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { NemuError } from '../../client/errors.ts';
import type { NotedEvent } from '../../client/event_history.ts';
import { stageText } from '../../client/live.ts';
import { LogReader, previousLog } from '../../console/console_log.ts';
import { PostMortem } from '../../vmm/post_mortem.ts';
import { EXIT } from '../exit_codes.ts';
import { printable } from '../report.ts';
import { QuestionFilter } from '../terminal_questions.ts';
import { statePaths } from './folders.ts';
import { findMachine, isUp, type KnownMachine } from './records.ts';
import { tailFile } from './tail.ts';

export interface LogsOptions {
  readonly follow?: boolean;
  readonly lines?: string;
  readonly timestamps?: boolean;
  readonly grep?: string;
  readonly engine?: boolean;
  readonly raw?: boolean;
  readonly json?: boolean;
}

/** Console lines of a crashed machine that are shown with what else is known. */
const LAST_LINES = 15;

const GAP = 'Output may be missing here: the log went on in new files faster than it was read.';

function lineCount(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  if (/^\d{1,9}$/.test(text)) return Number(text);
  throw new NemuError('USAGE', `--lines ${text} is no number of lines.`);
}

/** Standard output at its reader's pace; false once that is gone. */
async function print(bytes: Uint8Array, gone: AbortSignal): Promise<void> {
  if (gone.aborted || process.stdout.write(bytes)) return;
  await once(process.stdout, 'drain', { signal: gone }).catch(() => {});
}

/** Ends with the reader, or by a signal. */
function untilGone(): AbortController {
  const gone = new AbortController();
  process.stdout.on('error', () => gone.abort());
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => gone.abort());
  return gone;
}

const isOver = (name: string) => () => {
  const known = findMachine(name);
  return !known || !isUp(known);
};

/** @returns the exit status. @throws NemuError CONSOLE for a console without a log. */
export async function showLogs(
  known: KnownMachine,
  console: string | undefined,
  options: LogsOptions,
): Promise<number> {
  const { name, record, status } = known;
  const state = statePaths(name);
  if (options.json) {
    process.stdout.write(`${JSON.stringify(postMortemOf(known), null, 2)}\n`);
    return EXIT.OK;
  }
  const wanted = console ?? (record.command ? 'com2' : 'com1');
  const path = options.engine ? state.engine : state.console(wanted);
  if (!existsSync(path)) {
    const others = record.consoles.filter((each) => existsSync(state.console(each)));
    throw new NemuError('CONSOLE', `The machine ${name} has no log of ${options.engine ? 'its engine' : wanted}.`, {
      hint: others.length > 0 ? `There are those of ${others.join(', ')}.` : 'It has printed nothing.',
    });
  }
  if (options.raw && (options.timestamps || options.grep !== undefined)) {
    throw new NemuError(
      'USAGE',
      '--raw gives the bytes as they came: there are no times and no choice of lines with it.',
    );
  }
  const gone = untilGone();
  // Wherever the log goes, a terminal may be at its end, and would answer the guest's questions into the next prompt.
  const questions = new QuestionFilter();
  let reader: { readonly log: LogReader; readonly file: number } | undefined;
  const lines = lineCount(options.lines);
  const matching = options.grep === undefined ? undefined : new LineFilter(options.grep);
  const tail = {
    ...(lines !== undefined && { lines }),
    ...(options.follow && { follow: { isOver: isOver(name), signal: gone.signal } }),
  };
  for await (const piece of tailFile(path, tail, previousLog(path))) {
    const { bytes, place } = piece;
    if (options.raw) {
      if (piece.gap) process.stderr.write(`nemu: ${GAP}\n`);
      await print(bytes, gone.signal);
      if (gone.signal.aborted) break;
      continue;
    }
    if (piece.gap)
      await print(Buffer.from(`${reader?.log.atLineStart === false ? '\n' : ''}[nemu] ${GAP}\n`), gone.signal);
    if (reader?.file !== piece.file) {
      reader?.log.close();
      reader = { log: new LogReader(piece.path, options.timestamps ?? false), file: piece.file };
    }
    const shown = reader.log.show(bytes, place);
    const chosen = matching ? matching.lines(shown) : shown;
    await print(questions.take(chosen), gone.signal);
    if (gone.signal.aborted) break;
  }
  reader?.log.close();
  await print(Buffer.concat([questions.take(matching?.rest() ?? Buffer.alloc(0)), questions.rest()]), gone.signal);
  if (status === 'crashed' && !options.engine && !gone.signal.aborted) process.stderr.write(crashText(known));
  return EXIT.OK;
}

/** Whole lines in which a text is. */
class LineFilter {
  readonly #wanted: string;
  #partial = Buffer.alloc(0);

  constructor(text: string) {
    this.#wanted = text.toLowerCase();
  }

  #has = (line: string) => line.toLowerCase().includes(this.#wanted);

  lines(bytes: Uint8Array): Buffer {
    const all = Buffer.concat([this.#partial, bytes]);
    const end = all.lastIndexOf(0x0a) + 1;
    this.#partial = all.subarray(end);
    const lines = all.toString('utf8', 0, end).split('\n').filter(this.#has);
    return Buffer.from(lines.map((line) => `${line}\n`).join(''));
  }

  rest(): Buffer {
    const line = this.#partial.toString('utf8');
    return Buffer.from(line !== '' && this.#has(line) ? `${line}\n` : '');
  }
}

/** What a crash left, as one value. */
function postMortemOf({ name, status, record }: KnownMachine) {
  const { postMortem, engine } = statePaths(name);
  const left = existsSync(postMortem) && status === 'crashed' ? PostMortem.read(postMortem) : undefined;
  return { name, status, record, engine: tailOf(engine), ...(left && { postMortem: left }) };
}

function tailOf(path: string): string {
  try {
    return printable(readFileSync(path, 'utf8')).trim().split('\n').slice(-LAST_LINES).join('\n');
  } catch {
    return '';
  }
}

function crashText(known: KnownMachine): string {
  const { name, record, engine, postMortem } = postMortemOf(known);
  const lines = [`\nnemu: the machine ${name} crashed${record.end ? `: ${record.end.detail}` : '.'}`];
  if (engine) lines.push('The engine said last:', ...engine.split('\n').map((line) => `  ${line}`));
  if (postMortem?.error) lines.push(postMortem.error);
  const { total } = (postMortem?.counters ?? {}) as { total?: number };
  if (total !== undefined) lines.push(`It had left the guest ${total} times.`);
  lines.push(
    `It had ${record.cpus} vCPUs and ${record.memory / 2 ** 20} MiB, and booted ${record.kernel}.`,
    `nemu logs ${name} --json has its description, counters and last console lines; nemu rm ${name} removes them.`,
  );
  return `${lines.join('\n')}\n`;
}

/** An event in a line. */
export function eventText({ time, ...event }: NotedEvent): string {
  if (event.type === 'request') return `${time} ${printable(stageText(event.request))}`;
  const { type, ...rest } = event;
  const words = Object.entries(rest).map(([key, value]) =>
    key === 'text' || key === 'detail' ? printable(String(value)) : `${key} ${printable(JSON.stringify(value))}`,
  );
  return `${time} ${[type, ...words].join(' ')}`;
}

export async function showEvents(
  { name }: KnownMachine,
  { follow, json, lines }: Pick<LogsOptions, 'follow' | 'json' | 'lines'>,
): Promise<number> {
  const gone = untilGone();
  const count = lineCount(lines);
  let partial = '';
  for await (const { bytes } of tailFile(statePaths(name).events, {
    ...(count !== undefined && { lines: count }),
    ...(follow && { follow: { isOver: isOver(name), signal: gone.signal } }),
  })) {
    const whole = (partial + bytes.toString('utf8')).split('\n');
    partial = whole.pop() ?? '';
    const text = whole.map((line) => `${json ? line : eventText(JSON.parse(line) as NotedEvent)}\n`).join('');
    await print(Buffer.from(text), gone.signal);
    if (gone.signal.aborted) break;
  }
  return EXIT.OK;
}
