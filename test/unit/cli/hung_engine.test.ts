/** An engine that takes connections and says nothing, as one that was stopped does. */
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { runtimePaths } from '../../../src/cli/machines/folders.ts';
import { Watch } from '../../../src/cli/machines/load_watch.ts';
import { claimName } from '../../../src/cli/machines/name_lock.ts';
import { writeRecord } from '../../../src/cli/machines/records.ts';
import { QmpClient } from '../../../src/qmp/client.ts';

let folder: string;
let release: (() => void) | undefined;
const servers: Server[] = [];
const sockets: Socket[] = [];
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'nemu-hung-'));
  vi.stubEnv('XDG_RUNTIME_DIR', join(folder, 'run'));
  vi.stubEnv('XDG_STATE_HOME', join(folder, 'state'));
  release = claimName('hung');
  writeRecord({
    ...{ name: 'hung', pid: process.pid, startedAt: new Date().toISOString(), running: true, kernel: '/k' },
    ...{ cpus: 1, memory: 2 ** 29, consoles: ['com1'] },
  });
  for (const path of [runtimePaths('hung').control, runtimePaths('hung').qmp]) {
    const server = createServer((socket) => sockets.push(socket.resume()));
    servers.push(server);
    await new Promise<void>((resolve) => server.listen(path, resolve));
  }
});
afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  for (const server of servers.splice(0)) await new Promise((resolve) => server.close(resolve));
  release?.();
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true, force: true });
});

test('nemu top waits for it once, shows it as such, and is left at once', async () => {
  const left = new AbortController();
  const watch = new Watch(left.signal);
  const began = performance.now();
  expect(await watch.look()).toMatchObject([{ name: 'hung', state: 'no answer' }]);
  expect(performance.now() - began).toBeLessThan(4000);
  const again = performance.now();
  expect(await watch.look()).toMatchObject([{ name: 'hung', state: 'no answer' }]);
  expect(performance.now() - again).toBeLessThan(500);
  left.abort();
  watch.close();
  await vi.waitFor(() => expect(sockets.every((socket) => socket.destroyed || socket.readableEnded)).toBe(true));
});

test('a key leaves nemu top while it waits', async () => {
  const left = new AbortController();
  const watch = new Watch(left.signal);
  const looking = watch.look();
  const began = performance.now();
  setTimeout(() => left.abort(), 50);
  await looking;
  expect(performance.now() - began).toBeLessThan(1000);
  watch.close();
});

test('nemu qmp says that it does not answer', async () => {
  await expect(QmpClient.connect(runtimePaths('hung').qmp, 100)).rejects.toThrow(/does not answer/);
});
