/** What was done to a machine: one list for all who use it, which each of them may take back. */
import { duplexPair } from 'node:stream';
import { describe, expect, test } from 'vitest';
import { type Actions, actionsOf, type NotedAction } from '../../../src/client/actions.ts';
import { parseMachine } from '../../../src/client/description.ts';
import { NemuError } from '../../../src/client/errors.ts';
import { type MachineChange, plugChange, unplugChange } from '../../../src/client/machine_change.ts';
import type { MachineClient } from '../../../src/client/machine_client.ts';
import { EngineConnection } from '../../../src/client/remote.ts';
import { serveMachine } from '../../../src/client/serve.ts';
import { random as randomOf } from '../../support/random.ts';

/** A machine that writes down what is asked of it, and two terminals that share it. */
async function open() {
  const asked: unknown[][] = [];
  const present = new Set<string>();
  let refusal: NemuError | undefined;
  const machine = {
    description: parseMachine({ kernel: { image: '/k' } }),
    state: 'running',
    end: undefined,
    consoles: [],
    onEvent: () => () => {},
    ended: () => new Promise(() => {}),
    plugged: async () => ({
      ...{ cpus: { present: [] }, memory: { dimms: [...present].map((id) => ({ id })), virtio: [] } },
      ...{ nvdimms: [], pci: { devices: [] } },
    }),
    async plug(device: { id: string }) {
      asked.push(['plug', device]);
      if (refusal) throw refusal;
      present.add(device.id);
      return { device };
    },
    async unplug(id: string) {
      asked.push(['unplug', id]);
      if (refusal) throw refusal;
      present.delete(id);
      return { device: { id } };
    },
    throttle: async (...parameters: unknown[]) => void asked.push(['throttle', ...parameters]),
    changeDisk: async (...parameters: unknown[]) => void asked.push(['changeDisk', ...parameters]),
    disks: async () => [],
  };
  const client = machine as unknown as MachineClient;
  const attach = async () => {
    const [ours, theirs] = duplexPair();
    void serveMachine(theirs, client);
    const connection = new EngineConnection(ours);
    const remote = await connection.attach();
    return { connection, remote, actions: actionsOf(remote) };
  };
  return {
    ...{ asked, present, machine, client, attach, own: actionsOf(client) },
    refuse: (error: NemuError | undefined) => {
      refusal = error;
    },
  };
}

const plugging = (id: string): NotedAction => ({
  code: `vm.plug('${id}')`,
  redo: [plugChange({ kind: 'memory', size: '128M', id })],
  undo: { code: `vm.unplug('${id}')`, changes: [unplugChange(id)] },
});
const codes = ({ done }: Actions) => done.map(({ code }) => code);

