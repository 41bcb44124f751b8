/** `npm run bench`: side by side with Debian's QEMU in the same run. docs/performance.md explains the figures. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { Command } from 'commander';
import { findProgram } from '../src/lab/command.ts';
import { blkFigures } from './blk.ts';
import { bootFigures } from './boot.ts';
import { exitFigures } from './exits.ts';
import { type Figure, figureTable } from './figures.ts';
import { hotplugFigures } from './hotplug.ts';
import { memoryFigures } from './memory.ts';
import { netFigures } from './net.ts';
import { serialFigures } from './serial.ts';
import { startupFigures } from './startup.ts';
import { workstationFigures } from './workstation.ts';

const SUITES = {
  startup: startupFigures,
  exits: exitFigures,
  boot: bootFigures,
  memory: memoryFigures,
  blk: blkFigures,
  net: netFigures,
  hotplug: hotplugFigures,
  serial: serialFigures,
  workstation: workstationFigures,
} as const satisfies Record<string, (folder: string) => Promise<Figure[]>>;
type Suite = keyof typeof SUITES;

const program = new Command('npm run bench --')
  .description("Compares NEMU with Debian's QEMU on the same work, in turns, in one run.")
  .argument('[suites...]', `what to measure: ${Object.keys(SUITES).join(', ')}; everything without one`)
  .option('--json <file>', 'writes the figures as JSON, - for standard output')
  .parse();
const chosen = (program.args.length > 0 ? program.args : Object.keys(SUITES)) as Suite[];
for (const suite of chosen) if (!Object.hasOwn(SUITES, suite)) program.error(`There is no suite "${suite}".`);
const NEEDED: readonly (readonly [command: string, packages: string, suites: readonly Suite[]])[] = [
  ['qemu-system-x86_64', 'qemu-system-x86', chosen.filter((suite) => suite !== 'workstation')],
  ['script', 'bsdutils', ['workstation']],
  ['gcc', 'gcc', ['blk', 'net']],
  ['objcopy', 'binutils', ['blk', 'net']],
];
for (const [command, packages, suites] of NEEDED) {
  if (!suites.some((suite) => chosen.includes(suite)) || findProgram(command)) continue;
  program.error(`${command} is missing, which the suite ${suites.join(', ')} needs: apt-get install ${packages}.`);
}
const { json } = program.opts<{ json?: string }>();

const folder = mkdtempSync(join(tmpdir(), 'nemu-bench-'));
const figures: Figure[] = [];
try {
  for (const suite of chosen) {
    process.stderr.write(`bench: ${suite}\n`);
    const found = await SUITES[suite](folder);
    figures.push(...found);
    if (json !== '-') process.stdout.write(`\n### ${suite}\n\n${figureTable(found)}\n`);
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
if (json !== undefined) {
  const report = { date: new Date().toISOString(), processor: cpus()[0]?.model, processors: cpus().length, figures };
  const text = `${JSON.stringify(report, null, 2)}\n`;
  if (json === '-') process.stdout.write(text);
  else writeFileSync(json, text);
}
