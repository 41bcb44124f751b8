/** Lines of the human monitor: what QEMU says to the same is in test/judge/qmp.test.ts. */
import { expect, onTestFinished, test } from 'vitest';
import { NemuError } from '../../../src/client/errors.ts';
import { FakeMachine, qmpServer } from '../../support/qmp.ts';

async function start() {
  const fake = new FakeMachine();
  const server = qmpServer(fake.client);
  onTestFinished(server.close);
  const peer = await server.connect();
  const say = async (line: string) =>
    ((await peer.execute('human-monitor-command', { 'command-line': line })) as string).split('\r\n').slice(0, -1);
  return { fake, peer, say };
}

test('memory is shown in rows, as QEMU shows the same bytes', async () => {
  const { fake, say } = await start();
  // What SeaBIOS leaves at address 0: interrupt vectors.
  fake.ram = Buffer.from('53ff00f053ff00f0c3e200f053ff00f0', 'hex');
  for (const [line, rows] of [
    ['xp /4x 0', ['0000000000000000: 0xf000ff53 0xf000ff53 0xf000e2c3 0xf000ff53']],
    ['xp 0', ['0000000000000000: 0xf000ff53']],
    ['xp /2gx 0', ['0000000000000000: 0xf000ff53f000ff53 0xf000ff53f000e2c3']],
    ['xp /3o 0', ['0000000000000000: 036000177523 036000177523 036000161303']],
    ['xp /2hd 0', ['0000000000000000: 65363 61440']],
    ['xp /4bd 0', ['0000000000000000:  83 255   0 240']],
    ['xp /2gd 0', ['0000000000000000: -1152640768632881325 -1152640768632888637']],
    [
      'xp /9bc 0',
      ["0000000000000000: 'S' '\\xff' '\\x00' '\\xf0' 'S' '\\xff' '\\x00' '\\xf0'", "0000000000000008: '\\xc3'"],
    ],
    ['xp /1bx 0x1+2', ['0000000000000003: 0xf0']],
    ['xp /1xw 0x7fffffffffff', ['00007fffffffffff: Cannot access memory']],
    ['x /2x $pc', ['0000000000001000: Cannot access memory']],
    ['x /2i 0', ['instructions are not disassembled here', 'Try "help x" for more information']],
  ] as const) {
    expect(await say(line), line).toEqual(rows);
  }
});

test('a balloon takes what there is, and says what is no number', async () => {
  const { fake, peer, say } = await start();
  fake.balloonHeld = 0;
  expect(await say('balloon 256')).toEqual([]);
  expect(fake.calls.pop()).toBe(`balloon ${256 << 20}`);
  // More than the guest has is all that it has.
  expect(await say('balloon 99999')).toEqual([]);
  await peer.execute('balloon', { value: 2 ** 50 });
  expect(fake.calls).toEqual(['balloon 0', 'balloon 0']);
  await expect(peer.execute('balloon', { value: 0 })).rejects.toThrow("Parameter 'target' expects a size");
  expect(await say('balloon')).toEqual(['unexpected end of expression', 'Try "help balloon" for more information']);
  expect(await say('help balloon')).toEqual([expect.stringMatching(/^balloon target in MiB/)]);
});

test('gdb is waited for where it is said, and no longer', async () => {
  const asked: string[] = [];
  const server = qmpServer(new FakeMachine().client, {
    gdbServer: {
      listen: async (device) => {
        asked.push(device);
        if (device === 'tcp::1') throw new NemuError('GDB_SOCKET', 'It cannot be waited for.');
        return device;
      },
      stop: () => asked.push('none'),
    },
  });
  onTestFinished(server.close);
  const peer = await server.connect();
  const say = (line: string) => peer.execute('human-monitor-command', { 'command-line': line });
  expect(await say('gdbserver')).toBe("Waiting for gdb connection on device 'tcp::1234'\r\n");
  expect(await say('gdbserver unix:/a')).toBe("Waiting for gdb connection on device 'unix:/a'\r\n");
  expect(await say('gdbserver none')).toBe('Disabled gdbserver\r\n');
  expect(await say('gdbserver tcp::1')).toBe('Error: It cannot be waited for.\r\n');
  expect(asked).toEqual(['tcp::1234', 'unix:/a', 'none', 'tcp::1']);
});

