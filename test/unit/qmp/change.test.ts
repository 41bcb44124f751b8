/** What is changed of disks and cards that stay. */
import { expect, onTestFinished, test } from 'vitest';
import { FakeMachine, qmpServer } from '../../support/qmp.ts';

const DISK = {
  ...{ name: 'vda', file: '/vda.img', format: 'raw', probed: false, readonly: false, size: 1 << 20, throttle: {} },
};
const CARD = { name: 'net0', mac: '52:54:00:12:34:56', link: true, type: 'user', queues: 1, hostForwards: [] };

async function start() {
  const fake = new FakeMachine();
  const server = qmpServer(fake.client);
  onTestFinished(server.close);
  fake.disks = [DISK];
  fake.nets = [CARD];
  return { fake, peer: await server.connect() };
}

test('a disk has another size, by its name, its path or its node', async () => {
  const { fake, peer } = await start();
  for (const which of [
    { device: 'vda' },
    { device: '/machine/peripheral/vda/virtio-backend' },
    { 'node-name': 'vda' },
  ] as const) {
    await peer.execute('block_resize', { ...which, size: 1000 });
    expect(fake.calls.pop()).toBe('changeDisk vda {"action":"resize","size":1024,"shrink":true}');
  }
  await expect(peer.execute('block_resize', { device: 'vda', size: -1 })).rejects.toThrow(/expects a >0 size/);
  await peer.execute('blockdev-add', { driver: 'file', 'node-name': 'n0', filename: import.meta.filename });
  await expect(peer.execute('block_resize', { 'node-name': 'n0', size: 512 })).rejects.toThrow(/'n0' is in no disk/);
  expect(fake.calls).toEqual([]);
});

test('a disk has another medium, but cannot be without one', async () => {
  const { fake, peer } = await start();
  await peer.execute('blockdev-change-medium', { device: 'vda', filename: '/b', format: 'qcow2' });
  expect(fake.calls.pop()).toBe('changeDisk vda {"action":"medium","file":"/b","format":"qcow2"}');
  const change = (more: object) => peer.execute('blockdev-change-medium', { id: 'vda', filename: '/b', ...more });
  await change({ 'read-only-mode': 'read-write' });
  fake.calls.length = 0;
  await expect(change({ 'read-only-mode': 'read-only' })).rejects.toThrow(/was told once that it is writable/);
  await expect(change({ format: 'vmdk' })).rejects.toThrow(/Unknown driver 'vmdk'/);
  for (const [name, args] of [
    ['eject', { id: 'vda', force: true }],
    ['blockdev-open-tray', { device: 'vda' }],
    ['blockdev-close-tray', { id: 'vda' }],
    ['blockdev-remove-medium', { id: 'vda' }],
    ['blockdev-insert-medium', { id: 'vda', 'node-name': 'n' }],
  ] as const) {
    await expect(peer.execute(name, args)).rejects.toThrow("Device 'vda' is not removable");
  }
  expect(fake.calls).toEqual([]);
});

test('limits of a disk are set by its name or path', async () => {
  const { fake, peer } = await start();
  const none = { bps: 0, bps_rd: 0, bps_wr: 0, iops: 0, iops_rd: 0, iops_wr: 0 };
  await peer.execute('block_set_io_throttle', { id: '/machine/peripheral/vda', ...none, iops: 100, iops_max: 200 });
  expect(fake.calls).toEqual(['throttle vda {"iops":100,"iopsMax":200}']);
});

test('a cable is out, also before there is a card', async () => {
  const { fake, peer } = await start();
  await peer.execute('set_link', { name: 'net0', up: false });
  expect(fake.calls.pop()).toBe('changeNet net0 {"action":"link","up":false}');
  await peer.execute('netdev_add', { type: 'user', id: 'e0' });
  await peer.execute('set_link', { name: 'e0', up: false });
  expect(fake.calls).toEqual([]);
  const added = peer.ask({ execute: 'device_add', arguments: { driver: 'virtio-net-pci', id: 'c0', netdev: 'e0' } });
  while (fake.calls.length === 0) await new Promise(setImmediate);
  expect(JSON.parse((fake.calls.pop() as string).slice('plug '.length))).toMatchObject({ id: 'c0', link: false });
  const card = { kind: 'pci', id: 'c0', type: 'virtio-net', port: 'rp0', streams: [] };
  fake.stage('plug', card, ['reserved', 'notified']);
  expect(await added).toEqual({ return: {} });
  fake.nets = [CARD, { ...CARD, name: 'c0' }];
  await peer.execute('set_link', { name: 'e0', up: true });
  expect(fake.calls).toEqual(['changeNet c0 {"action":"link","up":true}']);
});

test('cards let everything through', async () => {
  const { peer } = await start();
  const [filter] = (await peer.execute('query-rx-filter', { name: 'net0' })) as object[];
  expect(filter).toMatchObject({ name: 'net0', promiscuous: true, 'main-mac': CARD.mac, 'broadcast-allowed': true });
  expect(await peer.execute('query-rx-filter')).toEqual([filter]);
});

test('a back end is what it is: members that ask for more are refused', async () => {
  const { peer } = await start();
  const add = (more: object) => peer.execute('netdev_add', { id: 'n', ...more });
  await expect(add({ type: 'user', ipv6: true })).rejects.toThrow(/ipv4 must be on, and ipv6 off/);
  await expect(add({ type: 'user', ipv4: false })).rejects.toThrow(/ipv4 must be on/);
  await expect(add({ type: 'tap', vhost: true })).rejects.toThrow(/vhost must be off/);
  await add({ type: 'tap', vhost: false });
  await peer.execute('netdev_del', { id: 'n' });
  await add({ type: 'user', ipv4: true, ipv6: false });
});
