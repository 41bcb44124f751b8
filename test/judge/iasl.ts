/** ACPICA's compiler and disassembler as a judge. */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export const hasIasl = spawnSync('iasl', ['-v']).status === 0;
export const NEEDS_IASL = 'needs iasl of the package acpica-tools';

export interface Verdict {
  /** What iasl found fault with, word for word; empty when it found nothing. */
  readonly complaints: string[];
  readonly source: string;
  readonly recompiled: Uint8Array;
}

/** Runs `work` with a folder that is gone afterwards. */
function inFolder<T>(work: (folder: string) => T): T {
  const folder = mkdtempSync(join(tmpdir(), 'nemu-iasl-'));
  try {
    return work(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function iasl(folder: string, args: readonly string[]): string[] {
  const { status, stdout, stderr } = spawnSync('iasl', args, { cwd: folder, encoding: 'utf8' });
  const complaints = `${stdout}\n${stderr}`
    .split('\n')
    .filter((line) => /\b(errors?|warnings?|remarks?|invalid|incorrect|unknown)\b/i.test(line))
    .filter((line) => !/\b0 Errors, 0 Warnings, 0 Remarks\b/.test(line));
  if (status !== 0) complaints.push(`iasl ${args.join(' ')} exited with ${status}: ${stdout}`);
  return complaints;
}

/** Disassembles a table and compiles the result again, without optimising names away. */
export function judgeTable(bytes: Uint8Array): Verdict {
  return inFolder((folder) => {
    writeFileSync(join(folder, 'table.aml'), bytes);
    const complaints = iasl(folder, ['-d', 'table.aml']);
    const source = readFileSync(join(folder, 'table.dsl'), 'utf8');
    complaints.push(
      ...source.split('\n').filter((line) => /\*\*\*\*|\b(warning|error|incorrect|invalid)\b/i.test(line)),
    );
    complaints.push(...iasl(folder, ['-we', '-on', '-p', 'again', 'table.dsl']));
    return { complaints, source, recompiled: readFileSync(join(folder, 'again.aml')) };
  });
}

/** A table that iasl makes of a list of fields, as `iasl -d` prints them. */
export function compileFields(fields: string): Uint8Array {
  return inFolder((folder) => {
    writeFileSync(join(folder, 'a.asl'), fields);
    execFileSync('iasl', ['-we', 'a.asl'], { cwd: folder, stdio: ['ignore', 'pipe', 'inherit'] });
    return readFileSync(join(folder, 'a.aml'));
  });
}

/** AML that iasl makes of ASL statements inside a DSDT, without the table's header. */
export function compileAsl(body: string): Uint8Array {
  return inFolder((folder) => {
    writeFileSync(join(folder, 'a.asl'), `DefinitionBlock ("", "DSDT", 2, "NEMU", "TEST", 1)\n{\n${body}\n}\n`);
    execFileSync('iasl', ['-ve', '-on', '-of', 'a.asl'], { cwd: folder, stdio: ['ignore', 'pipe', 'inherit'] });
    return readFileSync(join(folder, 'a.aml')).subarray(36);
  });
}
