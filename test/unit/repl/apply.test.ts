/** What leads from a machine as it is to a description, and what a machine is now. */
import { inspect } from 'node:util';
import { describe, expect, test } from 'vitest';
import { type ConfigInput, type MachineInput, parseMachine } from '../../../src/client/description.ts';
import type { PciDevice, PluggedReport } from '../../../src/client/live.ts';
import type { DiskReport, MachineClient, NetReport } from '../../../src/client/machine_client.ts';
import { doSteps, Plan } from '../../../src/repl/apply.ts';
import { describeNow } from '../../../src/repl/description.ts';
import { planSteps, type Step } from '../../../src/repl/plan.ts';
import { requireRoom } from '../../../src/repl/room.ts';
import type { Vm } from '../../../src/repl/vm.ts';

const MiB = 2 ** 20;

const NOW: MachineInput = {
  kernel: { image: '/k', cmdline: 'quiet' },
  cpus: { count: 2, max: 8 },
  memory: { size: '512M', max: '4G' },
  dimms: [{ id: 'd', size: '128M', node: 0 }],
  disks: [
    { id: 'vda', file: '/a.img', format: 'raw' },
    { id: 'data', file: '/b.img', throttle: { iops: 100 } },
  ],
  nets: [{ id: 'net0', type: 'user', mac: '52:54:00:00:00:01' }],
  devices: [
    { type: 'virtio-rng', id: 'rng' },
    { type: 'virtio-mem', id: 'vm0', size: '1G' },
  ],
};
const now = parseMachine(NOW);

const plan = (given: ConfigInput) => planSteps(now, given);
const lines = (given: ConfigInput) =>
  plan(given).map(({ action, subject, detail }) => `${action} ${subject}: ${detail}`);

