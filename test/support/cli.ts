/** The command line as a user runs it: the supervisor and the bundle. */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

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
  onOutput?: (text: string) => void;
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
      options.onOutput?.(bytes.toString());
    });
    child.stderr.on('data', (bytes: Buffer) => {
      stderr.push(bytes);
      options.onOutput?.(bytes.toString());
    });
    child.stdin.on('error', () => {});
    child.on('error', reject);
    child.on('close', (code) =>
      resolve({ status: code ?? -1, stdout: Buffer.concat(stdout), stderr: Buffer.concat(stderr).toString() }),
    );
    options.started?.(child.pid as number);
    child.stdin.end(options.input ?? Buffer.alloc(0));
  });
}
