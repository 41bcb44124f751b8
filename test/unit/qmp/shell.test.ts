/** The shell of `nemu qmp` at a server: what lines are sent, completed and helped with, and what Ctrl-C does. */
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { describe, expect, onTestFinished, test } from 'vitest';
import { runShell } from '../../../src/cli/qmp_command.ts';
import { QmpClient } from '../../../src/qmp/client.ts';
import { serveQmp } from '../../../src/qmp/server.ts';
import { messageOf } from '../../../src/qmp/shell.ts';
import { completeLine } from '../../../src/qmp/shell_completion.ts';
import { shellHelp } from '../../../src/qmp/shell_help.ts';
import { FakeMachine } from '../../support/qmp.ts';

async function connect() {
  const fake = new FakeMachine();
  const server = serveQmp(fake.client, {});
  const folder = mkdtempSync(join(tmpdir(), 'nemu-shell-'));
  const listener = createServer((socket) => void server.connect(socket)).listen(join(folder, 'qmp'));
  const client = await QmpClient.connect(join(folder, 'qmp'));
  onTestFinished(() => {
    client.close();
    listener.close();
    server.close();
    rmSync(folder, { recursive: true });
  });
  return { fake, client };
}

describe('a line', () => {
  test('that begins with { is sent as it is', async () => {
    const { client } = await connect();
    const line = ' {"execute": "query-name", "arguments": {}, "id": "x"}';
    expect(await messageOf(client, line)).toEqual({ execute: 'query-name', arguments: {}, id: 'x' });
    expect(await client.send(await messageOf(client, line))).toEqual({ name: 'nemu' });
    expect(await messageOf(client, ['{"exec-oob":"query-name"}'])).toEqual({ 'exec-oob': 'query-name' });
    for (const [wrong, message] of [
      ['{"execute":"query-name"', 'This line is no JSON object: it is not whole.'],
      ['{"execute":"query-name"} {}', 'This line is no JSON object: there is more behind it.'],
      ['{execute:"query-name"}', expect.stringMatching(/^This line is no JSON object: /)],
      ['{"command":"query-name"}', 'This message has no command: "execute" or "exec-oob" is missing.'],
    ] as const) {
      const hint = 'A line that begins with { is sent as it is: {"execute": "query-status"}.';
      await expect(messageOf(client, wrong)).rejects.toMatchObject({ code: 'USAGE', message, hint });
    }
  });

  test('of the human monitor goes there', async () => {
    const { client } = await connect();
    const message = await messageOf(client, 'info  name');
    expect(message).toEqual({ execute: 'human-monitor-command', arguments: { 'command-line': 'info  name' } });
    expect(await client.send(message)).toBe('nemu\r\n');
    // What both have is the protocol's.
    expect(await messageOf(client, 'stop')).toEqual({ execute: 'stop' });
    await expect(messageOf(client, 'inof name')).rejects.toMatchObject({
      ...{ message: 'This server has no command "inof".', hint: 'Did you mean info?' },
    });
    await expect(messageOf(client, 'nonsense')).rejects.toMatchObject({
      hint: 'Tab on an empty line lists them; human-monitor-command command-line=help lists those of the human monitor.',
    });
  });
});

test('Tab knows drivers, their properties, and what these may name', async () => {
  const { client } = await connect();
  const ends = async (line: string) => (await completeLine(line, client, ['help', 'info']))[0];
  expect(await ends('device_add driver=virtio-n')).toEqual(['driver=virtio-net-pci']);
  expect(await ends('device_add driver=virtio-')).toContain('driver=virtio-blk-pci');
  expect(await ends('device_add driver=virtio-net-pci ')).toEqual(
    expect.arrayContaining(['netdev=', 'mac=', 'bus=', 'id=']),
  );
  expect(await ends('device_add driver=virtio-net-pci mac=52:54:00:12:34:56 ma')).toEqual([]);
  await client.execute('object-add', { 'qom-type': 'memory-backend-ram', id: 'm0', size: 128 << 20 });
  expect(await ends('device_add driver=pc-dimm memdev=')).toEqual(['memdev=m0']);
  await client.execute('netdev_add', { type: 'user', id: 'n0' });
  expect(await ends('device_add driver=virtio-net-pci netdev=')).toEqual(['netdev=n0']);
  expect(await ends('device_add driver=nothing nothing=')).toEqual([]);
  expect(await ends('info pc')).toEqual(['pci']);
  expect(await ends('help device_a')).toEqual(['device_add']);
  expect(await ends('help device_add virtio-m')).toEqual(['virtio-mem-pci']);
  expect(await ends('inf')).toEqual(['info']);
});

test('help tells of drivers', async () => {
  const { client } = await connect();
  const all = await shellHelp(client, 'device_add');
  expect(all).toMatch(/^device_add\n {2}driver=\n/);
  expect(all).toMatch(/^ {2}pc-dimm +memdev= addr= slot= node=$/m);
  const one = await shellHelp(client, 'device_add', 'virtio-net-pci');
  expect(one).toMatch(/^device_add driver=virtio-net-pci \[id=\]\n/);
  expect(one).toMatch(/^ {2}bus= +str +a root port or switch port/m);
  await expect(shellHelp(client, 'device_add', 'virtio-nat-pci')).rejects.toMatchObject({
    hint: 'Did you mean virtio-net-pci?',
  });
  expect(await shellHelp(client)).toContain('Ctrl-D leaves');
});

async function atTerminal() {
  const { fake, client } = await connect();
  const input = new PassThrough();
  const output = new PassThrough();
  let said = '';
  output.on('data', (bytes: Buffer) => {
    said += bytes.toString();
  });
  const over = runShell(client, { input, output, terminal: true });
  const until = (what: string | RegExp) => expect.poll(() => said).toMatch(what);
  const type = (text: string) => {
    said = '';
    input.write(text);
  };
  await until('qmp> ');
  return { fake, type, until, over, told: () => said };
}

describe('Ctrl-C', () => {
  test('clears the line, and on an empty one says how to leave', async () => {
    const { type, until, over, told } = await atTerminal();
    type('query-na');
    await until('query-na');
    type('\x03');
    await until(/qmp> /);
    type('query-name\r');
    await until('"name": "nemu"');
    type('\x03');
    await until(/Ctrl-D leaves\.\n[\s\S]*qmp> /);
    expect(told()).not.toContain('CommandNotFound');
    type('\x04');
    expect(await over).toBe(0);
  });

  test('gives the prompt back while an answer is awaited', async () => {
    const { fake, type, until, over, told } = await atTerminal();
    const gate = Promise.withResolvers<void>();
    fake.gate = gate.promise;
    type('stop\r');
    await until('stop\r\n');
    type('\x03');
    await until(/Interrupted: the server may still do it\. Its answer is not shown\.\n[\s\S]*qmp> /);
    gate.resolve();
    await expect.poll(() => fake.calls).toEqual(['pause']);
    type('query-status\r');
    await until('"status": "paused"');
    expect(told()).not.toContain('{}');
    type('exit\r');
    await over;
  });
});
