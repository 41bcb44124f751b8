import { expect, test } from 'vitest';
import { Bytes, jsonOf, Text } from '../../../src/repl/values.ts';

test('values as JSON: numbers as they are, large ones in hexadecimal, bytes and texts as people read them', () => {
  expect(jsonOf({ rip: 0xffffffff81000000n, cpu: 1n, list: [1.5, 'a'] })).toBe(
    '{"rip":"0xffffffff81000000","cpu":1,"list":[1.5,"a"]}',
  );
  expect(jsonOf(new Bytes(Buffer.from([1, 0xfe]), 0x1000n))).toBe('{"at":"0x1000","hex":"01fe"}');
  expect(jsonOf([new Map([['a', 1n]]), new Set([2]), new TypeError('no'), Uint8Array.of(1, 0xfe)])).toBe(
    '[[["a",1]],[2],{"name":"TypeError","message":"no"},{"hex":"01fe"}]',
  );
  expect(jsonOf(new Text('a\nb'))).toBe('"a\\nb"');
});

test('what is no data is as it prints', () => {
  const loop: { self?: object } = {};
  loop.self = loop;
  expect(JSON.parse(jsonOf(loop))).toMatch(/Circular/);
  expect(JSON.parse(jsonOf(() => 1))).toMatch(/Function/);
});
