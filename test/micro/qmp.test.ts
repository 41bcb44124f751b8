/** A machine through QMP, by clients that are not ours: the guest's part is played by the test. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { QMPClient } from 'node-qemu';
import OldClient from 'qemu-qmp';
import { afterAll, describe, expect, onTestFinished, test } from 'vitest';
import { serveQmpSocket } from '../../src/cli/control_socket.ts';
import type { MachineInput } from '../../src/client/description.ts';
import { COMMANDS } from '../../src/qmp/commands/index.ts';
import { microPlace } from '../support/micro.ts';
import { QmpPeer } from '../support/qmp.ts';
import { RegisterGuest } from '../support/register_guest.ts';

const { boot } = microPlace();
const folder = mkdtempSync(join(tmpdir(), 'nemu-qmp-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** docs/specs/acpi_mem_hotplug and acpi_cpu_hotplug of QEMU, at q35's places. */
const MEM = { SELECTOR: 0xa00, OST_EVENT: 0xa04, OST_STATUS: 0xa08, FLAGS: 0xa14 } as const;
const CPU = { SELECTOR: 0xcd8, FLAGS: 0xcdc, COMMAND: 0xcdd, DATA: 0xce0 } as const;
const EJECT = 8;
const MiB = 2 ** 20;

const MINIMAL: Partial<MachineInput> = { cpus: { count: 1 }, memory: { size: '16M' } };

let count = 0;
async function start(more: Partial<MachineInput> = {}) {
  const room = { cpus: { count: 1, max: 4 }, memory: { size: '16M', max: '1G', slots: 3 } };
  const guest = await RegisterGuest.start(boot, { ...room, ...more });
  const path = join(folder, `qmp${count++}`);
  const end = await serveQmpSocket(`unix:${path},server=on,wait=off`, guest.machine);
  onTestFinished(async () => {
    end();
    await guest.machine.close();
  });
  return { guest, path };
}

async function modern(path: string): Promise<QMPClient> {
  const client = new QMPClient({ socketPath: path });
  await client.connect();
  onTestFinished(() => client.close());
  return client;
}

const nextEvent = (client: QMPClient, name: string) =>
  new Promise<unknown>((resolve) => client.once(name as 'STOP', (...event: unknown[]) => resolve(event[0])));

describe('clients of npm', () => {
  test('a DIMM comes, is refused to go, and goes, by node-qemu', async () => {
    const { guest, path } = await start();
    expect(statSync(path).mode & 0o777).toBe(0o600);
    const client = await modern(path);
    expect(await client.queryStatus()).toMatchObject({ status: 'running', running: true });
    await client.execute('object-add', { 'qom-type': 'memory-backend-ram', id: 'm1', size: 128 * MiB });
    // It answers although no guest has looked at the event.
    await client.deviceAdd({ driver: 'pc-dimm', id: 'd1', memdev: 'm1' });
    expect(await client.queryMemoryDevices()).toMatchObject([
      { type: 'dimm', data: { id: 'd1', size: 128 * MiB, memdev: '/objects/m1', slot: 0, hotplugged: true } },
    ]);
    const accepted = nextEvent(client, 'ACPI_DEVICE_OST');
    await guest.out32(MEM.SELECTOR, 0);
    await guest.out32(MEM.OST_EVENT, 1);
    await guest.out32(MEM.OST_STATUS, 0);
    expect(await accepted).toEqual({ info: { device: 'd1', slot: '0', 'slot-type': 'DIMM', source: 1, status: 0 } });
    expect(await client.queryMemorySizeSummary()).toMatchObject({ 'plugged-memory': 128 * MiB });

    const refused = nextEvent(client, 'DEVICE_UNPLUG_GUEST_ERROR');
    await client.deviceDel('d1');
    await guest.out32(MEM.OST_EVENT, 3);
    await guest.out32(MEM.OST_STATUS, 0x82);
    expect(await refused).toEqual({ device: 'd1', path: '/machine/peripheral/d1' });
    const deleted = nextEvent(client, 'DEVICE_DELETED');
    await client.deviceDel('d1');
    await guest.out8(MEM.FLAGS, EJECT);
    expect(await deleted).toEqual({ device: 'd1', path: '/machine/peripheral/d1' });
    await client.objectDel('m1');
    expect(await client.queryMemoryDevices()).toEqual([]);
  });

  test('a vCPU comes, and goes, by node-qemu; another client sees it by its name', async () => {
    const { guest, path } = await start();
    const client = await modern(path);
    const place = { 'socket-id': 0, 'core-id': 2, 'thread-id': 0 };
    await client.execute('device_add', { driver: 'host-x86_64-cpu', id: 'c2', ...place });
    const other = await modern(path);
    expect((await other.queryCpusFast()).map((cpu) => cpu['qom-path'])).toEqual([
      '/machine/unattached/device[0]',
      '/machine/peripheral/c2',
    ]);
    expect(await other.queryHotpluggableCpus()).toHaveLength(4);
    await expect(client.deviceAdd({ driver: 'host-x86_64-cpu', id: 'c3', ...place } as never)).rejects.toThrow(
      /exists/,
    );
    await guest.out32(CPU.SELECTOR, 2);
    const gone = nextEvent(other, 'DEVICE_DELETED');
    // The guest lets go of what it never used: the plug is refused, and the device is out.
    await guest.out8(CPU.FLAGS, EJECT);
    expect(await gone).toEqual({ device: 'c2', path: '/machine/peripheral/c2' });
  });

  test('a client of 2014 that sends no id, by qemu-qmp', async () => {
    const { guest, path } = await start();
    const client = new OldClient();
    onTestFinished(() => void client.destroy());
    await new Promise<void>((resolve, reject) => client.connect(path, (error) => (error ? reject(error) : resolve())));
    const execute = (command: string, args?: object) =>
      new Promise<unknown>((resolve, reject) => {
        const done = (error: Error | null, value: unknown) => (error ? reject(error) : resolve(value));
        if (args) client.execute(command, args, done);
        else client.execute(command, done);
      });
    const stopped = new Promise((resolve) => client.once('stop', resolve));
    expect(client.version).toMatchObject({ qemu: { major: 7 } });
    await execute('stop');
    await stopped;
    expect(await execute('query-status')).toMatchObject({ status: 'paused', running: false });
    expect(guest.machine.state).toBe('paused');
    await execute('cont');
    expect(await execute('query-name')).toEqual({ name: 'micro' });
    await expect(execute('nope')).rejects.toThrow('The command nope has not been found');
  });
});

