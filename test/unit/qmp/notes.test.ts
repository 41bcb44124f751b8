/** What clients ask of a machine is in its history. */
import { expect, onTestFinished, test } from 'vitest';
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
