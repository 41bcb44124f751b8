/** Parts of the machine that are changed from the workstation: forms, their other forms, and what asks first. */
import { expect, onTestFinished, test } from 'vitest';
import { NemuError } from '../../../src/client/errors.ts';
import type { PlugInput } from '../../../src/client/live.ts';
import { ACTIONS } from '../../../src/tui/actions.ts';
import { plugForms, plugInput, plugKinds } from '../../../src/tui/plug_form.ts';
import { plainText } from '../../../src/tui/style.ts';
import { ScriptedMachine } from '../../support/scripted_machine.ts';
import { scriptedStation } from '../../support/scripted_station.ts';

async function open() {
  const machine = new ScriptedMachine({ busy: true });
  const done: string[] = [];
  const note =
    (name: string) =>
    async (...words: unknown[]) => {
      done.push(`${name} ${JSON.stringify(words)}`);
      return {};
    };
  Object.assign(machine, {
    changeDisk: note('changeDisk'),
    throttle: note('throttle'),
    resizeMemory: note('resizeMemory'),
    changeNet: note('changeNet'),
  });
  const asked = machine.unplug.bind(machine);
  Object.assign(machine, {
    unplug: (id: string, options: object) => {
      done.push(`unplug ${id} ${JSON.stringify(options)}`);
      return asked(id);
    },
  });
  const station = scriptedStation({ machine });
  onTestFinished(() => station.model.close());
  await station.model.refresh();
  const type = (text: string) => {
    for (const char of text) station.key(char, char);
  };
  const shown = () => station.overlay?.view(100, 40).lines.map(plainText).join('\n') ?? '';
  const perform = (id: string) => {
    const action = ACTIONS.find((each) => each.id === id);
    if (!action) throw new Error(`There is no action ${id}.`);
    station.perform(action);
  };
  return { station, machine, done, type, shown, perform };
}

test('a balloon: its size is checked, and its forms are shown', async () => {
  const { station, machine, type, shown, perform } = await open();
  perform('balloon');
  type('9G');
  station.key('enter', '');
  expect(shown()).toContain('leave it nothing');
  station.key('ctrl-u', '');
  type('128M');
  expect(shown()).toContain("REPL: await vm.memory.balloon('128M')");
  // 1 GiB at boot, 1.5 GiB of DIMMs, 256 MiB of virtio-mem, less what is given back.
  expect(shown()).toContain(`QMP: balloon value=${(1024 + 1536 + 256 - 128) * 2 ** 20}`);
  station.key('enter', '');
  await expect.poll(async () => (await machine.balloon()).target).toBe(128 * 2 ** 20);
  expect(station.model.events.at(-1)?.text).toBe("await vm.memory.balloon('128M')");
  // What takes longer than a refusal is told in the status line.
  await expect.poll(() => station.overlay, { timeout: 3000 }).toBeUndefined();
});

