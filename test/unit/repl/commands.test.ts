import { describe, expect, test } from 'vitest';
import { COMMANDS, commandCode, commandHelp } from '../../../src/repl/commands.ts';
import { HELP } from '../../../src/repl/help.ts';
import { INFO } from '../../../src/repl/info.ts';
import { Journal } from '../../../src/repl/journal.ts';
import { ConfigView } from '../../../src/repl/pci_config.ts';
import { typedCompletions } from '../../../src/repl/plug_options.ts';
import { random as seeded } from '../../support/random.ts';

describe('the short form', () => {
  test.each([
    ['pause', 'await vm.pause()'],
    ['  info   pci ', "await vm.info('pci')"],
    ["sh echo 'a b'  c", "await vm.sh('echo \\'a b\\'  c')"],
    ['x jiffies_64', "await vm.read('jiffies_64', 64)"],
    ['x 0x1000 16', 'await vm.read(0x1000, 16)'],
    ['walk 0xffffffff81000000 1', 'await vm.walk(0xffffffff81000000n, 1)'],
    ['pci 00:1c.0', "(await vm.pci('00:1c.0')).decode()"],
    ['cpu add 2', 'await vm.cpus.add(2)'],
    ['memory plug 1G node=1 id=extra', "await vm.memory.plug('1G', { node: 1, id: 'extra' })"],
    ['memory resize vm0 512M', "await vm.memory.resize('vm0', '512M')"],
    ['disk vda resize 2G', "await vm.disks['vda'].resize('2G')"],
    ['net net0 link off', "await vm.nets['net0'].link(false)"],
    ['net net0 forward 2222:22', "await vm.nets['net0'].forward({ hostPort: 2222, guestPort: 22 })"],
    ['net net0 unforward 2222', "await vm.nets['net0'].unforward(2222)"],
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

  test('what a shell has is quoted', () => {
    const code = commandCode("sh printf '%s\\n' `id` $HOME") as string;
    // biome-ignore lint/security/noGlobalEval: it is what the REPL does with it
    expect(eval(code.replace('await vm.sh', ''))).toBe("printf '%s\\n' `id` $HOME");
  });

  test('help names every command', () => {
    for (const { usage } of Object.values(COMMANDS)) expect(commandHelp()).toContain(usage);
    for (const topic of Object.keys(INFO)) expect(commandHelp()).toContain(topic);
  });

  test('a number is a number', () =>
    expect(() => commandCode('plug virtio-blk file=a queues=2M')).toThrow('queues=2M is not a whole number.'));

  test('help on one, and on what it plugs', () => {
    expect(commandHelp('plug', 'virtio-mem')).toMatch(/^ {2}size= +SIZE .*\(needed\)$/m);
    expect(commandHelp('cpu')).toBe('cpu add|remove [N]\n  plug vCPUs, or take the last ones out');
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

test('every public member has its line of help, and no other', () => {
  for (const [type, { members }] of HELP) {
    const names = Object.getOwnPropertyNames(type.prototype).filter((name) => name !== 'constructor');
    for (const name of names) expect(Object.keys(members), type.name).toContain(name);
  }
});

describe('the journal', () => {
  const action = (log: string[], name: string) => ({
    code: name,
    run: async () => void log.push(name),
    inverse: { code: `un${name}`, run: async () => void log.push(`un${name}`) },
    holds: `did('${name}')`,
  });

  test('undo and redo, in order', async () => {
    const log: string[] = [];
    const journal = new Journal();
    await journal.do(action(log, 'a'));
    await journal.do(action(log, 'b'));
    expect(await journal.undo()).toBe('unb');
    expect(await journal.undo()).toBe('una');
    expect(await journal.redo()).toBe('a');
    await journal.do(action(log, 'c'));
    await expect(journal.redo()).rejects.toThrow(/Nothing was undone/);
    expect(log).toEqual(['a', 'b', 'unb', 'una', 'a', 'c']);
    expect(journal.script).toContain("await a;\nassert.ok(did('a'));\nawait c;");
  });

  test('what cannot be undone, and what fails, stays', async () => {
    const journal = new Journal();
    await expect(journal.undo()).rejects.toThrow(/Nothing was done/);
    await expect(journal.do({ code: 'x', run: () => Promise.reject(new Error('no')) })).rejects.toThrow('no');
    expect(journal.lines).toEqual([]);
    await journal.do({ code: 'reset', run: async () => {} });
    await expect(journal.undo()).rejects.toThrow('reset cannot be undone');
    expect(journal.lines.length).toBe(1);
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
    expect(view.dump().length).toBeGreaterThan(0);
  }
});