test('a guest that sets its clock is told of', async () => {
  const { guest, path } = await start();
  const client = await modern(path);
  const told = nextEvent(client, 'RTC_CHANGE');
  const register = async (index: number, value: number) => {
    await guest.out8(0x70, index);
    await guest.out8(0x71, value);
  };
  // SET holds the time while its century is written, in BCD.
  await register(11, 0x82);
  await register(0x32, 0x21);
  await register(11, 0x02);
  const { offset, 'qom-path': where } = (await told) as { offset: number; 'qom-path': string };
  expect(offset / (365.25 * 86400)).toBeCloseTo(100, 0);
  expect(await client.execute('qom-get', { path: where, property: 'type' })).toBe('mc146818rtc');
});

test('quit answers, tells everybody, and ends the machine', async () => {
  const { guest, path } = await start();
  const [client, other] = [await modern(path), await modern(path)];
  const actions: string[] = [];
  guest.machine.onEvent((event) => event.type === 'action' && actions.push(event.text));
  const told = nextEvent(other, 'SHUTDOWN');
  await client.quit();
  expect(await told).toEqual({ guest: false, reason: 'host-qmp-quit' });
  expect(await guest.machine.ended()).toMatchObject({ reason: 'quit' });
  expect(actions).toEqual(['QMP: quit']);
});

