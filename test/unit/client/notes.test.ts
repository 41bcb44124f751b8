/** What is written down of a change takes it back. */
import { expect, test } from 'vitest';
import { parseMachine } from '../../../src/client/description.ts';
import { plugNow } from '../../../src/client/device_now.ts';
import type { LiveDevice } from '../../../src/client/live.ts';
import type { MachineClient } from '../../../src/client/machine_client.ts';
import { plugNote } from '../../../src/client/notes.ts';
import { describeNow } from '../../../src/repl/description.ts';

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

test('what was unplugged comes again as it was, and not as it came', async () => {
  const disk = { kind: 'pci', type: 'virtio-blk', id: 'vdb', file: '/a.img', serial: 'S', port: 'rp0' } as const;
  const card = { kind: 'pci', type: 'virtio-net', id: 'net1', port: 'rp1', mtu: 1400 } as const;
  const blocks = { kind: 'pci', type: 'virtio-mem', id: 'm', size: '1G', requested: '512M', port: 'rp2' } as const;
  const machine = {
    plugged: async () => ({
      cpus: { present: [{ kind: 'cpu', id: 'cpu1', index: 1 }] },
      memory: { dimms: [], virtio: [{ kind: 'virtio-mem', id: 'm', requested: 0 }] },
      nvdimms: [],
      pci: { devices: [disk, card, blocks].map((plug) => ({ ...plug, streams: [], plug })) },
    }),
    disks: async () => [{ name: 'vdb', file: '/b.img', format: 'raw', probed: true, throttle: { iops: 5 } }],
    nets: async () => [
      {
        ...{ name: 'net1', type: 'user', mac: '52:54:00:00:00:09', link: false, throttle: {}, queues: 1 },
        hostForwards: [{ protocol: 'tcp', hostAddress: '127.0.0.1', hostPort: 2222, guestPort: 22 }],
      },
    ],
  } as unknown as MachineClient;
  expect(await plugNow(machine, 'vdb')).toEqual({ ...disk, file: '/b.img', throttle: { iops: 5 } });
  expect(await plugNow(machine, 'net1')).toMatchObject({
    ...card,
    ...{ backend: 'user', mac: '52:54:00:00:00:09', link: false, hostForwards: [{ hostPort: 2222 }] },
  });
  expect(await plugNow(machine, 'm')).toEqual({ ...blocks, requested: 0 });
  expect(await plugNow(machine, 'cpu1')).toEqual({ kind: 'cpu', index: 1 });
  expect(await plugNow(machine, 'nobody')).toBeUndefined();
});

test('a machine that is pinned is described with the vCPUs that came later, pinned to none', async () => {
  const description = parseMachine({ kernel: { image: '/k' }, cpus: { count: 2, max: 4, pin: [[0], [1]] } });
  const present = [0, 1, 2].map((index) => ({ kind: 'cpu', id: `cpu${index}`, index }));
  const machine = {
    description,
    plugged: async () => ({
      ...{ cpus: { present }, memory: { dimms: [], virtio: [] }, nvdimms: [], pci: { devices: [], ports: [] } },
    }),
    ...{ disks: async () => [], nets: async () => [] },
  } as unknown as MachineClient;
  const { cpus } = await describeNow(machine);
  expect(cpus).toMatchObject({ count: 3, pin: [[0], [1], []] });
  expect(parseMachine({ kernel: { image: '/k' }, cpus }).cpus).toEqual(cpus);
});
