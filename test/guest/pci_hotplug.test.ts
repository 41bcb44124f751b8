/** Devices of PCI come to a stock guest, are used, and leave it again; a switch brings more places. */
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import type { MachineEvent } from '../../src/client/machine_client.ts';
import { LiveGuest } from '../support/live_guest.ts';

const LIMIT_MS = 300_000;
const OPTIONS = ['--memory', '512M', '--net', 'none', '--pcie', 'root-ports=2,buses=5', '--timeout', '280'];

test('disks, cards and switches come and go at ports of PCI Express', { timeout: LIMIT_MS }, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'nemu-pci-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  const [first, second] = ['a.img', 'b.img'].map((name) => {
    const path = join(folder, name);
    writeFileSync(path, '');
    truncateSync(path, 8 * 2 ** 20);
    return path;
  }) as [string, string];
  const guest = await LiveGuest.boot(OPTIONS);
  const { machine } = guest;
  const stages: string[] = [];
  machine.onEvent((event: MachineEvent) => {
    if (event.type === 'request')
      stages.push(`${event.request.action} ${event.request.device.id} ${event.request.stage}`);
  });
  const through = (what: string, ...list: string[]) => list.map((stage) => `${what} ${stage}`);
  const sectors = (disk: string) =>
    guest.sh(`until [ -e /sys/block/${disk}/size ]; do sleep 0.1; done; cat /sys/block/${disk}/size`);

  // A switch first: it takes one port and brings two.
  await machine.plug({ kind: 'pci', type: 'pcie-switch', ports: 2 });
  expect(stages.splice(0)).toEqual(through('plug sw0', 'reserved', 'notified', 'accepted', 'online'));
  const places = (await machine.plugged()).pci.ports.filter(({ kind }) => kind === 'port');
  expect(places.map(({ id, device }) => [id, device])).toEqual([
    ...[['rp0', 'sw0'] as const, ['rp1', undefined] as const],
    ...[['sw0.0', undefined] as const, ['sw0.1', undefined] as const],
  ]);
  await machine.plug({ kind: 'pci', type: 'virtio-blk', id: 'deep', file: first, port: 'sw0.0' });
  expect(stages.splice(0)).toEqual(through('plug deep', 'reserved', 'notified', 'accepted', 'online'));
  expect(await sectors('vda')).toBe(String((8 * 2 ** 20) / 512));
  expect(await guest.sh('echo hello | dd of=/dev/vda conv=fsync 2>/dev/null; head -c 5 /dev/vda')).toBe('hello');
  expect(readFileSync(first).subarray(0, 5).toString()).toBe('hello');

  // It is a disk as those of the start are.
  expect(await machine.disks()).toMatchObject([{ name: 'deep', file: first, size: 8 * 2 ** 20 }]);
  await machine.changeDisk('deep', { action: 'resize', size: 12 * 2 ** 20 });
  expect(await guest.sh('until [ $(cat /sys/block/vda/size) = 24576 ]; do sleep 0.1; done; echo grown')).toBe('grown');

  // What cannot be is refused before anything is touched.
  await expect(machine.plug({ kind: 'pci', type: 'virtio-blk', id: 'deep', file: second })).rejects.toMatchObject({
    message: expect.stringContaining('There is a deep already.'),
  });
  await expect(machine.plug({ kind: 'pci', type: 'virtio-blk', file: first })).rejects.toMatchObject({
    message: expect.stringContaining('is in use: it is deep of this machine.'),
  });
  await expect(machine.unplug('sw0')).rejects.toMatchObject({ message: 'sw0 has deep behind it.' });
  expect(stages.splice(0)).toEqual([]);

  await machine.plug({ kind: 'pci', type: 'virtio-rng' });
  await machine.plug({ kind: 'pci', type: 'virtio-net', id: 'card' });
  expect(await guest.sh('ls /sys/class/net | tr "\\n" " "')).toContain('eth0');
  expect(await machine.nets()).toMatchObject([{ name: 'card', link: true }]);
  await expect(machine.plug({ kind: 'pci', type: 'virtio-blk', file: second })).rejects.toMatchObject({
    message: expect.stringContaining('All 4 hot-plug ports are taken.'),
    hint: expect.stringContaining('--pcie root-ports='),
  });
  stages.splice(0);

  // The guest lets go, and then the image is free for another disk.
  await machine.unplug('deep');
  expect(stages.splice(0)).toEqual(through('unplug deep', 'reserved', 'notified', 'accepted', 'removed'));
  expect(await guest.sh('ls /sys/block')).not.toContain('vda');
  expect(await machine.disks()).toEqual([]);

  // A console comes with its stream, and its name can be used again.
  for (let times = 0; times < 2; times++) {
    await machine.plug({ kind: 'pci', type: 'virtio-console', id: 'extra' });
    expect(await guest.sh('until (echo x >/dev/hvc0) 2>/dev/null; do sleep 0.1; done; echo taken')).toBe('taken');
    await machine.unplug('extra');
  }

  await machine.plug({ kind: 'pci', type: 'virtio-blk', id: 'again', file: first });
  expect(await sectors('vda')).toBe('24576');

  // By force the guest is not asked, and the host has all of it back.
  stages.splice(0);
  await machine.unplug('card', { force: true });
  expect(stages.splice(0)).toEqual(through('unplug card', 'reserved', 'notified', 'removed'));
  expect(await machine.nets()).toEqual([]);
  // The guest tidies up, and takes another device at the same port.
  await machine.plug({ kind: 'pci', type: 'virtio-net', id: 'next' });
  expect(stages.splice(0)).toEqual(through('plug next', 'reserved', 'notified', 'accepted', 'online'));
  await machine.unplug('again', { force: true });
  expect(await guest.sh('while [ -e /sys/block/vda ]; do sleep 0.1; done; ls /sys/class/net | tr "\\n" " "')).toContain(
    'eth0',
  );
  expect((await guest.end()).status).toBe(0);
});
