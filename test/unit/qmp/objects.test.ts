/** Objects, and devices that name them. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { FakeMachine, qmpServer } from '../../support/qmp.ts';

async function start(more?: ConstructorParameters<typeof FakeMachine>[0]) {
  const fake = new FakeMachine(more);
  const server = qmpServer(fake.client);
  onTestFinished(server.close);
  const peer = await server.connect();
  /** @returns what the machine was asked to plug. */
  const plug = async (args: object) => {
    fake.calls.length = 0;
    const added = peer.ask({ execute: 'device_add', arguments: args });
    while (fake.calls.length === 0) {
      const answer = await Promise.race([added, new Promise((resolve) => setImmediate(resolve))]);
      if (answer) throw new Error(JSON.stringify(answer));
    }
    const request = JSON.parse((fake.calls[0] as string).slice('plug '.length));
    fake.stage('plug', { port: 'rp0', streams: [], ...request }, ['reserved', 'notified']);
    expect(await added).toEqual({ return: {} });
    return request;
  };
  return { fake, peer, plug };
}

const folder = () => {
  const path = mkdtempSync(join(tmpdir(), 'nemu-objects-'));
  onTestFinished(() => rmSync(path, { recursive: true }));
  return path;
};

describe('memory', () => {
  test.each<[object, RegExp]>([
    [{ size: 0 }, /property 'size' of memory-backend-file doesn't take value '0'/],
    [{ size: -5 }, /property 'size' of memory-backend-file doesn't take value '-5'/],
    [{ 'mem-path': '/nope/x' }, /can't open backing store \/nope\/x for guest RAM: No such file or directory/],
    [{ pmem: true }, /pmem must be off/],
    [{ 'prealloc-threads': 0 }, /'prealloc-threads'.*doesn't take value '0'/],
    [{ policy: 'bind' }, /host-nodes must be set for policy bind/],
    [{ 'host-nodes': [0] }, /host-nodes must be empty for policy default/],
  ])('cannot be with %j', async (more, what) => {
    const { peer } = await start();
    const object = { 'qom-type': 'memory-backend-file', id: 'm', size: 1 << 20, 'mem-path': join(folder(), 'm') };
    await expect(peer.execute('object-add', { ...object, ...more })).rejects.toThrow(what);
    expect(await peer.execute('query-memdev')).toEqual([]);
  });

  test('has all that QEMU has of it, and is told as it was asked for', async () => {
    const { peer } = await start();
    const path = join(folder(), 'm');
    const object = { 'qom-type': 'memory-backend-file', id: 'm', size: 1 << 20, 'mem-path': path };
    writeFileSync(path, Buffer.alloc(512));
    await expect(peer.execute('object-add', object)).rejects.toThrow(
      "backing store size 0x200 does not match 'size' option 0x100000",
    );
    rmSync(path);
    const more = { dump: false, merge: true, share: true, reserve: false };
    await peer.execute('object-add', { ...object, ...more, pmem: false });
    expect(await peer.execute('query-memdev')).toMatchObject([{ id: 'm', size: 1 << 20, ...more }]);
  });
});

describe('names', () => {
  test('a source of random bytes and a thread may be named, and must be there', async () => {
    const { peer, plug } = await start();
    await peer.execute('object-add', { 'qom-type': 'rng-random', id: 'r', filename: '/dev/urandom' });
    await peer.execute('object-add', { 'qom-type': 'iothread', id: 'io', 'poll-max-ns': 1000 });
    await peer.execute('object-add', { 'qom-type': 'memory-backend-ram', id: 'm', size: 4096 });
    await expect(
      peer.execute('object-add', { 'qom-type': 'rng-random', id: 'x', filename: '/dev/null' }),
    ).rejects.toThrow(/Random bytes come from the host's kernel/);
    expect(await peer.execute('query-iothreads')).toMatchObject([{ id: 'io', 'poll-max-ns': 1000 }]);
    expect(await plug({ driver: 'virtio-rng', id: 'g', rng: 'r' })).toEqual({
      kind: 'pci',
      type: 'virtio-rng',
      id: 'g',
    });
    const add = (args: object) => peer.execute('device_add', args);
    await expect(add({ driver: 'virtio-rng-pci', rng: 'nope' })).rejects.toThrow("DeviceNotFound: Device 'nope' not");
    await expect(add({ driver: 'virtio-rng-pci', rng: 'm' })).rejects.toThrow(
      "Invalid parameter type for 'rng', expected: rng-backend",
    );
    await expect(add({ driver: 'virtio-blk-pci', iothread: 'r' })).rejects.toThrow(/expected: iothread/);
    await peer.execute('object-del', { id: 'r' });
    await peer.execute('object-del', { id: 'io' });
    expect(await peer.execute('query-iothreads')).toEqual([]);
    expect(await peer.execute('query-memdev')).toMatchObject([{ id: 'm' }]);
  });
});

describe('properties', () => {
  test('that mean what is so anyway are taken, and others are refused', async () => {
    const { peer, plug } = await start();
    await peer.execute('object-add', { 'qom-type': 'iothread', id: 'io' });
    await peer.execute('blockdev-add', { driver: 'file', 'node-name': 'n', filename: import.meta.filename });
    const disk = { driver: 'virtio-blk', id: 'd', drive: 'n' };
    for (const [more, what] of [
      [{ 'write-cache': 'off' }, /write-cache must be on/],
      [{ 'write-cache': 'maybe' }, /'write-cache' does not accept value 'maybe'/],
      [{ 'share-rw': 'on' }, /share-rw must be off/],
      [{ 'share-rw': 5 }, /Parameter 'share-rw' expects 'on' or 'off'/],
      [{ 'disable-modern': true }, /disable-legacy is on, and disable-modern off/],
      [{ 'disable-legacy': 'off' }, /virtio 1.0 and later alone/],
      [{ bootindex: 'x' }, /Parameter 'bootindex' expects integer/],
      [{ iothread: 'nope' }, /Device 'nope' not found/],
    ] as const) {
      await expect(peer.execute('device_add', { ...disk, ...more })).rejects.toThrow(what);
    }
    const same = { 'write-cache': 'on', 'share-rw': 'off', bootindex: '1', iothread: 'io' };
    const modern = { 'disable-legacy': 'on', 'disable-modern': false };
    expect(await plug({ ...disk, ...same, ...modern })).toEqual({
      ...{ kind: 'pci', type: 'virtio-blk', id: 'd', file: import.meta.filename, readonly: false, format: 'raw' },
    });
  });

  test('are listed by type, and a root port cannot come', async () => {
    const { peer } = await start();
    const names = async (typename: string) =>
      ((await peer.execute('qom-list-properties', { typename })) as { name: string }[]).map(({ name }) => name);
    expect(await names('virtio-blk-pci')).toEqual(expect.arrayContaining(['type', 'realized', 'drive', 'bootindex']));
    expect(await names('memory-backend-file')).toEqual(expect.arrayContaining(['type', 'size', 'mem-path', 'dump']));
    expect(await names('iothread')).toContain('poll-max-ns');
    await expect(peer.execute('device_add', { driver: 'pcie-root-port' })).rejects.toThrow(
      "Bus 'pcie.0' does not support hotplugging",
    );
    await expect(peer.execute('device_add', { driver: 'pcie-root-port', bus: 'rp0' })).rejects.toThrow(
      /root ports from the start/,
    );
  });
});

describe('what a machine does', () => {
  test('is as it was said at the start, but for a watchdog that comes', async () => {
    const { fake, peer, plug } = await start({ machine: 'pc' });
    await peer.execute('set-action', { reboot: 'reset', panic: 'exit-failure', shutdown: 'poweroff' });
    for (const other of [{ reboot: 'shutdown' }, { panic: 'pause' }, { shutdown: 'pause' }, { watchdog: 'debug' }]) {
      await expect(peer.execute('set-action', other)).rejects.toThrow(/GenericError/);
    }
    await peer.execute('watchdog-set-action', { action: 'inject-nmi' });
    expect(await plug({ driver: 'i6300esb', id: 'w' })).toMatchObject({ type: 'i6300esb', action: 'nmi' });
    fake.pci = [{ kind: 'pci', id: 'w', type: 'i6300esb', port: 'slot3', streams: [], plug: { action: 'nmi' } }];
    await expect(peer.execute('set-action', { watchdog: 'pause' })).rejects.toThrow(
      "'w' was plugged with the action 'nmi', which stays",
    );
    await peer.execute('set-action', { watchdog: 'inject-nmi' });
  });

  test('the processor is the host’s', async () => {
    const { peer } = await start();
    const expand = (type: string) => peer.execute('query-cpu-model-expansion', { type, model: { name: 'host' } });
    expect(await expand('full')).toEqual({ model: { name: 'host', props: {} } });
    await expect(expand('static')).rejects.toThrow(/no static expansion/);
  });
});
