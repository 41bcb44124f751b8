/** Tap interfaces of this host for cards in the lab, against a lab that only writes down what it is asked for. */
import { existsSync } from 'node:fs';
import { expect, onTestFinished, test } from 'vitest';
import { LabTaps } from '../../../src/cli/lab_taps.ts';
import type { NetChangeInput } from '../../../src/client/live_change.ts';
import type { NetReport } from '../../../src/client/machine_client.ts';
import type { LabExecOptions } from '../../../src/lab/lab.ts';

const mayOpen = process.getuid?.() === 0 && existsSync('/dev/net/tun');
const skipped = mayOpen ? '' : ' (needs root, and /dev/net/tun)';

function fakeLab() {
  const asked: string[] = [];
  const devices = new Set<string>();
  const fake = { asked, refuse: '', status: 0, devices };
  const lab = {
    qmp: async (command: string, args: { id?: string; ifname?: string } = {}) => {
      if (command === fake.refuse) throw new Error('no');
      if (command === 'qom-list') return [...devices].map((name) => ({ name }));
      if (command === 'device_add') devices.add(args.id ?? '');
      if (command === 'device_del') devices.delete(args.id ?? '');
      asked.push(`${command} ${args.ifname ?? args.id}`);
      return {};
    },
    exec: async (script: readonly string[] | string, { env }: LabExecOptions = {}) => {
      asked.push(env ? `join ${env.TAP} ${env.BRIDGE} ${env.MTU}` : String(script));
      return { status: fake.status, stdout: Buffer.alloc(0), stderr: Buffer.from('broken') };
    },
  };
  return { ...fake, fake, taps: new LabTaps(lab) };
}

/** Interfaces exist while they are open: each test has names of its own. */
let count = 0;
const newName = () => `nemu${process.pid}${String.fromCharCode(97 + count++)}`.slice(-15);

test.skipIf(!mayOpen)(`a card of the lab is on the interface, and is joined once${skipped}`, async () => {
  const { taps, asked } = fakeLab();
  const tap = newName();
  expect(await taps.open({ ifname: tap, queues: 1 })).toBe(tap);
  await Promise.all([taps.connect(tap), taps.connect(tap)]);
  expect(asked).toEqual([`netdev_add ${tap}`, 'device_add lab-tap0', `join ${tap} br-lab-port0 1500`]);
  asked.length = 0;
  await taps.close(tap);
  await taps.close(tap);
  expect(asked).toEqual(['ip link del br-lab-port0', 'device_del lab-tap0', 'netdev_del lab-port0-net']);
});

test.skipIf(!mayOpen)(`without a name the kernel gives one${skipped}`, async () => {
  const { taps } = fakeLab();
  expect(await taps.open({ queues: 1 })).toMatch(/^tap\d+$/);
});

test.skipIf(!mayOpen)(`names that cannot be, and no more than there are places for${skipped}`, async () => {
  const { taps } = fakeLab();
  await expect(taps.open({ ifname: 'a b', queues: 1 })).rejects.toMatchObject({ code: 'NET' });
  const names = Array.from({ length: 4 }, newName);
  for (const ifname of names) await taps.open({ ifname, queues: 1 });
  await expect(taps.open({ ifname: newName(), queues: 1 })).rejects.toThrow('The lab has 4 places for tap interfaces');
  await taps.close(names[1] ?? '');
  await taps.open({ ifname: newName(), queues: 1 });
});

test.skipIf(!mayOpen)(`what QEMU refuses leaves nothing behind${skipped}`, async () => {
  const { taps, asked, fake } = fakeLab();
  fake.refuse = 'device_add';
  const tap = newName();
  await expect(taps.open({ ifname: tap, queues: 1 })).rejects.toThrow(`cannot use the tap interface ${tap}: no`);
  expect(asked).toEqual([`netdev_add ${tap}`, 'netdev_del lab-port0-net']);
  fake.refuse = '';
  for (let each = 0; each < 4; each++) await taps.open({ ifname: newName(), queues: 1 });
});

test.skipIf(!mayOpen)(`an engine that refuses, and a bridge that fails, give it back${skipped}`, async () => {
  const { taps, devices, fake } = fakeLab();
  const tap = { ifname: newName(), queues: 1 };
  await expect(taps.aroundPlug(tap, () => Promise.reject(new Error('full')))).rejects.toThrow('full');
  expect(devices.size).toBe(0);
  fake.status = 1;
  await expect(taps.aroundPlug(tap, async () => 'plugged')).rejects.toThrow(/could not join .*: broken/);
  expect(devices.size).toBe(0);
});

test.skipIf(!mayOpen)(`a card changes its network: the new one first, the old one last${skipped}`, async () => {
  const { taps, devices, asked } = fakeLab();
  onTestFinished(() => void devices.clear());
  const [before, after] = [newName(), newName()];
  await taps.open({ ifname: before, queues: 1 });
  asked.length = 0;
  const report = { type: 'tap', ifname: before } as NetReport;
  const engine = async (change: NetChangeInput) => {
    asked.push(change.action === 'backend' ? `engine ${change.backend.ifname ?? change.backend.type}` : change.action);
    return report;
  };
  await taps.changeNet(report, { action: 'backend', backend: { type: 'tap', ifname: after } }, engine);
  expect(asked.slice(0, 5)).toEqual([
    ...[`netdev_add ${after}`, 'device_add lab-tap1', `engine ${after}`, `join ${after} br-lab-port1 1500`],
    'ip link del br-lab-port0',
  ]);
  const now = { type: 'tap', ifname: after } as NetReport;
  await taps.changeNet(now, { action: 'backend', backend: { type: 'user' } }, engine);
  expect(devices.size).toBe(0);
  await taps.changeNet(now, { action: 'link', up: false }, engine);
  expect(asked.at(-1)).toBe('link');
});
