import { expect, test } from 'vitest';
import { LAYOUTS, layOut, PANES, paneAt } from '../../../src/tui/layout.ts';

test('panes tile the screen at any size, in every layout, with every focus', () => {
  for (const [width, height] of [
    [56, 12],
    [80, 21],
    [120, 38],
    [200, 58],
    [300, 98],
  ]) {
    for (const layout of LAYOUTS) {
      for (const focus of PANES) {
        const placed = layOut({ width, height, top: 1 }, layout, focus, focus === 'events' ? 'events' : 'repl');
        const cells = new Uint8Array(width * height);
        for (const { rect } of placed?.columns.flat() ?? []) {
          expect(rect.height, `${width}×${height} ${layout} ${focus}`).toBeGreaterThanOrEqual(3);
          for (let row = rect.top; row < rect.top + rect.height; row++) {
            for (let column = rect.left; column < rect.left + rect.width; column++) cells[(row - 1) * width + column]++;
          }
        }
        expect(
          cells.every((count) => count === 1),
          `${width}×${height} ${layout} ${focus}`,
        ).toBe(true);
        expect(placed?.columns.flat().some(({ pane }) => pane === focus)).toBe(true);
      }
    }
  }
});

test('a screen that is too small has no layout', () => {
  expect(layOut({ width: 55, height: 40, top: 1 }, 'normal', 'pci', 'repl')).toBeUndefined();
  expect(layOut({ width: 80, height: 10, top: 1 }, 'normal', 'pci', 'repl')).toBeUndefined();
});

test('the pane under the mouse', () => {
  const layout = layOut({ width: 80, height: 22, top: 1 }, 'normal', 'vcpus', 'events');
  if (!layout) throw new Error('There is no layout.');
  expect(paneAt(layout, 0, 1)?.pane).toBe('vcpus');
  expect(paneAt(layout, 79, 1)?.pane).toBe('console');
  expect(paneAt(layout, 79, 22)?.pane).toBe('events');
  expect(paneAt(layout, 0, 0)).toBeUndefined();
});
