/** What a terminal sends, taken apart. */
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { TerminalLexer, type TypedPiece, typedKey } from '../../../src/console/terminal_lexer.ts';
import { random } from '../../support/random.ts';

function lexer(options?: { hold: boolean }) {
  const pieces: TypedPiece[] = [];
  const made = new TerminalLexer((piece) => pieces.push(piece), options);
  return {
    made,
    take: (...sent: (string | Buffer)[]) => {
      pieces.length = 0;
      for (const each of sent) made.take(typeof each === 'string' ? Buffer.from(each, 'latin1') : each);
      return pieces.map(({ kind, bytes }) => [kind, bytes]);
    },
    pieces,
  };
}

test('characters, control keys and sequences', () => {
  const { take } = lexer();
  expect(take('ls -l\r\x1b[A\x1bOB\x1b[1;5C\x1bx\x7f\x1b[[A\x1b[<0;3;4M~')).toEqual([
    ['text', 'ls -l'],
    ['control', '\r'],
    ['sequence', '\x1b[A'],
    ['sequence', '\x1bOB'],
    ['sequence', '\x1b[1;5C'],
    ['sequence', '\x1bx'],
    ['control', '\x7f'],
    ['sequence', '\x1b[[A'],
    ['sequence', '\x1b[<0;3;4M'],
    ['text', '~'],
  ]);
});

test('what comes in pieces is one', () => {
  const { take } = lexer();
  expect(take('\x1b', '[', '5', '~j')).toEqual([
    ['sequence', '\x1b[5~'],
    ['text', 'j'],
  ]);
  const euro = Buffer.from('€');
  expect(take(euro.subarray(0, 1), euro.subarray(1, 2), euro.subarray(2))).toEqual([['text', euro.toString('latin1')]]);
});

test('without holding, nothing waits', () => {
  const { take } = lexer({ hold: false });
  expect(take('a\x1b')).toEqual([
    ['text', 'a'],
    ['control', '\x1b'],
  ]);
});

test('Esc is a key when nothing follows', async () => {
  const { made, take, pieces } = lexer();
  expect(take('j\x1b')).toEqual([['text', 'j']]);
  await sleep(100);
  expect(pieces.at(-1)).toEqual({ kind: 'control', bytes: '\x1b' });
  expect(take('\x1b\x1b[A')).toEqual([
    ['control', '\x1b'],
    ['sequence', '\x1b[A'],
  ]);
  take('\x1b');
  made.close();
  await sleep(100);
  expect(pieces).toEqual([]);
});

test('a paste is nothing but a paste, however it is cut', () => {
  const pasted = 'rm\r\x1d\x01\x1b[A\x1b[20\x1b[201;~ € \x1b';
  const sent = Buffer.from(`a\x1b[200~${pasted}\x1b[201~b`);
  const below = random(7);
  for (let round = 0; round < 300; round++) {
    const { made, pieces } = lexer({ hold: true });
    let at = 0;
    while (at < sent.length) {
      const end = Math.min(sent.length, at + 1 + below(round % 2 ? 4 : 40));
      made.take(sent.subarray(at, end));
      at = end;
    }
    const parts = pieces.filter(({ kind }) => kind === 'paste');
    expect(Buffer.from(parts.map(({ bytes }) => bytes).join(''), 'latin1').toString('utf8')).toBe(pasted);
    expect(pieces.filter(({ kind }) => kind !== 'paste').map(({ bytes }) => bytes)).toEqual(['a', 'b']);
    expect(parts.map((part) => part.kind === 'paste' && part.first).indexOf(true)).toBe(0);
    expect(parts.filter((part) => part.kind === 'paste' && part.first)).toHaveLength(1);
    expect(parts.findIndex((part) => part.kind === 'paste' && part.last)).toBe(parts.length - 1);
  }
});

test('a paste that lost its end is over when nothing more comes', async () => {
  const { take, pieces } = lexer();
  expect(take('\x1b[200~half\x1b[20')).toEqual([['paste', 'half']]);
  await sleep(1200);
  expect(pieces.at(-1)).toEqual({ kind: 'paste', bytes: '\x1b[20', first: false, last: true });
  expect(take('\x1d')).toEqual([['control', '\x1d']]);
});

test.each([
  ['\x1d', '\x1d', false],
  ['\x1b[93;5u', '\x1d', false],
  ['\x1b[93;5:1u', '\x1d', false],
  ['\x1b[93;5:2u', '\x1d', false],
  ['\x1b[93:125;5u', '\x1d', false],
  // Num Lock is on.
  ['\x1b[93;133u', '\x1d', false],
  ['\x1b[27;5;93~', '\x1d', false],
  ['\x1b[97;5u', '\x01', false],
  ['\x1b[99u', 'c', false],
  ['\x1b[99;1:1u', 'c', false],
  ['\x1b[97;5:3u', '\x01', true],
  ['\x1b[57442;5u', '', true],
])('%j is %j, whatever the guest has asked for', (sent, character, silent) => {
  const { pieces, take } = lexer();
  take(sent);
  expect(pieces).toHaveLength(1);
  expect(typedKey(pieces[0])).toEqual({ character, silent });
});

test.each(['\x1b[A', '\x1b[93;6u', '\x1b[93;7u', '\x1b[27;7;93~', '\x1b[200;5~', '\x1b[99999999;5u'])(
  '%j is no key of these',
  (sent) => {
    const { pieces, take } = lexer();
    take(sent);
    expect(typedKey(pieces[0])).toBeUndefined();
  },
);
