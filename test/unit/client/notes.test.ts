/** What is written down of a change takes it back. */
import { expect, test } from 'vitest';
import type { LiveDevice } from '../../../src/client/live.ts';
import { plugNote } from '../../../src/client/notes.ts';

test('a virtio-mem that was plugged is emptied before it leaves', () => {
  const device: LiveDevice = { kind: 'pci', id: 'm', type: 'virtio-mem', port: 'rp0', streams: [] };
  const asked = { kind: 'pci', type: 'virtio-mem', size: '1G' } as const;
  expect(plugNote({ ...asked, requested: '256M' }, device).undo).toEqual({
    code: "await vm.memory.resize('m', 0), vm.unplug('m')",
    changes: [
      { method: 'resizeMemory', parameters: ['m', 0, {}] },
      { method: 'unplug', parameters: ['m', {}] },
    ],
  });
  expect(plugNote(asked, device).undo?.changes).toHaveLength(1);
});
