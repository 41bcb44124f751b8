/** `nemu play`: a recording in this terminal, at its pace. */
import { readFileSync } from 'node:fs';
import { constants } from 'node:os';
import { NemuError } from '../client/errors.ts';
import { parseCast, playCast } from '../console/asciicast.ts';
import { GuestModes } from '../console/terminal_modes.ts';
import { EXIT } from './exit_codes.ts';
import { QuestionFilter } from './terminal_questions.ts';

export interface PlayOptions {
  readonly speed: string;
  readonly idleLimit?: string;
}

/** A shell's status of what a signal has ended is this and the signal's number. */
const SIGNALLED = 128;

function positive(option: string, text: string): number {
  const value = Number(text);
  if (Number.isFinite(value) && value > 0) return value;
  throw new NemuError('USAGE', `${option} ${text} is no number above 0.`);
}

/** @returns the exit status. @throws NemuError CAST for a file that is no recording. */
export async function play(path: string, { speed, idleLimit }: PlayOptions): Promise<number> {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (cause) {
    throw new NemuError('CAST', `The recording ${path} cannot be read: ${(cause as Error).message}.`, { cause });
  }
  const cast = parseCast(text, path);
  const { columns, rows } = process.stdout;
  if (process.stdout.isTTY && (columns < cast.width || rows < cast.height)) {
    process.stderr.write(
      `nemu: this terminal has ${columns}x${rows}; the recording was of ${cast.width}x${cast.height}.\n`,
    );
  }
  const stop = new AbortController();
  let status = SIGNALLED;
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => {
      status = SIGNALLED + constants.signals[signal];
      stop.abort();
    });
  }
  const modes = new GuestModes();
  // Nobody is there to take the terminal's answers but the next prompt.
  const questions = new QuestionFilter();
  const show = (bytes: Buffer) => {
    modes.saw(bytes);
    process.stdout.write(bytes);
  };
  try {
    await playCast(cast, (piece) => show(questions.take(Buffer.from(piece))), {
      speed: positive('--speed', speed),
      ...(idleLimit !== undefined && { idleLimit: positive('--idle-limit', idleLimit) }),
      signal: stop.signal,
    });
    show(questions.rest());
    return EXIT.OK;
  } catch (error) {
    if (!stop.signal.aborted) throw error;
    return status;
  } finally {
    if (process.stdout.isTTY) process.stdout.write(`${modes.undo()}\r\n`);
  }
}