describe('a plan', () => {
  test('is empty for what a machine says of itself, and for what says nothing', () => {
    expect(lines(now as ConfigInput)).toEqual([]);
    expect(lines({})).toEqual([]);
    expect(inspect(new Plan([], false))).toBe('The machine is as the description has it.');
  });

  test.each<[string, ConfigInput, string[]]>([
    ['processors within the room', { cpus: { count: 5 } }, ['change cpus: 2 → 5']],
    ['fewer of them', { cpus: { count: 1 } }, ['change cpus: 2 → 1']],
    ['more than there is room for', { cpus: { count: 9 } }, ['restart cpus.count: 2 → 9']],
    ['another topology', { cpus: { count: 2, max: 8, threads: 2 } }, ['restart cpus.threads: 1 → 2']],
    ['memory of the start', { memory: { size: '1G' } }, ['restart memory.size: 512 MiB → 1 GiB']],
    ['a kernel', { kernel: { cmdline: 'debug' } }, ["restart kernel.cmdline: 'quiet' → 'debug'"]],
    ['a board', { machine: 'pc' }, ["restart machine: 'q35' → 'pc'"]],
    [
      'a DIMM that comes and one that goes',
      { dimms: [{ id: 'e', size: '256M' }] },
      ['unplug d: not in the description', 'plug e: memory 256 MiB'],
    ],
    ['a DIMM of another size', { dimms: [{ id: 'd', size: '256M' }] }, ['restart d.size: 128 MiB → 256 MiB']],
    [
      'a medium',
      {
        disks: [
          { id: 'vda', file: '/c.img' },
          { id: 'data', file: '/b.img' },
        ],
      },
      ["change vda: file: '/a.img' → '/c.img'"],
    ],
    [
      'limits, and an option that is fixed',
      { disks: [{ file: '/a.img' }, { id: 'data', file: '/b.img', throttle: { iops: 7 }, queues: 2 }] },
      ['restart data.queues: 1 → 2', 'change data: throttle: { iops: 100 } → { iops: 7 }'],
    ],
    [
      'a disk without a name is named by its place',
      { disks: [{ file: '/a.img' }] },
      ['unplug data: not in the description'],
    ],
    [
      'memory by blocks, as much as is wanted',
      { devices: [{ type: 'virtio-rng' }, { type: 'virtio-mem', size: '1G', requested: '256M' }] },
      ['change vm0: requested: 0 B → 256 MiB'],
    ],
    [
      'memory by blocks that comes, goes, or is of another kind',
      {
        devices: [
          { type: 'virtio-rng' },
          { type: 'virtio-mem', id: 'vm1', size: '1G' },
          { type: 'virtio-mem', id: 'vm0', size: '2G' },
        ],
      },
      ['restart vm0.size: 1 GiB → 2 GiB', 'plug vm1: virtio-mem 1 GiB'],
    ],
    ['a cable', { nets: [{ type: 'user', link: false }] }, ['change net0: link: true → false']],
    [
      'another network',
      { nets: [{ type: 'tap', ifname: 'tap7' }] },
      ["change net0: type: 'user' → 'tap', ifname: none → 'tap7'"],
    ],
    ['an entropy device that stays', { rng: true }, []],
    ['an entropy device that goes', { rng: false }, ['unplug rng: not in the description']],
    [
      'a switch before what stands behind it',
      { devices: [{ type: 'virtio-rng' }, { type: 'virtio-balloon', port: 'sw0.1' }, { type: 'pcie-switch' }] },
      [...['unplug vm0: not in the description', 'plug sw0: pcie-switch', 'plug balloon: virtio-balloon']],
    ],
  ])('%s', (_, given, expected) => expect(lines(given)).toEqual(expected));

  test("leaves the agent's port alone, which came with the machine", () => {
    const port = { type: 'virtio-port', name: 'nemu.agent' } as const;
    const served = parseMachine({ ...NOW, devices: [...(NOW.devices ?? []), port] });
    expect(planSteps(served, { devices: NOW.devices })).toEqual([]);
    expect(planSteps(served, { devices: [...(NOW.devices ?? []), port] })).toEqual([]);
    expect(planSteps(now, { devices: [...(NOW.devices ?? []), port] }).map(({ action }) => action)).toEqual(['plug']);
  });

  test('what is behind a switch goes before it; devices without a name have one each', () => {
    const behind = parseMachine({
      ...NOW,
      nets: [{ id: 'net0', type: 'user', port: 'sw1.0' }],
      devices: [
        { type: 'pcie-switch', id: 'sw0', port: 'rp0' },
        { type: 'virtio-rng', id: 'rng', port: 'sw0.0' },
        { type: 'pcie-switch', id: 'sw1', port: 'sw0.1' },
      ],
    });
    expect(planSteps(behind, { devices: [], nets: [] }).map(({ subject }) => subject)).toEqual([
      ...['net0', 'rng', 'sw1', 'sw0'],
    ]);
    expect(
      lines({ devices: [{ type: 'virtio-rng' }, { type: 'virtio-rng' }, { type: 'virtio-mem', size: '1G' }] }),
    ).toEqual(['plug rng1: virtio-rng']);
    expect(lines({ devices: [{ type: 'virtio-rng', id: 'rng' }, { type: 'virtio-rng' }] })).toContain(
      'plug rng1: virtio-rng',
    );
    expect(lines({ cpus: { max: 16 } })).toEqual(['restart cpus.max: 8 → 16']);
    expect(lines({ memory: { max: '8G' } })).toEqual(['restart memory.max: 4 GiB → 8 GiB']);
  });

  test('has no format that is what it is, and takes no other while it runs', () => {
    const disks = (format: 'raw' | 'qcow2') => ({
      disks: [
        { id: 'vda', file: '/a.img', format },
        { id: 'data', file: '/b.img' },
      ],
    });
    expect(lines(disks('raw'))).toEqual([]);
    expect(lines(disks('qcow2'))).toEqual(["restart vda.format: 'raw' → 'qcow2'"]);
  });

  test('gives names that nobody has, and knows an address in other letters', () => {
    expect(lines({ disks: [{ id: 'data', file: '/b.img' }, { file: '/a.img' }] })).toEqual([]);
    expect(lines({ nets: [{ type: 'user', mac: '52:54:00:00:00:01'.toUpperCase() }] })).toEqual([]);
  });

  test('leaves consoles that are one device to a new start', () => {
    const there = parseMachine({ ...NOW, devices: [{ type: 'virtio-console' }, { type: 'virtio-port', name: 'p' }] });
    const steps = (fixed: string[]) =>
      planSteps(there, { devices: [] }, undefined, new Set(fixed)).map(({ action }) => action);
    expect(steps(['hvc0', 'p'])).toEqual(['restart', 'restart']);
    expect(steps([])).toEqual(['unplug', 'unplug']);
  });

  test('of vCPUs that are pinned has none for those that come', () => {
    const pinned = parseMachine({ ...NOW, cpus: { count: 2, max: 8, pin: [[0], [1]] } });
    expect(planSteps(pinned, { cpus: { count: 5 } }).map(({ detail }) => detail)).toEqual(['2 → 5']);
    const fixed = parseMachine({ ...NOW, cpus: { count: 2, pin: [[0], [1]] } });
    expect(planSteps(fixed, { cpus: { count: 4 } })[0]).toMatchObject({ action: 'restart', subject: 'cpus.count' });
  });

  test('is refused where there is no room', () => {
    const here = {
      cpus: { present: [] },
      memory: { boot: 512 * MiB, max: 4096 * MiB, slots: 2, dimms: [{ id: 'd', size: 128 * MiB }], virtio: [] },
      nvdimms: [],
      pci: {
        devices: [
          { id: 'sw0', type: 'pcie-switch', port: 'rp0' },
          { id: 'rng', type: 'virtio-rng', port: 'sw0.0' },
        ],
        ports: [
          { id: 'rp0', kind: 'port', device: 'sw0' },
          { id: 'rp1', kind: 'port' },
          { id: 'sw0.0', kind: 'port', device: 'rng' },
        ],
      },
    } as unknown as PluggedReport;
    const check = (given: ConfigInput) => () => requireRoom(plan(given), here, 1, 0);
    const data = { id: 'data', file: '/b.img' };
    const keep = { id: 'd', size: '128M' };
    expect(check({ dimms: [keep, { size: '1G' }] })).not.toThrow();
    expect(check({ disks: [data], dimms: [keep, { id: 'e', size: '100G' }] })).toThrow(
      "e (100 GiB) would make 100.63 GiB of memory, above the machine's limit of 4 GiB. Nothing was done.",
    );
    expect(check({ devices: [{ type: 'virtio-mem', id: 'odd', size: '200M' }] })).toThrow(
      'odd of 209715200 bytes is not a multiple of 128 MiB. Nothing was done.',
    );
    expect(check({ dimms: [keep, { size: '128M' }, { size: '128M' }] })).toThrow(
      'There would be 3 DIMMs and NVDIMMs: the machine has 2 slots.',
    );
    expect(check({ dimms: [{ size: '128M' }, { size: '128M' }] })).not.toThrow();
    expect(check({ dimms: [keep, { id: 'e', size: '128M', node: 1 }] })).toThrow(
      'e is for node 1: the machine has nodes 0 to 0.',
    );
    const more = (port?: string) => ({ type: 'virtio-rng', ...(port && { port }) }) as const;
    const rest = [{ type: 'virtio-rng' }, { type: 'virtio-mem', id: 'vm0', size: '1G' }] as const;
    expect(check({ devices: [...rest, more()] })).not.toThrow();
    expect(check({ devices: [...rest, more(), more()] })).toThrow(
      'There is no port left for rng2 (virtio-rng): all are taken.',
    );
    expect(check({ devices: [...rest, more('sw0.0')] })).toThrow('rng1 is for sw0.0, which has rng in it.');
    expect(check({ devices: [...rest, more('sw9.0')] })).toThrow('There is no place sw9.0 for rng1.');
    expect(check({ devices: [...rest, { type: 'pcie-switch', id: 'sw9' }, more('sw9.0'), more('sw9')] })).not.toThrow();
    const step = { action: 'unplug', subject: 'sw0', detail: '' } as const;
    expect(() => requireRoom([step], here, 1, 0)).toThrow('sw0 cannot go: rng, which stays, is behind it.');
  });

  test('says the code of each step', () => {
    const steps = plan({ cpus: { count: 4 }, nets: [], disks: [{ file: '/a.img', throttle: { iops: 5 } }] });
    expect(steps.map(({ code }) => code)).toEqual([
      "vm.unplug('data')",
      "vm.unplug('net0')",
      'vm.cpus.add(2)',
      "vm.disks['vda'].throttle({ iops: 5 })",
    ]);
    const again = planSteps(parseMachine({ ...NOW, nets: [] }), { nets: [{ id: 'net0', type: 'user', mtu: 1400 }] });
    expect(again[0].code).toContain("vm.plug({ kind: 'pci', type: 'virtio-net', ");
    expect(again[0].code).toContain("backend: 'user'");
  });

  test('of what could not be is refused before anything is touched', () => {
    expect(() =>
      plan({
        disks: [
          { id: 'x', file: '/a' },
          { id: 'x', file: '/b' },
        ],
      }),
    ).toThrow(/same id/);
    expect(() => plan({ cpus: { count: 3, max: 2 } })).toThrow(/leaves room for fewer/);
  });
});

