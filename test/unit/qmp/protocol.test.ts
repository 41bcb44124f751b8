/** The server against peers that behave and peers that do not; the machine is played by the test. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import type { Command } from '../../../src/qmp/command.ts';
import { COMMANDS } from '../../../src/qmp/commands/index.ts';
import { FakeMachine, type Message, qmpServer } from '../../support/qmp.ts';
import { random } from '../../support/random.ts';

function start(more?: ConstructorParameters<typeof FakeMachine>[0]) {
  const fake = new FakeMachine(more);
  const server = qmpServer(fake.client);
  onTestFinished(server.close);
  return { fake, ...server };
}

const error = (desc: string, errorClass = 'GenericError') => ({ error: { class: errorClass, desc } });

describe('the protocol', () => {
  test('greets, negotiates once, and runs nothing before that', async () => {
    const { attach } = start();
    const { peer } = attach();
    const { QMP } = await peer.answer();
    expect(QMP).toMatchObject({ version: { qemu: { major: 7, minor: 2 } }, capabilities: ['oob'] });
    expect(await peer.ask({ execute: 'query-status' })).toEqual(
      error("Expecting capabilities negotiation with 'qmp_capabilities'", 'CommandNotFound'),
    );
    expect(await peer.ask({ execute: 'qmp_capabilities', arguments: { enable: ['foo'] } })).toEqual(
      error("Parameter 'enable[0]' does not accept value 'foo'"),
    );
    expect(await peer.ask({ execute: 'qmp_capabilities', id: 1 })).toEqual({ return: {}, id: 1 });
    expect(await peer.ask({ execute: 'qmp_capabilities' })).toEqual(
      error('Capabilities negotiation is already complete, command ignored', 'CommandNotFound'),
    );
  });

  test('gives an id back as it came, digits and all', async () => {
    const peer = await start().connect();
    peer.send('{"execute":"query-name","id":{"a":[1,2.5,null,"\\u00e4"]}}');
    expect((await peer.answer()).id).toEqual({ a: [1, 2.5, null, 'ä'] });
    let raw = '';
    peer.stream.on('data', (bytes) => {
      raw += bytes;
    });
    peer.send('{"execute":"query-name","id":9007199254740993}');
    await peer.answer();
    expect(raw).toContain('"id": 9007199254740993');
  });

  test.each<[string, Message]>([
    ['{"execute":"foo","id":2}', { id: 2, ...error('The command foo has not been found', 'CommandNotFound') }],
    ['{"execute":"query-status","arguments":{"x":1}}', error("Parameter 'x' is unexpected")],
    ['{"execute":"query-status","foo":1}', error("QMP input member 'foo' is unexpected")],
    ['{"execute":"query-status","arguments":[]}', error("QMP input member 'arguments' must be an object")],
    ['{"exec-oob":"query-status"}', error("QMP input member 'exec-oob' is unexpected")],
    ['{"id":9}', { id: 9, ...error("QMP input lacks member 'execute'") }],
    ['[1,2]', error('QMP input must be a JSON object')],
    ['5 ', error('QMP input must be a JSON object')],
    ['{"execute":1}', error("QMP input member 'execute' must be a string")],
    ['{"execute":"device_add"}', error("Parameter 'driver' is missing")],
    ['{"execute":"device_add","arguments":{"driver":"foo"}}', error("'foo' is not a valid device model name")],
    ['{"execute":"device_del","arguments":{"id":"nope"}}', error("Device 'nope' not found", 'DeviceNotFound')],
    ['{"execute":"device_del","arguments":{"id":5}}', error("Invalid parameter type for 'id', expected: string")],
    [
      '{"execute":"memsave","arguments":{"val":1.5,"size":1,"filename":"a"}}',
      error("Invalid parameter type for 'val', expected: integer"),
    ],
    [
      '{"execute":"balloon","arguments":{"value":"abc"}}',
      error("Invalid parameter type for 'value', expected: integer"),
    ],
    [
      '{"execute":"pmemsave","arguments":{"val":0,"size":"abc","filename":"a"}}',
      error("Invalid parameter type for 'size', expected: integer"),
    ],
    [
      '{"execute":"object-add","arguments":{"qom-type":"nope","id":"m"}}',
      error("Parameter 'qom-type' does not accept value 'nope'"),
    ],
    ['{"execute":"object-add","arguments":{"id":"m"}}', error("Parameter 'qom-type' is missing")],
    ['{"execute":"query-balloon"}', { error: { class: 'DeviceNotActive', desc: expect.any(String) } } as Message],
    ['{"execute":"query-status",}', error('JSON parse error, expecting value')],
    ["{'execute':'query-status'}", { return: { status: 'running', singlestep: false, running: true } }],
  ])('answers %s', async (text, expected) => {
    const peer = await start().connect();
    peer.send(text);
    expect(await peer.answer()).toEqual(expected);
    // And goes on.
    expect(await peer.ask({ execute: 'query-name' })).toEqual({ return: { name: 'nemu' } });
  });

  test('commands of one peer run in order, those out of band ahead of them', async () => {
    const { fake, connect } = start();
    const opened = Promise.withResolvers<void>();
    fake.gate = opened.promise;
    const peer = await connect(['oob']);
    peer.send('{"execute":"stop","id":1}{"execute":"query-name","id":2}{"exec-oob":"query-status","id":3}');
    expect(await peer.answer()).toMatchObject({ id: 3, return: { running: true } });
    peer.send('{"exec-oob":"query-name","id":4}{"exec-oob":"nope","id":5}');
    expect(await peer.answer()).toEqual({ id: 4, ...error('The command query-name does not support OOB') });
    expect(await peer.answer()).toMatchObject({ id: 5, error: { class: 'CommandNotFound' } });
    opened.resolve();
    expect(await peer.answer()).toEqual({ id: 1, return: {} });
    expect(await peer.answer()).toMatchObject({ id: 2 });
  });

  test('what a peer asked for before it said its last is still answered', async () => {
    const { attach } = start();
    const { peer, served } = attach();
    peer.stream.end('{"execute":"qmp_capabilities"}{"execute":"query-name","id":7}');
    await peer.answer();
    await peer.answer();
    expect(await peer.answer()).toMatchObject({ id: 7 });
    await served;
  });
});

describe('events', () => {
  test('go to every peer that has negotiated, with the time', async () => {
    const { fake, attach, connect } = start();
    const [one, two, silent] = [await connect(), await connect(), attach().peer];
    await silent.answer();
    const before = Date.now() / 1000;
    await one.execute('stop');
    for (const peer of [one, two]) {
      const { timestamp, data } = await peer.event('STOP');
      expect(data).toBeUndefined();
      expect(Math.abs((timestamp?.seconds as number) - before)).toBeLessThan(5);
      expect(timestamp?.microseconds).toBeLessThan(1e6);
    }
    await two.execute('cont');
    await one.event('RESUME');
    await one.execute('system_reset');
    expect((await two.event('RESET')).data).toEqual({ guest: false, reason: 'host-qmp-system-reset' });
    fake.emit({ type: 'reset', cause: 'the watchdog' });
    expect((await two.event('RESET')).data).toEqual({ guest: true, reason: 'guest-reset' });
    fake.emit({ type: 'panic', detail: 'x' });
    fake.emit({ type: 'crash-loaded' });
    fake.emit({ type: 'watchdog', action: 'nmi' });
    fake.emit({ type: 'disk-error', disk: 'vda', operation: 'write', errno: 'ENOSPC', offset: 512, action: 'stop' });
    expect((await two.event('GUEST_PANICKED')).data).toEqual({ action: 'poweroff' });
    expect((await two.event('GUEST_CRASHLOADED')).data).toEqual({ action: 'run' });
    expect((await two.event('WATCHDOG')).data).toEqual({ action: 'inject-nmi' });
    expect((await two.event('BLOCK_IO_ERROR')).data).toEqual({
      ...{ device: 'vda', operation: 'write', action: 'stop', nospace: true, reason: 'ENOSPC at byte 512' },
    });
    fake.emit({ type: 'disk-error', disk: 'vda', operation: 'read', errno: 'EIO', offset: 0, action: 'report' });
    expect((await two.event('BLOCK_IO_ERROR')).data).toMatchObject({ operation: 'read', action: 'report' });
    fake.emit({ type: 'balloon', actual: 64 << 20 });
    expect((await two.event('BALLOON_CHANGE')).data).toEqual({ actual: 448 << 20 });
    fake.emit({ type: 'clock-set', offset: 3600 });
    expect((await two.event('RTC_CHANGE')).data).toEqual({ offset: 3600, 'qom-path': '/machine/unattached/rtc' });
    fake.emit({ type: 'port', name: 'agent', open: true });
    expect((await two.event('VSERPORT_CHANGE')).data).toEqual({ id: 'agent', open: true });
    await one.execute('system_powerdown');
    await two.event('POWERDOWN');
    await one.execute('quit');
    expect((await two.event('SHUTDOWN')).data).toEqual({ guest: false, reason: 'host-qmp-quit' });
    expect(silent.events).toEqual([]);
    expect(fake.calls).toEqual(['pause', 'resume', 'reset', 'powerButton', 'close']);
  });

  test('a machine that stands still says why', async () => {
    const { fake, connect } = start();
    const peer = await connect();
    fake.emit({ type: 'disk-error', disk: 'vda', operation: 'read', errno: 'EIO', offset: 0, action: 'stop' });
    fake.state = 'paused';
    fake.emit({ type: 'state', state: 'paused' });
    expect(await peer.execute('query-status')).toMatchObject({ status: 'io-error', running: false });
    fake.disks = [disk('vda'), disk('vdb')];
    expect(await peer.execute('query-block')).toMatchObject([{ 'io-status': 'failed' }, { 'io-status': 'ok' }]);
    await peer.execute('cont');
    expect(await peer.execute('query-status')).toMatchObject({ status: 'running', running: true });
    expect(await peer.execute('query-block')).toMatchObject([{ 'io-status': 'ok' }, { 'io-status': 'ok' }]);
    // A request whose error the guest was told of stops nothing.
    fake.emit({ type: 'disk-error', disk: 'vda', operation: 'read', errno: 'EIO', offset: 0, action: 'report' });
    expect(await peer.execute('query-status')).toMatchObject({ status: 'running' });
    expect(await peer.execute('query-block')).toMatchObject([{ 'io-status': 'ok' }, { 'io-status': 'ok' }]);
  });
});

const disk = (name: string) => ({
  ...{ name, file: `/${name}.img`, format: 'raw', probed: false, readonly: false, size: 1 << 20, throttle: {} },
});

const DIMM = { kind: 'memory', id: 'd1', slot: 0, address: 2 ** 32, size: 128 << 20, node: 0, backend: 'anonymous' };
const CPU = { kind: 'cpu', id: 'cpu2', index: 2, apicId: 2, socket: 0, core: 2, thread: 0 };

describe('devices', () => {
  test('a DIMM comes when the guest was told, and goes when the guest lets go', async () => {
    const { fake, connect } = start();
    const peer = await connect();
    await peer.execute('object-add', { 'qom-type': 'memory-backend-ram', id: 'm1', size: 128 << 20, share: true });
    const added = peer.ask({
      execute: 'device_add',
      arguments: { driver: 'pc-dimm', id: 'd1', memdev: 'm1', slot: '0' },
    });
    await until(() => fake.calls.length > 0);
    expect(fake.calls).toEqual([expect.stringContaining('"slot":0')]);
    expect(fake.calls[0]).toContain('"share":true');
    fake.stage('plug', DIMM, ['reserved']);
    fake.dimms = [DIMM];
    fake.stage('plug', DIMM, ['reserved', 'notified']);
    expect(await added).toEqual({ return: {} });
    fake.stage('plug', DIMM, ['reserved', 'notified', 'online'], { ost: { event: 1, status: 0 } });
    const info = { device: 'd1', slot: '0', 'slot-type': 'DIMM', source: 1, status: 0 };
    expect((await peer.event('ACPI_DEVICE_OST')).data).toEqual({ info });
    const answers = (await peer.execute('query-acpi-ospm-status')) as object[];
    expect(answers).toHaveLength(8);
    expect(answers.slice(0, 2)).toEqual([info, { slot: '1', 'slot-type': 'DIMM', source: 0, status: 0 }]);
    expect(answers.at(-1)).toEqual({ slot: '3', 'slot-type': 'CPU', source: 0, status: 0 });
    expect(await peer.execute('query-memory-devices')).toMatchObject([
      { type: 'dimm', data: { memdev: '/objects/m1' } },
    ]);
    expect(await peer.execute('qom-list', { path: '/machine/peripheral' })).toContainEqual({
      ...{ name: 'd1', type: 'child<pc-dimm>' },
    });
    for (const [command, args] of [
      ['object-del', { id: 'm1' }],
      ['device_add', { driver: 'pc-dimm', id: 'd2', memdev: 'm1' }],
      ['device_add', { driver: 'pc-dimm', id: 'd1', memdev: 'm1' }],
    ] as const) {
      await expect(peer.execute(command, args)).rejects.toThrow(/in use|busy|Duplicate/);
    }
    for (const stage of ['refused', 'removed'] as const) {
      const deleted = peer.ask({ execute: 'device_del', arguments: { id: '/machine/peripheral/d1' } });
      await until(() => fake.calls.at(-1)?.startsWith('unplug'));
      fake.stage('unplug', DIMM, ['reserved', 'notified']);
      expect(await deleted).toEqual({ return: {} });
      // A second word about the same changes nothing.
      const calls = fake.calls.length;
      expect(await peer.execute('device_del', { id: 'd1' })).toEqual({});
      expect(fake.calls).toHaveLength(calls);
      fake.calls.push('-');
      fake.stage('unplug', DIMM, ['reserved', 'notified', stage], stage === 'refused' ? { reason: 'It is busy.' } : {});
    }
    const gone = { device: 'd1', path: '/machine/peripheral/d1' };
    expect((await peer.event('DEVICE_UNPLUG_GUEST_ERROR')).data).toEqual(gone);
    expect((await peer.event('MEM_UNPLUG_ERROR')).data).toEqual({ device: 'd1', msg: 'It is busy.' });
    expect((await peer.event('DEVICE_DELETED')).data).toEqual(gone);
    fake.dimms = [];
    await peer.execute('object-del', { id: 'm1' });
  });

  test('a guest that says the same about another request is told of again', async () => {
    const { fake, connect } = start();
    const peer = await connect();
    fake.dimms = [DIMM];
    const refusal = { ost: { event: 3, status: 0x82 }, reason: 'It is busy.' };
    for (const id of [1, 2]) {
      for (const stage of ['notified', 'accepted', 'refused'] as const) {
        fake.stage('unplug', DIMM, ['reserved', stage], { id, ...(stage !== 'notified' && refusal) });
      }
    }
    await peer.execute('query-status');
    const answers = peer.events.filter(({ event }) => event === 'ACPI_DEVICE_OST');
    expect(answers.map(({ data }) => data)).toMatchObject(Array(2).fill({ info: { source: 3, status: 0x82 } }));
  });

  test('a back end that a card has may go, and leaves it without a cable', async () => {
    const { fake, connect } = start();
    const peer = await connect();
    fake.nets = [{ name: 'net0', link: true, type: 'user', queues: 1, hostForwards: [] }];
    const CARD = { kind: 'pci', id: 'net0', type: 'virtio-net', port: 'rp0', streams: [] };
    await peer.execute('netdev_add', { type: 'user', id: 'e0' });
    const added = peer.ask({ execute: 'device_add', arguments: { driver: 'virtio-net-pci', netdev: 'e0' } });
    await until(() => fake.calls.length > 0);
    fake.stage('plug', CARD, ['reserved', 'notified']);
    await added;
    await peer.execute('netdev_del', { id: 'e0' });
    expect(fake.calls.at(-1)).toBe('changeNet net0 {"action":"link","up":false}');
    await expect(peer.execute('netdev_del', { id: 'e0' })).rejects.toThrow("Device 'e0' not found");
    await peer.execute('netdev_add', { type: 'user', id: 'e0' });
  });

  test('memory by blocks is told of, with each change of its size', async () => {
    const { fake, connect } = start();
    const peer = await connect();
    fake.virtio = [
      {
        ...{ kind: 'virtio-mem', id: 'vm0', address: 2 ** 33, size: 1 << 30, block: 2 << 20, node: 1 },
        ...{ requested: 64 << 20, plugged: 32 << 20, usable: 320 << 20, backend: 'anonymous', driver: true },
      },
    ];
    expect(await peer.execute('query-memory-devices')).toEqual([
      {
        type: 'virtio-mem',
        data: {
          ...{ id: 'vm0', memaddr: 2 ** 33, 'requested-size': 64 << 20, size: 32 << 20, 'max-size': 1 << 30 },
          ...{ 'block-size': 2 << 20, node: 1, memdev: '/objects/memvm0' },
        },
      },
    ]);
    expect(await peer.execute('query-memory-size-summary')).toEqual({
      ...{ 'base-memory': 512 << 20, 'plugged-memory': 32 << 20 },
    });
    fake.emit({ type: 'memory-size', device: 'vm0', plugged: 48 << 20, requested: 64 << 20 });
    expect((await peer.event('MEMORY_DEVICE_SIZE_CHANGE')).data).toEqual({
      ...{ id: 'vm0', size: 48 << 20, 'qom-path': '/machine/peripheral/vm0' },
    });
    // A size that another one replaced is no device that is gone.
    const device = { kind: 'virtio-mem', id: 'vm0' };
    fake.stage('resize', device, ['reserved', 'notified', 'refused'], { reason: 'Another size was asked for.' });
    await peer.execute('query-status');
    expect(peer.events.filter(({ event }) => event === 'DEVICE_DELETED')).toEqual([]);
  });

  test('a disk and a card take what was made for them, and give it back', async () => {
    const { fake, connect } = start();
    const peer = await connect();
    const folder = mkdtempSync(join(tmpdir(), 'nemu-qmp-'));
    onTestFinished(() => rmSync(folder, { recursive: true }));
    const filename = join(folder, 'a.img');
    writeFileSync(filename, Buffer.alloc(1 << 20));
    const image = { driver: 'raw', 'node-name': 'n0', file: { driver: 'file', filename } };
    await peer.execute('blockdev-add', image);
    const disk = { driver: 'virtio-blk-pci', id: 'd0', drive: 'n0', bus: 'rp1', serial: 'S', 'num-queues': '2' };
    const DISK = { kind: 'pci', id: 'd0', type: 'virtio-blk', port: 'rp1', streams: [] };
    const added = peer.ask({ execute: 'device_add', arguments: disk });
    await until(() => fake.calls.length > 0);
    expect(JSON.parse((fake.calls[0] as string).slice('plug '.length))).toEqual({
      ...{ kind: 'pci', type: 'virtio-blk', id: 'd0', file: filename, format: 'raw', readonly: false },
      ...{ serial: 'S', queues: 2, port: 'rp1' },
    });
    fake.pci = [DISK];
    fake.stage('plug', DISK, ['reserved', 'notified']);
    expect(await added).toEqual({ return: {} });
    for (const [command, args, what] of [
      ['blockdev-del', { 'node-name': 'n0' }, /Node n0 is in use/],
      ['device_add', disk, /Duplicate device ID 'd0'/],
      ['device_add', { ...disk, id: 'd1' }, /Node 'n0' is in use by d0/],
      ['device_add', { ...disk, id: 'd1', drive: 'n1' }, /can't find value 'n1'/],
      ['device_add', { driver: 'virtio-rng-pci', bus: 'pcie.0' }, /'pcie.0' does not support hotplugging/],
      ['device_add', { driver: 'virtio-rng-pci', addr: '40' }, /'virtio-rng-pci.addr' doesn't take value '40'/],
      ['device_add', { driver: 'virtio-rng-pci', addr: '5x' }, /'virtio-rng-pci.addr' doesn't take value '5x'/],
      ['device_add', { driver: 'virtio-rng-pci', addr: '05.1' }, /slot 5 function 1 cannot be had/],
      ['device_add', { driver: 'virtio-rng-pci', bus: 'nope', bogus: 1 }, /Bus 'nope' not found/],
      ['device_add', { driver: 'virtio-rng-pci', event_idx: 'off' }, /'virtio-rng-pci.event_idx' is on here/],
      ['device_add', { driver: 'virtio-rng-pci', multifunction: 'maybe' }, /expects 'on' or 'off'/],
      ['device_add', { driver: 'virtio-net-pci', netdev: 'e' }, /can't find value 'e'/],
      ['device_add', { driver: 'virtio-blk-pci' }, /drive property not set/],
    ] as const) {
      await expect(peer.execute(command, args)).rejects.toThrow(what);
    }
    const deleted = peer.ask({ execute: 'device_del', arguments: { id: 'd0' } });
    await until(() => fake.calls.at(-1)?.startsWith('unplug'));
    fake.stage('unplug', DISK, ['reserved', 'notified']);
    expect(await deleted).toEqual({ return: {} });
    await expect(peer.execute('device_del', { id: 'd0' })).rejects.toThrow(
      'Device d0 is already in the process of unplug',
    );
    fake.pci = [];
    fake.stage('unplug', DISK, ['reserved', 'notified', 'removed']);
    const path = '/machine/peripheral/d0';
    expect((await peer.event('DEVICE_DELETED')).data).toEqual({ device: 'd0', path });
    expect((await peer.event('DEVICE_DELETED')).data).toEqual({ path: `${path}/virtio-backend` });
    await peer.execute('blockdev-del', { 'node-name': 'n0' });

    // Memory that comes with a device of PCI.
    const own = { 'qom-type': 'memory-backend-file', 'mem-path': '/tmp/pm.img', size: 2 << 20, share: true };
    await peer.execute('object-add', { ...own, id: 'f0' });
    await peer.execute('object-add', { 'qom-type': 'memory-backend-ram', size: 8 << 20, id: 'm0' });
    for (const [args, what] of [
      [{ driver: 'virtio-pmem-pci' }, /'memdev' property must be set/],
      [{ driver: 'virtio-pmem-pci', memdev: 'm0' }, /'m0' is no memory-backend-file/],
      [{ driver: 'virtio-mem-pci', memdev: 'f0' }, /'f0' is a file/],
      [{ driver: 'virtio-mem-pci', memdev: 'm1' }, /'m1' not found/],
    ] as const) {
      await expect(peer.execute('device_add', args)).rejects.toThrow(what);
    }
    for (const [args, type, plug] of [
      [
        { driver: 'virtio-mem-pci', memdev: 'm0', 'requested-size': '4M', node: '0x0', multifunction: 'no' },
        'virtio-mem',
        { backend: 'anonymous', node: 0, requested: 4 << 20, size: 8 << 20, thp: true, policy: 'bind' },
      ],
      [{ driver: 'virtio-pmem-pci', memdev: 'f0' }, 'virtio-pmem', { file: '/tmp/pm.img', size: 2 << 20, share: true }],
    ] as const) {
      const memory = { address: 2 ** 32, size: plug.size };
      const made = { kind: 'pci', id: 'x0', type, port: 'rp0', streams: [], memory } as const;
      const calls = fake.calls.length;
      const coming = peer.ask({ execute: 'device_add', arguments: { ...args, id: 'x0' } });
      await until(() => fake.calls.length > calls);
      expect(JSON.parse((fake.calls.at(-1) as string).slice('plug '.length))).toEqual({
        ...{ kind: 'pci', type, id: 'x0' },
        ...plug,
      });
      fake.pci = [made];
      fake.stage('plug', made, ['reserved', 'notified']);
      expect(await coming).toEqual({ return: {} });
      await expect(peer.execute('object-del', { id: args.memdev })).rejects.toThrow(/in use/);
      if (type === 'virtio-pmem') {
        expect(await peer.execute('query-memory-devices')).toEqual([
          { type, data: { id: 'x0', memaddr: 2 ** 32, size: plug.size, memdev: '/objects/f0' } },
        ]);
      }
      const going = peer.ask({ execute: 'device_del', arguments: { id: 'x0' } });
      await until(() => fake.calls.at(-1)?.startsWith('unplug'));
      fake.pci = [];
      fake.stage('unplug', made, ['reserved', 'notified', 'removed']);
      expect(await going).toEqual({ return: {} });
      await peer.event('DEVICE_DELETED');
      await peer.execute('object-del', { id: args.memdev });
    }

    // A slot of a pc, by its address; and an answer of the machine's that it cannot be.
    await peer.execute('netdev_add', { type: 'user', id: 'e0', hostname: 'h' });
    const card = {
      driver: 'virtio-net-pci',
      netdev: 'e0',
      mac: '52:54:00:00:00:01',
      addr: '0x0a',
      'disable-legacy': true,
    };
    const CARD = { kind: 'pci', id: 'net0', type: 'virtio-net', port: 'slot10', streams: [] };
    const refused = peer.ask({ execute: 'device_add', arguments: card });
    await until(() => fake.calls.at(-1)?.startsWith('plug'));
    expect(JSON.parse((fake.calls.at(-1) as string).slice('plug '.length))).toEqual({
      ...{ kind: 'pci', type: 'virtio-net', id: 'net0', backend: 'user', hostname: 'h', port: 'slot10' },
      mac: '52:54:00:00:00:01',
    });
    fake.stage('plug', CARD, ['reserved', 'refused'], { reason: 'There is no place.' });
    expect(await refused).toEqual(error('There is no place.'));
    await peer.execute('netdev_del', { id: 'e0' });
  });

  test('an NVDIMM is a file with its labels', async () => {
    const { fake, connect } = start();
    const peer = await connect();
    const size = 256 << 20;
    await peer.execute('object-add', {
      ...{ 'qom-type': 'memory-backend-file', id: 'm1', size, share: true, 'mem-path': '/pm.img' },
    });
    await peer.execute('object-add', { 'qom-type': 'memory-backend-ram', id: 'm2', size });
    await expect(peer.execute('device_add', { driver: 'nvdimm', memdev: 'm2' })).rejects.toThrow(/is a file/);
    const NVDIMM = { kind: 'nvdimm', id: 'nv1', slot: 0, address: 2 ** 32, size, node: 0, file: '/pm.img' };
    const added = peer.ask({
      execute: 'device_add',
      arguments: { driver: 'nvdimm', id: 'nv1', memdev: 'm1', 'label-size': 131072 },
    });
    await until(() => fake.calls.length > 0);
    expect(JSON.parse((fake.calls[0] as string).slice('plug '.length))).toEqual({
      ...{ kind: 'nvdimm', id: 'nv1', file: '/pm.img', size: size - 131072, labelSize: 131072, share: true },
    });
    fake.nvdimms = [NVDIMM];
    fake.stage('plug', NVDIMM, ['reserved', 'notified']);
    expect(await added).toEqual({ return: {} });
    expect(await peer.execute('query-memory-devices')).toMatchObject([
      { type: 'nvdimm', data: { id: 'nv1', memdev: '/objects/m1', size } },
    ]);
    await expect(peer.execute('object-del', { id: 'm1' })).rejects.toThrow(/in use/);
  });

  test('a vCPU has the name that the peer gave it', async () => {
    const { fake, connect } = start();
    const peer = await connect();
    const place = { 'socket-id': 0, 'core-id': 2, 'thread-id': 0 };
    const added = peer.ask({ execute: 'device_add', arguments: { driver: 'host-x86_64-cpu', id: 'c2', ...place } });
    await until(() => fake.calls.length > 0);
    expect(fake.calls).toEqual(['plug {"kind":"cpu","index":2}']);
    fake.stage('plug', CPU, ['reserved', 'notified']);
    await added;
    fake.stage('plug', CPU, ['reserved', 'notified', 'refused'], { reason: 'The guest refused.' });
    expect((await peer.event('DEVICE_DELETED')).data).toEqual({ device: 'c2', path: '/machine/peripheral/c2' });
    for (const [args, what] of [
      [{}, 'CPU socket-id is not set'],
      [{ ...place, 'core-id': 9 }, 'Invalid CPU core-id: 9 must be in range 0:3'],
      [{ ...place, 'core-id': 0 }, 'CPU\\[0\\] with APIC ID 0 exists'],
      [{ ...place, 'die-id': 1 }, "Parameter 'die-id' does not accept value '1'"],
      [{ ...place, bogus: 1 }, "Property 'host-x86_64-cpu.bogus' not found"],
    ] as const) {
      await expect(peer.execute('device_add', { driver: 'host-x86_64-cpu', ...args })).rejects.toThrow(
        new RegExp(what),
      );
    }
  });

  test('what the host refuses at once is the answer, and leaves nothing behind', async () => {
    const { fake, connect } = start();
    const peer = await connect();
    await peer.execute('object-add', { 'qom-type': 'memory-backend-ram', id: 'm1', size: 128 << 20 });
    const added = peer.ask({ execute: 'device_add', arguments: { driver: 'pc-dimm', id: 'd1', memdev: 'm1' } });
    await until(() => fake.calls.length > 0);
    fake.stage('plug', DIMM, ['reserved', 'refused'], { reason: 'There is no memory.' });
    expect(await added).toEqual(error('There is no memory.'));
    expect(peer.events).toEqual([]);
    await peer.execute('object-del', { id: 'm1' });
  });
});

async function until(condition: () => unknown): Promise<void> {
  while (!condition()) await new Promise((resolve) => setImmediate(resolve));
}

describe('rude peers', () => {
  test('one that sends without end, or nests without end, is told and cut; another notices nothing', async () => {
    const { attach, connect } = start();
    const good = await connect();
    for (const text of [`{"execute":"${'x'.repeat(5 << 20)}`, '['.repeat(5000), `[${'1,'.repeat(300_000)}`]) {
      const { peer, served } = attach();
      await peer.answer();
      peer.send(text);
      expect((await peer.answer()).error?.desc).toMatch(/limit exceeded/);
      await served;
    }
    expect(await good.execute('query-name')).toEqual({ name: 'nemu' });
  });

  test('one that does not read is not read further, and is cut when events pile up', async () => {
    const { fake, attach, connect } = start();
    const good = await connect();
    const { peer, theirs, served } = attach();
    await peer.negotiate();
    peer.stream.pause();
    for (let i = 0; i < 2000; i++) peer.send('{"execute":"query-qmp-schema"}');
    await until(() => theirs.writableNeedDrain && theirs.isPaused());
    // What it has asked for is not answered before it reads: a few answers are in the pipe, not 2000.
    expect(theirs.writableLength).toBeLessThan(2 << 20);
    expect(await good.execute('query-name')).toEqual({ name: 'nemu' });
    const detail = 'x'.repeat(1000);
    for (let i = 0; i < 200_000 && !theirs.destroyed; i++) {
      fake.emit({ type: 'disk-error', disk: detail, operation: 'read', errno: 'EIO', offset: i, action: 'stop' });
      if (i % 1000 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    expect(theirs.destroyed).toBe(true);
    await served;
    expect(await good.execute('query-name')).toEqual({ name: 'nemu' });
  });

  test('every message that is whole has one answer, whatever is in it', async () => {
    const { fake, connect } = start();
    const next = random(11);
    const pick = <T>(list: readonly T[]): T => list[next(list.length)];
    const names = COMMANDS.map(({ name }) => name).filter((name) => !/save|device_|quit|stop/.test(name));
    const words = [
      ...names,
      ...['id', 'path', 'driver', 'value', 'size', 'name', '/machine', '/', '', '__proto__', 'info pci'],
    ];
    const value = (depth: number): unknown =>
      pick<() => unknown>([
        () => next(2 ** 31),
        () => -1.5,
        () => pick(words),
        () => null,
        () => next(2) === 1,
        () => (depth > 3 ? [] : Array.from({ length: next(4) }, () => value(depth + 1))),
        () => object(depth + 1),
      ])();
    const object = (depth: number): unknown =>
      depth > 3 ? {} : Object.fromEntries(Array.from({ length: next(4) }, () => [pick(words), value(depth)]));
    const known = (name: string) => {
      const command = COMMANDS.find((each) => each.name === name) as Command;
      const { shape = {} } = command.args.def as { shape?: object };
      return Object.fromEntries(Object.keys(shape).map((key) => [key, value(1)]));
    };
    const peer = await connect(['oob']);
    for (let id = 0; id < 3000; id++) {
      const name = pick(names);
      const args = next(3) === 0 ? object(0) : known(name);
      peer.send(JSON.stringify({ [pick(['execute', 'exec-oob'])]: name, arguments: args, id }));
      const answer = await peer.answer();
      expect(answer.id).toBe(id);
      expect('return' in answer).not.toBe('error' in answer);
    }
    expect(fake.listeners).toBe(1);
  }, 60_000);

  test('noise is answered with errors, and the connection goes on', async () => {
    const { connect } = start();
    const next = random(5);
    const peer = await connect();
    for (let round = 0; round < 300; round++) {
      peer.send(Uint8Array.from({ length: 1 + next(40) }, () => next(256)));
    }
    // Whatever is open is closed by this.
    peer.send(`\n"'\n${']}'.repeat(60)}\n`);
    peer.send('{"execute":"query-name","id":"end"}');
    for (;;) if ((await peer.answer()).id === 'end') break;
  });
});
