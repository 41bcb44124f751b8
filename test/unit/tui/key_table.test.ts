import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { keyTable, keyTableIn } from '../../../scripts/key_table.ts';
import { ACTIONS } from '../../../src/tui/actions.ts';
import { PANES } from '../../../src/tui/layout.ts';

test('the README has the keys that there are (scripts/key_table.ts writes them)', () => {
  const readme = readFileSync(new URL('../../../README.md', import.meta.url), 'utf8');
  expect(keyTableIn(readme).table.trim()).toBe(keyTable().trim());
});

test('no key means two things in one place', () => {
  const places = ACTIONS.flatMap(({ id, keys, panes = PANES }) =>
    keys.flatMap((key) => panes.map((pane) => ({ id, at: `${key} in ${pane}` }))),
  );
  const twice = places.filter(({ at }, index) => places.findIndex((other) => other.at === at) !== index);
  expect(twice).toEqual([]);
});
