import { existsSync } from 'node:fs';
import { readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { NemuError } from '../client/errors.ts';
import { table } from '../client/text_table.ts';
import { type Lab, startLab } from '../lab/lab.ts';
import { buildLabImage } from '../lab/lab_image.ts';
import { cacheFolder, labAgentPath } from './paths.ts';
import { labProgress } from './progress.ts';

const labsFolder = () => join(cacheFolder(), 'lab');

export async function labBuild(): Promise<void> {
  const begin = performance.now();
  const progress = labProgress();
  const image = await buildLabImage({ bundle: labAgentPath(), onProgress: progress.report }).finally(progress.done);
  process.stdout.write(`${image.folder} (${((performance.now() - begin) / 1000).toFixed(1)} s)\n`);
}

/** A lab of this command's own. */
function openLab(): Promise<Lab> {
  const progress = labProgress();
  return startLab({ bundle: labAgentPath(), onProgress: progress.report }).finally(progress.done);
}

/** A root shell in a lab, with this terminal. Its exit status is the shell's. */
export async function labShell(): Promise<number> {
  if (!process.stdin.isTTY || !process.stdout.isTTY) {
    throw new NemuError('USAGE', 'A shell in the lab needs a terminal.', { hint: 'Use `nemu lab exec -- COMMAND`.' });
  }
  const lab = await openLab();
  try {
    // A terminal may not know its size, as one that `script` makes.
    const { rows, columns } = { rows: process.stdout.rows || 24, columns: process.stdout.columns || 80 };
    const shell = lab.shell({ rows, columns });
    const resized = () => void shell.resize(process.stdout.rows, process.stdout.columns);
    process.stdout.on('resize', resized);
    process.stdin.setRawMode(true);
    process.stdin.pipe(shell.port, { end: false });
    shell.port.pipe(process.stdout, { end: false });
    const status = await Promise.race([shell.exited, lab.ended.then((error) => Promise.reject(error))]);
    process.stdout.off('resize', resized);
    return status;
  } finally {
    process.stdin.setRawMode(false);
    process.stdin.pause();
    await lab.close();
  }
}

/** Runs a program in a lab with the host's files. Its output is ours, and its status. */
export async function labExec(command: string[]): Promise<number> {
  const lab = await openLab();
  try {
    const { status } = await lab.exec(command, {
      hostRoot: true,
      onOutput: (stream, bytes) => void process[stream].write(bytes),
    });
    return status;
  } finally {
    await lab.close();
  }
}

async function savedLabs(): Promise<{ name: string; bytes: number; made: string }[]> {
  const folder = labsFolder();
  if (!existsSync(folder)) return [];
  const labs = [];
  for (const name of await readdir(folder)) {
    if (name.startsWith('.')) continue;
    const files = await readdir(join(folder, name));
    const stats = await Promise.all(files.map((file) => stat(join(folder, name, file))));
    // The memory file is sparse: what it takes is in blocks of 512 bytes.
    labs.push({
      name,
      bytes: stats.reduce((sum, { blocks }) => sum + blocks * 512, 0),
      made: stats[0]?.mtime.toISOString() ?? '',
    });
  }
  return labs;
}

export async function labList({ json }: { json?: boolean }): Promise<void> {
  const labs = await savedLabs();
  if (json) process.stdout.write(`${JSON.stringify(labs, null, 2)}\n`);
  else if (labs.length === 0) process.stdout.write('No lab was saved yet: nemu lab build\n');
  else {
    const rows = labs.map(({ name, bytes, made }) => [name, `${Math.round(bytes / 2 ** 20)} MiB`, made]);
    process.stdout.write(`${table(['lab', 'size', 'made'], rows)}\n`);
  }
}

export async function labRemove(): Promise<void> {
  await rm(labsFolder(), { recursive: true, force: true });
}
