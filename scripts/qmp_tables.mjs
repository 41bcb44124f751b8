// Writes the tables of docs/qmp.md from the table of commands: node scripts/qmp_tables.mjs
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { COMMANDS } from '../src/qmp/commands/index.ts';
import { EVENTS } from '../src/qmp/events.ts';

const path = join(import.meta.dirname, '..', 'docs', 'qmp.md');
const rows = (list) =>
  list.map(({ name, summary, oob }) => `| \`${name}\`${oob ? ' (oob)' : ''} | ${summary} |`).join('\n');
const events = [...EVENTS].sort((a, b) => (a.name < b.name ? -1 : 1));
const filled = (text, heading, list) => {
  const at = text.indexOf('| --- | --- |\n', text.indexOf(`\n## ${heading}\n`)) + '| --- | --- |\n'.length;
  return text.slice(0, at) + rows(list) + text.slice(text.indexOf('\n\n', at));
};
const text = readFileSync(path, 'utf8');
writeFileSync(path, filled(filled(text, 'Commands', COMMANDS), 'Events', events));
