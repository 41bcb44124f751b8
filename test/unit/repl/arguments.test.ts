/** What members are called with that is no argument of theirs: each says so in a sentence. */
import { describe, expect, test } from 'vitest';
import { NemuError } from '../../../src/client/errors.ts';
import { parseOptions, parsePlug, resizeMemorySchema, unplugSchema } from '../../../src/client/live.ts';
import { parseDiskChange, parseNetChange } from '../../../src/client/live_change.ts';
import type { MachineClient } from '../../../src/client/machine_client.ts';
import { Disk } from '../../../src/repl/disks.ts';
import { topicOf } from '../../../src/repl/help.ts';
import { Vm } from '../../../src/repl/vm.ts';
import { ScriptedMachine } from '../../support/scripted_machine.ts';

/** A machine that checks what it is asked as the real one does, and does nothing. */
async function open(): Promise<Vm> {
  const { client } = new ScriptedMachine({ busy: false });
  const nothing = async () => undefined;
  const machine = Object.assign(client, {
    plug: async (input: unknown) => ({ device: { ...parsePlug(input), id: 'x', index: 1 } }),
    unplug: async (...args: unknown[]) => {
      parseOptions(unplugSchema, args);
      return { device: { kind: 'memory', id: 'x' } };
    },
    resizeMemory: async (...args: unknown[]) => parseOptions(resizeMemorySchema, args),
    changeDisk: async (_name: string, input: unknown) => parseDiskChange(input),
    changeNet: async (_name: string, input: unknown) => parseNetChange(input),
    balloon: async () => ({ target: 0, actual: 0, statistics: {} }),
    readMemory: async (_at: number, length: number) => new Uint8Array(length),
    searchMemory: async () => [],
    ...{ throttle: nothing, vmcoreinfo: nothing, powerButton: nothing, nmi: nothing, close: nothing },
  }) as MachineClient;
  const guest = { run: async () => ({ status: 0, output: Buffer.alloc(0) }) };
  const vm = new Vm({ machine, guest: guest as never });
  await expect.poll(() => vm.plugged).toBeDefined();
  return vm;
}

const WRONG = [
  ...[undefined, null, {}, [], '', 'abc', -1, 1.5, 2 ** 60, 99999999999, true, 10n ** 30n, () => 1],
  ...[Number.NaN, Number.POSITIVE_INFINITY],
];
/** As first arguments before another that is wrong: some of them are right. */
const FIRST = ['vda', 1, { kind: 'cpu' }, 'virtio-rng', '128M'];
const CALLS = [[], ...WRONG.map((each) => [each]), ...FIRST.flatMap((first) => WRONG.map((each) => [first, each]))];

/** By what they are; the ones that take no argument, or whose machine is not scripted, are not here. */
const MEMBERS: Readonly<Record<string, (vm: Vm) => unknown>> = {
  vm: (vm) => vm,
  'vm.memory': ({ memory }) => memory,
  'vm.memory.dimms[0]': ({ memory }) => memory.dimms[0],
  'vm.memory.virtio[0]': ({ memory }) => memory.virtio[0],
  'vm.cpus': ({ cpus }) => cpus,
  'vm.cpus[0]': ({ cpus }) => cpus[0],
  'vm.disks.vda': (vm) => new Disk(vm, 'vda'),
  'vm.nets.net0': ({ nets }) => nets.net0,
  'vm.pci': ({ pci }) => pci,
  'vm.pci.devices[0]': ({ pci }) => pci.devices[0],
  'vm.nvdimm': ({ nvdimm }) => nvdimm,
  'vm.nvdimm.list[0]': ({ nvdimm }) => nvdimm.list[0],
  'vm.kernel': ({ kernel }) => kernel,
  'vm.journal': ({ journal }) => journal,
};
const LEFT_OUT = new Set(['describe', 'idle', 'undo', 'redo', 'save', 'apply']);