test.each(['q35', 'pc', 'minimal'] as const)(
  'every question has an answer of the shape that its schema says, on %s',
  async (machine) => {
    const imageOf = (machine: string) => {
      const disk = join(folder, `${machine}.img`);
      writeFileSync(disk, '');
      truncateSync(disk, 4 * MiB);
      return disk;
    };
    const full = (machine: string): Partial<MachineInput> => ({
      disks: [{ file: imageOf(machine), throttle: { iops: 1000 } }],
      rng: true,
      devices: [{ type: 'virtio-balloon' }],
    });
    const { path } = await start({
      machine,
      ...(machine === 'minimal' ? { ...MINIMAL, disks: [{ file: imageOf(machine) }] } : full(machine)),
    });
    const peer = new QmpPeer(connect(path));
    await peer.negotiate();
    for (const { name, args, returns } of COMMANDS) {
      if (!/^query-|^qom-list/.test(name)) continue;
      const needed = name === 'qom-list' ? { path: '/machine' } : undefined;
      if (!args.safeParse(needed ?? {}).success) continue;
      const answer = await peer.ask({ execute: name, ...(needed && { arguments: needed }) });
      if (machine === 'minimal' && name === 'query-balloon') {
        expect(answer.error?.class).toBe('DeviceNotActive');
        continue;
      }
      expect(returns.safeParse(answer.return).error, `${name}: ${JSON.stringify(answer)}`).toBeUndefined();
    }
    for (const topic of ((await peer.execute('human-monitor-command', { 'command-line': 'info' })) as string).split(
      '\r\n',
    )) {
      const [line] = topic.split(' --');
      if (machine === 'minimal' && line.includes('balloon')) continue;
      const said = (await peer.execute('human-monitor-command', { 'command-line': line.trim() })) as string;
      expect(said, line).not.toMatch(/^(Error|unknown)|undefined/);
    }
    for (const { qdev } of (await peer.execute('query-block')) as { qdev: string }[]) {
      expect(await peer.execute('qom-get', { path: qdev, property: 'type' })).toBe('virtio-blk-device');
    }
    if (machine === 'minimal') return;
    const names = (await peer.execute('qom-list', { path: '/machine/peripheral' })) as { name: string; type: string }[];
    expect(names).toContainEqual({ name: 'vda', type: 'child<virtio-blk-pci>' });
    const balloon = names.find(({ type }) => type === 'child<virtio-balloon-pci>') as { name: string };
    const at = { path: `/machine/peripheral/${balloon.name}` };
    await peer.execute('qom-set', { ...at, property: 'guest-stats-polling-interval', value: 5 });
    expect(await peer.execute('qom-get', { ...at, property: 'guest-stats-polling-interval' })).toBe(5);
    expect(await peer.execute('qom-get', { ...at, property: 'guest-stats' })).toMatchObject({ stats: {} });
    const limits = { bps: 0, bps_rd: 0, bps_wr: 0, iops: 0, iops_rd: 50, iops_wr: 0 };
    await peer.execute('block_set_io_throttle', { device: 'vda', ...limits });
    expect(await peer.execute('query-block')).toMatchObject([
      { device: 'vda', inserted: { iops: 0, iops_rd: 50, drv: 'raw', image: { 'virtual-size': 4 * MiB } } },
    ]);
    await peer.execute('block_resize', { device: 'vda', size: 8 * MiB });
    expect(await peer.execute('query-block')).toMatchObject([{ inserted: { image: { 'virtual-size': 8 * MiB } } }]);
    const medium = imageOf(`${machine}-other`);
    await peer.execute('blockdev-change-medium', { device: 'vda', filename: medium, format: 'raw' });
    expect(await peer.execute('query-block')).toMatchObject([{ inserted: { file: medium } }]);
    expect(await peer.execute('query-balloon')).toEqual({ actual: 16 * MiB });
  },
);

test("the guest's memory goes to files, by both kinds of address", async () => {
  const { guest, path } = await start();
  const peer = new QmpPeer(connect(path));
  await peer.negotiate();
  await guest.store8(0x8000, 0x41);
  const [physical, virtual] = [join(folder, 'physical'), join(folder, 'virtual')];
  await peer.execute('pmemsave', { val: 0x8000, size: 3 * MiB, filename: physical });
  expect(statSync(physical)).toMatchObject({ size: 3 * MiB, mode: 0o100600 });
  await peer.execute('memsave', { val: 0x8000, size: 16, filename: virtual });
  expect(readFileSync(virtual)).toEqual(readFileSync(physical).subarray(0, 16));
  expect(readFileSync(virtual)[0]).toBe(0x41);
  for (const args of [
    { val: 2 ** 40, size: 16, filename: physical },
    { val: 0, size: 16, filename: '/nope/x' },
  ]) {
    await expect(peer.execute('pmemsave', args)).rejects.toThrow(/GenericError/);
  }

  const core = join(folder, 'core');
  await peer.execute('dump-guest-memory', { paging: false, protocol: `file:${core}` });
  for (const event of ['STOP', 'RESUME', 'DUMP_COMPLETED']) await peer.event(event);
  expect(await peer.execute('query-dump')).toEqual({ status: 'completed', completed: 16 * MiB, total: 16 * MiB });
  const bytes = readFileSync(core);
  expect(bytes.subarray(-16 * MiB)[0x8000]).toBe(0x41);
  // The judge is binutils, where it is installed.
  const readelf = spawnSync('readelf', ['-hln', core], { encoding: 'utf8' });
  if (readelf.status !== null) {
    expect(readelf.stderr).toBe('');
    expect(readelf.stdout).toMatch(/CORE \(Core file\)/);
    expect(readelf.stdout).toMatch(/LOAD +0x0*1000 0x0+ 0x0+\s+0x0*1000000 0x0*1000000/);
    expect(readelf.stdout).toMatch(/CORE +0x00000150\s+NT_PRSTATUS/);
  }
  for (const args of [
    { paging: true, protocol: `file:${core}` },
    { paging: false, protocol: 'fd:x' },
    { paging: false, protocol: `file:${core}`, begin: 0 },
    { paging: false, protocol: `file:${core}`, begin: 2 ** 40, length: 1 },
  ]) {
    await expect(peer.execute('dump-guest-memory', args)).rejects.toThrow(/GenericError/);
  }
});
