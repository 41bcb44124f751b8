/** Consoles and ports through QMP, and what is at the host's end of them. */
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import type { ConsoleProvider, SharedConsole } from '../../../src/client/shared_console.ts';
import { RingBuffer } from '../../../src/qmp/ring_buffer.ts';
import { FakeMachine, type QmpPeer, qmpServer } from '../../support/qmp.ts';
import { random } from '../../support/random.ts';

const until = async (condition: () => unknown) => {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 1));
};

async function start(shared = true) {
  const fake = new FakeMachine();
  const opened: (SharedConsole & { typed: string; role: string })[] = [];
  const consoles = {
    report: () => [{ name: 'com1', pty: '/dev/pts/7' }, { name: 'p0' }],
    open: (name: string, { role }: { role: string }) => {
      const made = {
        name,
        role,
        typed: '',
        onData: undefined,
        close: () => opened.splice(opened.indexOf(made as never)),
      };
      const write = (bytes: Uint8Array) => {
        made.typed += Buffer.from(bytes);
        return bytes.length;
      };
      opened.push(Object.assign(made, { write }) as never);
      return made;
    },
  } as unknown as ConsoleProvider;
  const terminals: string[] = [];
  const terminal = () => ({
    path: '/dev/pts/9',
    connect: (name: string) => void terminals.push(name),
    close: () => void terminals.push('closed'),
  });
  const server = qmpServer(fake.client, shared ? { consoles, terminal } : {});
  onTestFinished(server.close);
  return { fake, opened, terminals, peer: await server.connect() };
}

/** Plugs a port as far as the guest's notice. */
async function plug(fake: FakeMachine, peer: QmpPeer, args: object, id: string) {
  fake.calls.length = 0;
  const added = peer.ask({ execute: 'device_add', arguments: args });
  await until(() => fake.calls.length > 0);
  const request = JSON.parse((fake.calls[0] as string).slice('plug '.length));
  const device = { kind: 'pci', id, type: request.type, port: 'rp0', streams: [] };
  fake.emit({ type: 'console', name: id, change: 'added' });
  fake.pci = [...fake.pci, device];
  fake.stage('plug', device, ['reserved', 'notified']);
  expect(await added).toEqual({ return: {} });
  return { request, device };
}

