/**
 * Recordings of a terminal in the format asciicast v2 (https://docs.asciinema.org/manual/asciicast/v2/): a line of JSON
 * with the size, then a line an event, `[seconds, "o" | "i" | "r" | "m", text]`.
 */
import { closeSync, writeSync } from 'node:fs';
import { StringDecoder } from 'node:string_decoder';
import { setTimeout as sleep } from 'node:timers/promises';
import * as z from 'zod';
import { NemuError } from '../client/errors.ts';
import { sizeOf } from '../client/shared_console.ts';
import type { ConsoleTap } from './hub.ts';
import { openOutput } from './output_file.ts';

/** Writes a console's output as it comes. */
export class CastRecorder implements ConsoleTap {
  readonly #file: number;
  readonly #begin = performance.now();
  readonly #decoder = new StringDecoder('utf8');
  readonly #failed: (error: Error) => void;
  #closed = false;

  /**
   * @param terminal whose size the recording has, where it has one.
   * @param failed told when the recording ends before the console does.
   * @throws NemuError OUTPUT_FILE for a file that cannot be made.
   */
  constructor(path: string, terminal: Parameters<typeof sizeOf>[0], title: string, failed: (error: Error) => void) {
    this.#failed = failed;
    this.#file = openOutput(path);
    const { rows, columns } = sizeOf(terminal);
    const header = { version: 2, width: columns, height: rows, timestamp: Math.floor(Date.now() / 1000), title };
    this.#line({ ...header, env: { TERM: process.env.TERM ?? 'xterm-256color' } });
  }

  #line(value: unknown): void {
    if (this.#closed) return;
    try {
      writeSync(this.#file, `${JSON.stringify(value)}\n`);
    } catch (error) {
      this.close();
      this.#failed(error as Error);
    }
  }

  #event(code: string, text: string): void {
    if (text !== '') this.#line([Number(((performance.now() - this.#begin) / 1000).toFixed(6)), code, text]);
  }

  bytes(bytes: Uint8Array): void {
    this.#event('o', this.#decoder.write(Buffer.from(bytes)));
  }

  lost(count: number): void {
    this.#event('m', `${count} bytes were lost`);
  }

  resized(rows: number, columns: number): void {
    if (rows >= 1 && columns >= 1) this.#event('r', `${columns}x${rows}`);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    closeSync(this.#file);
  }
}

export interface CastEvent {
  /** Seconds since the beginning. */
  readonly at: number;
  readonly code: string;
  readonly text: string;
}

export interface Cast {
  readonly width: number;
  readonly height: number;
  readonly title?: string;
  readonly idleLimit?: number;
  readonly events: readonly CastEvent[];
}

const headerSchema = z.object({
  version: z.literal(2),
  width: z.int().min(1).max(10_000),
  height: z.int().min(1).max(10_000),
  title: z.string().optional(),
  idle_time_limit: z.number().positive().optional(),
});
const eventSchema = z.tuple([z.number().nonnegative(), z.string(), z.string()]);

/**
 * Reads a recording. A last line that is not whole, as of a recording under way, is left out.
 * @throws NemuError CAST with the line that does not do.
 */
export function parseCast(text: string, path: string): Cast {
  const lines = text.split('\n');
  const whole = lines.slice(0, -1).concat(isJson(lines.at(-1) ?? '') ? [lines.at(-1) as string] : []);
  const header = headerSchema.safeParse(json(whole[0] ?? ''));
  if (!header.success) {
    throw new NemuError('CAST', `${path} is not an asciicast v2 recording: its first line has no header of one.`, {
      hint: 'nemu run --record FILE makes one.',
    });
  }
  const events = whole.slice(1).flatMap((line, index) => {
    if (line.trim() === '') return [];
    const event = eventSchema.safeParse(json(line));
    if (!event.success) throw new NemuError('CAST', `${path}, line ${index + 2}: this is no event of a recording.`);
    const [at, code, data] = event.data;
    return [{ at, code, text: data }];
  });
  const { width, height, title, idle_time_limit: idleLimit } = header.data;
  return {
    width,
    height,
    events,
    ...(title !== undefined && { title }),
    ...(idleLimit !== undefined && { idleLimit }),
  };
}

function json(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}

const isJson = (line: string) => json(line) !== undefined;

export interface PlayOptions {
  /** 2 is twice as fast. */
  readonly speed: number;
  /** Longest pause, in seconds of the recording. */
  readonly idleLimit?: number;
  readonly signal?: AbortSignal;
}

/**
 * Shows a recording at its pace.
 * @throws AbortError when the signal comes first.
 */
export async function playCast(cast: Cast, write: (text: string) => void, options: PlayOptions): Promise<void> {
  const limit = options.idleLimit ?? cast.idleLimit ?? Number.POSITIVE_INFINITY;
  const begin = performance.now();
  let before = 0;
  let due = 0;
  for (const { at, code, text } of cast.events) {
    due += Math.min(Math.max(0, at - before), limit) / options.speed;
    before = at;
    // By the clock and not event by event: what writing takes would add up.
    const wait = due * 1000 - (performance.now() - begin);
    if (wait > 1) await sleep(wait, undefined, options.signal && { signal: options.signal });
    options.signal?.throwIfAborted();
    if (code === 'o') write(text);
  }
}
