/** Sockets of machines: what stands in their place already. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { servePrivately } from '../../../src/cli/private_socket.ts';

const folder = mkdtempSync(join(tmpdir(), 'nemu-socket-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const serve = (path: string) => servePrivately(path, { name: 'socket', code: 'X', option: '--x' }, () => {});

test('a file is left alone, also behind a link', async () => {
  const file = join(folder, 'disk.qcow2');
  const link = join(folder, 'link');
  writeFileSync(file, 'my data');
  symlinkSync(file, link);
  for (const path of [file, link]) {
    await expect(serve(path)).rejects.toThrow(`The socket ${path} cannot be made: there is something else`);
  }
  expect(readFileSync(file, 'utf8')).toBe('my data');
});

test('a socket that nobody serves any more makes way, and one that is served does not', async () => {
  const path = join(folder, 'socket');
  // A process that ends as by SIGKILL leaves its socket behind.
  const program = `require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`;
  spawnSync(process.execPath, ['-e', program]);
  expect(statSync(path).isSocket()).toBe(true);
  const end = await serve(path);
  expect(statSync(path).mode & 0o777).toBe(0o600);
  await expect(serve(path)).rejects.toThrow(`Something else serves the socket ${path}.`);
  end();
  expect(existsSync(path)).toBe(false);
});
