/** The REPL on a real guest, by standard input: one boot. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { runNemu } from '../support/cli.ts';

const LIMIT_MS = 300_000;
const ROOM = ['--cpus', '2,max=4', '--memory', '512M,max=2G'];

describe('the REPL', () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'nemu-repl-'));
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  test(
    'looks inside a guest, runs commands in it, and takes back what it did',
    async () => {
      const input = [
        'vm',
        'info cpus',
        'info queues',
        'info queues net0',
        'info map',
        'info irq',
        'info apic',
        // Pages of a file in memory, written to again and again meanwhile.
        'const written = vm.sh("for i in 1 2 3 4 5 6 7 8; do dd if=/dev/zero of=/dev/shm/x bs=64k count=64 2>/dev/null; done")',
        'const rate = await vm.memory.dirtyRate(1)',
        '[rate.dirty > 2 ** 20, rate.ranges.length, rate.bytesPerSecond > 0]',
        'await written',
        'info dirty',
        'sym 0xffff888000000000',
        'pci net0',
        // All of it: a guest that is slow says more.
        'dmesg 2000',
        'sym linux_banner',
        'x linux_banner 16',
        // Once its driver is there, and no sooner: modules are looked at as they are now.
        'sh until grep -q "^virtio_net .* Live" /proc/modules; do sleep 0.1; done',
        'sym virtnet_probe',
        'sh grep -w virtnet_probe /proc/kallsyms',
        'info modules',
        "await vm.kernel.describe((await vm.kernel.symbol('virtnet_probe')).address + 1n)",
        'sh echo from the guest; exit 3',
        'info cpus',
        'const both = await Promise.all([vm.sh("sleep 1; echo late"), vm.sh("echo early")]);',
        'both.map((each: { output: string }) => each.output)',
        // Torn out of a slot of the start, of which Linux does not notice: it has to let go before it takes another one.
        'unplug net0 force',
        'undo',
        'sh until [ -e /sys/class/net/eth0 ]; do sleep 0.1; done; echo eth0 is back',
        'pause',
        'vm.state',
        // It needs no guest that runs.
        '(await vm.dmesg(1)).text.length > 10',
        'undo',
        'vm.state',
        'vm.journal.lines',
        "await vm.memory.search('Linux version 6', 1)",
        'cpu add',
        'sh until [ $(nproc) = 3 ]; do sleep 0.1; done; nproc',
        'net net0 throttle pps=100000',
        'memory plug 256M id=more',
        'info memory',
        `save ${join(folder, 'replay.ts')}`,
        `save ${join(folder, 'replay.ts')}`,
        'undo',
        'unplug cpu2',
        'memory plug 100M',
        'info requests',
        `describe ${join(folder, 'now.yaml')}`,
        `vm.apply({ cpus: { count: 4 }, nets: [], memory: { size: '1G' } }, { dryRun: true })`,
        `vm.apply({ cpus: { count: 3 }, nets: [] })`,
        'undo',
        'info pci',
        `apply plan ${join(folder, 'now.yaml')}`,
        // The guest that comes is told of what came before it listened, and waited for.
        'reset',
        'memory plug 128M id=early',
        "sh awk '/MemTotal/ { exit $2 < 660000 }' /proc/meminfo && echo has early",
        'paus',
        '({',
        '  several: 1,',
        '})',
        'vm.cpus?',
        'help plug virtio-rng',
        '',
      ].join('\n');
      const { status, stdout, stderr } = await runNemu(['repl', ...ROOM, '--dimm', '128M,id=boot'], {
        input: Buffer.from(input),
      });
      const said = stdout.toString();
      // A line failed.
      expect(status, stderr).toBe(1);
      for (const expected of [
        // With the DIMM of the start.
        /^nemu: running, 2 vCPUs, 640 MiB$/m,
        // Where a vCPU is, is told by the name that the kernel has for that.
        /^ +([01]) +\1 +\d+ +(halted|running) +[A-Za-z_][\w.]*(\+0x[0-9a-f]+)?( \[\w+\])? +\d+ +\d+$/m,
        /^([0-9a-f]{16}) t virtnet_probe\n\1 t virtnet_probe\t\[virtio_net\]$/m,
        /^virtio_net +0xffffffff[0-9a-f]{8} +\d+ KiB$/m,
        /^virtnet_probe\+0x1 \[virtio_net\]$/m,
        /^net0 +0 +split +256 /m,
        /^00:0\d\.0 net0: Ethernet controller$/m,
        /MSI-X: 4 vectors, enabled/,
        /^queue 0: split, size 256 at 0x.*\ndescriptor +address +length +flags +next\n +0 +0x[0-9a-f]+ +\d+ +write/m,
        /^0x0 +0x1fffffff +512 MiB +RAM\n(.*\n)*0xfec00000 .* I\/O APIC\n/m,
        // The serial port's, and what Linux keeps of its PICs: nothing.
        /^ *4 +(?:apic|logical) \w+ +0x[0-9a-f]+ +(?:fixed|lowest) +edge *$/m,
        /^master +0x[0-9a-f]+ +\S.* +none +none/m,
        /^vCPU 1: APIC id 1, x2?APIC, on, [^\n]*\n[^\n]*\n {2}timer: (?:TSC-deadline|one-shot, )/m,
        /^\[ true, 2, true \]$/m,
        /^boot +0x0 +512 MiB +[\d.]+ \w+ +[\d.]+ \w+\/s$/m,
        /^0xffff888000000000 is in no symbol$/m,
        /Linux version 6\..*gcc/,
        /^f{8}[0-9a-f]{8} . linux_banner$/m,
        /Linux version 6\.$/m,
        /^from the guest\n\(status 3\)\n/m,
        /\[ 'late\\n', 'early\\n' \]/,
        /^unplug net0: reserved → notified → removed \(\d+ ms\)\nvm\.plug\(\{.*type: 'virtio-net'.*\}\)\neth0 is back$/m,
        /^paused\ntrue\nvm\.resume\(\)\nrunning\n\[\]$/m,
        /\[ '0x[0-9a-f]+' \]/,
        /^\[ vCPU 2 \]\n3\nmore: 256 MiB at 0x108000000, slot 1, node 0$/m,
        /^boot +0 +128 MiB +0x100000000 +0 +anonymous\nmore +1 +256 MiB +0x108000000 +0 +anonymous$/m,
        /^3\n.*replay\.ts is there already\.$/m,
        /^vm\.unplug\('more'\)\nunplug cpu2: reserved → notified → accepted → removed \(\d+ ms\)$/m,
        /A DIMM of 104857600 bytes is not a multiple of 128 MiB/,
        /^unplug +more +reserved → notified → accepted → removed$/m,
        /^While it runs:\n {2}unplug net0: not in the description\n {2}change cpus: 2 → 4\nOnly with a new start:\n {2}memory\.size: 512 MiB → 1 GiB$/m,
        /^Done:\n {2}unplug net0: not in the description\n {2}change cpus: 2 → 3\nvm\.unplug\('cpu2'\)$/m,
        /^While it runs:\n {2}plug net0: virtio-net user$/m,
        /^early: 128 MiB at 0x[0-9a-f]+, slot \d, node 0\nhas early$/m,
        /There is no "paus"\. Did you mean pause\?/,
        /^\{ several: 1 \}$/m,
        /^plug virtio-rng \[KEY=VALUE…\]\n {2}option +takes +what it is\n {2}id= +TEXT +its name; rng without one$/m,
      ]) {
        expect(said).toMatch(expected);
      }
    },
    LIMIT_MS,
  );

  test(
    '--script runs a module, and what it throws is the status',
    async () => {
      const script = join(folder, 'check.ts');
      writeFileSync(
        script,
        [
          "import assert from 'node:assert/strict';",
          'declare const vm: any;',
          "const { output } = await vm.sh('cat /proc/cmdline');",
          'assert.match(output, /console=ttyS0/);',
          // A line that comes in while what the last one began ends.
          "for (let i = 0; i < 40; i++) assert.equal((await vm.sh('echo ' + i)).output, i + '\\n');",
          // What was done to another machine is done to this one.
          "await import('./replay.ts');",
          'assert.deepEqual([vm.cpus.count, vm.memory.size], [3, 768 * 2 ** 20]);',
          'export default output.length as number;',
          "assert.equal(process.env.FAIL, undefined, 'asked to fail');",
        ].join('\n'),
      );
      const good = await runNemu(['run', ...ROOM, '--script', script]);
      expect(good.status, good.stderr).toBe(0);
      expect(Number(good.stdout.toString())).toBeGreaterThan(10);
      const bad = await runNemu(['run', '-e', "console.log('said'); throw new TypeError('on purpose')"]);
      expect(bad.stdout.toString()).toBe('said\n');
      expect(bad.status).toBe(1);
      expect(bad.stderr).toContain('TypeError: on purpose');
      // Nobody waited for it.
      const cast = join(folder, 'boot.cast');
      const stray = await runNemu(['run', '--record', cast, '-e', "vm.unplug('nosuch'); 1"]);
      expect(readFileSync(cast, 'utf8')).toMatch(/^\{"version":2,.*\n(\[[\d.]+,"o",".*"\]\n)+$/);
      expect(stray.status).toBe(1);
      expect(stray.stderr).toContain('There is no nosuch in this machine.');
      const late = await runNemu(['run', '--timeout', '2', '-e', 'await new Promise(() => {})']);
      expect(late.stderr).toContain('--timeout 2 ran out.');
      expect(late.status).toBe(71);
    },
    LIMIT_MS,
  );
});
