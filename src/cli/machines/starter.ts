/** How a machine in the background comes to be: `nemu run -d` starts itself again and waits until the machine runs. */
import { spawn } from 'node:child_process';
import { closeSync, fstatSync, mkdirSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import type { Readable } from 'node:stream';
import * as z from 'zod';
import { NemuError } from '../../client/errors.ts';
import { EXIT } from '../exit_codes.ts';
import { supervisorPath } from '../paths.ts';
import { machinesFolder } from './folders.ts';

/** Descriptor of the pipe to whoever waits, and the file of the engine's own words. */
const PIPE = 'NEMU_STARTER';
const LOG = 'NEMU_ENGINE_LOG';

/** What ends the one who waits, and what it waits for. */
const INTERRUPTS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** Whoever waits for a machine to run. */
export interface Starter {
  /** Where standard error goes, to be put where it stays. */
  readonly log: string | undefined;
  ready(name: string): void;
  failed(error: NemuError): void;
}

const messageSchema = z.union([
  z.object({ ready: z.string() }),
  z.object({ error: z.object({ code: z.string(), message: z.string(), hint: z.string().optional() }) }),
]);

/** The one who started this process to have a machine in the background. */
export function starter(): Starter | undefined {
  const { [PIPE]: pipe, [LOG]: log } = process.env;
  // What this process starts is not asked to tell anybody.
  delete process.env[PIPE];
  delete process.env[LOG];
  if (pipe === undefined) return undefined;
  const send = (message: z.input<typeof messageSchema>) => {
    try {
      writeSync(Number(pipe), `${JSON.stringify(message)}\n`);
      closeSync(Number(pipe));
    } catch {
      // Nobody waits any more: the machine is started all the same.
    }
  };
  return { log, ready: (name) => send({ ready: name }), failed: (error) => send({ error: error.toJSON() }) };
}

export const isStarted = (): boolean => process.env[PIPE] !== undefined;

/**
 * Runs this command line again, in the background. A signal that ends this process before the machine runs ends that too.
 * @returns the exit status: 0 once the machine runs.
 * @throws NemuError that the other one had.
 */
export async function startInBackground(): Promise<number> {
  const interrupted = Promise.withResolvers<NodeJS.Signals>();
  for (const signal of INTERRUPTS) process.once(signal, interrupted.resolve);
  const text = await runInBackground(interrupted.promise);
  for (const signal of INTERRUPTS) process.off(signal, interrupted.resolve);
  if (text === undefined) {
    process.stderr.write('nemu: interrupted; the machine was not started.\n');
    process.kill(process.pid, await interrupted.promise);
  }
  const answer = messageSchema.safeParse(json(text ?? ''));
  if (!answer.success) throw new NemuError('ENGINE', 'The engine ended before its machine ran.');
  if ('error' in answer.data) {
    const { hint, ...error } = answer.data.error;
    throw NemuError.fromJSON({ ...error, ...(hint !== undefined && { hint }) });
  }
  process.stdout.write(`${answer.data.ready}\n`);
  return EXIT.OK;
}

/** @returns what the other one said, after all that it printed; undefined when it was ended by a signal first. */
async function runInBackground(interrupted: Promise<unknown>): Promise<string | undefined> {
  mkdirSync(machinesFolder(), { recursive: true, mode: 0o700 });
  const log = `${machinesFolder()}/.start-${process.pid}.log`;
  const words = openSync(log, 'w+', 0o600);
  let shown = 0;
  const show = () => {
    const length = fstatSync(words).size - shown;
    if (length <= 0) return;
    const bytes = Buffer.alloc(length);
    shown += readSync(words, bytes, 0, length, shown);
    process.stderr.write(bytes);
  };
  const timer = setInterval(show, 100);
  try {
    const child = spawn(supervisorPath(), process.argv.slice(2), {
      detached: true,
      stdio: ['ignore', words, words, 'pipe'],
      env: { ...process.env, [PIPE]: '3', [LOG]: log },
    });
    child.on('error', () => {});
    const ended = new Promise((resolve) => child.once('close', resolve));
    const pipe = child.stdio[3] as Readable;
    const text = await Promise.race([firstLine(pipe), interrupted.then(() => undefined)]);
    if (text === undefined) {
      child.kill('SIGTERM');
      await ended;
    }
    pipe.destroy();
    child.unref();
    if (!text?.includes('\n')) show();
    return text;
  } finally {
    clearInterval(timer);
    closeSync(words);
    // The machine has put it where it belongs, where there is one.
    rmSync(log, { force: true });
  }
}

/** The supervisor has the pipe too, so that it ends with that alone. */
async function firstLine(stream: Readable): Promise<string> {
  let text = '';
  for await (const bytes of stream) {
    text += bytes;
    if (text.includes('\n')) break;
  }
  return text;
}

function json(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
