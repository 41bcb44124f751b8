/** The command line as a user runs it: the supervisor and the bundle. */
import { spawn } from 'node:child_process';
import { createServer } from 'node:net';
import type { Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { onTestFinished } from 'vitest';

export const nemu = fileURLToPath(new URL('../../bin/nemu', import.meta.url));

export interface CliResult {
  status: number;
  stdout: Buffer;
  stderr: string;
}

export interface CliOptions {
  input?: Uint8Array;
  env?: Record<string, string>;
  cwd?: string;
  /** Called with the supervisor's process number. */
  started?: (pid: number) => void;
  /** Told what it prints on either stream, with its standard input. */
  onOutput?: (text: string, input: Writable) => void;
  /** Leaves standard input open after `input`. */
  keepInput?: boolean;
}

/** Runs `nemu` with its standard streams on pipes. */
export function runNemu(args: readonly string[], options: CliOptions = {}): Promise<CliResult> {
  return new Promise((resolve, reject) => {
    const child = spawn(nemu, args, {
      cwd: options.cwd,
      env: { ...process.env, ...options.env },
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    const stdout: Buffer[] = [];
    const stderr: Buffer[] = [];
    child.stdout.on('data', (bytes: Buffer) => {
      stdout.push(bytes);
      options.onOutput?.(bytes.toString(), child.stdin);
    });
    child.stderr.on('data', (bytes: Buffer) => {
      stderr.push(bytes);
      options.onOutput?.(bytes.toString(), child.stdin);
    });
    child.stdin.on('error', () => {});
    child.on('error', reject);
    child.on('exit', () => child.stdin.destroy());
    child.on('close', (code) =>
      resolve({ status: code ?? -1, stdout: Buffer.concat(stdout), stderr: Buffer.concat(stderr).toString() }),
    );
    // A test that ends early, for time above all, must not leave its guest behind.
    onTestFinished(() => void child.kill());
    options.started?.(child.pid as number);
    child.stdin.write(options.input ?? '');
    if (!options.keepInput) child.stdin.end();
  });
}

/** A TCP port of this host's loopback on which nobody listens now. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer().on('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
}