test('virtio-mem: multiples of its block alone', async () => {
  const { station, done, type, shown, perform } = await open();
  perform('resize-memory');
  type('3M');
  station.key('enter', '');
  expect(shown()).toContain('in blocks of 2 MiB');
  station.key('ctrl-u', '');
  type('768M');
  expect(shown()).toContain(`QMP: qom-set path=/machine/peripheral/vm0 property=requested-size value=${768 * 2 ** 20}`);
  station.key('enter', '');
  await expect.poll(() => done).toEqual([expect.stringMatching(/^resizeMemory \["vm0","?(768M|805306368)/)]);
});

test('a disk: less must be meant, a medium and limits have their forms', async () => {
  const { station, done, type, shown, perform } = await open();
  perform('resize-disk');
  type('1G');
  station.key('enter', '');
  expect(shown()).toContain('shrink says that less is meant');
  station.key('down', '');
  station.key('right', '');
  expect(shown()).toContain('What is behind the new end is lost');
  expect(shown()).toContain("REPL: await vm.disks.vda.resize('1G', { shrink: true })");
  station.key('enter', '');
  await expect.poll(() => done).toHaveLength(1);
  expect(done[0]).toContain('"shrink":true');
  perform('change-medium');
  type('/images/other.img');
  expect(shown()).toContain('/images/debian.qcow2 is in it now.');
  expect(shown()).toContain("REPL: await vm.disks.vda.change('/images/other.img')");
  station.key('enter', '');
  await expect.poll(() => done).toHaveLength(2);
  expect(done[1]).toContain('"file":"/images/other.img"');
  perform('throttle-disk');
  type('500');
  for (let i = 0; i < 4; i++) station.key('down', '');
  type('10M');
  expect(shown()).toContain('REPL: await vm.disks.vda.throttle({ iops: 500, bps: 10485760 })');
  expect(shown().replaceAll(/\s+/g, ' ')).toContain(
    'QMP: block_set_io_throttle id=vda bps=10485760 bps_rd=0 bps_wr=0 iops=500 iops_rd=0 iops_wr=0',
  );
  station.key('enter', '');
  await expect.poll(() => done[2]).toBe('throttle ["vda",{"iops":500,"bps":10485760}]');
});

test('a limit is one value, and does not bring another one with it', async () => {
  const { station, done, type, shown, perform } = await open();
  perform('throttle-disk');
  type('5,bps=1');
  station.key('enter', '');
  expect(shown()).toContain('iops=5,bps=1 is not a whole number');
  station.key('ctrl-u', '');
  for (let i = 0; i < 4; i++) station.key('down', '');
  type('1,iops=5');
  station.key('enter', '');
  expect(shown()).toContain('"1,iops=5" is not a size.');
  station.key('esc', '');
  perform('throttle-net');
  for (let i = 0; i < 4; i++) station.key('down', '');
  type('1,pps=5');
  station.key('enter', '');
  expect(shown()).toContain('"1,pps=5" is not a size.');
  expect(done).toEqual([]);
});

test('writes to memory are watched where the machine may be changed, and the form is told when that begins', async () => {
  const { station, perform } = await open();
  const told = () => station.model.events.filter(({ kind }) => kind === 'action').map(({ text }) => text);
  perform('dirty-rate');
  expect(station.model.dirty.on).toBe(true);
  expect(told()).toEqual(['await vm.memory.dirtyRate(1)']);
  perform('dirty-rate');
  expect(station.model.dirty.on).toBe(false);
  expect(told()).toHaveLength(1);
  const readonly = scriptedStation({ readonly: true });
  onTestFinished(() => readonly.model.close());
  readonly.focusOn('memory');
  readonly.key('w', 'w');
  expect(readonly.model.dirty.on).toBe(false);
  expect(readonly.notice?.text).toContain('the workstation is read-only');
  readonly.key('I', 'I');
  for (const char of 'dirty') readonly.key(char, char);
  readonly.key('enter', '');
  expect(plainText(readonly.overlay?.view(100, 40).lines.at(-1) ?? [])).toContain(
    'not now: the workstation is read-only',
  );
});

test('the cable of a network card, and what is limited of it', async () => {
  const { station, done, type, shown, perform } = await open();
  perform('link');
  await expect.poll(() => done).toEqual(['changeNet ["net0",{"action":"link","up":false}]']);
  perform('throttle-net');
  type('1000');
  expect(shown()).toContain('REPL: await vm.nets.net0.throttle({ pps: 1000 })');
  station.key('enter', '');
  await expect.poll(() => done).toHaveLength(2);
  expect(done[1]).toContain('"limits":{"pps":1000}');
});

test('what is taken out by force is asked for, chosen where several may be meant, and says what it risks', async () => {
  const { station, done, shown, perform } = await open();
  perform('force-unplug');
  expect(shown()).toMatch(/net0[\s\S]*rng0/);
  station.key('enter', '');
  expect(shown()).toMatch(/What the guest has not written to it is\s+lost/);
  expect(shown()).toContain("REPL: await vm.unplug('net0', { force: true })");
  expect(done).toEqual([]);
  station.key('y', 'y');
  await expect.poll(() => done).toEqual(['unplug net0 {"force":true}']);
});

test('all of them are in the palette, whatever has the focus; not for a read-only workstation', async () => {
  const { station } = await open();
  const changes = ACTIONS.filter(({ anywhere, changes }) => anywhere && changes);
  expect(changes).toHaveLength(9);
  expect(changes.map((action) => station.whyNot(action))).toEqual(changes.map(() => undefined));
  const readonly = scriptedStation({ readonly: true });
  onTestFinished(() => readonly.model.close());
  expect(changes.every((action) => readonly.whyNot(action) === 'the workstation is read-only')).toBe(true);
});

test('lists and groups of a plug are written as on the command line; QMP has its line beside the REPL', async () => {
  const { station } = await open();
  const fields = (kind: string) =>
    plugKinds()
      .find(({ name }) => name === kind)
      ?.fields.map(({ name }) => name);
  expect(fields('virtio-net')).toContain('hostForwards');
  expect(fields('memory')).toContain('hostNodes');
  expect(fields('virtio-blk')).toContain('throttle');
  expect(plugInput('virtio-net', { hostForwards: '2222:22, udp::53-:53', throttle: 'pps=10' })).toEqual({
    ...{ kind: 'pci', type: 'virtio-net', throttle: { pps: 10 } },
    hostForwards: [
      { protocol: 'tcp', hostPort: 2222, guestPort: 22 },
      { protocol: 'udp', hostPort: 53, guestPort: 53 },
    ],
  });
  const forms = (kind: string, values: Record<string, unknown>) => plugForms(kind, values, station.model);
  expect(forms('virtio-net', { hostForwards: '22' })).toEqual([]);
  expect(forms('virtio-net', { id: 'n1', hostForwards: '2222:22' })).toEqual([
    "REPL: await vm.plug({ kind: 'pci', type: 'virtio-net', id: 'n1', hostForwards: [ { protocol: 'tcp', hostPort: 2222, guestPort: 22 } ] })",
    'QMP: netdev_add {"type":"user","id":"netdev-n1","hostfwd":[{"str":"tcp::2222-:22"}]}',
    'QMP: device_add driver=virtio-net-pci id=n1 netdev=netdev-n1',
  ]);
  expect(forms('memory', { size: '256M', hostNodes: '0-1' }).slice(1)).toEqual([
    'QMP: object-add qom-type=memory-backend-ram id=mem-new size=268435456 policy=bind host-nodes=[0,1]',
    'QMP: device_add driver=pc-dimm memdev=mem-new',
  ]);
  expect(forms('cpu', {})[1]).toMatch(/^QMP: device_add driver=host-x86_64-cpu socket-id=\d core-id=\d thread-id=\d$/);
  expect(forms('virtio-blk', { file: 'a.qcow2' }).slice(1)).toEqual([
    'QMP: blockdev-add driver=qcow2 node-name=node-new file.driver=file file.filename=a.qcow2',
    'QMP: device_add driver=virtio-blk-pci drive=node-new',
  ]);
});

test('what the machine refuses leaves the form as it was filled in, with the reason', async () => {
  const { station, machine, type, shown, perform } = await open();
  let refusals = 0;
  Object.assign(machine, {
    plug: async () => {
      refusals++;
      throw new NemuError('DISK_FILE', 'The disk image /nope cannot be opened (ENOENT).', { hint: 'Make it.' });
    },
  });
  perform('plug');
  type('virtio-blk');
  station.key('enter', '');
  type('/nope');
  station.key('enter', '');
  // It is asked for once.
  station.key('enter', '');
  await expect.poll(shown).toContain('cannot be opened (ENOENT)');
  expect(refusals).toBe(1);
  expect(shown()).toContain('/nope');
  // Keys are the form's, and what is typed takes the refusal away.
  station.key('backspace', '');
  expect(shown()).not.toContain('ENOENT');
  expect(shown()).toContain('/nop');
  station.key('esc', '');
  expect(station.overlay).toBeUndefined();
});

test('a device that has its place in the machine needs its form no more', async () => {
  const { station, machine, type, perform } = await open();
  const { promise, resolve } = Promise.withResolvers<void>();
  const plug = machine.plug.bind(machine);
  Object.assign(machine, { plug: (device: PlugInput) => promise.then(() => plug(device)) });
  perform('plug');
  type('virtio-rng');
  station.key('enter', '');
  station.key('enter', '');
  expect(station.overlay).toBeDefined();
  resolve();
  await expect.poll(() => station.overlay).toBeUndefined();
});

test('the palette takes a line of the REPL that has words of an action in it', async () => {
  const { station, type, perform } = await open();
  const sent: string[] = [];
  Object.assign(station.repl, { send: (bytes: Uint8Array) => sent.push(Buffer.from(bytes).toString()) });
  for (const line of ['info irq', 'cpu add 1', 'await vm.pause()']) {
    perform('palette');
    type(line);
    station.key('enter', '');
  }
  // In place of what is half typed there.
  expect(sent).toEqual(['info irq', 'cpu add 1', 'await vm.pause()'].map((line) => `\x05\x15${line}\r`));
  // An action by its name is that action.
  perform('palette');
  type('plug a dev');
  station.key('enter', '');
  expect(station.overlay?.view(80, 20).title).toBe('plug a device');
});
