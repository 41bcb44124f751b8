/** The tree of objects, as clients walk it. */
import { expect, onTestFinished, test } from 'vitest';
import { FakeMachine, qmpServer } from '../../support/qmp.ts';

async function start() {
  const fake = new FakeMachine();
  const server = qmpServer(fake.client);
  onTestFinished(server.close);
  return { fake, peer: await server.connect() };
}

/** A virtio function as the machine reports it. */
const virtioFunction = (name: string, type: number, address: string) => ({
  ...{ name, address, config: Buffer.alloc(4096).toString('base64'), bars: [] },
  virtio: { name, type, status: 0, offered: '0', negotiated: '0', packed: false, queues: [] },
});

test('a disk is found by the path that query-block tells', async () => {
  const { fake, peer } = await start();
  fake.functions = [virtioFunction('vda', 2, '00:02.0')];
  fake.disks = [
    { ...{ name: 'vda', file: '/a', format: 'raw', probed: false, readonly: false, size: 1 << 20 }, throttle: {} },
  ];
  const [{ qdev: path }] = (await peer.execute('query-block')) as { qdev: string }[];
  expect(await peer.execute('qom-get', { path, property: 'type' })).toBe('virtio-blk-device');
  expect(await peer.execute('qom-list', { path })).toContainEqual({ name: 'realized', type: 'bool' });
  expect(await peer.execute('qom-list', { path: '/machine/peripheral/vda' })).toContainEqual({
    ...{ name: 'virtio-backend', type: 'child<virtio-blk-device>' },
  });
});

test('what has come since the start is hotplugged', async () => {
  const { fake, peer } = await start();
  fake.functions = [virtioFunction('rng', 4, '00:02.0'), virtioFunction('r1', 4, '01:00.0')];
  const device = { kind: 'pci', id: 'r1', type: 'virtio-rng', port: 'rp0', streams: [] };
  fake.stage('plug', device, ['reserved']);
  const hot = (name: string) =>
    peer.execute('qom-get', { path: `/machine/peripheral/${name}`, property: 'hotplugged' });
  expect([await hot('rng'), await hot('r1')]).toEqual([false, true]);
  fake.stage('unplug', device, ['reserved', 'notified', 'removed']);
  expect(await hot('r1')).toBe(false);
});

test('NVDIMMs are among the devices', async () => {
  const { fake, peer } = await start();
  const size = 1 << 20;
  fake.nvdimms = [{ kind: 'nvdimm', id: 'nv0', slot: 0, address: 2 ** 32, size, node: 0, file: '/n', labelSize: 0 }];
  expect(await peer.execute('qom-list', { path: '/machine/peripheral' })).toContainEqual({
    ...{ name: 'nv0', type: 'child<nvdimm>' },
  });
  const path = '/machine/peripheral/nv0';
  expect(await peer.execute('qom-get', { path, property: 'addr' })).toBe(2 ** 32);
  expect(await peer.execute('qom-get', { path, property: 'label-size' })).toBe(0);
  expect(await peer.execute('query-memory-devices')).toMatchObject([{ data: { hotplugged: false } }]);
});

test.each([
  ['pci-device', 'virtio-blk-pci', 'pc-dimm'],
  ['cpu', 'host-x86_64-cpu', 'virtio-blk-pci'],
  ['device', 'virtserialport', 'iothread'],
  ['pc-dimm', 'nvdimm', 'virtio-mem-pci'],
  ['memory-backend', 'memory-backend-file', 'rng-random'],
  ['rng-backend', 'rng-builtin', 'iothread'],
])('types that are a %s', async (ancestor, one, other) => {
  const { peer } = await start();
  const list = (await peer.execute('qom-list-types', { implements: ancestor })) as { name: string }[];
  const names = list.map(({ name }) => name);
  expect(names).toContain(one);
  expect(names).not.toContain(other);
});
