/** What is asked of a machine whose guest does everything at once: how many, what is refused, what is taken back. */
import { describe, expect, test } from 'vitest';
import { parseMachine } from '../../../src/client/description.ts';
import { NemuError } from '../../../src/client/errors.ts';
import type { PlugInput } from '../../../src/client/live.ts';
import type { MachineClient, MachineState } from '../../../src/client/machine_client.ts';
import { Vm } from '../../../src/repl/vm.ts';

const MiB = 2 ** 20;

async function open({ count = 2, max }: { count?: number; max?: number } = {}) {
  const cpus = new Set(Array(count).keys());
  const asked: string[] = [];
  const refused = new Set<string>();
  const machine = {
    description: parseMachine({
      ...{ kernel: { image: '/k' }, memory: { size: '512M', max: '4G' } },
      cpus: { count, ...(max !== undefined && { max }) },
    }),
    state: 'running' as MachineState,
    onEvent: () => () => {},
    plugged: async () => ({
      cpus: { present: [...cpus].sort().map((index) => ({ id: `cpu${index}`, index })), max },
      memory: { boot: 512 * MiB, dimms: [], virtio: [] },
      nvdimms: [],
      pci: { devices: [], ports: [] },
    }),
    async plug(input: PlugInput) {
      if (input.kind !== 'cpu') {
        const id = ('id' in input && input.id) || 'first';
        asked.push(`plug ${id}`);
        const type = input.kind === 'pci' && input.type === 'virtio-port' ? { type: input.type } : {};
        return { device: { ...input, id, ...type } };
      }
      const index = input.index ?? [...Array(max).keys()].find((each) => !cpus.has(each)) ?? -1;
      asked.push(`plug cpu${index}`);
      if (refused.has(`cpu${index}`)) throw new NemuError('REFUSED', `cpu${index} was not plugged.`);
      cpus.add(index);
      return { device: { kind: 'cpu', id: `cpu${index}`, index } };
    },
    async unplug(id: string) {
      asked.push(`unplug ${id}`);
      if (refused.has(id)) throw new NemuError('REFUSED', `${id} was not unplugged.`);
      cpus.delete(Number(id.slice(3)));
      return { device: { kind: 'cpu', id, index: Number(id.slice(3)) } };
    },
    async balloon(target?: number) {
      if (target !== undefined) asked.push(`balloon ${target}`);
      return { target: target ?? 0, actual: target ?? 0, statistics: {} };
    },
    async pause() {
      machine.state = 'paused';
    },
    async resume() {
      machine.state = 'running';
    },
  };
  const vm = new Vm({ machine: machine as unknown as MachineClient, guest: undefined });
  await expect.poll(() => vm.plugged).toBeDefined();
  return { vm, machine, asked, refused };
}

const code = ({ vm }: { vm: Vm }) => vm.journal.lines.map((line) => line.slice(10));

describe('vCPUs', () => {
  test.each([0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, 'foo', '2'])('%s of them are none', async (count) => {
    const at = await open({ max: 6 });
    const problem = { code: 'USAGE', message: expect.stringMatching(/is no number of vCPUs: give a whole number/) };
    await expect(at.vm.cpus.add(count as number)).rejects.toMatchObject(problem);
    await expect(at.vm.cpus.remove(count as number)).rejects.toMatchObject(problem);
    expect(at.asked).toEqual([]);
    expect(code(at)).toEqual([]);
  });

  test('more than there is room for, or than are there, are refused before anything is touched', async () => {
    const at = await open({ max: 6 });
    await expect(at.vm.cpus.add(1e9)).rejects.toMatchObject({
      ...{ code: 'CPU_LIMIT', hint: 'A machine has 254 at most.' },
      message: '2 vCPUs are there, and there is room for 6: not for 1000000000 more.',
    });
    await expect(at.vm.cpus.add(5)).rejects.toMatchObject({
      hint: 'Start the machine with more room: --cpus 2,max=7.',
    });
    await expect(at.vm.cpus.remove(2)).rejects.toMatchObject({
      ...{ code: 'CPU_LIMIT', hint: '1 can.' },
      message: '2 vCPUs are there, and cpu0 stays: 2 cannot be taken out.',
    });
    const small = await open({ count: 1 });
    await expect(small.vm.cpus.add()).rejects.toMatchObject({
      hint: 'Start the machine with more room: --cpus 1,max=2.',
    });
    await expect(small.vm.cpus.remove()).rejects.toThrow('cpu0 stays');
    expect([...at.asked, ...small.asked]).toEqual([]);
  });

  test('that come or go together are one action', async () => {
    const at = await open({ max: 6 });
    const { vm } = at;
    expect((await vm.cpus.add(3)).map(({ index }) => index)).toEqual([2, 3, 4]);
    expect(code(at)).toEqual(['vm.cpus.add(3)']);
    expect(vm.journal.script).toContain("assert.ok(vm.has('cpu2') && vm.has('cpu3') && vm.has('cpu4'));");
    expect(await vm.journal.undo()).toBe("vm.unplug('cpu2'), vm.unplug('cpu3'), vm.unplug('cpu4')");
    expect(vm.cpus.count).toBe(2);
    await vm.journal.redo();
    await vm.cpus.remove(4);
    expect(vm.cpus.count).toBe(1);
    await vm.journal.undo();
    expect(vm.cpus.count).toBe(5);
    expect(code(at)).toEqual(['vm.cpus.add(3)']);
  });

  test('of which one fails leave what was done, and that is written down', async () => {
    const at = await open({ max: 6 });
    at.refused.add('cpu4');
    await expect(at.vm.cpus.add(4)).rejects.toThrow('cpu4 was not plugged.');
    expect(code(at)).toEqual(['vm.cpus.add(2)']);
    at.refused.add('cpu1');
    await expect(at.vm.cpus.remove(3)).rejects.toThrow('cpu1 was not unplugged.');
    expect(code(at)).toEqual(['vm.cpus.add(2)', 'vm.cpus.remove(2)']);
    await expect(at.vm.cpus.remove()).rejects.toThrow('cpu1 was not unplugged.');
    expect(code(at)).toHaveLength(2);
    await at.vm.journal.undo();
    await at.vm.journal.undo();
    expect(at.vm.cpus.count).toBe(2);
  });
});

