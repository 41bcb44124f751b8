/** The memory pane: the balloon, and what the host has of the RAM over time. */
import { expect, onTestFinished, test } from 'vitest';
import { parseMachine } from '../../../src/client/description.ts';
import { Vm } from '../../../src/repl/vm.ts';
import { frameOf } from '../../../src/tui/frame.ts';
import { MachineModel } from '../../../src/tui/model.ts';
import { memoryPane } from '../../../src/tui/panes/memory.ts';
import { plainText } from '../../../src/tui/style.ts';
import { HeldClock } from '../../support/held_clock.ts';
import { ScriptedMachine } from '../../support/scripted_machine.ts';
import { scriptedStation } from '../../support/scripted_station.ts';

const MiB = 2 ** 20;

async function shown(machine: ScriptedMachine, height: number) {
  const model = new MachineModel(new Vm({ machine: machine.client, guest: undefined }), undefined, new HeldClock(48));
  onTestFinished(() => model.close());
  model.watch();
  while (model.residence.bytes.length < 40) await new Promise((resolve) => setImmediate(resolve));
  const context = { model, width: 70, height, glyphs: 'plain' } as const;
  return { model, rows: memoryPane(context).rows.map(({ line }) => plainText(line)) };
}

test('the balloon has its size and what was asked of it', async () => {
  const { rows } = await shown(new ScriptedMachine({ busy: true }), 6);
  expect(rows.at(-1)).toBe('balloon 128M in it, 256M asked for · the guest has 300M left');
});

test('where there is room, what the host has is drawn over time, with how fast it grows', async () => {
  const { rows, model } = await shown(new ScriptedMachine({ busy: true }), 12);
  expect(rows).toHaveLength(12);
  expect(rows).toContain('resident of 2.8G over time, +4M/s');
  expect(model.residence.grown.at(-1)).toBe(4 * MiB);
  expect(rows.at(-1)).toMatch(/@{40}$/);
});

test('a machine without a balloon has no row for it', async () => {
  const machine = new ScriptedMachine({ busy: true });
  machine.balloon = () => Promise.reject(new Error('no balloon'));
  const { rows } = await shown(machine, 6);
  expect(rows.join()).not.toContain('balloon');
});

test('how fast the guest writes is shown while somebody wants to know', async () => {
  const { model } = await shown(new ScriptedMachine({ busy: true }), 12);
  const context = { model, width: 90, height: 12, glyphs: 'plain' } as const;
  const rows = () => memoryPane(context).rows.map(({ line }) => plainText(line));
  expect(rows().join('\n')).not.toContain('written');
  model.dirty.start();
  expect(rows()).toContain('pages written to over time, measuring');
  while (model.dirty.rates.length === 0) await new Promise((resolve) => setImmediate(resolve));
  expect(rows()).toContain('pages written to over time, 12M/s now');
  expect(rows()[0]).toContain('12M/s written');
  expect(rows()[1]).toContain('0/s written');
  model.dirty.stop();
  expect(rows().join('\n')).not.toContain('written');
});

test('nodes can be chosen, and lead to their table', async () => {
  const machine = new ScriptedMachine({ busy: true });
  Object.assign(machine, {
    description: parseMachine({
      ...{ kernel: { image: '/k' }, cpus: { count: 2 }, memory: { size: '1G' } },
      numa: {
        nodes: [
          { cpus: [0], memory: '512M' },
          { cpus: [1], memory: '512M' },
        ],
      },
    }),
  });
  const station = scriptedStation({ machine });
  onTestFinished(() => station.model.close());
  await station.model.refresh();
  station.focusOn('memory');
  frameOf(station, 120, 40);
  expect(station.dialogs.lookForm).toBe("await vm.info('memory')");
  station.lists.memory.choose('node 1');
  frameOf(station, 120, 40);
  expect(station.chosen).toBe('node 1');
  expect(station.dialogs.lookForm).toBe("await vm.info('numa')");
  station.key('enter', '');
  const shown = () => station.overlay?.view(100, 40).lines.map(plainText).join('\n');
  await expect.poll(shown).toMatch(/^node +cpus +memory +to 0 +to 1/);
});
