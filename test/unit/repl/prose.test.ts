import { expect, test } from 'vitest';
import { prose } from '../../../src/repl/prose.ts';

test('lines end between words, and a column goes on below itself', () => {
  expect(prose('one two three\nfour', 8)).toBe('one two\nthree\nfour');
  expect(prose('a()  gives what is asked for', 16)).toBe('a()  gives what\n     is asked\n     for');
  expect(prose('  first  second word', 40)).toBe('  first  second word');
});

test('a column that starts far to the right does not keep the rest there', () => {
  expect(prose('a signature that is long  its text', 20)).toBe('a signature that is\nlong  its text');
});

test('a word that is longer than the terminal, and text for no terminal, stay as they are', () => {
  expect(prose('x /a/very/long/path', 8)).toBe('x\n/a/very/long/path');
  expect(prose('one two three', undefined)).toBe('one two three');
});
