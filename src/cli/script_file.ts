/** A script of the user's: what is wrong with it is told before a guest is booted for it. */
import { readFileSync, realpathSync, statSync } from 'node:fs';
import { createRequire, isBuiltin, stripTypeScriptTypes } from 'node:module';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { compileFunction } from 'node:vm';
import { NemuError } from '../client/errors.ts';

const MODULE = /\.m?[jt]s$/;

/**
 * Checks a script, and the files that it imports at its start.
 * @throws NemuError USAGE for one that is not there, cannot be read or is no module, or imports what is not there.
 */
export async function checkScript(path: string): Promise<void> {
  const { parse } = await import('es-module-lexer/js');
  checkModule(path, { parse, known: new Set() });
}

interface Checking {
  readonly parse: typeof import('es-module-lexer/js').parse;
  /** Files that were looked at: modules may import each other in a circle. */
  readonly known: Set<string>;
}

function checkModule(path: string, checking: Checking): void {
  if (!statSync(path, { throwIfNoEntry: false })) throw new NemuError('USAGE', `The script ${path} does not exist.`);
  let code: string;
  try {
    code = readFileSync(path, 'utf8');
  } catch (cause) {
    const why = (cause as NodeJS.ErrnoException).code === 'EISDIR' ? 'it is a folder' : (cause as Error).message;
    throw new NemuError('USAGE', `The script ${path} cannot be read: ${why}.`, { cause });
  }
  if (!MODULE.test(path) || (path.endsWith('.js') && isCommonJs(code))) return;
  let plain: string;
  try {
    // TypeScript's parser takes JavaScript too.
    plain = stripTypeScriptTypes(code);
  } catch (cause) {
    const { message, stack = '' } = cause as Error;
    const [, line, shown] = /^\S*:(\d+)\n(?:.*\n)*?(.*\n[ \t]*\^+)\n/.exec(stack) ?? [];
    throw new NemuError('USAGE', `The script ${path} cannot be parsed${line ? `, line ${line}` : ''}: ${message}.`, {
      ...(shown !== undefined && { hint: shown }),
      cause,
    });
  }
  for (const specifier of importsOf(plain, checking)) checkImport(specifier, path, checking);
}

/** What a module imports before its first line runs. */
function importsOf(code: string, { parse }: Checking): string[] {
  try {
    return parse(code)[0].flatMap(({ n, d }) => (d === -1 && n !== undefined ? [n] : []));
  } catch {
    // Node will say what is wrong.
    return [];
  }
}

function checkImport(specifier: string, from: string, checking: Checking): void {
  const missing = (hint: string) =>
    new NemuError('USAGE', `The script ${from} imports '${specifier}', which is not there.`, { hint });
  if (/^(\.{0,2}\/|file:)/.test(specifier)) {
    const path = fileURLToPath(new URL(specifier, pathToFileURL(realpathSync(from))));
    if (checking.known.has(path)) return;
    checking.known.add(path);
    if (!statSync(path, { throwIfNoEntry: false })) throw missing(`It would be ${path}.`);
    checkModule(path, checking);
    return;
  }
  if (isBuiltin(specifier) || /^(data:|#)/.test(specifier)) return;
  if (specifier.startsWith('node:')) throw missing('Node has no such module.');
  try {
    createRequire(realpathSync(from)).resolve(specifier);
  } catch (cause) {
    // Others are there, but not for `require`.
    if ((cause as NodeJS.ErrnoException).code !== 'MODULE_NOT_FOUND') return;
    throw missing('A file begins with ./, and a package is installed in a folder node_modules at or above the script.');
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
