/** Devices of `--device` in a stock guest: one boot for all but the watchdog's end. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { runNemu } from '../support/cli.ts';

const LIMIT_MS = 300_000;

test(
  'a balloon, a console, a port and a watchdog',
  async () => {
    const port = 'org.example.port.0';
    const code = `
      const got = [];
      const stream = vm.machine.console('${port}');
      stream.onData = (bytes) => got.push(Buffer.from(bytes).toString());
      const node = '/dev/virtio-ports/${port}';
      stream.write(Buffer.from('an answer\\n'));
      const heard = (await vm.sh('exec 5<>' + node + '; echo through the port >&5; head -n 1 <&5')).output;
      const free = async () => Number((await vm.sh("sed -n 's/MemFree: *//p' /proc/meminfo | tr -dc 0-9")).output);
      const before = await free();
      const full = await vm.memory.balloon('96M');
      const during = await free();
      await vm.journal.undo();
      const after = await free();
      const devices = (await vm.sh('ls /dev/hvc0 /dev/watchdog0')).output;
      const bridge = '/sys/bus/pci/devices/0000:00:02.0';
      const behind = (await vm.sh('cat ' + bridge + '/device; ls -d ' + bridge + '/0000:01:01.0/virtio*/driver')).output;
      const lasting = 'until [ -b /dev/pmem0 ]; do sleep 0.1; done; echo lasting | dd of=/dev/pmem0 bs=512 conv=sync,fsync';
      const pmem = (await vm.sh(lasting + ' 2>/dev/null; cat /sys/block/pmem0/size')).output;
      const stays = await vm.unplug('balloon').catch((error) => error.message);
      await vm.powerButton();
      const { reason } = await vm.machine.ended();
      JSON.stringify({ heard, got: got.join(''), actual: full.actual, total: full.statistics.totalMemory,
        taken: before - during, back: after - during, devices, behind, pmem, stays, reason });
    `;
    const folder = mkdtempSync(join(tmpdir(), 'nemu-extra-'));
    onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
    const file = join(folder, 'pm.img');
    const devices = [
      `virtio-pmem,file=${file},size=64M`,
      'pci-bridge,id=br0',
      'balloon,deflate-on-oom=on,port=br0',
      'virtconsole',
      `virtserialport,name=${port}`,
      'watchdog,action=none',
    ];
    const { status, stdout, stderr } = await runNemu([
      ...['run', '--memory', '512M', ...devices.flatMap((device) => ['--device', device]), '-e', code],
    ]);
    expect(status, stderr).toBe(0);
    const said = JSON.parse(stdout.toString());
    expect(said).toMatchObject({
      reason: 'poweroff',
      heard: 'an answer\n',
      got: 'through the port\n',
      actual: 96 << 20,
      devices: '/dev/hvc0\n/dev/watchdog0\n',
      behind: expect.stringMatching(/^0x000e\n.*\/virtio\d\/driver\n$/),
      pmem: `${(64 << 20) / 512}\n`,
      stays: 'balloon stands in br0.1, behind a bridge to conventional PCI: nothing comes or goes there.',
    });
    // What was flushed is in the file.
    expect(readFileSync(file).toString('latin1', 0, 7)).toBe('lasting');
    expect(said.total).toBeGreaterThan(400 << 20);
    const KIB = 1024;
    // The kernel has its own needs meanwhile, and caches of its own.
    expect(said.taken).toBeGreaterThan(40 * KIB);
    expect(said.back).toBeGreaterThan(40 * KIB);
  },
  LIMIT_MS,
);

test(
  'a watchdog that nobody feeds powers off, and says so',
  async () => {
    const { status, stdout } = await runNemu([
      ...['run', '--device', 'i6300esb,action=poweroff', '--json', '1', '--timeout', '90'],
      ...['--', 'busybox watchdog -F -T 2 -t 1000 /dev/watchdog0'],
    ]);
    expect(stdout.toString()).toContain('"type":"watchdog","action":"poweroff"');
    expect(stdout.toString()).toContain('The watchdog powered the machine off.');
    expect(status).toBe(75);
  },
  LIMIT_MS,
);