describe('ports', () => {
  test('come on a bus, with a ring buffer, and go before the bus does', async () => {
    const { fake, opened, peer } = await start();
    await peer.execute('device_add', { driver: 'virtio-serial-pci', id: 'vs', bus: 'rp1' });
    await peer.execute('chardev-add', { id: 'c0', backend: { type: 'ringbuf', data: { size: 16 } } });
    const args = { driver: 'virtserialport', id: 'p', bus: 'vs.0', nr: 1, chardev: 'c0', name: 'org.x.0' };
    for (const [more, what] of [
      [{ chardev: 'c9' }, /'virtserialport.chardev' can't find value 'c9'/],
      [{ bus: 'zzz' }, /Bus 'zzz' not found/],
      [{ nr: 31 }, /Out-of-range port id specified, max. allowed: 30/],
    ] as const) {
      await expect(peer.execute('device_add', { ...args, ...more })).rejects.toThrow(what);
    }
    const { request, device } = await plug(fake, peer, args, 'org.x.0');
    expect(request).toEqual({ kind: 'pci', type: 'virtio-port', name: 'org.x.0', port: 'rp1' });
    expect(opened).toMatchObject([{ name: 'org.x.0', role: 'viewer' }]);
    opened[0].onData?.(Buffer.from('from the guest, a lot'));
    expect(await peer.execute('ringbuf-read', { device: 'c0', size: 100 })).toBe('he guest, a lot'.padStart(16, 't'));
    fake.emit({ type: 'port', name: 'org.x.0', open: true });
    expect((await peer.event('VSERPORT_CHANGE')).data).toEqual({ id: 'p', open: true });
    expect(await peer.execute('query-chardev')).toContainEqual({
      ...{ label: 'c0', filename: 'ringbuf' },
      'frontend-open': true,
    });
    await expect(peer.execute('chardev-remove', { id: 'c0' })).rejects.toThrow("Chardev 'c0' is busy");
    await expect(peer.execute('device_add', { ...args, id: 'q', name: 'q' })).rejects.toThrow(/Device 'c0' is in use/);
    await expect(peer.execute('device_del', { id: 'vs' })).rejects.toThrow("'vs' has ports: remove 'p' first");

    const deleted = peer.ask({ execute: 'device_del', arguments: { id: 'p' } });
    await until(() => fake.calls.at(-1)?.startsWith('unplug'));
    fake.stage('unplug', device, ['reserved', 'notified']);
    expect(await deleted).toEqual({ return: {} });
    fake.emit({ type: 'console', name: 'org.x.0', change: 'removed' });
    fake.pci = [];
    fake.stage('unplug', device, ['reserved', 'notified', 'removed']);
    expect((await peer.event('DEVICE_DELETED')).data).toEqual({ device: 'p', path: '/machine/peripheral/p' });
    expect(opened).toEqual([]);
    await peer.execute('chardev-remove', { id: 'c0' });
    await peer.execute('device_del', { id: 'vs' });
    const path = '/machine/peripheral/vs';
    expect((await peer.event('DEVICE_DELETED')).data).toEqual({ device: 'vs', path });
    expect((await peer.event('DEVICE_DELETED')).data).toEqual({ path: `${path}/virtio-backend` });
    await expect(peer.execute('device_del', { id: 'vs' })).rejects.toThrow("Device 'vs' not found");
  });

  test('a console has a terminal, or nobody at its end', async () => {
    const { fake, terminals, peer } = await start();
    expect(await peer.execute('chardev-add', { id: 'c0', backend: { type: 'pty', data: {} } })).toEqual({
      pty: '/dev/pts/9',
    });
    const { request } = await plug(fake, peer, { driver: 'virtconsole', id: 'p0', chardev: 'c0' }, 'p0');
    expect(request).toEqual({ kind: 'pci', type: 'virtio-console', id: 'p0' });
    expect(terminals).toEqual(['p0']);
    // It goes with the console, and the next one has another.
    fake.emit({ type: 'console', name: 'p0', change: 'removed' });
    expect(terminals).toEqual(['p0', 'closed']);
    expect(await peer.execute('query-chardev')).toContainEqual({
      ...{ label: 'c0', filename: 'pty', 'frontend-open': false },
    });
    fake.stage('unplug', { kind: 'pci', id: 'p0', type: 'virtio-console', port: 'rp0', streams: [] }, ['removed']);
    fake.pci = [];
    await plug(fake, peer, { driver: 'virtconsole', id: 'p0', chardev: 'c0' }, 'p0');
    expect(terminals).toEqual(['p0', 'closed', 'p0']);
    await peer.execute('chardev-add', { id: 'c1', backend: { type: 'null', data: {} } });
    const silent = await plug(fake, peer, { driver: 'virtserialport', id: 'p1', chardev: 'c1' }, 'p1');
    expect(silent.request).toEqual({ kind: 'pci', type: 'virtio-port', name: 'p1', flow: 'drop' });
    // The agent's serial port is no console; what a chardev stands for is told once.
    expect(await peer.execute('query-chardev')).toEqual([
      { label: 'com1', filename: 'pty:/dev/pts/7', 'frontend-open': true },
      { label: 'c0', filename: 'pty:/dev/pts/9', 'frontend-open': false },
      { label: 'c1', filename: 'null', 'frontend-open': false },
    ]);
  });

  test('a program at a socket types, and sees what the guest prints', async () => {
    const { fake, opened, peer } = await start();
    const folder = mkdtempSync(join(tmpdir(), 'nemu-chardev-'));
    onTestFinished(() => rmSync(folder, { recursive: true }));
    const path = join(folder, 's');
    const data = { addr: { type: 'unix', data: { path } }, server: true, wait: false };
    await peer.execute('chardev-add', { id: 'c0', backend: { type: 'socket', data } });
    expect(statSync(path).mode & 0o777).toBe(0o600);
    await plug(fake, peer, { driver: 'virtserialport', id: 'p0', chardev: 'c0' }, 'p0');
    const program = connect(path);
    let seen = '';
    program.on('data', (bytes) => {
      seen += bytes;
    });
    await until(() => opened.length > 0);
    expect(opened).toMatchObject([{ name: 'p0', role: 'driver' }]);
    program.write('typed');
    await until(() => opened[0].typed === 'typed');
    opened[0].onData?.(Buffer.from('printed'));
    await until(() => seen === 'printed');
    const state = async () => (await peer.execute('query-chardev')) as { filename: string }[];
    expect((await state()).at(-1)?.filename).toBe(`unix:${path},server=on`);
    program.destroy();
    await until(() => opened.length === 0);
    expect((await state()).at(-1)?.filename).toBe(`disconnected:unix:${path},server=on`);
    for (const more of [{ wait: true }, { server: false }]) {
      const backend = { type: 'socket', data: { ...data, ...more } };
      await expect(peer.execute('chardev-add', { id: 'c1', backend })).rejects.toThrow(
        /Failed to add chardev 'c1': .* must be/,
      );
    }
  });

  test('a machine whose consoles are not shared says so', async () => {
    const { fake, peer } = await start(false);
    expect(await peer.execute('query-chardev')).toEqual([
      { label: 'com1', filename: 'console', 'frontend-open': true },
    ]);
    await expect(peer.execute('chardev-add', { id: 'c0', backend: { type: 'pty', data: {} } })).rejects.toThrow(
      /nemu run --name/,
    );
    await peer.execute('chardev-add', { id: 'c1', backend: { type: 'ringbuf', data: {} } });
    await expect(peer.execute('device_add', { driver: 'virtconsole', chardev: 'c1' })).rejects.toThrow(/are shared/);
    await plug(fake, peer, { driver: 'virtconsole', id: 'p0' }, 'p0');
  });
});

test('a ring buffer has the newest bytes, in order', () => {
  const next = random(3);
  const ring = new RingBuffer(16);
  let model: number[] = [];
  for (let round = 0; round < 2000; round++) {
    const bytes = Uint8Array.from({ length: next(40) }, () => next(256));
    ring.write(bytes);
    model = [...model, ...bytes].slice(-16);
    if (next(2)) {
      const count = next(20);
      expect([...ring.read(count)]).toEqual(model.slice(0, count));
      model = model.slice(count);
    }
  }
});
