import { expect, onTestFinished, test } from 'vitest';
import type { MachineEvent } from '../../../src/client/machine_client.ts';
import { Net } from '../../../src/repl/nets.ts';
import { Vm } from '../../../src/repl/vm.ts';
import { toggleLink } from '../../../src/tui/changes.ts';
import { frameOf } from '../../../src/tui/frame.ts';
import { MachineModel } from '../../../src/tui/model.ts';
import { plainText } from '../../../src/tui/style.ts';
import { ScriptedMachine } from '../../support/scripted_machine.ts';
import { scriptedStation } from '../../support/scripted_station.ts';

test('what others ask of the machine is in the timeline, as it comes and afterwards', () => {
  let tell: (event: MachineEvent) => void = () => {};
  const machine = {
    onEvent: (listener: typeof tell) => {
      tell = listener;
      return () => {};
    },
  };
  const model = new MachineModel({ machine } as unknown as Vm);
  model.remember([{ time: '2026-01-01T00:00:00.000Z', type: 'action', text: 'QMP: stop' }]);
  tell({ type: 'action', text: 'QMP: cont' });
  tell({ type: 'disk-error', disk: 'vda', operation: 'read', errno: 'EIO', offset: 0, action: 'report' });
  expect(model.events.map(({ kind, level, text }) => [kind, level, text])).toEqual([
    ['action', 'info', 'QMP: stop'],
    ['action', 'info', 'QMP: cont'],
    ['device', 'warn', 'vda: read at 0 failed with EIO'],
  ]);
});

test('what others do is in the timeline, and what the workstation does is there once', async () => {
  const machine = new ScriptedMachine({ busy: false });
  const station = scriptedStation({ machine });
  onTestFinished(() => station.model.close());
  await station.model.refresh();
  const texts = () =>
    station.model.events.filter(({ kind, level }) => kind === 'action' && level === 'info').map(({ text }) => text);
  // Whoever has the machine, from a REPL of its own.
  const other = new Vm({ machine: machine.client, guest: undefined });
  await new Net(other, 'net0').link(false);
  expect(texts()).toEqual(['vm.nets.net0.link(false)']);
  await expect.poll(() => station.model.nets[0].link).toBe(false);
  toggleLink(station, 'net0');
  await expect.poll(() => station.vm.journal.lines.length).toBe(2);
  station.key('p', 'p');
  await expect.poll(() => station.vm.journal.lines.length).toBe(3);
  expect(texts().filter((text) => !text.includes(': '))).toEqual([
    'vm.nets.net0.link(false)',
    'await vm.nets.net0.link(true)',
    'await vm.pause()',
  ]);
  await other.journal.undo();
  await other.journal.redo();
  expect(texts().slice(-2)).toEqual(['undone: vm.pause()', 'done again: vm.pause()']);
  await other.pause();
  expect(texts().at(-1)).toBe('vm.pause()');
});

test('an action of the workstation that failed leaves those of others to be told', async () => {
  const machine = new ScriptedMachine({ busy: false });
  const station = scriptedStation({ machine });
  onTestFinished(() => station.model.close());
  const pause = machine.pause.bind(machine);
  machine.pause = async () => {
    throw new Error('not now');
  };
  station.key('p', 'p');
  await expect.poll(() => station.notice?.text).toBe('not now');
  machine.pause = pause;
  await new Vm({ machine: machine.client, guest: undefined }).pause();
  expect(station.model.events.map(({ text }) => text)).toContain('vm.pause()');
});

test('ports, consoles, clock and sizes are told; a size that goes on changing in one line', () => {
  const machine = new ScriptedMachine({ busy: false });
  const station = scriptedStation({ machine });
  onTestFinished(() => station.model.close());
  const MiB = 2 ** 20;
  machine.tell({ type: 'port', name: 'agent', open: true });
  machine.tell({ type: 'console', name: 'hvc1', change: 'added' });
  machine.tell({ type: 'clock-set', offset: -3 });
  for (const plugged of [64, 128, 256])
    machine.tell({ type: 'memory-size', device: 'vm0', plugged: plugged * MiB, requested: 512 * MiB });
  for (const actual of [10, 20]) machine.tell({ type: 'balloon', actual: actual * MiB });
  machine.tell({ type: 'port', name: 'agent', open: false });
  machine.tell({ type: 'balloon', actual: 30 * MiB });
  expect(station.model.events.map(({ text }) => text)).toEqual([
    'agent was opened',
    'console hvc1 has come',
    "its clock was set, 3 s behind the host's",
    'vm0 has 256 MiB plugged, of 512 MiB that were asked for',
    'the balloon holds 20 MiB',
    'agent was closed',
    'the balloon holds 30 MiB',
  ]);
});

/** A model whose time goes on when it is told. */
function timed(machine: ScriptedMachine) {
  let now = 0;
  const clock = { monotonic: () => now, wall: () => now, after: () => () => {} };
  const { model } = scriptedStation({ machine, clock });
  onTestFinished(() => model.close());
  const after = async (seconds: number) => {
    now += seconds * 1000;
    await model.refresh();
  };
  return { model, after };
}

test('who asks for everything again and again makes no second of it', async () => {
  const machine = new ScriptedMachine({ busy: true });
  const { model, after } = timed(machine);
  await after(1);
  await after(1);
  expect([model.activity.exits.length, model.vcpus.get(0)?.exits.length]).toEqual([1, 1]);
  const { counters } = model;
  for (let i = 0; i < 9; i++) await after(0.05);
  expect([model.activity.exits.length, model.vcpus.get(0)?.exits.length]).toEqual([1, 1]);
  // What is shown is the newest all the same, and what happened meanwhile is in the value that follows.
  expect(model.counters?.total).toBeGreaterThan(counters?.total ?? 0);
  await after(0.55);
  expect(model.activity.exits.at(-1)).toBeCloseTo((model.counters?.total ?? 0) - (counters?.total ?? 0));
  expect(model.residence.bytes).toHaveLength(3);
});

test('the time of a machine that was there before is its own, and not that of the workstation', () => {
  const now = Date.UTC(2026, 0, 1, 3, 5);
  const clock = { monotonic: () => 0, wall: () => now, after: () => () => {} };
  const station = scriptedStation({ clock });
  onTestFinished(() => station.model.close());
  const screen = () => frameOf(station, 120, 40);
  expect(plainText(screen().header)).not.toMatch(/\d h|\d min/);
  station.model.remember([
    { time: '2026-01-01T00:00:00.000Z', type: 'state', state: 'running' },
    { time: '2026-01-01T02:00:00.000Z', type: 'note', text: 'a viewer came' },
  ]);
  expect(plainText(screen().header)).toContain('  3:05 h');
  const lines = screen()
    .columns.flat()
    .flatMap((box) => box.lines.map(plainText));
  expect(lines.join('\n')).toContain('com1 has printed nothing yet (11100 s).');
});
