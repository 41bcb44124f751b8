import type { Key } from 'ink';
import { describe, expect, test } from 'vitest';
import { ACTIONS } from '../../../src/tui/actions.ts';
import { keyLabel, keysOf } from '../../../src/tui/keys.ts';
import { MOVES } from '../../../src/tui/station.ts';

const NONE = {} as Key;
const keys = (input: string, key: Partial<Key> = {}) => [...keysOf(input, { ...NONE, ...key })];

describe('keys', () => {
  test('one is one', () => {
    expect(keys('a')).toEqual([['a', 'a']]);
    expect(keys(' ')).toEqual([['space', ' ']]);
    expect(keys('r', { ctrl: true })).toEqual([['ctrl-r', 'r']]);
    expect(keys('', { upArrow: true })).toEqual([['up', '']]);
    expect(keys('é')).toEqual([['é', 'é']]);
    expect(keys('😀')).toEqual([['😀', '😀']]);
  });

  test('several that came at once are several', () => {
    expect(keys(':cpu 2\r').map(([name]) => name)).toEqual([':', 'c', 'p', 'u', 'space', '2', 'enter']);
    expect(keys('a\x7f\t\x15')).toEqual([
      ['a', 'a'],
      ['backspace', ''],
      ['tab', ''],
      ['ctrl-u', ''],
    ]);
  });

  test('labels', () => {
    expect(keyLabel('ctrl-r')).toBe('Ctrl-r');
    expect([keyLabel('up'), keyLabel('up', false)]).toEqual(['↑', 'Up']);
  });
});

test('no action has a key that moves', () => {
  for (const { id, keys } of ACTIONS) for (const key of keys) expect(Object.keys(MOVES), id).not.toContain(key);
});
