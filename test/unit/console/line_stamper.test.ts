/** Times in front of lines. */
import { expect, test } from 'vitest';
import { LineStamper } from '../../../src/console/line_stamper.ts';
import { random as randomOf } from '../../support/random.ts';

const TEXT = 'one\r\ntwo\n\r\n\nprompt> \rprompt> x\r\r\nlast';

/** The same text, in pieces that end anywhere. */
function stamped(seed: number, cells?: number): string {
  const random = randomOf(seed);
  const stamper = new LineStamper({ stamp: () => '@ ', ...(cells !== undefined && { cells }) });
  const bytes = Buffer.from(TEXT);
  let out = '';
  for (let at = 0; at < bytes.length; ) {
    const end = at + 1 + random(6);
    out += stamper.take(bytes.subarray(at, end)).toString();
    at = end;
  }
  return out;
}

test('each line has one, however it comes', () => {
  for (let seed = 1; seed < 50; seed++) {
    expect(stamped(seed)).toBe('@ one\r\n@ two\n@ \r\n@ \n@ prompt> \rprompt> x\r\r\n@ last');
  }
});

test('on a terminal, who goes back to the beginning of a line comes to stand behind it', () => {
  for (let seed = 1; seed < 50; seed++) {
    expect(stamped(seed, 2)).toBe('@ one\r\n@ two\n@ \r\n@ \n@ prompt> \r\x1b[2Cprompt> x\r\r\n@ last');
  }
});
