/** The demos do what they say, and print what the README shows of them. */
import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { nemu, runNemu } from '../support/cli.ts';

const LIMIT_MS = 300_000;
const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const README = readFileSync(join(ROOT, 'README.md'), 'utf8');
/** How long something took is different each time. */
const timeless = (text: string) => text.replaceAll(/\(\d+ ms\)/g, '(… ms)');

/** What the README shows behind a command line. */
function shown(command: string): string {
  const found = new RegExp(`\\$ ${command.replaceAll(/[.$*+?()[\]{}|]/g, '\\$&')}\\n([^\`]*)\`\`\``).exec(README);
  if (!found) throw new Error(`README.md does not show ${command}.`);
  return found[1];
}

describe('demos', () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'nemu-demos-'));
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  test.each([
    'nemu run --cpus 1,max=4 --memory 512M,max=4G --script demos/hotplug_tour.ts',
    'nemu run --memory 512M,max=2G --script demos/refusing_guest.ts',
  ])('%s', { timeout: LIMIT_MS }, async (command) => {
    const { status, stdout, stderr } = await runNemu(command.split(' ').slice(1), { cwd: ROOT });
    expect(status, stderr).toBe(0);
    expect(timeless(stdout.toString())).toBe(timeless(shown(command)));
  });

  test('demos/storage_hot_swap.ts', { timeout: LIMIT_MS }, async () => {
    const disk = join(folder, 'work.img');
    writeFileSync(disk, '');
    truncateSync(disk, 32 * 2 ** 20);
    const script = join(ROOT, 'demos/storage_hot_swap.ts');
    const { status, stdout, stderr } = await runNemu(['run', '--disk', disk, '--script', script]);
    expect(status, stderr).toBe(0);
    expect(stdout.toString()).toMatch(/Every sector that the guest wrote is in work\.img\.\n$/);
  });

  test('demos/nvdimm_persistence.sh', { timeout: LIMIT_MS }, async () => {
    const env = { ...process.env, NEMU: nemu, XDG_STATE_HOME: join(folder, 'state'), XDG_RUNTIME_DIR: folder };
    const said = await new Promise<string>((resolve, reject) => {
      execFile(join(ROOT, 'demos/nvdimm_persistence.sh'), { env }, (error, stdout, stderr) =>
        error ? reject(new Error(`${error.message}\n${stdout}${stderr}`)) : resolve(stdout),
      );
    });
    expect(said).toMatch(/dax=always\n/);
    expect(said).toMatch(/Another machine on the same file:\nthis was flushed\n$/);
  });
});