describe('a saved script does the same on another machine', () => {
  test.each<[PlugInput, string]>([
    [{ kind: 'memory', size: '128M' }, "{ kind: 'memory', size: '128M', id: 'first' }"],
    [{ kind: 'nvdimm', file: '/pm' }, "{ kind: 'nvdimm', file: '/pm', id: 'first' }"],
    [{ kind: 'pci', type: 'virtio-blk', file: '/a' }, "{ kind: 'pci', type: 'virtio-blk', file: '/a', id: 'first' }"],
    [{ kind: 'pci', type: 'virtio-rng', id: 'r' }, "{ kind: 'pci', type: 'virtio-rng', id: 'r' }"],
    [{ kind: 'pci', type: 'virtio-port', name: 'p' }, "{ kind: 'pci', type: 'virtio-port', name: 'p' }"],
    [{ kind: 'cpu' }, "{ kind: 'cpu', index: 2 }"],
  ])('with the name that %j got', async (input, written) => {
    const at = await open({ max: 4 });
    await at.vm.plug(input);
    expect(at.vm.journal.script).toContain(`await vm.plug(${written});`);
    const [first] = at.asked.splice(0);
    await at.vm.journal.undo();
    await at.vm.journal.redo();
    expect(at.asked.at(-1)).toBe(first);
  });

  test('with the numbers of vCPUs that came together', async () => {
    const { vm } = await open({ max: 6 });
    await vm.cpus.add(2, { timeoutMs: 500 });
    expect(vm.journal.script).toContain(
      [2, 3].map((index) => `await vm.plug({ kind: 'cpu', index: ${index} }, { timeoutMs: 500 });\n`).join(''),
    );
  });
});

test('a machine that is paused is asked for nothing that its guest would have to hear of', async () => {
  const at = await open({ max: 6 });
  const { vm } = at;
  await vm.cpus.add();
  await vm.pause();
  const told = { code: 'STATE', message: expect.stringContaining('is paused'), hint: 'resume, then try again.' };
  at.asked.length = 0;
  await expect(vm.plug({ kind: 'cpu' })).rejects.toMatchObject(told);
  await expect(vm.cpus.add()).rejects.toMatchObject(told);
  await expect(vm.unplug('cpu1')).rejects.toMatchObject(told);
  await expect(vm.memory.resize('vm0', '256M')).rejects.toMatchObject(told);
  expect(at.asked).toEqual([]);
  // It waits for no guest.
  await vm.unplug('cpu1', { force: true });
  await vm.resume();
  await vm.plug({ kind: 'cpu' });
  expect(at.asked).toEqual(['unplug cpu1', 'plug cpu1']);
});

test('a balloon leaves the guest something', async () => {
  const { vm, asked } = await open();
  for (const size of ['100G', '512M', 512 * MiB]) {
    await expect(vm.memory.balloon(size)).rejects.toMatchObject({
      ...{ code: 'USAGE', hint: 'The size is what it gives up, not what it keeps.' },
      message: expect.stringMatching(
        /^A balloon of (100 GiB|512 MiB) leaves nothing of the 512 MiB that the guest has\.$/,
      ),
    });
  }
  for (const size of [Number.NaN, -1]) await expect(vm.memory.balloon(size)).rejects.toThrow(`${size} is no size.`);
  await vm.memory.balloon('256M');
  expect(asked).toEqual([`balloon ${256 * MiB}`]);
});
