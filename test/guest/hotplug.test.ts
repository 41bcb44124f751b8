/** Processors and DIMMs come to a stock guest, are used, and leave it again. */
import { expect, test } from 'vitest';
import type { MachineEvent } from '../../src/client/machine_client.ts';
import { expectNoWarnings, PRINT_WARNINGS, TAKEN_OFFLINE } from '../support/dmesg.ts';
import { LiveGuest } from '../support/live_guest.ts';

const LIMIT_MS = 300_000;
const ROOM = ['--cpus', '1,max=4', '--memory', '512M,max=4G,slots=4', '--net', 'none', '--timeout', '280'];
const KIB_OF_256M = 256 * 1024;

const totalKib = async (guest: LiveGuest) =>
  Number(await guest.sh("sed -n 's/MemTotal: *//p' /proc/meminfo | tr -dc 0-9"));
/** Online in the machine's sense is started: the kernel counts it a moment later. */
const nproc = (guest: LiveGuest, count: number) => guest.sh(`until [ $(nproc) = ${count} ]; do sleep 0.1; done; nproc`);

test('CPUs and memory come and go, a busy DIMM stays, and a reset finds what is there', {
  timeout: LIMIT_MS,
}, async () => {
  const guest = await LiveGuest.boot(ROOM);
  const { machine } = guest;
  const stages: string[] = [];
  machine.onEvent((event: MachineEvent) => {
    if (event.type !== 'request') return;
    stages.push(`${event.request.action} ${event.request.device.id} ${event.request.stage}`);
  });
  const sinceThen = () => stages.splice(0);
  const through = (what: string, ...list: string[]) => list.map((stage) => `${what} ${stage}`);
  expect(await guest.sh('nproc')).toBe('1');
  const before = await totalKib(guest);

  await machine.plug({ kind: 'cpu' });
  expect(sinceThen()).toEqual(through('plug cpu1', 'reserved', 'notified', 'accepted', 'online'));
  expect(await nproc(guest, 2)).toBe('2');
  await machine.plug({ kind: 'cpu', index: 3 });
  expect(await nproc(guest, 3)).toBe('3');
  // Work is done on it, and its APIC id is the one that its place has.
  expect(await guest.sh("taskset 8 sed -n 's/^apicid.*: //p' /proc/cpuinfo | tr '\\n' ' '")).toBe('0 1 3');
  sinceThen();
  await machine.unplug('cpu3');
  expect(sinceThen()).toEqual(through('unplug cpu3', 'reserved', 'notified', 'accepted', 'removed'));
  expect(await guest.sh('nproc')).toBe('2');
  expect((await machine.counters()).vcpus.map(({ index }) => index)).toEqual([0, 1]);
  // Its vCPU in KVM is used again.
  await machine.plug({ kind: 'cpu', index: 3 });
  expect(await nproc(guest, 3)).toBe('3');
  sinceThen();

  await machine.plug({ kind: 'memory', size: '256M' });
  expect(sinceThen()).toEqual(through('plug dimm0', 'reserved', 'notified', 'online'));
  expect(await totalKib(guest)).toBe(before + KIB_OF_256M);
  expect(await guest.sh('cat /sys/devices/system/memory/memory32/valid_zones')).toBe('Movable');
  // More than there was at boot; it moves away again, or goes, when the DIMM does.
  const fill = 'mount -o size=90% -t tmpfs none /mnt && dd if=/dev/zero of=/mnt/x bs=1M count=420 2>/dev/null && sync';
  expect(await guest.sh(`${fill} && wc -c </mnt/x; rm /mnt/x`)).toBe(String(420 * 2 ** 20));
  await machine.unplug('dimm0');
  expect(sinceThen()).toEqual(through('unplug dimm0', 'reserved', 'notified', 'accepted', 'removed'));
  expect(await totalKib(guest)).toBe(before);
  expect(
    await guest.sh(`{ ${PRINT_WARNINGS}; } 2>&1`).then((text) => expectNoWarnings(text, TAKEN_OFFLINE)),
  ).toBeUndefined();

  // Memory in which the kernel itself has things cannot leave.
  await machine.plug({ kind: 'memory', size: '128M', id: 'stuck' });
  const block = '/sys/devices/system/memory/memory32/state';
  const files = 'i=0; while [ $i -lt 2000 ]; do : >/mnt/$i; i=$((i+1)); done';
  expect(await guest.sh(`echo offline >${block}; echo online_kernel >${block}; ${files}; cat ${block}`)).toBe('online');
  await expect(machine.unplug('stuck')).rejects.toMatchObject({
    code: 'REFUSED',
    message: 'stuck was not unplugged: The guest refused: the device is busy (_OST 0x82).',
  });
  expect(await totalKib(guest)).toBe(before + KIB_OF_256M / 2);
  await expect(machine.plug({ kind: 'memory', size: '4G' })).rejects.toMatchObject({ code: 'MEMORY_LIMIT' });

  await machine.reset();
  await guest.ready();
  expect(await nproc(guest, 3)).toBe('3');
  expect(await totalKib(guest)).toBeGreaterThan(before + 120 * 1024);
  await Promise.all([machine.unplug('stuck'), machine.unplug('cpu1')]);
  expect(await guest.sh('nproc')).toBe('2');
  expect(await machine.plugged()).toMatchObject({
    cpus: { present: [{ id: 'cpu0' }, { id: 'cpu3' }], max: 4 },
    memory: { dimms: [], slots: 4 },
  });
  expect((await guest.end()).status).toBe(0);
});

test('without PCI Express they come and go too', { timeout: LIMIT_MS }, async () => {
  const guest = await LiveGuest.boot(['--machine', 'pc', ...ROOM]);
  const { machine } = guest;
  const before = await totalKib(guest);
  await Promise.all([
    machine.plug({ kind: 'cpu' }),
    machine.plug({ kind: 'cpu' }),
    machine.plug({ kind: 'memory', size: '256M', backend: 'memfd' }),
  ]);
  expect(await nproc(guest, 3)).toBe('3');
  expect(await totalKib(guest)).toBe(before + KIB_OF_256M);
  await Promise.all([machine.unplug('cpu2'), machine.unplug('dimm0')]);
  expect(await guest.sh('nproc')).toBe('2');
  expect(await totalKib(guest)).toBe(before);
  expect((await guest.end()).status).toBe(0);
});
