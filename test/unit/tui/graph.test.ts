import { describe, expect, test } from 'vitest';
import { plot, roundUp, sparkline } from '../../../src/tui/graph.ts';

describe('sparklines', () => {
  test('fill their width, the newest value at the right', () => {
    expect(sparkline([0, 50, 100], 5, 100, 'block')).toBe('   ▄█');
    expect(sparkline([0, 50, 100], 5, 100, 'plain')).toBe('   +@');
    expect(sparkline([100, 0, 50, 100], 2, 100, 'braille')).toBe('⡇⣼');
  });

  test('a value above zero is seen, however small', () => {
    expect(sparkline([0.001], 1, 100, 'block')).toBe('▁');
    expect(sparkline([0.001], 1, 100, 'braille').codePointAt(0)).toBeGreaterThan(0x2800);
    expect(sparkline([0], 1, 100, 'braille')).toBe(' ');
  });

  test('values beyond the scale, and those that are none, stay in the cell', () => {
    expect(sparkline([1000, Number.NaN, -5], 3, 100, 'block')).toBe('█  ');
  });
});

test('plots stack their rows', () => {
  expect(plot([4, 8, 16], 3, 2, 16, 'block')).toEqual(['  █', '▄██']);
  expect(plot([], 3, 2, 16, 'block')).toEqual(['   ', '   ']);
});

test('scales are round', () => {
  expect([0, 1, 3, 7, 12, 510, 0.3].map(roundUp)).toEqual([1, 1, 5, 10, 20, 1000, 0.5]);
});
