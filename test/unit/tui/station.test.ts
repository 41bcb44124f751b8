/** What keys do to a workstation on a scripted machine. */
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, onTestFinished, test } from 'vitest';
import type { Vm } from '../../../src/repl/vm.ts';
import { frameOf } from '../../../src/tui/frame.ts';
import { plainText } from '../../../src/tui/style.ts';
import { ScriptedMachine } from '../../support/scripted_machine.ts';
import { scriptedStation } from '../../support/scripted_station.ts';

async function open(options: Parameters<typeof scriptedStation>[0] = {}) {
  const station = scriptedStation(options);
  onTestFinished(() => station.model.close());
  await station.model.refresh();
  frameOf(station, 120, 40);
  return station;
}

test('the answer to a question is about what was asked, or does nothing', async () => {
  const machine = new ScriptedMachine({ busy: true });
  const station = await open({ machine });
  const asked: string[] = [];
  (station.vm as { unplug: unknown }).unplug = async (id: string) => void asked.push(id);
  station.focusOn('vcpus');
  station.key('end', '');
  expect(station.chosen).toBe('cpu3');
  station.key('d', 'd');
  const counters = machine.counters.bind(machine);
  machine.counters = async () => {
    const report = await counters();
    return { ...report, vcpus: report.vcpus.filter(({ index }) => index !== 3) };
  };
  await station.model.refresh();
  frameOf(station, 120, 40);
  // The list stays where it was.
  expect(station.chosen).toBe('cpu2');
  station.key('y', 'y');
  expect(asked).toEqual([]);
  expect(station.notice?.text).toContain('what was asked about has changed meanwhile');
  station.key('d', 'd');
  station.key('y', 'y');
  expect(asked).toEqual(['cpu2']);
});

test('what is chosen elsewhere is nothing to a question about the whole machine', async () => {
  const station = await open();
  let resets = 0;
  (station.vm as unknown as { reset: Vm['reset'] }).reset = async () => void resets++;
  station.focusOn('events');
  station.key('X', 'X');
  station.model.say('guest', 'one more');
  frameOf(station, 120, 40);
  station.key('y', 'y');
  expect(resets).toBe(1);
});

test('to ask for everything again and again does not ask more often afterwards', async () => {
  const machine = new ScriptedMachine({ busy: true });
  const station = await open({ machine });
  let polls = 0;
  const counters = machine.counters.bind(machine);
  machine.counters = async () => {
    polls++;
    await sleep(1);
    return counters();
  };
  for (let i = 0; i < 10; i++) station.key('R', 'R');
  await sleep(50);
  polls = 0;
  await sleep(1500);
  expect(polls).toBeLessThanOrEqual(2);
});

test('what the host cannot do is told, and ends nothing', async () => {
  const station = await open({
    host: {
      shell: () => {
        throw new Error('There are no pseudo-terminals left.');
      },
    },
  });
  station.key('!', '!');
  await sleep(1);
  expect(station.notice).toMatchObject({ level: 'bad', text: 'There are no pseudo-terminals left.' });
});

test('what is pasted is one line of text, wherever one types', async () => {
  const station = await open();
  station.focusOn('pci');
  station.key('/', '/');
  station.paste('net\x1b[31m0\nmore');
  expect(station.filterOf('pci')).toBe('net0');
  station.key('esc', '');
  station.key(':', ':');
  station.paste('a\tb\x07');
  expect(plainText(frameOf(station, 120, 40).overlay?.lines[1] ?? [])).toContain(':a b ');
});

test('on a screen that is too small a question can be read', async () => {
  const station = await open();
  expect(frameOf(station, 40, 10).tooSmall?.[0]).toBe('NEMU needs 56×14; this is 40×10.');
  station.key('K', 'K');
  (station.vm as unknown as { quit: Vm['quit'] }).quit = async () => {};
  expect(frameOf(station, 40, 10).tooSmall?.join('\n')).toContain('Esc not now');
});
