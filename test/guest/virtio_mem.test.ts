/** A stock guest whose memory grows and shrinks by blocks (virtio-mem), from the machine and through QMP. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, onTestFinished, test } from 'vitest';
import { runNemu } from '../support/cli.ts';
import { expectNoWarnings, PRINT_WARNINGS, TAKEN_OFFLINE } from '../support/dmesg.ts';
import { LiveGuest } from '../support/live_guest.ts';

const LIMIT_MS = 300_000;
const MiB = 2 ** 20;
const DEVICE = 'virtio-mem,size=1G,requested=128M,id=more';

test('memory grows, shrinks, stays where the guest keeps it, and is given back', { timeout: LIMIT_MS }, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'nemu-virtio-mem-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  const qmp = join(folder, 'qmp');
  const options = ['--on', 'lab', '--memory', '512M,max=1G', '--net', 'none', '--timeout', '280'];
  const guest = await LiveGuest.boot([...options, '--device', DEVICE, '--qmp', qmp]);
  const { machine } = guest;
  const total = async () => Number(await guest.sh("sed -n 's/MemTotal: *//p' /proc/meminfo | tr -dc 0-9")) / 1024;
  const report = async () => {
    const [found] = (await machine.plugged()).memory.virtio;
    return found;
  };
  const resident = async () => (await machine.memoryMap()).find(({ dimm }) => dimm === 'more')?.resident ?? -1;
  const until = async (what: () => Promise<boolean>) => {
    while (!(await what())) await sleep(100);
  };
  // The driver tells of blocks before the kernel has them in use.
  const totalIs = (wanted: number) => until(async () => Math.abs((await total()) - wanted) < 0.5);

  // What is asked for at the start, the guest plugs by itself.
  await until(async () => (await report()).plugged === 128 * MiB);
  await until(async () => Number(await guest.sh('grep -c "System RAM (virtio_mem)" /proc/iomem')) > 0);
  await until(async () => (await guest.sh('cat /sys/devices/system/memory/memory100/state')) === 'online');
  const start = (await total()) - 128;

  const more = await machine.resizeMemory('more', '640M');
  expect(more.history.map(({ stage }) => stage)).toEqual(['reserved', 'notified', 'accepted', 'reached']);
  expect(more).toMatchObject({ action: 'resize', size: 640 * MiB, device: { kind: 'virtio-mem', id: 'more' } });
  await totalIs(start + 640);
  expect(await report()).toMatchObject({ plugged: 640 * MiB, driver: true, memslots: { used: 5, all: 8 } });

  // What is in use is the host's to give, and the host has it back with the blocks.
  await guest.sh('mkdir -p /t; mount -t tmpfs -o size=90% none /t; dd if=/dev/zero of=/t/a bs=1M count=100 2>&1');
  expect(await resident()).toBeGreaterThan(90 * MiB);
  await guest.sh('rm /t/a');
  await machine.resizeMemory('more', 0);
  await totalIs(start);
  expect(await report()).toMatchObject({ plugged: 0, requested: 0, memslots: { used: 0 } });
  expect(await resident()).toBe(0);

  // A guest that keeps its memory: what it has is said, and another size takes the place of the first.
  await machine.resizeMemory('more', '256M');
  await guest.sh('echo N >/sys/module/virtio_mem/parameters/unplug_online');
  await expect(machine.resizeMemory('more', '64M', { timeoutMs: 2000 })).rejects.toMatchObject({
    code: 'GUEST_TIMEOUT',
    message:
      'more was not resized: The guest took longer than 2 s. What it did last: it has 256 MiB plugged, of 64 MiB that are asked for.',
  });
  const kept = machine.resizeMemory('more', '32M');
  kept.catch(() => {});
  await guest.sh('echo Y >/sys/module/virtio_mem/parameters/unplug_online');
  await machine.resizeMemory('more', '128M');
  await expect(kept).rejects.toMatchObject({
    code: 'REFUSED',
    message: 'more was not resized: Another size was asked for meanwhile, 128 MiB.',
  });
  await totalIs(start + 128);

  for (const [id, size, message] of [
    ['most', '1G', 'There is no virtio-mem device most in this machine.'],
    ['more', '2G', 'more has room for 1 GiB: it cannot be 2 GiB.'],
    ['more', '3M', '3145728 bytes are not a multiple of the block size of more, 2 MiB.'],
  ] as const) {
    await expect(machine.resizeMemory(id, size)).rejects.toThrow(message);
  }
  await expect(machine.unplug('more')).rejects.toMatchObject({
    message: 'The guest has 128 MiB of more plugged.',
    hint: "Ask for nothing of it first: vm.memory.resize('more', 0).",
  });

  // One that comes later, and goes.
  const late = { kind: 'pci', type: 'virtio-mem', id: 'late', size: '256M', requested: '128M' } as const;
  await expect(machine.plug({ ...late, size: '1G' })).rejects.toThrow("above this machine's limit of 1 GiB");
  await expect(machine.plug({ ...late, requested: '3M' })).rejects.toThrow('requested=3145728 is not a multiple');
  const came = await machine.plug(late);
  expect(came).toMatchObject({ stage: 'online', device: { memory: { address: 2 ** 32, size: 256 * MiB } } });
  await totalIs(start + 256);
  await expect(machine.unplug('late', { force: true })).rejects.toThrow('The guest has 128 MiB of late plugged.');
  await machine.resizeMemory('late', 0);
  await totalIs(start + 128);
  expect(await machine.unplug('late')).toMatchObject({ stage: 'removed' });
  expect((await machine.plugged()).memory.virtio.map(({ id }) => id)).toEqual(['more']);
  expect((await machine.memoryMap()).some(({ dimm }) => dimm === 'late')).toBe(false);

  // Persistent memory that comes later: what the guest stores is in the file when it has gone.
  const file = join(folder, 'pmem.img');
  const pmem = { kind: 'pci', type: 'virtio-pmem', id: 'pm', file, size: '64M' } as const;
  await expect(machine.plug({ ...pmem, size: '3000' })).rejects.toThrow(/3000 bytes/);
  await machine.plug(pmem);
  await until(async () => (await guest.sh('ls /dev/pmem0 2>/dev/null')) !== '');
  expect(await guest.sh('blockdev --getsize64 /dev/pmem0')).toBe(String(64 * MiB));
  await expect(machine.plug({ ...pmem, id: 'again' })).rejects.toThrow(/pmem\.img/);
  // Not where the one before was: the guest may still hold those addresses.
  const address = 2 ** 32 + 256 * MiB;
  expect((await machine.memoryMap()).find(({ dimm }) => dimm === 'pm')).toMatchObject({ address });
  await guest.sh('printf lasting | dd of=/dev/pmem0 conv=fsync 2>/dev/null');
  expect(await machine.unplug('pm')).toMatchObject({ stage: 'removed' });
  expect(readFileSync(file).toString('latin1', 0, 7)).toBe('lasting');
  await machine.plug(pmem);
  await until(async () => (await guest.sh('ls /dev/pmem0 2>/dev/null')) !== '');
  expect(await guest.sh('head -c 7 /dev/pmem0')).toBe('lasting');

  const ask = async (...words: string[]) => {
    const { status, stdout, stderr } = await runNemu(['qmp', qmp, ...words]);
    expect(status, stderr).toBe(0);
    return JSON.parse(stdout.toString() || '{}') as unknown;
  };
  const path = '/machine/peripheral/more';
  await ask('qom-set', `path=${path}`, 'property=requested-size', `value=${384 * MiB}`);
  await until(async () => (await report()).plugged === 384 * MiB);
  expect(await ask('query-memory-devices')).toEqual([
    { type: 'virtio-pmem', data: { id: 'pm', memaddr: address, size: 64 * MiB, memdev: '/objects/mempm' } },
    {
      type: 'virtio-mem',
      data: {
        ...{
          id: 'more',
          memaddr: 2 ** 32 + 512 * MiB + 8192 * MiB,
          'requested-size': 384 * MiB,
          size: 384 * MiB,
          'max-size': 1024 * MiB,
        },
        ...{ 'block-size': 2 * MiB, node: 0, memdev: '/objects/memmore' },
      },
    },
  ]);

  await guest.sh(PRINT_WARNINGS);

  // A machine that is reset has nothing plugged, and asks its next guest for the same.
  if (process.env.NEMU_TEST_LONG !== undefined) {
    await machine.reset();
    await guest.ready();
    await until(async () => (await report()).plugged === 384 * MiB);
    await totalIs(start + 384);
    await guest.sh(PRINT_WARNINGS);
  }
  const { status, stderr } = await guest.end();
  expect(status, stderr).toBe(0);
  // Linux says so of every virtio-pmem: its region has no mappings of DIMMs (nvdimm_has_flush).
  const flushed = /nd_pmem namespace0.0: unable to guarantee persistence of writes/;
  expectNoWarnings(stderr, [...TAKEN_OFFLINE, flushed]);
});
