import { copyFileSync, existsSync, mkdirSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { NemuError } from '../client/errors.ts';
import { PostMortem } from '../vmm/post_mortem.ts';
import { stateFolder } from './paths.ts';
import { printable } from './report.ts';

const CONSOLE_LINES = 15;

/**
 * Tells people how the engine died, from what it left.
 * @param signal that ended it, where that is known: the supervisor has it, and keeps the file for later.
 * @throws NemuError POST_MORTEM
 */
export function showPostMortem(path: string, signal: number | undefined): void {
  if (signal !== undefined) {
    const name = Object.entries(constants.signals).find(([, number]) => number === signal)?.[0] ?? `signal ${signal}`;
    process.stderr.write(`nemu: the engine was killed by ${name}.\n`);
  }
  if (!existsSync(path)) {
    // One that was killed early has left none.
    if (signal !== undefined) return;
    throw new NemuError('POST_MORTEM', `There is no post-mortem ${path}.`);
  }
  const report = PostMortem.read(path);
  if (report.error) process.stderr.write(`${report.error}\n`);
  const lines = printable(report.console).trimEnd().split(/\r?\n/).slice(-CONSOLE_LINES);
  if (report.console)
    process.stderr.write(`The guest's console ended with:\n${lines.map((line) => `  ${line}`).join('\n')}\n`);
  const { total } = (report.counters ?? {}) as { total?: number };
  if (total !== undefined) process.stderr.write(`It had left the guest ${total} times.\n`);
  if (signal === undefined) return;
  mkdirSync(stateFolder(), { recursive: true });
  const kept = join(stateFolder(), `post-mortem-${new Date().toISOString().replaceAll(':', '')}`);
  copyFileSync(path, kept);
  process.stderr.write(`The post-mortem is in ${kept}; \`nemu post-mortem ${kept}\` shows it again.\n`);
}
