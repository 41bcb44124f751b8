/** A stock guest whose machine is changed through QMP: by a client of npm, and by `nemu qmp`. */
import {
  closeSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { QMPClient } from 'node-qemu';
import { expect, onTestFinished, test } from 'vitest';
import { actionsOf } from '../../src/client/actions.ts';
import { runNemu } from '../support/cli.ts';
import { expectNoWarnings, PRINT_WARNINGS, TAKEN_OFFLINE } from '../support/dmesg.ts';
import { LiveGuest } from '../support/live_guest.ts';

const LIMIT_MS = 300_000;
const ROOM = ['--cpus', '1,max=4', '--memory', '512M,max=4G,slots=4', '--net', 'none', '--timeout', '280'];
const KIB_OF_256M = 256 * 1024;

/** Leads the first entry of the top table to where no table can begin (docs/interop/qcow2 of QEMU). */
function breakQcow2(path: string): void {
  const table = Number(readFileSync(path).readBigUInt64BE(40));
  const entry = Buffer.alloc(8);
  entry.writeBigUInt64BE(0x8000_0000_0000_0200n);
  const file = openSync(path, 'r+');
  writeSync(file, entry, 0, entry.length, table);
  closeSync(file);
}

test('processors and memory come and go, and everything can be asked', { timeout: LIMIT_MS }, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'nemu-qmp-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  const path = join(folder, 'qmp');
  const guest = await LiveGuest.boot([...ROOM, '--qmp', path]);
  expect(statSync(path).mode & 0o777).toBe(0o600);
  const client = new QMPClient({ socketPath: path });
  await client.connect();
  onTestFinished(() => client.close());
  const next = (name: string) =>
    new Promise<unknown>((resolve) => client.once(name as 'STOP', (...event: unknown[]) => resolve(event[0])));
  const nemuQmp = async (...words: string[]) => {
    const { status, stdout, stderr } = await runNemu(['qmp', path, ...words]);
    return { status, stdout: stdout.toString(), stderr };
  };

  // A processor: whoever asked goes on at once, the guest follows.
  const place = { 'socket-id': 0, 'core-id': 2, 'thread-id': 0 };
  const seen = next('ACPI_DEVICE_OST');
  await client.execute('device_add', { driver: 'host-x86_64-cpu', id: 'c2', ...place });
  expect(await seen).toEqual({ info: { device: 'c2', slot: '2', 'slot-type': 'CPU', source: 1, status: 0 } });
  expect(await guest.sh('until [ $(nproc) = 2 ]; do sleep 0.1; done; cat /sys/devices/system/cpu/online')).toBe('0,2');
  expect(await guest.sh("sed -n 's/^apicid.*: //p' /proc/cpuinfo | tr '\\n' ' '")).toBe('0 2');
  const cpuGone = next('DEVICE_DELETED');
  await client.deviceDel('c2');
  expect(await cpuGone).toEqual({ device: 'c2', path: '/machine/peripheral/c2' });
  expect(await guest.sh('nproc')).toBe('1');

  // Who is attached sees what was done, and takes it back: the removal, then the plug.
  const history = actionsOf(guest.machine);
  const told = () => history.done.map(({ code }) => code);
  await expect.poll(told).toEqual(["vm.plug({ kind: 'cpu', index: 2 })", "vm.unplug('cpu2')"]);
  expect(await history.undo()).toBe("vm.plug({ kind: 'cpu', index: 2 })");
  expect(await guest.sh('until [ $(nproc) = 2 ]; do sleep 0.1; done; nproc')).toBe('2');
  expect(await history.undo()).toBe("vm.unplug('cpu2')");
  expect(await guest.sh('nproc')).toBe('1');
  await expect.poll(told).toEqual([]);

  // A DIMM, by the command line.
  const total = async () => Number(await guest.sh("sed -n 's/MemTotal: *//p' /proc/meminfo | tr -dc 0-9"));
  const before = await total();
  const made = await nemuQmp('object-add', 'qom-type=memory-backend-memfd', 'id=m0', `size=${256 * 2 ** 20}`);
  expect(made).toEqual({ status: 0, stdout: '{}\n', stderr: '' });
  const taken = next('ACPI_DEVICE_OST');
  expect(await nemuQmp('device_add', 'driver=pc-dimm', 'id=d0', 'memdev=m0')).toMatchObject({ status: 0 });
  expect(await taken).toMatchObject({ info: { device: 'd0', 'slot-type': 'DIMM', status: 0 } });
  expect(await total()).toBe(before + KIB_OF_256M);
  const dimmGone = next('DEVICE_DELETED');
  await client.deviceDel('d0');
  expect(await dimmGone).toEqual({ device: 'd0', path: '/machine/peripheral/d0' });
  expect(await total()).toBe(before);
  // A disk.
  const image = join(folder, 'a.img');
  writeFileSync(image, '');
  truncateSync(image, 8 << 20);
  const file = { driver: 'file', filename: image };
  await client.execute('blockdev-add', { driver: 'raw', 'node-name': 'n0', file });
  // A serial number of digits is text, whatever else it looks like.
  const disk = ['driver=virtio-blk-pci', 'id=disk0', 'drive=n0', 'serial=0123', 'num-queues=2', 'write-cache=on'];
  expect(await nemuQmp('device_add', ...disk)).toMatchObject({ status: 0, stderr: '' });
  expect(await guest.sh('until [ -e /sys/block/vda/serial ]; do sleep 0.1; done; cat /sys/block/vda/serial')).toBe(
    '0123',
  );
  await client.execute('block_resize', { device: 'disk0', size: 16 << 20 });
  expect(await guest.sh('until [ $(cat /sys/block/vda/size) = 32768 ]; do sleep 0.1; done; echo resized')).toBe(
    'resized',
  );
  const diskGone = next('DEVICE_DELETED');
  await client.deviceDel('disk0');
  expect(await diskGone).toEqual({ device: 'disk0', path: '/machine/peripheral/disk0' });
  await client.execute('blockdev-del', { 'node-name': 'n0' });

  // A port on a bus of its own.
  await client.execute('device_add', { driver: 'virtio-serial-pci', id: 'vs' });
  await client.execute('chardev-add', { id: 'c0', backend: { type: 'null', data: {} } });
  const opened = next('VSERPORT_CHANGE');
  const port = { driver: 'virtserialport', id: 'p0', bus: 'vs.0', chardev: 'c0', name: 'org.nemu.test' };
  await client.execute('device_add', port);
  // Its file is there before it may be opened, and would be made if it were not.
  const node = '/dev/vport0p0';
  await guest.sh(`until [ -c ${node} ] && (: >${node}) 2>/dev/null; do sleep 0.1; done`);
  expect(await opened).toEqual({ id: 'p0', open: true });
  const portGone = next('DEVICE_DELETED');
  await client.deviceDel('p0');
  expect(await portGone).toEqual({ device: 'p0', path: '/machine/peripheral/p0' });
  await client.execute('chardev-remove', { id: 'c0' });
  await client.deviceDel('vs');

  expect(await nemuQmp('device_del', 'id=d0')).toEqual({
    ...{ status: 1, stdout: '', stderr: "nemu: DeviceNotFound: Device 'd0' not found\n" },
  });
  expect(await nemuQmp('device_dell')).toMatchObject({ status: 2, stderr: expect.stringContaining('device_del') });
  const shell = await runNemu(['qmp', path], {
    input: Buffer.from('query-name\nnope\nqom-get path=/ property=type\n'),
  });
  expect(shell).toMatchObject({ status: 1, stderr: '' });
  expect(shell.stdout.toString()).toMatch(/"name": "nemu"(.|\n)*no command "nope"(.|\n)*container/);

  // What it says of PCI is what the guest has found.
  const inGuest = await guest.sh(
    'cd /sys/bus/pci/devices; for i in *; do echo $i $(cat $i/vendor) $(cat $i/device); done',
  );
  type Found = { bus: number; slot: number; function: number; id: { vendor: number; device: number } };
  type Device = Found & { pci_bridge?: { devices?: Device[] } };
  const flat = (list: Device[]): Device[] => list.flatMap((each) => [each, ...flat(each.pci_bridge?.devices ?? [])]);
  const [{ devices }] = (await client.execute('query-pci')) as { devices: Device[] }[];
  const hex = (value: number, digits: number) => value.toString(16).padStart(digits, '0');
  expect(
    flat(devices)
      .map(
        ({ bus, slot, function: fn, id }) =>
          `0000:${hex(bus, 2)}:${hex(slot, 2)}.${fn} 0x${hex(id.vendor, 4)} 0x${hex(id.device, 4)}`,
      )
      .sort(),
  ).toEqual(inGuest.split('\n').sort());

  // The guest stands still: its clock does, too.
  const stopped = next('STOP');
  await client.stop();
  await stopped;
  expect(guest.machine.state).toBe('paused');
  const [first, second] = [
    await client.humanMonitorCommand('info registers'),
    await client.humanMonitorCommand('info registers'),
  ];
  expect(first).toMatch(/^\r\nCPU#0\r\nRIP=|RAX=/);
  expect(second).toBe(first);
  await client.cont();
  expectNoWarnings(await guest.sh(`{ ${PRINT_WARNINGS}; } 2>&1`), TAKEN_OFFLINE);

  // An image whose first table is nowhere: the guest is told of the error, and the machine goes on.
  const bad = join(folder, 'bad.qcow2');
  expect(await runNemu(['image', 'create', bad, '4M'])).toMatchObject({ status: 0, stderr: '' });
  breakQcow2(bad);
  const failed = next('BLOCK_IO_ERROR');
  const badFile = { driver: 'file', filename: bad };
  await client.execute('blockdev-add', { driver: 'qcow2', 'node-name': 'n1', file: badFile });
  await client.execute('device_add', { driver: 'virtio-blk', id: 'bad', drive: 'n1', rerror: 'report' });
  expect(await guest.sh('until [ -b /dev/vda ]; do sleep 0.1; done; cat /dev/vda 2>&1')).toContain('error');
  expect(await failed).toEqual({
    ...{ device: 'bad', 'node-name': 'n1', operation: 'read', action: 'report', nospace: false },
    reason: expect.stringMatching(/^EIO at byte \d+$/),
  });
  expect(guest.machine.state).toBe('running');

  // The button, and the end.
  const [pressed, over] = [next('POWERDOWN'), next('SHUTDOWN')];
  await client.systemPowerdown();
  await pressed;
  await guest.end();
  expect(await over).toEqual({ guest: true, reason: 'guest-shutdown' });
});
