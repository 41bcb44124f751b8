/** Tables of a scripted machine, and queues of guests that write what they like. */
import { inspect } from 'node:util';
import { describe, expect, test } from 'vitest';
import { parseMachine } from '../../../src/client/description.ts';
import type { MachineClient, QueueReport } from '../../../src/client/machine_client.ts';
import { readQueue } from '../../../src/repl/queues.ts';
import { Vm } from '../../../src/repl/vm.ts';
import { random as seeded } from '../../support/random.ts';
import { ScriptedMachine } from '../../support/scripted_machine.ts';

const open = (more: object = {}) =>
  new Vm({ machine: Object.assign(new ScriptedMachine({ busy: false }).client, more), guest: undefined });

test('what was plugged counts', async () => {
  // 1 GiB at boot, DIMMs of 1 GiB and 512 MiB, and 256 MiB by blocks.
  expect((await open().info()).text).toBe('work: running, q35 with 4 vCPUs and 2.75 GiB');
});

test('nodes have what was plugged into them, and distances', async () => {
  const description = parseMachine({
    ...{ kernel: { image: '/k' }, cpus: { count: 4, max: 8 }, memory: { size: '1G', max: '8G' } },
    numa: {
      nodes: [
        { cpus: [0, 1, 2, 3], memory: '512M' },
        { cpus: [4, 5, 6, 7], memory: '512M' },
      ],
      distances: [{ src: 0, dst: 1, val: 31 }],
    },
  });
  const text = (await open({ description }).info('numa')).text;
  expect(text.split('\n').map((line) => line.trim().split(/ {2,}/))).toEqual([
    ['node', 'cpus', 'memory', 'to 0', 'to 1'],
    ['0', '0,1,2,3', '2.25 GiB', '10', '31'],
    ['1', '512 MiB', '31', '10'],
  ]);
});

test('the map of guest-physical space, interrupts, and a function with its BARs', async () => {
  const vm = open();
  const map = (await vm.info('map')).text;
  expect(map).toMatch(/^0x0 +0x3fffffff +1 GiB +RAM$/m);
  expect(map).toMatch(/^0x100000000 +0x13fffffff +1 GiB +dimm0$/m);
  expect(map).toMatch(/^0xfee00000 .* local APICs, MSIs$/m);
  expect(map).toMatch(/^0x7000000000 +0x7000003fff +16 KiB +vda BAR 4$/m);
  const irq = (await vm.info('irq')).text;
  expect(irq).toMatch(/^ *4 +apic 1 +0x24 +fixed +edge *$/m);
  expect(irq).toMatch(/^ *20 +logical 0x3 +0x31 +lowest +level, active low, being served *$/m);
  expect(irq).toMatch(/^master +0x30 +none +0 +none +none$/m);
  const apic = (await vm.info('apic')).text;
  expect(apic).toContain('vCPU 3: APIC id 3, x2APIC, on, task priority 0x0, processor priority 0x0');
  expect(apic).toContain('in service none; requested 0xec');
  expect(apic.match(/LINT1: NMI/g)).toHaveLength(1);
  const text = (await vm.pci('vda')).decode().text;
  expect(text).toContain('BAR 4: memory, 64 bits, 16 KiB, at 0x7000000000\n');
  expect(text).toContain('MSI-X 0: 0xfee01000 ← 0x22\n');
  expect(text).toContain('\nvendor 1af4, device 1042, revision 01\nclass 010000\ninterrupt: no pin\ncommand: I/O+ ');
  await expect(vm.info('cpus', 'cpu0')).rejects.toThrow('info cpus is about all of them');
  await expect(vm.info('queues', 'vdz')).rejects.toThrow('There is no virtio device "vdz".');
});

describe('descriptors', () => {
  const report = { index: 0, size: 4, enabled: true, descriptors: 0x1000, driver: 0x2000, device: 0x3000, inFlight: 1 };
  const machine = (bytes: Buffer) => ({ readMemory: async () => bytes }) as unknown as MachineClient;

  test('of a split ring, and of a packed one', async () => {
    const bytes = Buffer.alloc(64);
    bytes.writeBigUInt64LE(0xabc000n, 16);
    bytes.writeUInt32LE(512, 24);
    bytes.writeUInt16LE(3, 28);
    bytes.writeUInt16LE(2, 30);
    const split = await readQueue(machine(bytes), report, false);
    expect(split.descriptors).toEqual([
      { index: 1, address: 0xabc000n, length: 512, flags: ['next', 'write'], next: 2 },
    ]);
    expect(inspect(split)).toMatch(/^queue 0: split, size 4 at 0x1000.*\n.*\n +1 +0xabc000 +512 +next write +2$/);
    bytes.writeUInt16LE(7, 28);
    bytes.writeUInt16LE(0x80, 30);
    const packed = await readQueue(machine(bytes), report, true);
    expect(packed.descriptors).toMatchObject([{ id: 7, flags: ['available'] }]);
  });

  test('of a guest that writes anything are told, and not all of them', async () => {
    const random = seeded(3);
    const size = 32768;
    const bytes = Buffer.from(Array.from({ length: size * 16 }, () => random(256)));
    const asked: number[] = [];
    const hostile = {
      readMemory: async (_: number, length: number) => {
        asked.push(length);
        return bytes;
      },
    } as unknown as MachineClient;
    const huge: QueueReport = { ...report, size: 2 ** 31 };
    for (const packed of [false, true]) {
      const text = inspect(await readQueue(hostile, huge, packed));
      expect(text.split('\n').length).toBe(67);
    }
    expect(asked).toEqual([size * 16, size * 16]);
  });

  test('a queue that is not in RAM is told, and the others too', async () => {
    const readMemory = async (at: number, length: number) => {
      if (at === 0x1234000) throw new Error('There is no RAM at 0x1234000.');
      return Buffer.alloc(length);
    };
    const text = (await open({ readMemory }).info('queues', 'vda')).text;
    expect(text).toMatch(/^queue 0: There is no RAM at 0x1234000\.\n\nqueue 1: split.*its descriptors are empty$/);
  });
});
