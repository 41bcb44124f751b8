/**
 * Everything that can come and go does, at random, while the guest works: 500 plugs and unplugs (NEMU_TEST_LONG). What
 * the machine takes of its host afterwards is what it took before.
 */
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import type { PlugInput } from '../../src/client/live.ts';
import type { HostReport } from '../../src/client/machine_client.ts';
import { expectNoWarnings, PRINT_WARNINGS, TAKEN_OFFLINE } from '../support/dmesg.ts';
import { LiveGuest } from '../support/live_guest.ts';
import { random } from '../support/random.ts';

const LONG = process.env.NEMU_TEST_LONG !== undefined;
const CHANGES = Number(process.env.NEMU_TEST_SOAK ?? 500);
const LIMIT_MS = 3_600_000;
const MiB = 2 ** 20;
/** Of the machine thread's heap: what the collector has not yet taken. */
const HEAP_SLACK = 32 * MiB;
/** A thread is kept started for the next vCPU: it may be on its way. */
const DESCRIPTORS_OF_A_SPARE = 8;
const THREADS_OF_A_SPARE = 2;
const OPTIONS = ['--cpus', '2,max=6', '--memory', '768M,max=4G,slots=8', '--net', 'none', '--pcie', 'root-ports=6'];

/**
 * Writes a file on the disk and reads it back, and compresses: for as long as the machine runs. Its parent is init, for
 * the shell that reads our lines loses some when a child of its own ends.
 */
const LOAD = [
  'mount -t tmpfs -o size=64M none /mnt',
  "(setsid sh -c 'while :; do dd if=/dev/urandom of=/mnt/in bs=1M count=8; dd if=/mnt/in of=/dev/vda bs=64k; sync;" +
    " dd if=/dev/vda of=/mnt/out bs=64k count=128; cmp /mnt/in /mnt/out || echo >/mnt/lost; echo >>/mnt/rounds; done'" +
    ' >/dev/null 2>&1 &)',
  "(setsid sh -c 'while :; do gzip -9 </bin/busybox | gzip -d | md5sum; done' >/dev/null 2>&1 &)",
].join('; ');
const REBIND_NVDIMMS =
  'cd /sys/bus/acpi/drivers/nfit && echo ACPI0012:00 >unbind && echo ACPI0012:00 >bind; cd / && echo rebound';
/** What the guest's tasks wait for, for the one who looks into a failure. */
const BLOCKED_TASKS = 'dmesg -c >/tmp/log; echo w >/proc/sysrq-trigger; tail -n 60 /tmp/log; dmesg';

