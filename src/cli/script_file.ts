/** A script of the user's: what is wrong with it is told before a guest is booted for it. */
import { readFileSync, realpathSync, statSync } from 'node:fs';
import { stripTypeScriptTypes } from 'node:module';
import { pathToFileURL } from 'node:url';
import { compileFunction } from 'node:vm';
import { NemuError } from '../client/errors.ts';

const MODULE = /\.m?[jt]s$/;

/** @throws NemuError USAGE for a script that is not there, cannot be read or is no module. */
export function checkScript(path: string): void {
  if (!statSync(path, { throwIfNoEntry: false })) throw new NemuError('USAGE', `The script ${path} does not exist.`);
  let code: string;
  try {
    code = readFileSync(path, 'utf8');
  } catch (cause) {
    const why = (cause as NodeJS.ErrnoException).code === 'EISDIR' ? 'it is a folder' : (cause as Error).message;
    throw new NemuError('USAGE', `The script ${path} cannot be read: ${why}.`, { cause });
  }
  if (!MODULE.test(path) || (path.endsWith('.js') && isCommonJs(code))) return;
  try {
    // TypeScript's parser takes JavaScript too.
    stripTypeScriptTypes(code);
  } catch (cause) {
    const { message, stack = '' } = cause as Error;
    const [, line, shown] = /^\S*:(\d+)\n(?:.*\n)*?(.*\n[ \t]*\^+)\n/.exec(stack) ?? [];
    throw new NemuError('USAGE', `The script ${path} cannot be parsed${line ? `, line ${line}` : ''}: ${message}.`, {
      ...(shown !== undefined && { hint: shown }),
      cause,
    });
  }
}

/** Such code may have what a module may not. */
function isCommonJs(code: string): boolean {
  try {
    compileFunction(code);
    return true;
  } catch {
    return false;
  }
}

/** The first line of an error's stack that is in a script, as `    at FUNCTION (FILE:LINE:COLUMN)`. */
export function placeInScript(error: unknown, script: string): string | undefined {
  const { stack } = (error ?? {}) as { readonly stack?: unknown };
  if (typeof stack !== 'string') return undefined;
  // A module is known by its URL, what is CommonJS by its path.
  const path = realpathSync(script);
  const plain = stack.replaceAll(pathToFileURL(path).href, path);
  return plain.split('\n').find((line) => /^ +at /.test(line) && line.includes(`${path}:`));
}
