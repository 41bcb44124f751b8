/** The README's table of the workstation's keys, from its actions. `node_modules/.bin/node scripts/key_table.ts` writes it. */
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { ACTIONS } from '../src/tui/actions.ts';
import { keyLabel } from '../src/tui/keys.ts';

const README = new URL('../README.md', import.meta.url);
const [FROM, TO] = ['<!-- keys -->\n', '<!-- /keys -->'];

/** @returns Markdown, one row an action. */
export function keyTable(): string {
  // A vertical bar would end a cell.
  const cell = (text: string) => text.replaceAll('|', '\\|');
  const rows = ACTIONS.map(({ keys, title, help, panes }) => {
    const pressed = keys.map((key) => `\`${keyLabel(key)}\``).join(' ');
    return `| ${cell(pressed)} | ${panes ? panes.join(', ') : ''} | ${cell(title)} | ${cell(help)} |`;
  });
  return ['| key | in | does | |', '| --- | --- | --- | --- |', ...rows, ''].join('\n');
}

/** The table that a text of the README has, and the text around it. @throws Error without the marks. */
export function keyTableIn(readme: string): { before: string; table: string; after: string } {
  const [from, to] = [readme.indexOf(FROM) + FROM.length, readme.indexOf(TO)];
  if (from < FROM.length || to < from) throw new Error('The README has no place for the table of keys.');
  return { before: readme.slice(0, from), table: readme.slice(from, to), after: readme.slice(to) };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { before, after } = keyTableIn(readFileSync(README, 'utf8'));
  writeFileSync(README, `${before}\n${keyTable()}\n${after}`);
}
