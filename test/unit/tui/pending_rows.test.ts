/** Rows of devices that somebody plugs or unplugs. */
import { expect, onTestFinished, test } from 'vitest';
import type { LiveDevice, LiveRequest } from '../../../src/client/live.ts';
import { memoryPane } from '../../../src/tui/panes/memory.ts';
import { pciPane } from '../../../src/tui/panes/pci.ts';
import { vcpusPane } from '../../../src/tui/panes/vcpus.ts';
import { plainText } from '../../../src/tui/style.ts';
import { ScriptedMachine } from '../../support/scripted_machine.ts';
import { scriptedStation } from '../../support/scripted_station.ts';

const PANES_OF = [
  ['net0', pciPane],
  ['dimm1', memoryPane],
  ['nvdimm0', memoryPane],
  ['cpu2', vcpusPane],
] as const;

test('the stage of a request stands in the row of its device, as long as it is under way', async () => {
  const machine = new ScriptedMachine({ busy: false });
  const { model } = scriptedStation({ machine });
  onTestFinished(() => model.close());
  await model.refresh();
  const row = ([id, pane]: (typeof PANES_OF)[number]) => {
    const { rows } = pane({ model, width: 78, height: 20, glyphs: 'plain' });
    return plainText(rows.find(({ key }) => key === id)?.line ?? []);
  };
  for (const [number, each] of PANES_OF.entries()) {
    const device = { id: each[0] } as LiveDevice;
    const request: LiveRequest = {
      ...{ id: number, action: 'unplug', origin: 'user', device, stage: 'notified', history: [] },
    };
    const before = row(each);
    machine.tell({ type: 'request', request });
    expect(row(each)).toContain(' unplug: notified');
    machine.tell({ type: 'request', request: { ...request, stage: 'accepted' } });
    expect(row(each)).toContain(' unplug: accepted');
    machine.tell({ type: 'request', request: { ...request, stage: 'refused' } });
    expect(row(each)).toBe(before);
  }
});