test.skipIf(!LONG)(`a soak of ${CHANGES} plugs and unplugs (NEMU_TEST_LONG)`, { timeout: LIMIT_MS }, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'nemu-soak-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  const image = (name: string, size: number) => {
    const path = join(folder, name);
    writeFileSync(path, '');
    truncateSync(path, size);
    return path;
  };
  const seed = Number(process.env.NEMU_TEST_SEED ?? 1);
  const below = random(seed);
  const guest = await LiveGuest.boot([...OPTIONS, '--disk', image('root.img', 64 * MiB)]);
  const { machine } = guest;
  await guest.sh(LOAD);

  let count = 0;
  const plugs: (() => PlugInput)[] = [
    () => ({ kind: 'cpu' }),
    () => ({ kind: 'cpu' }),
    () => ({ kind: 'memory', size: (1 + below(3)) * 128 * MiB, ...(below(3) === 0 && { backend: 'memfd' }) }),
    () => ({ kind: 'memory', size: '128M' }),
    () => ({ kind: 'nvdimm', file: join(folder, `pm${count}.img`), size: '128M' }),
    () => ({ kind: 'pci', type: 'virtio-blk', file: image(`disk${count}.img`, 8 * MiB), queues: 1 + below(4) }),
    () => ({ kind: 'pci', type: 'virtio-net', backend: 'user' }),
    () => ({ kind: 'pci', type: 'virtio-rng' }),
    () => ({ kind: 'pci', type: 'virtio-balloon' }),
    () => ({ kind: 'pci', type: 'virtio-console' }),
    () => ({ kind: 'pci', type: 'virtio-port', name: `port${count}` }),
    () => ({ kind: 'pci', type: 'virtio-mem', size: '256M', requested: '128M' }),
    () => ({ kind: 'pci', type: 'virtio-pmem', file: join(folder, `vpm${count}.img`), size: '16M' }),
    () => ({ kind: 'pci', type: 'pcie-switch', ports: 4, port: 'rp0' }),
  ];
  const outcomes = new Map<string, number>();
  const note = (outcome: string) => outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
  /** What is there beside what was there at the start, the last that came first. */
  const present = async () => {
    const { cpus, memory, nvdimms, pci } = await machine.plugged();
    return [
      ...cpus.present.filter(({ index }) => index > 1),
      ...memory.dimms,
      ...nvdimms,
      ...pci.devices.filter(({ id }) => id !== 'vda'),
    ].reverse();
  };
  const tryTo = async (kind: string, action: () => Promise<unknown>): Promise<boolean> => {
    try {
      await action();
      note(`${kind} done`);
      return true;
    } catch (error) {
      const { code, message } = error as { code?: string; message: string };
      // A guest may refuse, and a limit may be in the way; nothing else may happen.
      const known = [
        'REFUSED',
        'BUSY',
        'CPU_LIMIT',
        'MEMORY_LIMIT',
        'MEMORY_SLOTS',
        'MEMORY_ADDRESS',
        'PCI_PORTS',
        'DEVICE',
      ];
      if (!known.includes(code ?? '')) {
        const { pci } = await machine.plugged();
        const found = `slots ${JSON.stringify(pci.ports)}\n${await guest.sh(BLOCKED_TASKS)}`;
        throw new Error(`${kind}: ${code}: ${message} (change ${count}, seed ${seed})\n${found}`, { cause: error });
      }
      note(`${kind} ${code}`);
      return false;
    }
  };
  const remove = async (device: { kind: string; id: string; type?: string }) => {
    // A guest gives its blocks back when it can; until then the device stays.
    if (device.type === 'virtio-mem') {
      await machine.resizeMemory(device.id, 0, { timeoutMs: 20_000 }).catch(({ code }) => note(`resize ${code}`));
    }
    const going = tryTo(`unplug ${device.kind}`, () => machine.unplug(device.id, { timeoutMs: 120_000 }));
    // Linux lets go of NVDIMMs only all together, when it is told so.
    if (device.kind === 'nvdimm') await guest.sh(REBIND_NVDIMMS);
    return going;
  };

  const change = async () => {
    count++;
    const there = await present();
    if (there.length > 0 && below(2) === 0) await remove(there[below(there.length)]);
    else {
      const input = plugs[below(plugs.length)]();
      await tryTo(`plug ${'type' in input ? input.type : input.kind}`, () =>
        machine.plug(input, { timeoutMs: 120_000 }),
      );
    }
  };
  const empty = async () => {
    // What cannot move now may be gone the next time.
    for (let round = 0; round < 20; round++) {
      const there = await present();
      if (there.length === 0) return;
      for (const device of there) await remove(device);
    }
    throw new Error(`These do not leave: ${(await present()).map(({ id }) => id).join(', ')}`);
  };
  const settledHost = async (): Promise<HostReport> => {
    await empty();
    return (await machine.counters()).host;
  };

  for (let i = 0; i < CHANGES / 10; i++) await change();
  const before = await settledHost();
  for (let i = 0; i < CHANGES; i++) await change();
  const after = await settledHost();

  console.log(`soak: ${[...outcomes].map(([what, times]) => `${what} ${times}`).join(', ')}`);
  console.log(`soak: before ${JSON.stringify(before)}, after ${JSON.stringify(after)}`);
  const kvm = ({ memorySlots, routes, ioeventfds, irqfds }: HostReport) => ({
    memorySlots,
    routes,
    ioeventfds,
    irqfds,
  });
  expect(kvm(after)).toEqual(kvm(before));
  expect(after.descriptors).toBeLessThanOrEqual(before.descriptors + DESCRIPTORS_OF_A_SPARE);
  expect(after.threads).toBeLessThanOrEqual(before.threads + THREADS_OF_A_SPARE);
  expect(after.heap).toBeLessThan(before.heap + HEAP_SLACK);
  expect(await guest.sh('ls /mnt/lost 2>/dev/null; nproc')).toBe('2');
  expect(Number(await guest.sh('wc -l </mnt/rounds'))).toBeGreaterThan(1);
  const allowed = [
    ...TAKEN_OFFLINE,
    // Linux says so of every virtio-pmem: see virtio_mem.test.ts.
    /nd_pmem namespace[\d.]+: unable to guarantee persistence of writes/,
    // A block that it could not take offline it tries again a minute later, if the device is still there.
    /virtio_mem virtio\d+: device still has system memory added/,
  ];
  expectNoWarnings(await guest.sh(`{ ${PRINT_WARNINGS}; } 2>&1`), allowed);
  expect((await guest.end()).status).toBe(0);
});
