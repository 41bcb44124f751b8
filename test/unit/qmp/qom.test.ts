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

test('objects have their properties, and are found by the end of their path where it is one alone', async () => {
  const { fake, peer } = await start();
  await peer.execute('object-add', { 'qom-type': 'memory-backend-ram', id: 'm1', size: 1 << 20, share: true });
  const get = (path: string, property: string) => peer.execute('qom-get', { path, property });
  expect(await get('/objects/m1', 'share')).toBe(true);
  expect(await get('m1', 'policy')).toBe('default');
  expect(await get('objects', 'm1')).toBe('/objects/m1');
  await expect(peer.execute('qom-set', { path: 'm1', property: 'share', value: false })).rejects.toThrow(
    "Property 'memory-backend-ram.share' is not writable",
  );
  await expect(get('m', 'type')).rejects.toThrow("DeviceNotFound: Device 'm' not found");
  fake.functions = [virtioFunction('a', 4, '00:02.0'), virtioFunction('b', 4, '00:03.0')];
  await expect(get('virtio-backend', 'type')).rejects.toThrow('does not uniquely identify an object');
  expect(await get('a/virtio-backend', 'type')).toBe('virtio-rng-device');
});

test('abstract types are listed when they are asked for', async () => {
  const { peer } = await start();
  const list = (args: object) => peer.execute('qom-list-types', { implements: 'event-loop-base', ...args });
  expect(await list({})).toEqual([{ name: 'iothread', parent: 'event-loop-base' }]);
  expect(await list({ abstract: true })).toContainEqual({ name: 'event-loop-base', parent: 'object', abstract: true });
});
