/** What Tab offers, on a scripted machine. */
import { PassThrough } from 'node:stream';
import { expect, onTestFinished, test } from 'vitest';
import { complete, listing } from '../../../src/repl/completion.ts';
import { ReplSession } from '../../../src/repl/session.ts';
import { Vm } from '../../../src/repl/vm.ts';
import { ScriptedMachine } from '../../support/scripted_machine.ts';

async function open(): Promise<Vm> {
  const vm = new Vm({ machine: new ScriptedMachine({ busy: false }).client, guest: undefined });
  await new Promise((resolve) => setImmediate(resolve));
  return vm;
}

test.each<[string, string[]]>([
  ['unp', ['unplug']],
  ['vm.cpus.', ['count', 'add', 'remove']],
  ['vm.cpus[0].re', ['report', 'registers', 'read']],
  ['const a = await vm.memory.si', ['size']],
  ['vm.pci.', ['plug', 'devices', 'ports']],
  ['vm.nets.', ['net0']],
  ['vm.nets.net0.un', ['unforward', 'unplug']],
  ["vm.nets['n", ["net0'"]],
  ["vm.unplug('rn", ["rng0'"]],
  ["await vm.unplug('dimm", ["dimm0'", "dimm1'"]],
  ["vm.pci('vd", ["vda'"]],
  ["vm.info('m", ["memory'", "map'", "modules'"]],
  ["vm.info('queues', 'vd", ["vda'"]],
  ['net ', ['net0']],
  ['net net0 ', ['link', 'forward', 'unforward', 'throttle', 'backend']],
  ['net net0 throttle pps-m', ['pps-max=']],
  ['net net0 backend t', ['tap']],
  ['unplug dimm', ['dimm0', 'dimm1']],
  ['pci vd', ['vda']],
  ['info qu', ['queues']],
  ['info queues vd', ['vda']],
  ['plug virtio-rng po', ['port=']],
  ["vm.pci.plug('virtio-blk', { fi", ['file: ']],
])('%s', async (line, words) => {
  const found = await complete(line, await open());
  expect(found?.words.map(([word]) => word).sort()).toEqual([...words].sort());
});

test.each(['[1].', 'const x = ', 'vm.name.'])('%s is for JavaScript', async (line) =>
  expect(await complete(line, await open())).toBeUndefined(),
);

test('a listing says what each is', async () => {
  const vm = await open();
  const told = async (line: string) => listing((await complete(line, vm)) ?? { words: [], part: '' });
  expect(await told('vm.cpus.')).toMatch(
    /^count +vm\.cpus\.count {2}how many there are\nadd +await vm\.cpus\.add\(2\)/,
  );
  expect(await told('pa')).toBeUndefined();
  expect(await told('plug virtio-rng ')).toMatch(/^id= +TEXT {2}its name; rng without one$/m);
  expect(await told("vm.pci.plug('virtio-blk', { ")).toMatch(/^file: +FILE {2}image or block device {2}\(needed\)$/m);
  expect(await told("vm.unplug('")).toMatch(/^rng0' +virtio-rng in sw0\.0$/m);
});

test('Tab pressed twice shows it, and the line stays', async () => {
  const [input, output] = [new PassThrough(), new PassThrough()];
  let screen = '';
  output.on('data', (bytes) => {
    screen += bytes;
  });
  const session = new ReplSession(await open(), { input, output, terminal: true, colors: false });
  onTestFinished(() => session.close());
  input.write('vm.cpus.');
  for (let i = 0; i < 2; i++) {
    input.write('\t');
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  expect(screen).toContain('how many there are');
  expect(screen).not.toContain('flatMap');
  input.write('count\r');
  await expect.poll(() => screen).toMatch(/vm\.cpus\.count[\s\S]*4/);
});