describe('any argument is taken, or refused in a sentence', () => {
  test.each(Object.entries(MEMBERS))('%s', async (name, member) => {
    const of = member(await open());
    const names = Object.keys(topicOf(of)?.members ?? {}).filter((each) => !LEFT_OUT.has(each));
    expect(names).not.toEqual([]);
    for (const each of names) {
      const method = each === '()' ? of : (of as Record<string, unknown>)[each];
      if (typeof method !== 'function') continue;
      for (const args of CALLS) {
        const error = await (async () => method.apply(of, args))().then(
          () => undefined,
          (reason: unknown) => reason,
        );
        if (error === undefined) continue;
        expect(error, `${name}.${each} ${String(args.map((arg) => typeof arg))}`).toBeInstanceOf(NemuError);
        expect((error as NemuError).text).not.toMatch(/Invalid|Expected|\[object/);
      }
    }
  });
});

const told = async (work: (vm: Vm) => unknown) => {
  const vm = await open();
  return (async () => work(vm))().then(
    () => 'nothing',
    (error: NemuError) => error.text,
  );
};

test.each<[string, (vm: Vm) => unknown, string]>([
  [
    'vm.plug()',
    (vm) => vm.plug(undefined as never),
    'This cannot be plugged: a device is an object of options, not undefined.\n' +
      "As { kind: 'cpu' }, { kind: 'memory', size: '1G' } or { kind: 'pci', type: 'virtio-rng' }.",
  ],
  [
    "vm.plug({ type: 'virtio-rng' })",
    (vm) => vm.plug({ type: 'virtio-rng' } as never),
    "This cannot be plugged: it has no kind.\nWrite it so: { kind: 'pci', type: 'virtio-rng' }.",
  ],
  [
    "vm.plug({ type: 'virtio-rgn' })",
    (vm) => vm.plug({ type: 'virtio-rgn' } as never),
    "This cannot be plugged: there is no type \"virtio-rgn\".\nDid you mean { kind: 'pci', type: 'virtio-rng' }?",
  ],
  [
    "vm.plug({ kind: 'memroy' })",
    (vm) => vm.plug({ kind: 'memroy' } as never),
    'This cannot be plugged: there is no kind "memroy".\nDid you mean { kind: \'memory\' }?',
  ],
  [
    "vm.plug({ kind: 'nic' })",
    (vm) => vm.plug({ kind: 'nic' } as never),
    "This cannot be plugged: there is no kind \"nic\".\nDid you mean { kind: 'pci', type: 'virtio-net' }?",
  ],
  [
    'vm.memory.plug(NaN)',
    ({ memory }) => memory.plug(Number.NaN),
    'This cannot be plugged: size takes a number (bytes, a multiple of 128 MiB), not NaN.',
  ],
  [
    "vm.pci.plug('virtio-mem', { size: '200M' })",
    ({ pci }) => pci.plug('virtio-mem', { size: '200M' }),
    'This cannot be plugged: a virtio-mem of 209715200 bytes is not a multiple of 128 MiB, in which Linux takes memory.\n' +
      'Take 256 MiB: the size is the most that can be plugged of it, requested says how much is.',
  ],
  [
    'vm.nvdimm.plug()',
    ({ nvdimm }) => nvdimm.plug(undefined as never),
    "undefined is no object of options.\nIt is called so: vm.nvdimm.plug({ file: 'pm.img', size: '256M' }).",
  ],
  [
    'vm.read(0, 99999999999)',
    (vm) => vm.read(0, 99999999999),
    '99999999999 bytes are more than can be read at once: 64 MiB.\nRead them piece by piece.',
  ],
  ['vm.cpus[0].walk(NaN)', ({ cpus }) => cpus[0].walk(Number.NaN), expect.stringMatching(/^NaN is no address\.\n/)],
  [
    'vm.plug({ nosuch })',
    (vm) => vm.plug({ type: 'nosuch' } as never),
    expect.stringMatching(
      /^This cannot be plugged: there is no type "nosuch"\.\nThe kinds are cpu, memory, nvdimm and pci, whose types are virtio-blk, /,
    ),
  ],
])('%s says what it takes', async (_code, work, text) => {
  expect(await told(work)).toEqual(text);
});
