/** A machine that ends is stopped, whether or not somebody goes on looking at it. */
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { runtimePaths } from '../../../src/cli/machines/folders.ts';
import { claimName } from '../../../src/cli/machines/name_lock.ts';
import { writeRecord } from '../../../src/cli/machines/records.ts';
import { stop } from '../../../src/cli/machines/stop_command.ts';
import { parseMachine } from '../../../src/client/description.ts';
import type { MachineClient, MachineEvent, MachineState } from '../../../src/client/machine_client.ts';
import { serveMachine } from '../../../src/client/serve.ts';

let folder: string;
let release: (() => void) | undefined;
let server: Server;
let state: MachineState;
/** What the guest makes of the power button. */
let pressed: () => void;
let said: string;
const sockets: Socket[] = [];
const listeners = new Set<(event: MachineEvent) => void>();

function end(): void {
  state = 'ended';
  const over = { reason: 'poweroff', detail: 'The guest powered off.' } as const;
  for (const listener of listeners) listener({ type: 'state', state } as MachineEvent);
  for (const listener of listeners) listener({ type: 'ended', end: over } as MachineEvent);
}

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'nemu-stop-'));
  vi.stubEnv('XDG_RUNTIME_DIR', join(folder, 'run'));
  vi.stubEnv('XDG_STATE_HOME', join(folder, 'state'));
  said = '';
  for (const stream of [process.stdout, process.stderr]) {
    vi.spyOn(stream, 'write').mockImplementation((text) => {
      said += text;
      return true;
    });
  }
  release = claimName('shown');
  writeRecord({
    ...{ name: 'shown', pid: process.pid, startedAt: new Date().toISOString(), running: true, kernel: '/k' },
    ...{ cpus: 1, memory: 2 ** 29, consoles: ['com1'] },
  });
  state = 'running';
  const machine = {
    description: parseMachine({ kernel: { image: '/k' } }),
    get state() {
      return state;
    },
    end: undefined,
    consoles: [],
    powerButton: async () => pressed(),
    onEvent: (listener: (event: MachineEvent) => void) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    ended: () => new Promise(() => {}),
    close: async () => {},
  } as unknown as MachineClient;
  server = createServer((socket) => {
    sockets.push(socket);
    void serveMachine(socket, machine);
  });
  await new Promise<void>((resolve) => server.listen(runtimePaths('shown').control, resolve));
});

afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  await new Promise((resolve) => server.close(resolve));
  release?.();
  vi.restoreAllMocks();
  vi.unstubAllEnvs();
  listeners.clear();
  rmSync(folder, { recursive: true, force: true });
});

test('one that a workstation goes on to show has ended all the same, and is told so again', async () => {
  pressed = end;
  for (let times = 0; times < 2; times++) {
    said = '';
    expect(await stop(['shown'], { timeout: '1s' })).toBe(0);
    expect(said).toBe('nemu: shown has ended. Its name is free when the workstation that shows it is left.\nshown\n');
    pressed = () => expect.unreachable();
  }
});

test('one whose engine leaves is gone', async () => {
  pressed = () => {
    end();
    release?.();
    release = undefined;
  };
  expect(await stop(['shown'], { timeout: '5s' })).toBe(0);
  expect(said).toBe('shown\n');
});

test('one whose guest goes on is told', async () => {
  pressed = () => {};
  expect(await stop(['shown'], { timeout: '300ms' })).not.toBe(0);
  expect(said).toMatch(/^nemu: The guest of shown has not powered off within 300ms\.\nnemu kill shown ends it/);
});
