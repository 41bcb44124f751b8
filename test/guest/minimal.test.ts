/** The machine without PCI: its devices work, and it costs fewer exits than q35 with the same ones. */
import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { findSlirp } from '../../src/lab/lab_root.ts';
import { runNemu } from '../support/cli.ts';
import { expectNoWarnings, PRINT_WARNINGS } from '../support/dmesg.ts';

const LIMIT_MS = 300_000;
const MIB = 1 << 20;

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'nemu-minimal-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

interface Counters {
  type: string;
  total: number;
  regions: { space: string; name: string; reads: number; writes: number }[];
}

/** Copies a disk to another, and asks the network and the generator for something. */
async function work(machine: string, source: Uint8Array) {
  const [from, to] = ['from.img', 'to.img'].map((name) => join(folder, name));
  writeFileSync(from, source);
  writeFileSync(to, new Uint8Array(source.length));
  const script = [
    PRINT_WARNINGS,
    'ls /sys/bus/pci/devices 2>/dev/null | grep -c .',
    'dd if=/dev/vda of=/dev/vdb bs=64k oflag=direct conv=fsync 2>/dev/null',
    'dd if=/dev/hwrng bs=64 count=1 2>/dev/null | wc -c',
    'ping -c 2 -i 0.2 10.0.2.2 | grep -o "[0-9] packets received"',
    'echo $(grep -c "IO-APIC.*-edge.*virtio" /proc/interrupts)',
  ].join('\n');
  const { status, stdout, stderr } = await runNemu([
    ...['run', '--machine', machine, '--disk', `${from},readonly=on`, '--disk', to, '--rng', '--net', 'user'],
    ...['--json', '1', '--timeout', '90', '--', `{ ${script}\n} >&2`],
  ]);
  expect(status, stderr).toBe(0);
  expectNoWarnings(stderr, machine === 'minimal' ? [/PCI: Fatal: No config space/, /System does not support PCI/] : []);
  expect(Buffer.compare(readFileSync(to), source)).toBe(0);
  const lines = stdout.toString().trim().split('\n');
  const counters = lines.map((line) => JSON.parse(line) as Counters).findLast(({ type }) => type === 'counters');
  return { said: stderr.trim().split('\n').slice(-4), counters: counters as Counters };
}

test(
  'disks, network and entropy without PCI',
  async ({ skip }) => {
    if (!findSlirp()) return skip('User networking needs libslirp0.');
    const source = randomBytes(4 * MIB);
    const minimal = await work('minimal', source);
    expect(minimal.said).toEqual(['0', '64', '2 packets received', '4']);
    expect(minimal.counters.regions.filter(({ space }) => space === 'mmio').map(({ name }) => name)).toEqual([
      'vda',
      'vdb',
      'net0',
      'rng',
    ]);
    const q35 = await work('q35', source);
    expect(q35.said.slice(1)).toEqual(['64', '2 packets received', '0']);
    // Nothing to enumerate: what interrupts cost more does not reach that by far.
    expect(minimal.counters.total).toBeLessThan(q35.counters.total / 2);
    // A request's kick goes through the kernel: the status, its acknowledgement, and set-up are what is left.
    const { reads, writes } = minimal.counters.regions.find(({ name }) => name === 'vdb')!;
    expect(reads + writes).toBeLessThan(64 * 2 + 200);
  },
  2 * LIMIT_MS,
);