describe('the actions of a machine that is shared', () => {
  test('are seen by all, and taken back by any', async () => {
    const { attach, own, asked, present } = await open();
    const ann = await attach();
    const bob = await attach();
    await ann.remote.plug({ kind: 'memory', size: '128M', id: 'a' });
    await ann.actions.add(plugging('a'));
    expect([codes(own), codes(ann.actions), codes(bob.actions)]).toEqual(Array(3).fill(["vm.plug('a')"]));
    expect(await bob.actions.undo()).toBe("vm.unplug('a')");
    expect(present.size).toBe(0);
    expect([own.undone.length, ann.actions.undone.length, ann.actions.done.length]).toEqual([1, 1, 0]);
    // Who comes later finds what was undone, too.
    const late = await attach();
    expect(await late.actions.redo()).toBe("vm.plug('a')");
    expect([...present]).toEqual(['a']);
    expect(asked.map(([method]) => method)).toEqual(['plug', 'unplug', 'plug']);
    await expect(late.actions.redo()).rejects.toMatchObject({ code: 'UNDO' });
    for (const { connection } of [ann, bob, late]) connection.close();
  });

  test('are undone one at a time, whoever asks', async () => {
    const { attach, own } = await open();
    const all = await Promise.all([attach(), attach()]);
    for (const name of ['a', 'b', 'c']) {
      await own.add({ code: name, redo: [], undo: { code: `un${name}`, changes: [] } });
    }
    const undone = await Promise.all([...all, ...all].map(({ actions }) => actions.undo().catch(({ code }) => code)));
    expect(undone.sort()).toEqual(['UNDO', 'una', 'unb', 'unc']);
    for (const { connection } of all) connection.close();
  });

  test('what a guest refuses to give back stays done, and can be tried again', async () => {
    const { attach, own, refuse, present } = await open();
    const { actions, connection } = await attach();
    present.add('a');
    await own.add(plugging('a'));
    refuse(new NemuError('REFUSED', 'a was not unplugged: it is in use.', { hint: 'Try it again.' }));
    await expect(actions.undo()).rejects.toMatchObject({ code: 'REFUSED', hint: 'Try it again.' });
    expect([codes(actions), actions.undone]).toEqual([["vm.plug('a')"], []]);
    refuse(undefined);
    expect(await actions.undo()).toBe("vm.unplug('a')");
    connection.close();
  });

  test('what is gone already is not asked for, and a paused machine is asked for nothing', async () => {
    const { own, asked, present, machine } = await open();
    await own.add(plugging('gone'));
    await own.undo();
    expect(asked).toEqual([]);
    present.add('a');
    await own.add(plugging('a'));
    machine.state = 'paused';
    await expect(own.undo()).rejects.toMatchObject({ code: 'STATE', hint: 'resume, then try again.' });
    expect([codes(own), asked]).toEqual([["vm.plug('a')"], []]);
  });

  test('the oldest of very many are forgotten', async () => {
    const { own } = await open();
    for (let i = 0; i < 1200; i++) await own.add({ code: `${i}` });
    expect([own.done.length, own.done[0].code, own.done.at(-1)?.code]).toEqual([1000, '200', '1199']);
  });

  test('what is no action is refused in a sentence, and no change can be smuggled in', async () => {
    const { attach, own, asked } = await open();
    const { actions, connection } = await attach();
    const undo = (changes: unknown) => ({ code: 'x', undo: { code: 'y', changes } });
    for (const wrong of [
      ...[null, 7, {}, { code: '' }, { code: 'x'.repeat(30_000) }, { code: 'x', more: 1 }, { code: 'x', gives: [1] }],
      ...[
        undo({}),
        undo([{ method: 'close', parameters: [] }]),
        undo([{ method: 'writeMemory', parameters: [0, 'a'] }]),
      ],
      ...[undo([{ method: '__proto__', parameters: [] }]), undo(Array(300).fill(unplugChange('a')))],
    ]) {
      await expect(actions.add(wrong as never)).rejects.toMatchObject({ code: 'PROTOCOL' });
    }
    expect(own.done).toEqual([]);
    // Parameters are looked at when the change is made, as those of a call are.
    const random = randomOf(5);
    const values = [null, undefined, -1, 'x', {}, [], true, 1e300, { action: 'medium' }];
    for (let i = 0; i < 300; i++) {
      const method = (['throttle', 'changeDisk', 'resizeMemory', 'unplug'] as const)[random(4)];
      const parameters = Array.from({ length: random(4) }, () => values[random(values.length)]);
      const change: MachineChange = { method, parameters };
      await actions.add({ code: 'x', undo: { code: 'y', changes: [change] } });
      const error = await actions.undo().then(
        () => undefined,
        (reason: NemuError) => reason,
      );
      if (error) expect(error.message).toMatch(/^(This cannot be done|A disk cannot be changed)/);
      if (error) await own.add({ code: 'z' });
    }
    for (const [, ...parameters] of asked) expect(parameters.length).toBeGreaterThan(0);
    connection.close();
  });
});

test('files are named from the root for a machine that is elsewhere', async () => {
  const { attach, asked } = await open();
  const { remote, connection } = await attach();
  await remote.plug({ kind: 'memory', size: '128M', id: 'a', path: 'dimm.img' });
  await remote.plug({ kind: 'pci', type: 'virtio-blk', file: 'nbd://host/disk' });
  await remote.changeDisk('vda', { action: 'medium', file: 'other.img' });
  expect(asked).toMatchObject([
    ['plug', { path: `${process.cwd()}/dimm.img` }],
    ['plug', { file: 'nbd://host/disk' }],
    ['changeDisk', 'vda', { file: `${process.cwd()}/other.img` }],
  ]);
  connection.close();
});
