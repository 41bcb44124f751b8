import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { TypedKeys } from '../../../src/tui/typed_keys.ts';

function typing() {
  const pressed: (readonly [string, string])[] = [];
  const keys = new TypedKeys((name, text) => pressed.push([name, text]));
  return {
    keys,
    names: (...pieces: (string | Buffer)[]) => {
      pressed.length = 0;
      for (const piece of pieces) keys.take(Buffer.from(piece as string));
      return pressed.map(([name]) => name);
    },
    pressed,
  };
}

test('keys have the names that they have elsewhere', () => {
  const { names, pressed } = typing();
  expect(names('aG \r\x7f\b\t')).toEqual(['a', 'G', 'space', 'enter', 'backspace', 'backspace', 'tab']);
  expect(pressed[2]).toEqual(['space', ' ']);
  expect(names('\x03\x0c\x1d')).toEqual(['ctrl-c', 'ctrl-l', 'ctrl-]']);
  expect(names('\x1b[A\x1bOB\x1b[C\x1b[D')).toEqual(['up', 'down', 'right', 'left']);
  expect(names('\x1b[5~\x1b[6~\x1b[H\x1b[4~\x1b[3~')).toEqual(['pageup', 'pagedown', 'home', 'end', 'delete']);
  expect(names('\x1bxj')).toEqual(['alt-x', 'j']);
  // With Ctrl, a function key, a mouse report: none of ours.
  expect(names('\x1b[1;5A\x1b[15~\x1b[<0;3;4Mk')).toEqual(['k']);
});

test('what comes in pieces is one key', () => {
  const { names } = typing();
  const euro = Buffer.from('€');
  expect(names(euro.subarray(0, 1), euro.subarray(1))).toEqual(['€']);
  expect(names('\x1b', '[', '5', '~j')).toEqual(['pageup', 'j']);
});

test('Esc is a key when nothing follows', async () => {
  const { keys, names, pressed } = typing();
  expect(names('j\x1b')).toEqual(['j']);
  await sleep(100);
  expect(pressed.map(([name]) => name)).toEqual(['j', 'esc']);
  expect(names('\x1b\x1b[A')).toEqual(['esc', 'up']);
  names('\x1b');
  keys.close();
  await sleep(100);
  expect(pressed).toEqual([]);
});
