import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { GdbListener, gdbOption, parseGdbOption, startMachine } from '../../../src/cli/gdb_listener.ts';
import { GdbMachine } from '../../support/gdb_machine.ts';

test('is a port of this host, another place, or a socket', () => {
  const loopback = (port: number) => ({ host: '127.0.0.1', port });
  for (const text of ['1234', ':1234', 'tcp::1234']) expect(parseGdbOption(text).address).toEqual(loopback(1234));
  expect(parseGdbOption('0.0.0.0:99').address).toEqual({ host: '0.0.0.0', port: 99 });
  expect(parseGdbOption('tcp:[::1]:99').address).toEqual({ host: '::1', port: 99 });
  expect(parseGdbOption('unix:/tmp/a b,server=on,wait=off')).toEqual({ address: { path: '/tmp/a b' }, wait: false });
  expect(parseGdbOption('1234,wait')).toEqual({ address: loopback(1234), wait: true });
  expect(gdbOption({})).toBeUndefined();
  expect(gdbOption({ s: true })).toEqual({ address: loopback(1234), wait: false });
});

test('is refused in a sentence', () => {
  for (const text of ['', 'host', '1234567', '70000', 'unix:', 'a:b:1', '1234,now', 'udp::1']) {
    expect(() => parseGdbOption(text), text).toThrow(/is no place where gdb could connect/);
  }
});

const reached = (port: number) =>
  new Promise<boolean>((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
    onTestFinished(() => void socket.destroy());
  });

test('listens at one place at a time: a port of the loopback, or a socket for this user alone', async () => {
  const listener = new GdbListener(new GdbMachine().client);
  onTestFinished(() => listener.close());
  const folder = mkdtempSync(join(tmpdir(), 'nemu-gdb-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  const target = await listener.listen('tcp::0');
  const port = Number(/^127\.0\.0\.1:(\d+)$/.exec(target)?.[1]);
  expect(await reached(port)).toBe(true);
  const other = new GdbListener(new GdbMachine().client);
  await expect(other.listen(target)).rejects.toThrow(`gdb cannot be waited for at ${target}: listen EADDRINUSE`);
  const path = join(folder, 'gdb');
  expect(await listener.listen(`unix:${path}`)).toBe(path);
  expect(await reached(port)).toBe(false);
  expect(statSync(path).mode & 0o777).toBe(0o600);
  await expect(other.listen(`unix:${path}`)).rejects.toThrow(`Something else serves the socket for gdb ${path}.`);
});

test('a machine that waits is started by gdb', async () => {
  const machine = new GdbMachine();
  machine.state = 'created';
  const told: string[] = [];
  const started = startMachine(machine.client, true, () => told.push('waits'));
  expect(told).toEqual(['waits']);
  machine.setState('running');
  await started;
  expect({ calls: machine.calls, listeners: machine.listeners }).toEqual({ calls: [], listeners: 0 });
  await startMachine(machine.client, false, () => told.push('runs'));
  expect({ calls: machine.calls, told }).toEqual({ calls: ['start'], told: ['waits', 'runs'] });
});
