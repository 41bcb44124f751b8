/** Persistent memory in a stock guest: namespaces, DAX, labels, coming and going, and a loss of power. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { expectNoWarnings, PRINT_WARNINGS } from '../support/dmesg.ts';
import { LiveGuest } from '../support/live_guest.ts';
import { emptyLabels } from '../support/nvdimm_labels.ts';

const LIMIT_MS = 300_000;
const MiB = 2 ** 20;
const KiB = 1024;
const ND = '/sys/bus/nd/devices';
const until = (condition: string) => `until ${condition}; do sleep 0.1; done`;
const UUID = 'cat /proc/sys/kernel/random/uuid';
/** All that a guest without ndctl needs for a namespace in which files can be mapped directly. */
const FSDAX = [
  `cd ${ND}/pfn0.0`,
  'echo namespace0.0 >/sys/bus/nd/drivers/nd_pmem/unbind',
  `echo ram >mode; echo ${2 * MiB} >align; ${UUID} >uuid; echo namespace0.0 >namespace`,
  'echo pfn0.0 >/sys/bus/nd/drivers/nd_pmem/bind',
].join('; ');
const MOUNT = 'mount -t ext4 -o dax /dev/pmem0 /mnt';
/** As the documentation has it. */
const READ_ANEW = 'cd /sys/bus/acpi/drivers/nfit; echo ACPI0012:00 >unbind; echo ACPI0012:00 >bind; cd /';

test('a file system with DAX, labelled namespaces, plug and unplug, and what was flushed survives', {
  timeout: LIMIT_MS,
}, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'nemu-pm-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  const [first, second] = ['a.img', 'b.img'].map((name) => join(folder, name));
  const guest = await LiveGuest.boot([
    ...['--memory', '512M,max=2G,slots=4', '--net', 'none', '--timeout', '280'],
    ...['--nvdimm', `${first},size=64M`],
  ]);
  const { machine } = guest;
  const flushes = async (id: string) => (await machine.plugged()).nvdimms.find((each) => each.id === id)?.flushes ?? -1;

  await guest.sh(until('[ -b /dev/pmem0 -a -e /sys/bus/nd/drivers/nd_pmem/bind ]'));
  expect(await guest.sh(`cat ${ND}/region0/size ${ND}/region0/deep_flush | tr '\\n' ' '`)).toBe(`${64 * MiB} 1`);
  expect(await guest.sh(`${FSDAX}; mke2fs -b 4096 /dev/pmem0 >/dev/null 2>&1; ${MOUNT} && cat /proc/mounts`)).toMatch(
    /\/dev\/pmem0 \/mnt ext4 \S*dax=always/,
  );
  const before = await flushes('nvdimm0');
  expect(await guest.sh('echo in the page cache >/mnt/file; sync; cat /mnt/file')).toBe('in the page cache');
  expect(await flushes('nvdimm0')).toBeGreaterThan(before);

  writeFileSync(second, Buffer.concat([Buffer.alloc(128 * MiB), emptyLabels(128 * KiB)]));
  await machine.plug({ kind: 'nvdimm', file: second, size: '128M', labelSize: '128K' });
  const space = `${ND}/namespace1.0`;
  await guest.sh(until(`[ -e ${space}/size ]`));
  expect(await guest.sh(`cat ${ND}/nmem1/available_slots ${space}/size | tr '\\n' ' '`)).toMatch(/^\d{3} 0$/);
  const uuid = '3f9a6c1e-5d0b-4c8e-9a43-6b1d2e7f8059';
  const make = `echo ${uuid} >${space}/uuid; echo ${64 * MiB} >${space}/size`;
  expect(
    await guest.sh(`${make}; echo namespace1.0 >/sys/bus/nd/drivers/nd_pmem/bind; cat /sys/block/pmem1/size`),
  ).toBe(String((64 * MiB) / 512));
  await guest.sh('echo behind a label | dd of=/dev/pmem1 bs=512 conv=sync,fsync 2>/dev/null');
  expect(await flushes('nvdimm1')).toBeGreaterThan(0);

  // While it has it, nothing is taken from it.
  await expect(machine.unplug('nvdimm1', { timeoutMs: 1000 })).rejects.toMatchObject({
    code: 'GUEST_TIMEOUT',
    message: expect.stringContaining('echo ACPI0012:00 >unbind'),
  });
  expect(await guest.sh('head -c 14 /dev/pmem1')).toBe('behind a label');
  const removed = machine.unplug('nvdimm1');
  await guest.sh(`umount /mnt; ${READ_ANEW}`);
  expect(await removed).toMatchObject({ stage: 'removed' });
  expect(await guest.sh(`${until('[ -b /dev/pmem0 ]')}; ls ${ND} | grep -c nmem; ${MOUNT}; cat /mnt/file`)).toBe(
    '1\nin the page cache',
  );
  expect(readFileSync(second).toString('latin1', 0, 14)).toBe('behind a label');
  expect(
    readFileSync(second)
      .subarray(128 * MiB)
      .includes(Buffer.from(uuid.replaceAll('-', '').slice(16), 'hex')),
  ).toBe(true);

  // The labels say what the namespace is: it is there at once, as it was.
  await machine.plug({ kind: 'nvdimm', file: second, labelSize: '128K' });
  expect(await guest.sh(`${until('[ -b /dev/pmem1 ]')}; cat /sys/block/pmem1/size; head -c 14 /dev/pmem1`)).toBe(
    `${(64 * MiB) / 512}\nbehind a label`,
  );
  expectNoWarnings(await guest.sh(`{ ${PRINT_WARNINGS}; } 2>&1`), [
    // What busybox makes is ext2, with small inodes.
    /ext4 filesystem being mounted at \S+ supports timestamps until 2038/,
  ]);

  await guest.sh('echo last words | dd of=/mnt/end conv=fsync 2>/dev/null');
  await guest.sh('echo new label | dd of=/dev/pmem1 bs=512 conv=sync,fsync 2>/dev/null');
  // In the lab this is the loss of power of the guest's whole host, whose page cache goes with it.
  await guest.kill();
  expect(readFileSync(first).includes('last words')).toBe(true);
  expect(readFileSync(second).toString('latin1', 0, 9)).toBe('new label');
});
