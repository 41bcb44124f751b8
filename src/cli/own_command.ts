/** Commands of this program that another one of them runs. */
import { spawn } from 'node:child_process';
import { rmSync, writeFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { runFolder, supervisorPath } from './paths.ts';
import { printable } from './report.ts';

/** What a command says of an error is shown in a line or two. */
const MOST_SAID = 10_000;

/** That of a program of its own: the supervisor and the folder of this run are not its. */
export function environment(): NodeJS.ProcessEnv {
  const { NEMU_RUN_DIR: _, NEMU_SUPERVISOR: __, ...rest } = process.env;
  return rest;
}

/**
 * Ctrl-C is another program's key from now on: this one's supervisor does not count how often it is pressed (bin/nemu).
 * @returns the function that ends that.
 */
export function leaveInterrupts(): () => void {
  const file = join(runFolder(), 'interrupts-elsewhere');
  writeFileSync(file, '');
  return () => rmSync(file, { force: true });
}

/**
 * Runs a command that has this terminal, which nothing here may read or write meanwhile.
 * @param signal has it end.
 * @returns its status; undefined when a signal ended it.
 */
export function runHere(args: readonly string[], signal: AbortSignal): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    const child = spawn(supervisorPath(), args, { stdio: 'inherit', env: environment() });
    const end = () => void child.kill('SIGTERM');
    const come = leaveInterrupts();
    signal.addEventListener('abort', end, { once: true });
    child.once('error', reject);
    child.once('close', (status) => {
      come();
      signal.removeEventListener('abort', end);
      resolve(status ?? undefined);
    });
    if (signal.aborted) end();
  });
}

/**
 * Runs a command that has no terminal, nor what is typed there as a signal. It goes on when this process ends.
 * @returns undefined when all went well, else what it said.
 */
export function runApart(args: readonly string[]): Promise<string | undefined> {
  return new Promise((resolve) => {
    const child = spawn(supervisorPath(), args, {
      ...{ detached: true, env: environment() },
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let said = '';
    child.stderr.on('data', (bytes: Buffer) => {
      said = (said + bytes).slice(-MOST_SAID);
    });
    child.once('error', (error) => resolve(error.message));
    child.once('close', (status) => {
      const text = printable(said)
        .replace(/^nemu: /, '')
        .trim()
        .replaceAll(/\s+/g, ' ');
      resolve(status === 0 ? undefined : text || `nemu ${args.join(' ')} has ended with status ${status}.`);
    });
    child.unref();
    (child.stderr as Socket).unref();
  });
}
