/** What the footer tells of requests: those under way as long as they are, the last that settled for a while. */
import { expect, onTestFinished, test } from 'vitest';
import type { LiveDevice, LiveRequest, Stage } from '../../../src/client/live.ts';
import { frameOf } from '../../../src/tui/frame.ts';
import { lineWidth, plainText } from '../../../src/tui/style.ts';
import { ScriptedMachine } from '../../support/scripted_machine.ts';
import { scriptedStation } from '../../support/scripted_station.ts';

const STAGES = ['reserved', 'notified', 'accepted'] as const;

function requestOf(id: number, last: Stage): LiveRequest {
  const stages = STAGES.includes(last as 'reserved') ? STAGES.slice(0, STAGES.indexOf(last as 'reserved') + 1) : STAGES;
  const history = [...new Set([...stages, last])].map((stage, at) => ({ stage, at: String(at) }));
  const device = { kind: 'cpu', id: `cpu${id}` } as LiveDevice;
  return { ...{ id, action: 'plug', origin: 'user', device, stage: last, history } };
}

function open() {
  let now = 0;
  const clock = { monotonic: () => now, wall: () => now, after: () => () => {} };
  const machine = new ScriptedMachine({ busy: false });
  const station = scriptedStation({ machine, clock });
  onTestFinished(() => station.model.close());
  return {
    ...{ station, machine },
    tell: (id: number, stage: Stage) => machine.tell({ type: 'request', request: requestOf(id, stage) }),
    footer: (columns = 120) => plainText(frameOf(station, columns, 40).footer),
    pass: (ms: number) => {
      now += ms;
    },
  };
}

test('a request is told as long as it is under way, and a while after it has settled', () => {
  const { tell, footer, pass } = open();
  tell(4, 'accepted');
  pass(60_000);
  expect(footer()).toMatch(/^ plug cpu4: reserved → notified → accepted {2}/);
  tell(4, 'online');
  pass(8000);
  expect(footer()).toMatch(/^ plug cpu4: reserved → notified → accepted → online {2}/);
  pass(1);
  expect(footer()).not.toContain('cpu4');
});

test('the newest of several is told, and how many more there are', () => {
  const { station, tell, footer } = open();
  for (const id of [4, 5, 6]) tell(id, 'notified');
  tell(4, 'accepted');
  expect(footer()).toMatch(/^ plug cpu6: reserved → notified \+2 pending {2}/);
  tell(6, 'refused');
  expect(footer()).toMatch(/^ plug cpu5: reserved → notified \+1 pending {2}/);
  tell(5, 'online');
  expect(footer()).toMatch(/^ plug cpu4: reserved → notified → accepted {2}/);
  tell(4, 'timed-out');
  expect(station.model.pending.size).toBe(0);
  expect(footer()).toMatch(/^ plug cpu4: .* → timed-out {2}/);
});

test('a notice has the line, and what is under way the rest of it', () => {
  const { station, tell, footer } = open();
  station.say('reset: done.');
  expect(footer().trimEnd()).toBe(' reset: done.');
  tell(4, 'accepted');
  tell(5, 'accepted');
  expect(footer().trimEnd()).toBe(' reset: done. · plug cpu5: reserved → notified → accepted +1 pending');
  expect(footer(60).trimEnd()).toBe(' reset: done. · 2 pending');
  station.say('x'.repeat(50));
  expect(footer(56).trimEnd()).toBe(` ${'x'.repeat(50)}`);
  for (let columns = 56; columns < 130; columns++) {
    for (const length of [0, 10, 40, 52, 54, 55, 100]) {
      station.dropNotice();
      if (length > 0) station.say('x'.repeat(length));
      expect(lineWidth(frameOf(station, columns, 40).footer)).toBe(columns);
    }
  }
});

test('who types into a console is told too', () => {
  const { station, tell, footer } = open();
  station.key('i', 'i');
  tell(4, 'reserved');
  expect(footer().trimEnd()).toBe(' Ctrl-]: back from com1 · plug cpu4: reserved');
});

test('a long name leaves room for how many more there are', () => {
  const { machine, tell, footer } = open();
  tell(4, 'accepted');
  const request = requestOf(5, 'accepted');
  machine.tell({ type: 'request', request: { ...request, device: { ...request.device, id: 'n'.repeat(64) } } });
  expect(footer(56)).toMatch(/^ plug n+… \+1 pending +$/);
});

test('what was under way before somebody looked is asked of the machine', async () => {
  const { station, machine, footer } = open();
  station.model.remember([
    { time: '2026-01-01T00:00:00.000Z', type: 'request', request: requestOf(1, 'accepted') },
    { time: '2026-01-01T00:00:00.000Z', type: 'request', request: requestOf(2, 'online') },
  ]);
  expect(footer()).not.toContain('plug cpu');
  machine.requests = async () => [requestOf(1, 'online'), requestOf(3, 'accepted')];
  station.model.watch();
  await expect.poll(() => footer()).toContain('plug cpu3: reserved → notified → accepted');
  // Nothing comes of it on a machine that has ended.
  machine.tell({ type: 'state', state: 'ended' });
  expect(footer()).not.toContain('cpu3');
});
