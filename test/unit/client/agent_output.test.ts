/** The guest's agent in a shell of this host: output that is held waits in the guest. */
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { PackedOutput } from '../../../src/client/packed_output.ts';

test('output of a command that is held waits, and goes on', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'nemu-agent-'));
  const asset = new URL('../../../src/lab/assets/agent.sh', import.meta.url);
  writeFileSync(join(folder, 'agent.sh'), readFileSync(asset, 'utf8').replaceAll('/run/nemu', folder));
  const shell = spawn('sh', ['-c', '. "$0"/agent.sh\nto=1\nyes | head -c 1000000 | encode out 5', folder]);
  const obey = (line: string) =>
    new Promise((resolve) => {
      spawn('sh', ['-c', `. "$0"/agent.sh\nobey ${line}`, folder]).once('exit', resolve);
    });
  try {
    writeFileSync(join(folder, '5'), '');
    let said = '';
    shell.stdout.on('data', (bytes) => {
      said += bytes;
    });
    const ended = new Promise((resolve) => shell.once('exit', resolve));
    const until = async (what: () => boolean) => {
      while (!what()) await new Promise((resolve) => setTimeout(resolve, 5));
    };
    await until(() => said !== '');
    await obey('hold 5');
    await new Promise((resolve) => setTimeout(resolve, 200));
    const before = said.length;
    await new Promise((resolve) => setTimeout(resolve, 500));
    expect(said.length).toBe(before);
    expect(shell.exitCode).toBeNull();
    await obey('go 5');
    await ended;
    expect(said.length).toBeGreaterThan(before);
    const packed = new PackedOutput();
    let bytes = 0;
    for (const [, word, rest] of said.matchAll(/^(z?out) 5 (\S+)$/gm)) {
      bytes += (word === 'out' ? Buffer.from(rest, 'base64') : packed.take(rest))?.length ?? 0;
    }
    expect(bytes).toBe(1_000_000);
    // What is held when it is over is nobody's.
    await obey('hold 6');
    expect(() => readFileSync(join(folder, '6.hold'))).toThrow('ENOENT');
  } finally {
    shell.kill();
    rmSync(folder, { recursive: true, force: true });
  }
});
