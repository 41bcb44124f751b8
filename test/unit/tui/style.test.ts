/** Text that is cut to a number of cells. */
import { expect, test } from 'vitest';
import { clip, lineWidth, plainText, shortened, span, toWidth, widthOf } from '../../../src/tui/style.ts';

/** One picture each, of several characters: a heart, a keycap, a skin, a family, a letter with an accent. */
const TEXTS = ['❤\ufe0f', '1\ufe0f\u20e3', '👍🏽', '👨\u200d👩\u200d👧', 'e\u0301', '漢'].map((each) => each.repeat(9));

test('what is cut is never wider than asked for, and no picture is cut in two', () => {
  for (const text of TEXTS) {
    const one = text.slice(0, text.length / 9);
    for (let width = 0; width < 24; width++) {
      const what = `${one} to ${width}`;
      expect(widthOf(clip(text, width)), what).toBeLessThanOrEqual(width);
      expect(clip(text, width), what).toBe(one.repeat(Math.min(9, Math.floor(width / widthOf(one)))));
      if (width > 0) expect(widthOf(shortened(text, width)), what).toBeLessThanOrEqual(width);
      expect(lineWidth(toWidth([span(text), span(text)], width)), what).toBe(width);
    }
  }
  expect(plainText(toWidth([span('plain text')], 6))).toBe('plain…');
});
