/** What a terminal sends, taken apart. */
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test, vi } from 'vitest';
import {
  isReport,
  type LexerOptions,
  TerminalLexer,
  type TypedPiece,
  typedKey,
} from '../../../src/console/terminal_lexer.ts';
import { random } from '../../support/random.ts';

function lexer(options?: LexerOptions) {
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

test('without holding, Esc does not wait, but what has begun does', () => {
  const { take } = lexer({ holdEscape: false });
  expect(take('a\x1b')).toEqual([
    ['text', 'a'],
    ['control', '\x1b'],
  ]);
  expect(take('\x1b[93', ';5u')).toEqual([['sequence', '\x1b[93;5u']]);
  expect(take('\x1b[20', '0~a\x1d', '\x1b[201~')).toEqual([
    ['paste', 'a\x1d'],
    ['paste', ''],
  ]);
});

test('what a terminal answers is one piece, however it is cut', () => {
  const answers = [
    '\x1b]11;rgb:1a1a/2b2b/3c3c\x1b\\',
    '\x1b]52;c;cXFx\x07',
    '\x1bP>|xterm(380)\x1b\\',
    '\x1b_Gi=31;OK\x1b\\',
    '\x1b[?62;22c',
    '\x1b[12;40R',
    '\x1b[M !q',
  ];
  for (const answer of answers) {
    for (let cut = 1; cut < answer.length; cut++) {
      const { take, pieces } = lexer();
      expect(take('a', answer.slice(0, cut), `${answer.slice(cut)}b`)).toEqual([
        ...[
          ['text', 'a'],
          ['sequence', answer],
        ],
        ['text', 'b'],
      ]);
      expect(pieces.map(isReport)).toEqual([false, true, false]);
    }
  }
  const { take, pieces } = lexer();
  // Any other sequence ends one that has lost its end.
  expect(take('\x1b]11;rgb\x1b[A\x1bx')).toEqual([
    ['sequence', '\x1b]11;rgb'],
    ['sequence', '\x1b[A'],
    ['sequence', '\x1bx'],
  ]);
  expect(pieces.map(isReport)).toEqual([true, false, false]);
  // A control key is in none.
  expect(take('\x1bXabc\x03')).toEqual([
    ['sequence', '\x1bX'],
    ['text', 'abc'],
    ['control', '\x03'],
  ]);
});

test('a key with Alt that could begin an answer is one when nothing follows', async () => {
  for (const key of ['\x1bO', '\x1b[', '\x1b]', '\x1bP']) {
    const { take, pieces } = lexer();
    expect(take(key)).toEqual([]);
    await sleep(100);
    expect(pieces).toEqual([{ kind: 'sequence', bytes: key }]);
    expect(pieces.map(isReport)).toEqual([false]);
  }
});

test('a sequence that a slow line cuts is one all the same; one that has lost its end is no keys', async () => {
  const { made, pieces } = lexer();
  made.take(Buffer.from('\x1b[<32;5'));
  await sleep(150);
  made.take(Buffer.from(';4Mj\x1b[12'));
  expect(pieces).toEqual([
    { kind: 'sequence', bytes: '\x1b[<32;5;4M' },
    { kind: 'text', bytes: 'j' },
  ]);
  await sleep(700);
  expect(pieces.at(-1)).toEqual({ kind: 'sequence', bytes: '\x1b[12' });
});

test('what came while the thread was busy is taken before Esc is a key', async () => {
  const { made, pieces } = lexer();
  made.take(Buffer.from('\x1b['));
  setImmediate(() => {
    const until = performance.now() + 80;
    while (performance.now() < until);
    // As a read that is due behind the timer.
    setImmediate(() => made.take(Buffer.from('A')));
  });
  await sleep(300);
  expect(pieces).toEqual([{ kind: 'sequence', bytes: '\x1b[A' }]);
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
    const { made, pieces } = lexer();
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

test('a paste that lost its end is over when nothing more comes for long, and an end that comes then is nothing', () => {
  vi.useFakeTimers();
  try {
    const { take, pieces } = lexer();
    expect(take('\x1b[200~half\x1b[20')).toEqual([['paste', 'half']]);
    vi.advanceTimersByTime(5000);
    expect(pieces).toHaveLength(1);
    vi.advanceTimersByTime(6000);
    expect(pieces.at(-1)).toEqual({ kind: 'paste', bytes: '\x1b[20', first: false, last: true });
    expect(take('\x1d\x1b[201~')).toEqual([['control', '\x1d']]);
  } finally {
    vi.useRealTimers();
  }
});

test.each([
  ['\x1d', '\x1d', false],
  ['\x1b[93;5u', '\x1d', false],
  ['\x1b[93;5:1u', '\x1d', false],
  ['\x1b[93;5:2u', '\x1d', false],
  ['\x1b[93:125;5u', '\x1d', false],
  // The key of a Cyrillic keyboard, as a Latin one has it.
  ['\x1b[1098::93;5u', '\x1d', false],
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
