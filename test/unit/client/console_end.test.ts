/** The last output of a console reaches those who look at it, though they lag; what they do not take is told. */
import { mkdtempSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { serveControl } from '../../../src/cli/control_socket.ts';
import { parseMachine } from '../../../src/client/description.ts';
import type { ConsoleStream, MachineClient, MachineEvent } from '../../../src/client/machine_client.ts';
import { EngineConnection } from '../../../src/client/remote.ts';
import type { SharedConsole } from '../../../src/client/shared_console.ts';
import { MachineConsoles } from '../../../src/console/machine_consoles.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'nemu-end-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

async function served() {
  const streams = new Map<string, ConsoleStream>();
  const listeners = new Set<(event: MachineEvent) => void>();
  const machine = {
    ...{ description: parseMachine({ kernel: { image: '/k' } }), state: 'running', end: undefined },
    console: (name: string) => {
      const stream: ConsoleStream = {
        ...{ name, onData: undefined, onLost: undefined, onWritable: undefined },
        write: (bytes) => bytes.length,
      };
      streams.set(name, stream);
      return stream;
    },
    onEvent: (listener: (event: MachineEvent) => void) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    resizeConsole: async () => true,
  } as unknown as MachineClient;
  const consoles = new MachineConsoles(machine, { names: ['com1'] });
  const path = join(folder, 'control');
  const end = await serveControl(path, machine, { consoles });
  const attach = async () => {
    const socket = connect(path);
    const connection = new EngineConnection(socket);
    return { socket, connection, share: (await connection.attach('ann')).share! };
  };
  const tell = (event: MachineEvent) => {
    for (const listener of listeners) listener(event);
  };
  const print = (name: string, bytes: Uint8Array) => streams.get(name)?.onData?.(bytes);
  return { consoles, end, attach, tell, print };
}

/** Takes a piece, and the next one so many milliseconds later. */
function slowly(viewer: SharedConsole, ms: number) {
  const seen = { bytes: 0, lost: 0, last: '', closed: Promise.withResolvers<string>() };
  const take = (bytes: Uint8Array) => {
    seen.bytes += bytes.length;
    seen.last = Buffer.from(bytes).toString('latin1').slice(-20);
    viewer.onData = undefined;
    setTimeout(() => {
      viewer.onData = take;
    }, ms);
  };
  viewer.onLost = (count) => {
    seen.lost += count;
  };
  viewer.onClosed = (why) => seen.closed.resolve(why);
  viewer.onData = take;
  return seen;
}

const PANIC = '\nKernel panic - not syncing\n';

test('who lags sees the last words of a machine', async () => {
  const { consoles, end, attach, print } = await served();
  const { share } = await attach();
  const seen = slowly(await share.openConsole('com1', { role: 'viewer' }), 5);
  for (let i = 0; i < 16; i++) print('com1', Buffer.alloc(64 << 10, 65 + i));
  print('com1', Buffer.from(PANIC));
  const over = consoles.finish('The guest panicked.').then(end);
  expect(await seen.closed.promise).toBe('The guest panicked.');
  expect([seen.bytes, seen.lost, seen.last]).toEqual([(1 << 20) + PANIC.length, 0, PANIC.slice(-20)]);
  await over;
  consoles.close();
});

test('who takes nothing holds the end up for a moment, and is told what it missed', async () => {
  const { consoles, end, attach, print } = await served();
  const { share } = await attach();
  const viewer = await share.openConsole('com1', { role: 'viewer' });
  let lost = 0;
  viewer.onLost = (count) => {
    lost += count;
  };
  const why = new Promise<string>((resolve) => {
    viewer.onClosed = resolve;
  });
  for (let i = 0; i < 16; i++) print('com1', Buffer.alloc(64 << 10));
  await consoles.finish('The guest panicked.');
  await end();
  let bytes = 0;
  viewer.onData = (piece) => {
    bytes += piece.length;
  };
  expect(await why).toBe('The guest panicked.');
  expect(lost).toBeGreaterThan(500_000);
  expect(bytes + lost).toBe(1 << 20);
  consoles.close();
});

test('who does not even read its socket is let go of', async () => {
  const { consoles, end, attach, print } = await served();
  const { share, socket } = await attach();
  await share.openConsole('com1', { role: 'viewer' });
  socket.pause();
  for (let i = 0; i < 64; i++) print('com1', Buffer.alloc(64 << 10));
  const begin = performance.now();
  await consoles.finish('The guest panicked.');
  await end();
  expect(performance.now() - begin).toBeLessThan(8000);
  socket.destroy();
  consoles.close();
});

test('who is at a console that is unplugged is told, and drives nothing any more', async () => {
  const { consoles, end, attach, tell, print } = await served();
  tell({ type: 'console', name: 'hvc1', change: 'added' });
  const { share, connection } = await attach();
  const viewer = await share.openConsole('hvc1', { role: 'driver' });
  const seen = slowly(viewer, 1);
  print('hvc1', Buffer.from('bye'));
  tell({ type: 'console', name: 'hvc1', change: 'removed' });
  expect(await seen.closed.promise).toBe('The console hvc1 was unplugged.');
  expect([seen.last, viewer.role, viewer.write(Buffer.from('ls\r'))]).toEqual(['bye', 'viewer', 3]);
  expect(await viewer.leave()).toBe(0);
  connection.close();
  await end();
  consoles.close();
});

test('who looks at a console whose engine has gone is told', async () => {
  const { consoles, end, attach } = await served();
  const { share, socket } = await attach();
  const seen = slowly(await share.openConsole('com1', { role: 'viewer' }), 1);
  socket.destroy();
  expect(await seen.closed.promise).toBe('The connection to the engine ended.');
  await sleep(10);
  await end();
  consoles.close();
});
