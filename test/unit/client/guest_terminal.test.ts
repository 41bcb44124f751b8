import { describe, expect, test } from 'vitest';
import { TerminalStream } from '../../../src/client/guest_terminal.ts';
import { random } from '../../support/random.ts';

const MARK = '\x1b]nemu;7\x07';
const bytes = (text: string) => Buffer.from(text, 'latin1');

/** What comes out of a stream that is fed in pieces. */
function decoded(stream: TerminalStream, sent: Buffer, cut: () => number): string {
  let text = '';
  for (let at = 0; at < sent.length; ) {
    const length = cut();
    text += stream.decode(sent.subarray(at, at + length)).toString('latin1');
    at += length;
  }
  return text;
}

describe("a terminal's stream", () => {
  test("Telnet's commands are taken out, doubled bytes are one, however it is cut", () => {
    const sent = bytes(
      '\xff\xfd\x01\xff\xfd\x1f\xff\xfb\x01one \xff\xff two\xff\xf1\xff\xfa\x18\x01\xff\xff\x02\xff\xf0 three\r\n' +
        `\x1b]nemu;70\x07 four \x1b]nemu;${MARK} behind it`,
    );
    const below = random(1);
    for (let round = 0; round < 200; round++) {
      const stream = new TerminalStream(7, 'telnet');
      expect(decoded(stream, sent, () => 1 + below(9))).toBe('one \xff two three\r\n\x1b]nemu;70\x07 four \x1b]nemu;');
      expect(stream.ended).toBe(true);
    }
  });

  test('what only looks like the start of the mark is passed on with what follows', () => {
    const stream = new TerminalStream(7, 'plain');
    expect(stream.decode(bytes('a\x1b]nem')).toString()).toBe('a');
    expect(stream.decode(bytes('o\xff\xff')).toString('latin1')).toBe('\x1b]nemo\xff\xff');
    expect(stream.ended).toBe(false);
    expect(stream.decode(bytes(MARK)).toString()).toBe('');
    expect(stream.ended).toBe(true);
    expect(stream.decode(bytes('more')).toString()).toBe('');
  });

  test('what is typed is no command of Telnet, and no end of a line that swallows what follows', () => {
    expect(new TerminalStream(7, 'telnet').encode(bytes('a\xff\r\nb\r'))).toEqual(bytes('a\xff\xff\r\0\nb\r\0'));
    expect(new TerminalStream(7, 'plain').encode(bytes('a\xff\r\nb\r'))).toEqual(bytes('a\xff\r\nb\r'));
  });
});