test('cards are told as they are now, and forward ports', async () => {
  const { fake, say } = await start();
  fake.nets = [
    {
      ...{ name: 'net0', mac: '52:54:00:00:00:01', link: false, type: 'user', queues: 1, restrict: true },
      hostForwards: [{ protocol: 'tcp', hostAddress: '127.0.0.1', hostPort: 5555, guestPort: 22 }],
    },
    { name: 'net1', mac: '52:54:00:00:00:02', link: true, type: 'tap', ifname: 'tap7', queues: 1, hostForwards: [] },
  ];
  expect(await say('info network')).toEqual([
    'net0: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:00:00:01,link=off',
    ' \\ user: index=0,type=user,net=10.0.2.0,restrict=on',
    'net1: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:00:00:02',
    ' \\ tap: index=0,type=tap,ifname=tap7',
  ]);
  expect(await say('hostfwd_add udp:127.0.0.1:53-:53')).toEqual([]);
  expect(fake.calls.pop()).toBe(
    'changeNet net0 {"action":"forward","add":[{"protocol":"udp","hostAddress":"127.0.0.1","hostPort":53,"guestPort":53}]}',
  );
  expect(await say('hostfwd_remove net0 tcp::5555')).toEqual(['host forwarding rule for tcp::5555 removed']);
  expect(fake.calls.pop()).toBe(
    'changeNet net0 {"action":"forward","remove":[{"protocol":"tcp","hostAddress":"127.0.0.1","hostPort":5555}]}',
  );
  expect(await say('hostfwd_remove net0 tcp::5556')).toEqual(['host forwarding rule for tcp::5556 not found']);
  expect(await say('hostfwd_remove net0 x')).toEqual(['invalid format']);
  expect(await say('hostfwd_add net1 tcp::1-:1')).toEqual(["the device 'net1' is not a user network"]);
  expect(await say('set_link net1 off')).toEqual([]);
  expect(fake.calls).toEqual(['changeNet net1 {"action":"link","up":false}']);
});

test('disks have another size, in MiB or with a unit', async () => {
  const { fake, say } = await start();
  fake.disks = [
    { ...{ name: 'vda', file: '/a', format: 'raw', probed: false, readonly: false, size: 512 }, throttle: {} },
  ];
  for (const [size, bytes] of [
    ['10', 10 << 20],
    ['1.5G', 1536 << 20],
    ['4096b', 4096],
  ] as const) {
    expect(await say(`block_resize vda ${size}`)).toEqual([]);
    expect(fake.calls.pop()).toBe(`changeDisk vda {"action":"resize","size":${bytes},"shrink":true}`);
  }
});

test('the tree of objects is indented', async () => {
  const { say } = await start();
  const tree = await say('info qom-tree');
  expect(tree[0]).toBe('/machine (q35-machine)');
  expect(tree).toContain('  /unattached (container)');
  expect(tree).toContain('    /device[0] (host-x86_64-cpu)');
});

test('interrupt controllers are shown as QEMU shows them', async () => {
  const { say } = await start();
  const pic = await say('info pic');
  expect(pic[0]).toBe('ioapic0: id=0x00');
  expect(pic).toContain('  pin 4  0x0100000000000024 dest=1 vec=36  active-hi edge         fixed  physical');
  expect(pic).toContain('  pin 20 0x030000000000e931 dest=3 vec=49  active-lo level        lowest logical');
  expect(pic).toContain('  Remote IRR     20');
  expect(pic.at(-1)).toBe('pic0: irr=01 imr=ff isr=00 hprio=0 irq_base=30 elcr=00 fnm=0');
  const lapic = await say('info lapic');
  expect(lapic[0]).toBe('dumping local APIC state for CPU 0');
  expect(lapic).toContain('LVT1\t 0x00000400 active-hi edge         NMI');
  expect(lapic).toContain('LVTT\t 0x000400ec active-hi edge         TSC-deadline (vec 236)');
  expect(lapic).toContain('IRR\t 236');
  expect((await say('info lapic 1'))[0]).toBe('dumping local APIC state for CPU 1');
  expect(await say('info lapic 9')).toEqual(['No local APIC']);
});
