/**
 * Screens that are stored and compared. `NEMU_FRAMES=write` stores what is on the screen instead of comparing, for
 * whoever changed what it shows, and looks at the difference in git.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import type { Terminal } from './tmux.ts';

export const renewing = process.env.NEMU_FRAMES === 'write';
/** A program that has much to do has drawn by then; one that has not has another screen than the stored one. */
const LIMIT_MS = 20_000;
/** A screen that stays so long the same is taken for the last one. */
const STILL_MS = 1_000;

// biome-ignore lint/suspicious/noControlCharactersInRegex: SGR sequences, and others that tmux adds
const SEQUENCE = /\x1b\[([\d;:]*)m|\x1b[()][0-9A-Z]|[\x0e\x0f]/g;

/**
 * The same look, written in one way: terminals of different versions have several for it. Each change of look is one
 * sequence that begins with a reset, and lines end without one and without spaces.
 */
export function normalised(screen: string): string {
  return screen
    .split('\n')
    .map((row) => normalisedRow(row))
    .join('\n')
    .trimEnd();
}

function normalisedRow(row: string): string {
  const looks = new Map<string, string>();
  let out = '';
  let shown = '';
  let from = 0;
  const text = (part: string) => {
    if (part === '') return;
    const look = [...looks.values()].join(';');
    if (look !== shown) out += look === '' ? '\x1b[m' : `\x1b[0;${look}m`;
    shown = look;
    out += part;
  };
  for (const found of row.matchAll(SEQUENCE)) {
    text(row.slice(from, found.index));
    from = found.index + found[0].length;
    if (found[1] !== undefined) change(looks, found[1]);
  }
  text(row.slice(from));
  return shown === '' ? out.trimEnd() : `${out}\x1b[m`;
}

/** Attributes by what they change, in the order of their numbers (ECMA-48, 8.3.117). */
function change(looks: Map<string, string>, parameters: string): void {
  const codes = parameters.split(/[;:]/).map(Number);
  for (let at = 0; at < codes.length; at++) {
    const code = codes[at];
    if (code === 0) looks.clear();
    else if (code < 10) looks.set(String(code), String(code));
    else if (code === 22) for (const each of ['1', '2']) looks.delete(each);
    else if (code > 22 && code < 30) looks.delete(String(code - 20));
    else if (code === 39 || code === 49) looks.delete(code === 39 ? 'f' : 'b');
    else {
      const length = code === 38 || code === 48 ? (codes[at + 1] === 2 ? 5 : 3) : 1;
      looks.set(
        code === 48 || (code >= 40 && code < 48) || code >= 100 ? 'b' : 'f',
        codes.slice(at, at + length).join(';'),
      );
      at += length - 1;
    }
  }
  const sorted = [...looks].toSorted(([a], [b]) => (a < b ? -1 : 1));
  looks.clear();
  for (const [name, value] of sorted) looks.set(name, value);
}

/** Rows that differ, the stored one above the one on the screen. Escape characters can be seen. */
export function difference(stored: string, shown: string): string {
  const [before, now] = [stored, shown].map((text) => text.replaceAll('\x1b', '␛').split('\n'));
  const rows: string[] = [];
  for (let row = 0; row < Math.max(before.length, now.length); row++) {
    if (before[row] === now[row]) continue;
    rows.push(`row ${row + 1}`, `  stored ${before[row] ?? '(none)'}`, `  shown  ${now[row] ?? '(none)'}`);
  }
  return rows.join('\n');
}

/**
 * Waits until the terminal shows what is stored in `file`.
 * @param colours with the sequences that make it look so.
 * @returns the screen. @throws Error with the rows that differ.
 */
export async function expectFrame(terminal: Terminal, file: string, colours: boolean): Promise<string> {
  const screen = () => normalised(colours ? terminal.colours : terminal.visible);
  const stored = renewing ? undefined : readStored(file);
  const deadline = performance.now() + LIMIT_MS;
  let shown = screen();
  for (let since = performance.now(); shown !== stored; ) {
    await new Promise((resolve) => setTimeout(resolve, 50));
    const next = screen();
    const now = performance.now();
    if (next !== shown) since = now;
    shown = next;
    if (renewing && now - since > STILL_MS) break;
    if (now > deadline && stored !== undefined) {
      throw new Error(
        `The screen is not the one in ${file}:\n${difference(stored, shown)}\n` +
          'If it should look so, NEMU_FRAMES=write stores it.',
      );
    }
  }
  if (renewing) {
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, `${shown}\n`);
  }
  return shown;
}

function readStored(file: string): string {
  try {
    return readFileSync(file, 'utf8').trimEnd();
  } catch (cause) {
    throw new Error(`There is no stored screen ${file}: NEMU_FRAMES=write stores it.`, { cause });
  }
}
