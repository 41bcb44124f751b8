import { expect, test } from 'vitest';
import { gdbOption, parseGdbOption } from '../../../src/cli/gdb_listener.ts';

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
