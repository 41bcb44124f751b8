/** What clients ask of a machine is in its history. */
import { expect, onTestFinished, test } from 'vitest';
import { actionsOf } from '../../../src/client/actions.ts';
import { COMMANDS } from '../../../src/qmp/commands/index.ts';
import { FakeMachine, qmpServer } from '../../support/qmp.ts';

test('what changes the machine is written down once, as it was asked', async () => {
  const fake = new FakeMachine();
  const server = qmpServer(fake.client);
  onTestFinished(server.close);
  const peer = await server.connect();
  await peer.execute('query-status');
  await peer.execute('stop');
  await peer.execute('object-add', { 'qom-type': 'memory-backend-ram', id: 'm', size: 4096, share: true });
  await expect(peer.execute('device_del', { id: 'nope' })).rejects.toThrow();
  await expect(peer.execute('device_del', { id: 5 })).rejects.toThrow();
  for (const line of ['info status', 'xp 0', 'cont', 'nope']) {
    await peer.execute('human-monitor-command', { 'command-line': line });
  }
  await peer.execute('chardev-add', { id: 'x'.repeat(64), backend: { type: 'null', data: {} } });
  peer.send('{"execute":"memsave","arguments":{"val":18446744073709551615,"size":0,"filename":"/nope/x"}}');
  await peer.answer();
  expect(fake.notes).toEqual([
    'QMP: stop',
    'QMP: object-add qom-type=memory-backend-ram id=m size=4096 share=true',
    'QMP: device_del id=nope',
    "QMP: device_del was refused: Device 'nope' not found",
    "QMP: device_del was refused: Invalid parameter type for 'id', expected: string",
    'QMP: cont',
    `QMP: chardev-add id=${'x'.repeat(64)} backend={"type":"null","data":{}}`,
  ]);
});

test('every command is either a question or written down', () => {
  const questions =
    /^(query-|qom-list|qom-get$|device-list-|ringbuf-read$|p?memsave$|calc-dirty-rate$|qmp_capabilities$|human-monitor-)/;
  for (const { name, changes = false } of COMMANDS) expect(changes, name).toBe(!questions.test(name));
});

test('what was done is in the history that all share, and is taken back from there', async () => {
  const fake = new FakeMachine();
  const server = qmpServer(fake.client);
  onTestFinished(server.close);
  fake.disks = [{ ...{ name: 'vda', file: '/a', format: 'raw', probed: false, size: 1 << 20, throttle: { iops: 9 } } }];
  fake.nets = [{ name: 'net0', link: true, type: 'user', queues: 1, hostForwards: [] }];
  fake.balloonHeld = 0;
  const peer = await server.connect();
  const dimm = { kind: 'memory', id: 'd1', slot: 0, size: 128 << 20, node: 0 };
  await peer.execute('stop');
  await peer.execute('stop');
  await peer.execute('cont');
  await peer.execute('object-add', { 'qom-type': 'memory-backend-ram', id: 'm1', size: 128 << 20 });
  const added = peer.ask({ execute: 'device_add', arguments: { driver: 'pc-dimm', id: 'd1', memdev: 'm1' } });
  while (!fake.calls.some((call) => call.startsWith('plug '))) await new Promise(setImmediate);
  fake.stage('plug', dimm, ['reserved', 'notified']);
  await added;
  const history = actionsOf(fake.client);
  // The guest has not taken it yet.
  expect(history.done.map(({ code }) => code)).toEqual(['vm.pause()', 'vm.resume()']);
  fake.stage('plug', dimm, ['reserved', 'notified', 'online']);
  await peer.execute('block_set_io_throttle', {
    ...{ id: 'vda', bps: 0, bps_rd: 0, bps_wr: 0, iops: 100, iops_rd: 0, iops_wr: 0 },
  });
  await peer.execute('block_resize', { device: 'vda', size: 2 << 20 });
  await peer.execute('blockdev-change-medium', { id: 'vda', filename: '/b' });
  await peer.execute('set_link', { name: 'net0', up: false });
  await peer.execute('human-monitor-command', { 'command-line': 'hostfwd_add tcp::2222-:22' });
  await peer.execute('balloon', { value: 256 << 20 });
  await expect(peer.execute('block_resize', { device: 'nope', size: 512 })).rejects.toThrow();
  expect(history.done.slice(2).map(({ code }) => code)).toEqual([
    expect.stringMatching(/^vm\.plug\(\{ kind: 'memory', .*id: 'd1'.*\}\)$/),
    'vm.disks.vda.throttle({ iops: 100 })',
    'vm.disks.vda.resize(2097152, { shrink: true })',
    "vm.disks.vda.change('/b')",
    'vm.nets.net0.link(false)',
    expect.stringMatching(/^vm\.nets\.net0\.forward\(\{.*hostPort: 2222,.*guestPort: 22.*\}\)$/),
    expect.stringMatching(/^vm\.memory\.balloon\(\d+\)$/),
  ]);
  fake.calls.length = 0;
  expect(await history.undo()).toBe('vm.memory.balloon(0)');
  expect(await history.undo()).toMatch(/^vm\.nets\.net0\.unforward\(/);
  expect(await history.undo()).toBe('vm.nets.net0.link(true)');
  expect(await history.undo()).toBe("vm.disks.vda.change('/a', { format: 'raw' })");
  expect(await history.undo()).toBe('vm.disks.vda.resize(1048576, { shrink: true })');
  expect(await history.undo()).toBe('vm.disks.vda.throttle({ iops: 9 })');
  expect(fake.calls).toEqual([
    'balloon 0',
    expect.stringMatching(/^changeNet net0 .*"remove":\[.*2222/),
    'changeNet net0 {"action":"link","up":true}',
    'changeDisk vda {"action":"medium","file":"/a","format":"raw"}',
    'changeDisk vda {"action":"resize","size":1048576,"shrink":true}',
    'throttle vda {"iops":9}',
  ]);
  for (const name of ['inject-nmi', 'system_powerdown', 'system_reset'] as const) await peer.execute(name);
  expect(await history.undo()).toMatch(/^vm\.unplug\('d1'\) \(vm\.nmi\(\), vm\.powerButton\(\), vm\.reset\(\) cannot/);
});
