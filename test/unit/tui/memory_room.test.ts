/** The room for memory: what the pane and the form of a DIMM tell of it. */
import { expect, onTestFinished, test } from 'vitest';
import { parseMachine } from '../../../src/client/description.ts';
import type { PluggedReport } from '../../../src/client/live.ts';
import { memoryRoom } from '../../../src/tui/memory_room.ts';
import { memoryPane } from '../../../src/tui/panes/memory.ts';
import { costOf } from '../../../src/tui/plug_form.ts';
import { scriptedStation } from '../../support/scripted_station.ts';

const GiB = 2 ** 30;

test('NVDIMMs take slots, and what virtio-mem may plug counts towards the limit', async () => {
  const { model } = scriptedStation();
  onTestFinished(() => model.close());
  await model.refresh();
  const { title } = memoryPane({ model, width: 70, height: 10, glyphs: 'plain' });
  expect(title).toMatch(/^memory 2\.75 GiB\/8 GiB, 3\/8 slots · /);
  expect(costOf('memory', { size: '256M' }, model)).toBe(
    'Costs 256 MiB of the host as the guest touches it; slot 4 of 8, 5.75 GiB of 8 GiB in all.',
  );
});

test('an NVDIMM of the start has a slot and room of its own', () => {
  const description = parseMachine({
    ...{ kernel: { image: '/k' }, cpus: { count: 1 }, memory: { size: '1G', max: '8G', slots: 4 } },
    nvdimms: [{ file: '/a.img', size: '1G' }],
  });
  const nvdimm = (id: string) => ({ id, size: GiB });
  const pmem = { id: 'pmem0', type: 'virtio-pmem', memory: { address: 0, size: GiB / 2 } };
  const plugged = {
    memory: { boot: GiB, dimms: [], virtio: [], max: 8 * GiB, slots: 4 },
    nvdimms: [nvdimm('nvdimm0')],
    pci: { devices: [], ports: [] },
  } as unknown as PluggedReport;
  expect(memoryRoom(plugged, description)).toEqual({ taken: 1, slots: 5, used: GiB });
  const more = { ...plugged, nvdimms: [nvdimm('nvdimm0'), nvdimm('nvdimm1')], pci: { devices: [pmem], ports: [] } };
  expect(memoryRoom(more as unknown as PluggedReport, description)).toEqual({ taken: 2, slots: 5, used: 2.5 * GiB });
});
