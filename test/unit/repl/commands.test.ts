import { stripTypeScriptTypes } from 'node:module';
import { inspect } from 'node:util';
import { describe, expect, test } from 'vitest';
import { actionsOf } from '../../../src/client/actions.ts';
import type { MachineChange } from '../../../src/client/machine_change.ts';
import type { MachineClient } from '../../../src/client/machine_client.ts';
import { AcpiTable } from '../../../src/repl/acpi.ts';
import { COMMANDS, commandCode, commandHelp } from '../../../src/repl/commands.ts';
import { Disk } from '../../../src/repl/disks.ts';
import { HELP } from '../../../src/repl/help.ts';
import { INFO } from '../../../src/repl/info.ts';
import { Journal } from '../../../src/repl/journal.ts';
import { Net } from '../../../src/repl/nets.ts';
import { ConfigView } from '../../../src/repl/pci_config.ts';
import { typedCompletions } from '../../../src/repl/plug_options.ts';
import { Vm } from '../../../src/repl/vm.ts';
import { random as seeded } from '../../support/random.ts';
import { ScriptedMachine } from '../../support/scripted_machine.ts';

describe('the short form', () => {
  test.each([
    ['pause', 'await vm.pause()'],
    ['  info   pci ', "await vm.info('pci')"],
    ['info queues vda', "await vm.info('queues', 'vda')"],
    ["sh echo 'a b'  c", "await vm.sh('echo \\'a b\\'  c')"],
    ['x jiffies_64', "await vm.read('jiffies_64', 64)"],
    ['x 0x1000 16', 'await vm.read(0x1000, 16)'],
    ['x 0xffffffff81234567', 'await vm.read(0xffffffff81234567n, 64)'],
    ['sym 0xffffffff81234567', 'await vm.symbol(0xffffffff81234567n)'],
    ['walk 0xffffffff81000000 1', 'await vm.walk(0xffffffff81000000n, 1)'],
    ['pci 00:1c.0', "(await vm.pci('00:1c.0')).decode()"],
    ['cpu add 2', 'await vm.cpus.add(2)'],
    ['memory plug 1G node=1 id=extra', "await vm.memory.plug('1G', { node: 1, id: 'extra' })"],
    ['memory resize vm0 512M', "await vm.memory.resize('vm0', '512M')"],
    ['disk vda resize 2G', "await vm.disks['vda'].resize('2G')"],
    ['net net0 link off', "await vm.nets['net0'].link(false)"],
    ['net net0 forward 2222:22', "await vm.nets['net0'].forward({ hostPort: 2222, guestPort: 22 })"],
    ['net net0 unforward 2222', "await vm.nets['net0'].unforward(2222)"],
    ['disk vda throttle iops=500 bps-max=1000', "await vm.disks['vda'].throttle({ iops: 500, bpsMax: 1000 })"],
    ['disk vda throttle off', "await vm.disks['vda'].throttle({})"],
    ['net net0 throttle pps=1000', "await vm.nets['net0'].throttle({ pps: 1000 })"],
    ['net net0 backend tap ifname=tap0', "await vm.nets['net0'].backend({ type: 'tap', ifname: 'tap0' })"],
    ['net net0 backend user restrict', "await vm.nets['net0'].backend({ type: 'user', restrict: true })"],
    ['memory plug 1G path=/a=b', "await vm.memory.plug('1G', { path: '/a=b' })"],
    [
      'nvdimm plug pm.img label-size=128K readonly=on',
      "await vm.nvdimm.plug({ file: 'pm.img', labelSize: '128K', readonly: true })",
    ],
    ['unplug dimm0', "await vm.unplug('dimm0')"],
    ['plug nvdimm file=pm.img size=256M', "await vm.plug({ kind: 'nvdimm', file: 'pm.img', size: '256M' })"],
    [
      'plug virtio-mem size=1.5G requested=128M node=1',
      "await vm.pci.plug('virtio-mem', { size: '1.5G', requested: '128M', node: 1 })",
    ],
    ['dmesg 5', 'await vm.dmesg(5)'],
    ['save /tmp/x.ts', "vm.journal.save('/tmp/x.ts')"],
    ['save ../x.ts', "vm.journal.save('../x.ts')"],
  ])('%s', (line, code) => expect(commandCode(line)).toBe(code));

  test.each(
    [
      'vm.pause()',
      'pause = 1',
      'x * 2',
      'x / 2',
      'x /= 2',
      'x.y',
      'x',
      'const a = 1',
      'infos',
      'history.length',
      'pci[0]',
    ].filter((line) => line !== 'x'),
  )('%s is code', (line) => expect(commandCode(line)).toBeUndefined());

  test('what is missing is said', () => expect(() => commandCode('sh')).toThrow(/sh COMMAND/));

  test.each([
    ['xp foo', 'foo is not a guest-physical address'],
    ['x linux_banner many', '"many" is not a whole number: x SYMBOL|ADDRESS [BYTES]'],
    ['memory plug 1G nod=1', 'memory plug: there is no "nod".'],
    ['disk vda throttle iopps=1', 'disk NAME throttle: there is no "iopps".'],
    ['net net0 throttle', 'net NAME throttle KEY=VALUE…, or off'],
    ['cpu add some', '"some" is not a whole number: cpu add|remove [N]'],
  ])('%s says what it takes', (line, text) => expect(() => commandCode(line)).toThrow(text));

  test('what a shell has is quoted', () => {
    const code = commandCode("sh printf '%s\\n' `id` $HOME") as string;
    // biome-ignore lint/security/noGlobalEval: it is what the REPL does with it
    expect(eval(code.replace('await vm.sh', ''))).toBe("printf '%s\\n' `id` $HOME");
  });

  test('help names every command', () => {
    for (const { usage } of Object.values(COMMANDS)) expect(commandHelp()).toContain(usage);
    for (const topic of Object.keys(INFO)) expect(commandHelp()).toContain(topic);
  });

  test('a number is a number, of bytes a size too, and each is given once', () => {
    expect(() => commandCode('plug virtio-blk file=a queues=2M')).toThrow('queues=2M is not a whole number.');
    expect(() => commandCode('plug virtio-blk file=a file=b')).toThrow('plug virtio-blk: file= is given twice.');
    expect(commandCode('disk vda throttle iops=5 bps=10M')).toBe(
      "await vm.disks['vda'].throttle({ iops: 5, bps: 10485760 })",
    );
  });

  test('quotes hold words together, as in a shell; what is for the guest goes as it is', () => {
    expect(commandCode(`plug virtio-blk file='my disk.qcow2'`)).toBe(
      "await vm.pci.plug('virtio-blk', { file: 'my disk.qcow2' })",
    );
    expect(commandCode('disk vda change "b c.img"')).toBe("await vm.disks['vda'].change('b c.img')");
    expect(commandCode("apply 'my machine.yaml'")).toBe(commandCode('apply my machine.yaml'));
    expect(commandCode(`sh echo it's "so"`)).toBe(`await vm.sh('echo it\\'s "so"')`);
    expect(() => commandCode("plug virtio-blk file='a")).toThrow('is not closed');
  });

  test('help on one, and on what it plugs', () => {
    expect(commandHelp('plug', 'virtio-mem')).toMatch(/^ {2}size= +SIZE .*\(needed\)$/m);
    expect(commandHelp('cpu')).toBe('cpu add|remove [N]\n  plug vCPUs, or take the last ones out');
    expect(commandHelp('net')).toContain('\n  net NAME backend tap [ifname=tap0]');
    expect(commandHelp('info')).toContain('  numa        nodes, their processors and memory, distances');
    const disk = commandHelp('plug', 'disk');
    expect(disk).toMatch(/^plug virtio-blk \[KEY=VALUE…\]\n {2}option +takes +what it is\n/);
    expect(disk).toMatch(/^ {2}file= +FILE +image or block device \(needed\)$/m);
    expect(disk).toMatch(/^ {2}cache= +writeback\|none +with the host's page cache, or past it \(writeback\)$/m);
    expect(disk).toMatch(/^ {2}readonly= +on\|off +\(off\)$/m);
    expect(() => commandHelp('plug', 'virtio-blok')).toThrow('There is no "virtio-blok" to plug.');
    expect(() => commandHelp('cpus')).toThrow('There is no command "cpus".');
  });
});

describe('completion of code that plugs', () => {
  test.each<[string, string[]]>([
    ["vm.pci.plug('virtio-b", ["virtio-blk'", "virtio-balloon'"]],
    ["await vm.pci.plug('virtio-blk', { fi", ['file: ']],
    ["vm.pci.plug('virtio-blk', { file: 'a', cac", ['cache: ']],
    ["vm.pci.plug('virtio-blk', { cache: ", ["'writeback'", "'none'"]],
    ['vm.pci.plug("virtio-blk", { cache: "w', ['"writeback"']],
    ["vm.pci.plug('disk', { readonly: t", ['true']],
    ["vm.memory.plug('1G', { hugep", ['hugepages: ']],
    ['vm.nvdimm.plug({ lab', ['labelSize: ']],
    ["vm.plug({ kind: 'memory', nod", ['node: ']],
    ["vm.plug({ kind: 'pci', type: 'virtio-net', ma", ['mac: ']],
  ])('%s', (code, words) => expect(typedCompletions(code)?.[0]).toEqual(words));

  test.each(["vm.pci.plug('nothing', { ", "vm.pci.plug('virtio-blk', { file: 'a' })", 'vm.pause', "vm.plug({ kind: '"])(
    '%s has none',
    (code) => expect(typedCompletions(code)?.[0] ?? []).toEqual([]),
  );
});

test('every public member has its line of help, and no other', async () => {
  const vm = new Vm({ machine: new ScriptedMachine({ busy: false }).client, guest: undefined });
  await new Promise((resolve) => setImmediate(resolve));
  const { pci, memory, nvdimm, journal, kernel, cpus } = vm;
  const table = new AcpiTable('DSDT', 0, Buffer.alloc(64));
  const all = [
    ...[vm, memory, nvdimm, journal, kernel, cpus, cpus[0], memory.dimms[0], memory.virtio[0], nvdimm.list[0], table],
    ...[new Disk(vm, 'vda'), new Net(vm, 'net0'), pci.devices[0], (await pci())[0], await memory.dirtyRate()],
  ];
  for (const [type, { members }] of HELP) {
    const names = Object.getOwnPropertyNames(type.prototype).filter((name) => name !== 'constructor');
    for (const name of names) expect(Object.keys(members), type.name).toContain(name);
    const one = all.find((each) => each?.constructor === type);
    for (const name of Object.keys(members)) expect(name in (one as object), `${type.name}.${name}`).toBe(true);
  }
});

describe('the journal', () => {
  /** A machine that writes down whose limits are set. */
  function open() {
    const log: string[] = [];
    const machine = { state: 'running', throttle: async (name: string) => void log.push(name) };
    const journal = new Journal(actionsOf(machine as unknown as MachineClient));
    const set = (name: string): MachineChange => ({ method: 'throttle', parameters: [name, {}] });
    const action = (name: string) => ({
      code: name,
      run: async () => void log.push(name),
      redo: [set(name)],
      undo: { code: `un${name}`, changes: [set(`un${name}`)] },
      holds: `did('${name}')`,
    });
    return { log, machine, journal, action };
  }

  test('undo and redo, in order', async () => {
    const { log, journal, action } = open();
    await journal.do(action('a'));
    await journal.do(action('b'));
    expect(await journal.undo()).toBe('unb');
    expect(await journal.undo()).toBe('una');
    expect(await journal.redo()).toBe('a');
    await journal.do(action('c'));
    await expect(journal.redo()).rejects.toThrow(/Nothing was undone/);
    expect(log).toEqual(['a', 'b', 'unb', 'una', 'a', 'c']);
    expect(journal.script).toContain("await a;\nassert.ok(did('a'));\nawait c;");
  });

  test('what cannot be undone, and what fails, stays', async () => {
    const { journal } = open();
    await expect(journal.undo()).rejects.toMatchObject({
      message: 'Nothing was done that could be undone.',
      hint: expect.stringContaining('unplug ID'),
    });
    await expect(journal.do({ code: 'x', run: () => Promise.reject(new Error('no')) })).rejects.toThrow('no');
    expect(journal.lines).toEqual([]);
    await journal.do({ code: 'reset', run: async () => {} });
    await expect(journal.undo()).rejects.toThrow('Nothing is left that could be undone: reset cannot be.');
    expect(journal.lines.length).toBe(1);
  });

  test('what cannot be undone is stepped over, and stays', async () => {
    const { log, journal, action } = open();
    await journal.do(action('a'));
    await journal.do({ code: 'nmi', run: async () => {} });
    expect(journal.last).toEqual({ done: 'a', undone: undefined });
    expect(await journal.undo()).toBe('una (nmi cannot be undone)');
    expect(journal.last).toEqual({ done: undefined, undone: 'a' });
    expect(journal.lines).toEqual([expect.stringContaining('nmi')]);
    expect(await journal.redo()).toBe('a');
    expect(log).toEqual(['a', 'una', 'a']);
  });

  test('one undo at a time', async () => {
    const { log, journal, action } = open();
    for (const name of ['a', 'b']) await journal.do(action(name));
    expect(await Promise.all([journal.undo(), journal.undo(), journal.redo()])).toEqual(['unb', 'una', 'a']);
    await expect(Promise.all([journal.undo(), journal.undo()])).rejects.toThrow(/Nothing was done/);
    expect(log).toEqual(['a', 'b', 'unb', 'una', 'a', 'una']);
  });

  test('is of the machine: another user of it sees it, and takes it back', async () => {
    const { log, machine, journal, action } = open();
    await journal.do(action('a'));
    const other = new Journal(actionsOf(machine as unknown as MachineClient));
    expect(other.lines).toEqual([expect.stringMatching(/^\d\d:\d\d:\d\d {2}a$/)]);
    expect(await other.undo()).toBe('una');
    expect(journal.lines).toEqual([]);
    expect(log).toEqual(['a', 'una']);
  });

  test('disks and cards by any name, with what holds afterwards', async () => {
    const { client } = new ScriptedMachine({ busy: false });
    const disk = { ...(await client.disks())[0], name: 'data-1', size: 2 ** 20 };
    const net = { name: 'net-0', type: 'user', link: true, throttle: {}, hostForwards: [] };
    const forward = { protocol: 'tcp', hostAddress: '127.0.0.1', hostPort: 2222, guestPort: 22 };
    const vm = new Vm({
      guest: undefined,
      machine: Object.assign(client, {
        disks: async () => [disk],
        nets: async () => [net],
        throttle: async () => {},
        changeDisk: async () => disk,
        changeNet: async (_: string, { action }: { action: string }) =>
          action === 'forward' ? { ...net, hostForwards: [forward] } : net,
      }),
    });
    await new Disk(vm, 'data-1').throttle({ iops: 5 });
    await new Disk(vm, 'data-1').resize('2M');
    await new Disk(vm, 'data-1').change('b.img');
    await new Net(vm, 'net-0').link(false);
    await new Net(vm, 'net-0').forward({ hostPort: 2222, guestPort: 22 });
    await new Net(vm, 'net-0').backend({ type: 'tap' });
    const { script } = vm.journal;
    expect(() => stripTypeScriptTypes(script)).not.toThrow();
    for (const [doing, holds] of [
      ["vm.disks['data-1'].throttle({ iops: 5 })", "(await vm.disks['data-1'].statistics()).throttle, { iops: 5 }"],
      ["vm.disks['data-1'].resize('2M')", "(await vm.disks['data-1'].statistics()).size, 2097152"],
      ["vm.disks['data-1'].change('b.img')", "(await vm.disks['data-1'].statistics()).file, 'b.img'"],
      ["vm.nets['net-0'].link(false)", "(await vm.nets['net-0'].statistics()).link, false"],
      [
        "vm.nets['net-0'].forward({ hostPort: 2222, guestPort: 22 })",
        `(await vm.nets['net-0'].statistics()).hostForwards, [ ${inspect(forward, { breakLength: Number.POSITIVE_INFINITY })} ]`,
      ],
      ["vm.nets['net-0'].backend({ type: 'tap' })", "(await vm.nets['net-0'].statistics()).type, 'tap'"],
    ]) {
      expect(script).toContain(`await ${doing};\nassert.deepEqual(${holds});`);
    }
    await vm.journal.undo();
    expect(await vm.journal.undo()).toBe("vm.nets['net-0'].unforward({ hostPort: 2222, guestPort: 22 })");
  });
});

test('any configuration space is told, lists that loop too', () => {
  const random = seeded(7);
  for (let i = 0; i < 2000; i++) {
    const bytes = Buffer.from(Array.from({ length: 4096 }, () => (random(3) ? 0 : random(256))));
    bytes[0x06] |= 0x10;
    bytes[0x34] = 0x40;
    const view = new ConfigView(bytes.toString('base64'));
    expect(view.capabilities.length).toBeLessThan(1100);
    expect(`${view.className} ${view.command} ${view.slot}`).not.toBe('');
    expect(view.identity.length).toBeGreaterThan(2);
    expect(view.dump().length).toBeGreaterThan(0);
  }
});

test('who made a device, and its interrupt pin, are read from where a device and a bridge have them', () => {
  const bytes = Buffer.alloc(256);
  bytes.writeUInt32LE(0x1042_1af4, 0);
  bytes[8] = 1;
  bytes.writeUIntLE(0x010000, 9, 3);
  bytes.writeUInt32LE(0x0002_1af4, 0x2c);
  bytes[0x3c] = 11;
  bytes[0x3d] = 1;
  expect(new ConfigView(bytes.toString('base64')).identity).toEqual([
    'vendor 1af4, device 1042, revision 01',
    'class 010000',
    'subsystem: vendor 1af4, device 0002',
    'interrupt: pin INTA, line 11',
  ]);
  bytes[0x0e] = 1;
  expect(new ConfigView(bytes.toString('base64')).subsystem).toBeUndefined();
  bytes[6] = 0x10;
  bytes[0x34] = 0x40;
  bytes[0x40] = 13;
  bytes.writeUInt32LE(0x0003_1b36, 0x44);
  expect(new ConfigView(bytes.toString('base64')).subsystem).toEqual({ vendor: 0x1b36, device: 3 });
});
