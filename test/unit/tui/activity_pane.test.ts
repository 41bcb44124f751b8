/** Exits, disks and network cards over time. */
import { expect, onTestFinished, test } from 'vitest';
import { activityPane } from '../../../src/tui/panes/activity.ts';
import { plainText } from '../../../src/tui/style.ts';
import { ScriptedMachine } from '../../support/scripted_machine.ts';
import { scriptedStation } from '../../support/scripted_station.ts';

async function open(change: Partial<ScriptedMachine> = {}) {
  let now = 0;
  const clock = { monotonic: () => now, wall: () => now, after: () => () => {} };
  const machine = Object.assign(new ScriptedMachine({ busy: true }), change);
  const { model } = scriptedStation({ machine, clock });
  onTestFinished(() => model.close());
  // Less than the time after which what changes seldom is asked for again.
  for (; now < 4000; now += 1000) await model.refresh();
  const shown = (height: number) => activityPane({ model, width: 60, height, glyphs: 'plain' });
  const rows = (height: number) => shown(height).rows.map(({ line }) => plainText(line));
  return { model, shown, rows };
}

test('what goes through network cards is a value a second, as that of disks', async () => {
  const { model, shown, rows } = await open();
  const { received, sent, read } = model.activity;
  expect([received.length, sent.length]).toEqual([read.length, read.length]);
  expect(received.at(-1)).toBeGreaterThan(1e6);
  expect(received.at(-1)).toBeCloseTo((sent.at(-1) ?? 0) * 8, -4);
  expect(shown(9).title).toMatch(/^exits \S+\/s · disks \S+ in, \S+ out \/s · nets 6\.2M in, 788K out \/s$/);
  expect(rows(9)).toHaveLength(9);
  expect(rows(9)[6]).toBe('network bytes a second, up to 8M');
  expect(rows(9)[8]).toMatch(/@@@$/);
});

test('pictures fill the height there is', async () => {
  const { rows } = await open();
  for (let height = 3; height < 30; height++)
    expect(rows(height)).toHaveLength(height === 4 || height === 5 ? 3 : height);
  expect(rows(2)).toHaveLength(1);
  expect(rows(4).map((row) => row.slice(0, 6))).toEqual(['exits ', 'disks ', 'nets  ']);
  for (const row of [...rows(2), ...rows(4)]) expect(row).toHaveLength(60);
});

test('a machine without network cards has no picture of them', async () => {
  const { shown, rows } = await open({ nets: async () => [] });
  expect(shown(8).title).not.toContain('nets');
  expect(rows(8).join('\n')).not.toContain('network');
  expect(rows(8)).toHaveLength(8);
});
