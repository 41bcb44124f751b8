import { expect, test } from 'vitest';
import { commandHelp } from '../../../src/repl/commands.ts';
import { prose, twoColumns } from '../../../src/repl/prose.ts';

test('lines end between words, and a column goes on below itself', () => {
  expect(prose('one two three\nfour', 8)).toBe('one two\nthree\nfour');
  expect(prose('a()  gives what is asked for', 16)).toBe('a()  gives what\n     is asked\n     for');
  expect(prose('  first  second word', 40)).toBe('  first  second word');
});

test('a column that starts far to the right does not keep the rest there', () => {
  expect(prose('a signature that is long  its text', 20)).toBe('a signature that is\nlong  its text');
});

test('help has two columns, which go on below themselves on a small terminal', () => {
  const long = 'x'.repeat(40);
  expect(
    twoColumns([
      ['a', 'one'],
      [long, 'two'],
      ['abc', 'three'],
    ] as const),
  ).toEqual([...['  a    one', `  ${long}`, '       two', '  abc  three']]);
  for (const columns of [80, 110]) {
    const lines = prose(commandHelp(), columns).split('\n');
    for (const line of lines) expect(line.length).toBeLessThanOrEqual(columns);
    // Of a command there is its usage, or text in the column behind it.
    const rows = lines.slice(0, lines.indexOf(''));
    for (const row of rows) expect(row).toMatch(/^ {2}[a-z]|^ {30,}\S/);
  }
});

test('a word that is longer than the terminal, and text for no terminal, stay as they are', () => {
  expect(prose('x /a/very/long/path', 8)).toBe('x\n/a/very/long/path');
  expect(prose('one two three', undefined)).toBe('one two three');
});
