import { spawn } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import { NemuError } from '../client/errors.ts';

export interface CommandResult {
  /** Exit status; 128 + n after signal n, as shells count. */
  status: number;
  stdout: Buffer;
  stderr: string;
}

export interface CommandOptions {
  input?: Uint8Array;
  cwd?: string;
  /** Called with each line of standard output; the lines are then not collected. */
  onLine?: (line: string) => void;
  signal?: AbortSignal;
}

/** Debian keeps administrators' programs where a user's PATH often does not look. */
const searchPath = () => [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/sbin', '/usr/bin', '/bin'];

/** Full path of a program, or undefined when this machine does not have it. */
export function findProgram(name: string): string | undefined {
  for (const folder of searchPath()) {
    const path = join(folder, name);
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch {
      // Look in the next folder.
    }
  }
  return undefined;
}

/**
 * Runs a program to its end, whatever its status. Output is in the C locale.
 * @throws NemuError PROGRAM_MISSING when it cannot be started.
 */
export function runCommand(
  program: string,
  args: readonly string[],
  options: CommandOptions = {},
): Promise<CommandResult> {
  return new Promise((resolve, reject) => {
    const child = spawn(findProgram(program) ?? program, args, {
      cwd: options.cwd,
      signal: options.signal,
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { ...process.env, LC_ALL: 'C', LANG: 'C' },
    });
    const stdout: Buffer[] = [];
    const stderr: Buffer[] = [];
    let rest = '';
    child.stdout.on('data', (chunk: Buffer) => {
      if (!options.onLine) {
        stdout.push(chunk);
        return;
      }
      const lines = (rest + chunk.toString('utf8')).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) options.onLine(line);
    });
    child.stderr.on('data', (chunk: Buffer) => stderr.push(chunk));
    child.on('error', (cause) => {
      reject(new NemuError('PROGRAM_MISSING', `The program ${program} could not be run: ${cause.message}.`, { cause }));
    });
    child.on('close', (code, signalName) => {
      const status = code ?? 128 + (SIGNALS[signalName ?? ''] ?? 0);
      resolve({ status, stdout: Buffer.concat(stdout), stderr: Buffer.concat(stderr).toString('utf8') });
    });
    // A program that ends without reading its input gives EPIPE here; its status tells the rest.
    child.stdin.on('error', () => {});
    child.stdin.end(options.input);
  });
}

const SIGNALS: Record<string, number> = {
  SIGHUP: 1,
  SIGINT: 2,
  SIGQUIT: 3,
  SIGABRT: 6,
  SIGKILL: 9,
  SIGSEGV: 11,
  SIGTERM: 15,
};

/** Runs a program that has to succeed, and gives its standard output. */
export async function commandOutput(
  program: string,
  args: readonly string[],
  options: CommandOptions = {},
): Promise<Buffer> {
  const result = await runCommand(program, args, options);
  if (result.status !== 0) {
    const line = [program, ...args].join(' ');
    throw new NemuError(
      'PROGRAM_FAILED',
      `The command "${line}" ended with status ${result.status}: ${result.stderr.trim().slice(-2000) || 'it gave no reason'}.`,
    );
  }
  return result.stdout;
}
