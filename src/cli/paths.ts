/** Where this program's own files are, and where a run keeps what dies with it. */
import { mkdtempSync, rmSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { basename, isAbsolute, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The engine's main module for the lab, beside those of its threads: always the bundle. */
export const labAgentPath = (): string =>
  fileURLToPath(
    new URL(import.meta.url.endsWith('.ts') ? '../../dist/lab/agent.mjs' : './lab/agent.mjs', import.meta.url),
  );

/** The supervisor, which starts this program. */
export const supervisorPath = (): string =>
  fileURLToPath(new URL(import.meta.url.endsWith('.ts') ? '../../bin/nemu' : '../bin/nemu', import.meta.url));

let folder: string | undefined;

/**
 * This run's folder. The supervisor makes it and takes it away; without one it is made here and goes when
 * the process ends.
 */
export function runFolder(): string {
  if (folder) return folder;
  const given = process.env.NEMU_RUN_DIR;
  if (given) {
    folder = given;
  } else {
    folder = mkdtempSync(join(process.env.XDG_RUNTIME_DIR ?? tmpdir(), 'nemu.'));
    process.on('exit', () => rmSync(folder as string, { recursive: true, force: true }));
  }
  return folder;
}

/** Is it one of those that `runFolder` and the supervisor make? */
export const isRunFolder = (path: string): boolean => isAbsolute(path) && /^nemu\.\w{6}$/.test(basename(path));

/** `$XDG_STATE_HOME/nemu`: logs and post-mortems that people look at later. */
export const stateFolder = (): string => join(process.env.XDG_STATE_HOME ?? join(homedir(), '.local', 'state'), 'nemu');

/** `$XDG_CACHE_HOME/nemu`. */
export const cacheFolder = (): string => join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'nemu');
