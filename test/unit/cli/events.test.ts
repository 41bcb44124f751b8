import { expect, test } from 'vitest';
import { eventText } from '../../../src/cli/machines/logs_command.ts';
import type { LiveRequest } from '../../../src/client/live.ts';

const time = '2026-01-01T00:00:00.000Z';
const request = (more: object) =>
  ({ id: 1, action: 'unplug', device: { kind: 'pci', id: 'vda' }, history: [], ...more }) as unknown as LiveRequest;

test('a request is told in a few words, with its reason', () => {
  expect(eventText({ time, type: 'request', request: request({ stage: 'accepted' }) })).toBe(
    `${time} unplug vda: accepted`,
  );
  expect(
    eventText({ time, type: 'request', request: request({ stage: 'refused', reason: 'It is \x1b[31mbusy.' }) }),
  ).toBe(`${time} unplug vda: refused (It is busy.)`);
});

test('what somebody asked for is told as it was asked', () => {
  expect(eventText({ time, type: 'action', text: 'QMP: stop' })).toBe(`${time} action QMP: stop`);
});
