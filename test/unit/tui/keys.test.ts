import { describe, expect, test } from 'vitest';
import { keyLabel, namedKey } from '../../../src/tui/keys.ts';

describe('keys', () => {
  test('characters, and those that have a name', () => {
    expect(namedKey('a')).toEqual(['a', 'a']);
    expect(namedKey(' ')).toEqual(['space', ' ']);
    expect(namedKey('é')).toEqual(['é', 'é']);
    expect(namedKey('😀')).toEqual(['😀', '😀']);
    const named = ['\r', '\x7f', '\b', '\t', '\x1b'].map((sent) => namedKey(sent)?.[0]);
    expect(named).toEqual(['enter', 'backspace', 'backspace', 'tab', 'esc']);
    expect(['\x12', '\x03', '\x0c', '\x1d'].map(namedKey)).toEqual([
      ['ctrl-r', ''],
      ['ctrl-c', ''],
      ['ctrl-l', ''],
      ['ctrl-]', ''],
    ]);
  });

  test('sequences', () => {
    const names = (...sent: string[]) => sent.map((each) => namedKey(each)?.[0]);
    expect(names('\x1b[A', '\x1bOB', '\x1b[C', '\x1b[D', '\x1b[Z')).toEqual([
      'up',
      'down',
      'right',
      'left',
      'shift-tab',
    ]);
    expect(names('\x1b[5~', '\x1b[6~', '\x1b[H', '\x1b[4~', '\x1b[3~')).toEqual([
      ...['pageup', 'pagedown', 'home', 'end', 'delete'],
    ]);
    expect(namedKey('\x1bx')).toEqual(['alt-x', '']);
    // With Ctrl, a function key: none of ours.
    expect(names('\x1b[1;5A', '\x1b[15~')).toEqual([undefined, undefined]);
  });

  test('labels', () => {
    expect(keyLabel('ctrl-r')).toBe('Ctrl-r');
    expect([keyLabel('up'), keyLabel('up', false)]).toEqual(['↑', 'Up']);
  });
});