describe('doing it', () => {
  const step = (subject: string, run: Step['run']): Step => ({
    ...{ action: 'plug', subject, detail: '', code: '' },
    ...(run && { run }),
  });

  test('goes in order, and leaves to a new start what needs one', async () => {
    const did: string[] = [];
    const steps = ['a', 'b'].map((name) => step(name, async () => did.push(name)));
    const done = await doSteps({} as Vm, [...steps, { action: 'restart', subject: 'memory', detail: '1 → 2' }]);
    expect(did).toEqual(['a', 'b']);
    expect(done.restarts).toHaveLength(1);
    expect(JSON.parse(JSON.stringify(done))).toMatchObject({ done: true, steps: [{}, {}, { subject: 'memory' }] });
  });

  test('that fails says how far it came', async () => {
    const fail = async () => {
      throw new Error('No port is free.');
    };
    const tried = doSteps({} as Vm, [step('a', async () => {}), step('b', fail), step('c', async () => {})]);
    await expect(tried).rejects.toMatchObject({
      code: 'APPLY',
      message: 'plug b failed: No port is free.',
      hint: '1 of 3 steps are done; undo takes them back, one at a time.',
    });
  });
});

test('a machine tells what it is now, and that makes it again', async () => {
  const description = parseMachine({
    ...NOW,
    dimms: [],
    rng: true,
    devices: [
      { type: 'virtio-port', name: 'org.a' },
      { type: 'virtio-console' },
      { type: 'virtio-mem', id: 'vm0', size: '1G' },
    ],
  });
  const device = (id: string, type: PciDevice['type'], port: string, more: object = {}): PciDevice => ({
    ...{ kind: 'pci', id, type, port, streams: [] },
    plug: { kind: 'pci', type, id, port, ...more } as PciDevice['plug'] & object,
  });
  const plugged = {
    cpus: { present: [{ index: 0 }, { index: 2 }, { index: 3 }], max: 8 },
    memory: {
      boot: 512 * MiB,
      dimms: [{ ...parseMachine(NOW).dimms[0], kind: 'memory', id: 'late', slot: 3, address: 2 ** 32, node: 0 }],
      virtio: [{ id: 'vm0', requested: 256 * MiB }],
    },
    nvdimms: [],
    pci: {
      ports: [],
      devices: [
        device('vda', 'virtio-blk', 'slot2', { file: '/a.img', serial: 'S1', readonly: false }),
        device('net0', 'virtio-net', 'slot3', { backend: 'user' }),
        {
          ...device('serial', 'virtio-console', 'slot4'),
          plug: undefined,
          streams: [{ name: 'hvc0' }, { name: 'org.a' }],
        },
        device('more', 'virtio-rng', 'rp0'),
        device('vm0', 'virtio-mem', 'slot5', { size: 2 ** 30, requested: 0 }),
      ],
    },
  } as unknown as PluggedReport;
  const disk = { name: 'vda', file: '/other.img', format: 'qcow2', probed: false, throttle: { bps: 5 } };
  const net = {
    ...{ name: 'net0', mac: '52:54:00:00:00:01', link: false, type: 'user', queues: 1, restrict: false },
    ...{ hostForwards: [], throttle: {} },
  };
  const machine = {
    description,
    plugged: async () => plugged,
    disks: async () => [disk as unknown as DiskReport],
    nets: async () => [net as unknown as NetReport],
  } as unknown as MachineClient;
  const told = await describeNow(machine);
  expect(told).toMatchObject({
    cpus: { count: 3, max: 8 },
    dimms: [{ id: 'late', size: 128 * MiB }],
    disks: [{ id: 'vda', file: '/other.img', format: 'qcow2', serial: 'S1', port: 'slot2', throttle: { bps: 5 } }],
    nets: [{ id: 'net0', link: false, port: 'slot3' }],
    rng: false,
    devices: [
      { type: 'virtio-rng', id: 'more', port: 'rp0' },
      { type: 'virtio-mem', id: 'vm0', port: 'slot5', size: 2 ** 30, requested: 256 * MiB },
      { type: 'virtio-console' },
      { type: 'virtio-port', name: 'org.a' },
    ],
  });
  expect(told.dimms[0]).not.toHaveProperty('slot');
  expect(planSteps(parseMachine(told), told as ConfigInput)).toEqual([]);
  // Without PCI nothing tells of devices but the description, which has no names for some.
  const minimal = parseMachine({ ...NOW, machine: 'minimal', devices: [{ type: 'virtio-mem', size: '1G' }] });
  const there = await describeNow({ ...machine, description: minimal } as MachineClient);
  expect(there.devices).toMatchObject([{ type: 'virtio-mem', id: 'vm0', requested: 256 * MiB }]);
});
