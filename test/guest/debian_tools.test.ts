/** Debian's programs, and the kernel's own tests, in a guest. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { runNemu } from '../support/cli.ts';
import { unpackRoot, unpackSelftests } from '../support/unpacked_root.ts';

const LONG = process.env.NEMU_TEST_LONG !== undefined;
const LIMIT_MS = 600_000;
const PACKAGES = [
  ...['bash', 'coreutils', 'sed', 'grep', 'mawk', 'bc', 'tar', 'findutils', 'procps'],
  ...['util-linux', 'mount', 'kmod', 'e2fsprogs', 'ndctl'],
];
const SELFTESTS = ['cpu-hotplug/cpu-on-off-test.sh', 'memory-hotplug/mem-on-off-test.sh'];

describe.skipIf(!LONG)("Debian's programs in a guest (NEMU_TEST_LONG)", () => {
  let folder: string;
  let root: string;
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'nemu-tools-'));
    root = await unpackRoot(folder, PACKAGES, { 'usr/bin/sh': 'bash', 'usr/bin/awk': 'mawk' });
  }, LIMIT_MS);
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  const inIt = async (...args: string[]) => {
    const { status, stdout, stderr } = await runNemu(['run', '--root', root, ...args]);
    expect(status, `${stdout}${stderr}`).toBe(0);
    return stdout.toString();
  };

  test(
    "the kernel's own selftests of CPU and memory hotplug, as they are",
    async () => {
      const tests = join(folder, 'selftests.tar');
      execFileSync('tar', ['-c', '-b', '20', '-f', tests, '-C', await unpackSelftests(folder, SELFTESTS), '.']);
      const script = [
        'mkdir /tmp/selftests && tar -x -f /dev/vdb -C /tmp/selftests',
        'cd /tmp/selftests/cpu-hotplug && bash cpu-on-off-test.sh -a && echo "cpus: $?"',
        'cd /tmp/selftests/memory-hotplug && bash mem-on-off-test.sh -r 50 && echo "memory: $?"',
      ].join('\n');
      const said = await inIt(
        ...['--cpus', '3,max=4', '--memory', '512M,max=2G', '--dimm', '512M'],
        ...['--disk', `${tests},format=raw,readonly=on`, '--', script],
      );
      expect(said).toMatch(/^cpus: 0$/m);
      expect(said).toContain('Full scope test: all hotplug cpus');
      // Half of the memory's blocks left and came again.
      expect(said).toMatch(/trying to offline 4 out of 8 memory block/);
      expect(said.match(/^offline->online memory\d+$/gm)?.length).toBeGreaterThanOrEqual(4);
      expect(said).toMatch(/^memory: 0$/m);
      expect(said).not.toMatch(/FAIL|unexpected|not found/);
    },
    LIMIT_MS,
  );

  test(
    'ndctl makes namespaces of several modes on NVDIMMs with labels, and what is on them is there in the next run',
    async () => {
      const nvdimm = (name: string) => ['--nvdimm', `${join(folder, name)},size=128M,label-size=128K`];
      const mounted = 'mkdir -p /pm && mount -o dax /dev/pmem0.1 /pm';
      const script = [
        'set -e; exec 3>&1 >&2',
        'ndctl disable-region all; ndctl init-labels all; ndctl enable-region all',
        'ndctl create-namespace -r region0 -m fsdax -s 48M -n first',
        'ndctl create-namespace -r region0 -m fsdax -s 48M -n second',
        'mkfs.ext4 -q -b 4096 /dev/pmem0.1',
        `${mounted}; echo kept on a namespace >/pm/file; sync /pm/file`,
        'ndctl create-namespace -r region1 -m devdax -s 64M; ls -l /dev/dax1.0',
        'ndctl list -N >&3',
      ].join('\n');
      const listed = JSON.parse(await inIt(...nvdimm('a.img'), ...nvdimm('b.img'), '--', script));
      const modes = listed.map(({ mode, name }: { mode: string; name?: string }) => `${mode} ${name ?? ''}`);
      expect(modes.toSorted()).toEqual(['devdax ', 'fsdax first', 'fsdax second']);
      const next = await inIt(...nvdimm('a.img'), '--', `${mounted} && cat /pm/file && ndctl list -N | grep -c fsdax`);
      expect(next).toBe('kept on a namespace\n2\n');
    },
    LIMIT_MS,
  );
});
