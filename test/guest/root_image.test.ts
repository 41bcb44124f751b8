/** Debian, installed into an image by a guest, and booted from it. It takes a quarter of an hour. */
import { execFileSync, spawn } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { downloadPackage, privateApt } from '../../src/lab/apt.ts';
import { cacheRoot } from '../../src/lab/cache.ts';
import { freePort, runNemu } from '../support/cli.ts';
import { expectNoWarnings } from '../support/dmesg.ts';
import { qemuCheck } from '../support/qemu_img.ts';

const LONG = process.env.NEMU_TEST_LONG !== undefined;
const BUILD_MS = 3_000_000;
const LIMIT_MS = 600_000;

interface IperfReport {
  end: { sum_received: { bytes: number; bits_per_second: number } };
}

describe.skipIf(!LONG)('a root image (NEMU_TEST_LONG)', () => {
  let folder: string;
  let env: Record<string, string>;
  beforeAll(() => {
    // All of the cache but its images, which are somebody's.
    folder = mkdtempSync(join(tmpdir(), 'nemu-root-'));
    mkdirSync(join(folder, 'nemu'));
    for (const name of readdirSync(cacheRoot())) {
      if (name !== 'images') symlinkSync(join(cacheRoot(), name), join(folder, 'nemu', name));
    }
    env = { XDG_CACHE_HOME: folder };
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  const inIt = (...args: string[]) => runNemu(['run', '--root', 'debian', ...args], { env });

  test(
    'nemu guest build debian',
    async () => {
      const { status, stdout, stderr } = await runNemu(['guest', 'build', 'debian'], { env });
      expect(status, stderr).toBe(0);
      expect(stdout.toString()).toMatch(/images\/debian\.qcow2\n$/);
      expect(await qemuCheck(join(folder, 'nemu/images/debian.qcow2'))).toBe('');
      const again = await runNemu(['guest', 'build', 'debian'], { env });
      expect(again.status).toBe(1);
      expect(again.stderr).toContain('There is an image "debian" already');
      expect((await runNemu(['guest', 'list'], { env })).stdout.toString()).toMatch(/^debian +\S+ [MG]iB /m);
    },
    BUILD_MS,
  );

  test(
    'nemu run --root debian: systemd comes up, and powers off',
    async () => {
      let said = '';
      let typed = false;
      const { status } = await runNemu(['run', '--root', 'debian', '--memory', '1G'], {
        env,
        keepInput: true,
        onOutput: (text, input) => {
          said += text;
          if (typed || !said.includes('root@nemu:~#')) return;
          typed = true;
          input.write('systemctl is-system-running --wait; systemctl poweroff\n');
        },
      });
      expect(said).toContain('running\r\n');
      expect(status).toBe(0);
    },
    LIMIT_MS,
  );

  test(
    'lspci, numactl and fio in it',
    async () => {
      const fio = ['--rw=randwrite', '--bs=4k', '--ioengine=libaio', '--iodepth=16', '--direct=1', '--verify=crc32c'];
      const script = [
        'lspci -vvv',
        'numactl -H',
        // The root's image is QCOW2; the other disk is raw.
        ...['/root/fio.dat', '/dev/vdb'].map(
          (file) =>
            `fio --name=v --filename=${file} --size=32M ${fio.join(' ')} --do_verify=1 >/dev/null && echo verified ${file}`,
        ),
        'rm /root/fio.dat',
        "dmesg -r | grep -E '^<[0-4]>' | sed 's/^/WARNING /' >&2",
      ].join('\n');
      const numa = ['--numa', 'node,cpus=0,memory=512M', '--numa', 'node,cpus=1,memory=512M'];
      const raw = join(folder, 'raw.img');
      writeFileSync(raw, '');
      truncateSync(raw, 64 << 20);
      const disk = ['--disk', `${raw},format=raw`];
      const { status, stdout, stderr } = await inIt('--memory', '1G', '--cpus', '2', ...numa, ...disk, '--', script);
      expect(status, stderr).toBe(0);
      const said = stdout.toString();
      expect(said).toMatch(/Express \(v2\) Root Port \(Slot\+\)/);
      expect(said).toMatch(/Advanced Error Reporting/);
      expect(said).toMatch(/Access Control Services/);
      expect(said).toMatch(/Device Serial Number/);
      // A capability that pciutils cannot follow is said so.
      expect(said).not.toMatch(/<access denied>|chain looping|!!!/);
      expect(said).toMatch(/available: 2 nodes \(0-1\)/);
      expect(said).toMatch(/^verified \/root\/fio.dat$/m);
      expect(said).toMatch(/^verified \/dev\/vdb$/m);
      expectNoWarnings(stderr);
    },
    LIMIT_MS,
  );

  test(
    "the kernel's own selftests of CPU and memory hotplug, as they are",
    async () => {
      const tests = join(folder, 'selftests.tar');
      await packSelftests(tests);
      const script = [
        'mkdir /tmp/selftests && tar -x -f /dev/vdb -C /tmp/selftests --strip-components=4',
        'cd /tmp/selftests/cpu-hotplug && bash cpu-on-off-test.sh -a && echo "cpus: $?"',
        'cd /tmp/selftests/memory-hotplug && bash mem-on-off-test.sh -r 10 && echo "memory: $?"',
      ].join('\n');
      const { status, stdout, stderr } = await inIt(
        ...['--cpus', '3,max=4', '--memory', '512M,max=2G', '--dimm', '512M'],
        ...['--disk', `${tests},format=raw,readonly=on`, '--', script],
      );
      const said = stdout.toString();
      expect(status, said + stderr).toBe(0);
      expect(said).toMatch(/^cpus: 0$/m);
      expect(said).toMatch(/^memory: 0$/m);
      expect(said).not.toMatch(/FAIL|unexpected/i);
    },
    LIMIT_MS,
  );

  test(
    'ndctl makes namespaces on an NVDIMM with labels and on one that is plugged, and their files are there in the next run',
    async () => {
      const file = join(folder, 'pm.img');
      const plugged = join(folder, 'plugged.img');
      const nvdimm = ['--memory', '1G,max=4G', '--nvdimm', `${file},size=128M,label-size=128K`];
      const mounted = 'mkdir -p /pm && mount -o dax /dev/pmem0.1 /pm';
      const made = [
        'ndctl create-namespace -r region0 -m fsdax -s 48M -n first >/dev/null',
        'ndctl create-namespace -r region0 -m fsdax -s 48M -n second >/dev/null',
        'mkfs.ext4 -q -b 4096 /dev/pmem0.1',
        `${mounted} && echo kept on a namespace >/pm/file && sync /pm/file`,
      ];
      const on = [
        `await vm.nvdimm.plug({ file: ${JSON.stringify(plugged)}, size: '128M', labelSize: '128K' });`,
        "await vm.sh('until ndctl list -r region1 -R | grep -q region1; do sleep 1; done');",
        `const said = await vm.sh(${JSON.stringify(`set -e\n${made.join('\n')}\nndctl create-namespace -r region1 -m devdax -s 64M >/dev/null\nndctl list -N`)});`,
        'assert.equal(said.status, 0, said.output); said.output',
      ];
      const first = await runNemu(['run', '--root', 'debian', ...nvdimm, '-e', on.join('\n')], { env });
      expect(first.status, first.stderr).toBe(0);
      const listed = JSON.parse(/\[[\s\S]*\]/.exec(first.stdout.toString())?.[0] ?? '[]');
      expect(listed.map(({ mode, name }: { mode: string; name?: string }) => [mode, name ?? '']).toSorted()).toEqual([
        ...[
          ['devdax', ''],
          ['fsdax', 'first'],
          ['fsdax', 'second'],
        ],
      ]);
      const next = await inIt(...nvdimm, '--', `${mounted} && cat /pm/file && ndctl list -N | grep -c fsdax`);
      expect([next.status, next.stdout.toString()], next.stderr).toEqual([0, 'kept on a namespace\n2\n']);
    },
    LIMIT_MS,
  );

  /** Starts a server in the guest for one connection, then another, and measures into the guest and out of it. */
  async function iperf(net: string, address: string, port: number, before: string, listening = () => {}) {
    const tools = join(folder, 'tools');
    // Where the build left them.
    const debs = join(folder, 'nemu/debs');
    for (const name of readdirSync(debs).filter((name) => /^(iperf3|lib(iperf|sctp).*)_/.test(name))) {
      execFileSync('dpkg-deb', ['-x', join(debs, name), tools]);
    }
    const client = (...args: string[]) => {
      const child = spawn(
        join(tools, 'usr/bin/iperf3'),
        ['-c', address, '-p', String(port), '-t', '4', '-J', ...args],
        {
          env: { ...process.env, LD_LIBRARY_PATH: join(tools, 'usr/lib/x86_64-linux-gnu') },
          stdio: ['ignore', 'pipe', 'inherit'],
        },
      );
      return child.stdout.toArray().then((pieces) => JSON.parse(Buffer.concat(pieces).toString()) as IperfReport);
    };
    const reports: Promise<IperfReport>[] = [];
    let said = '';
    const script = [before, 'iperf3 -s -1 --forceflush', 'iperf3 -s -1 --forceflush'].join('\n');
    const { status, stderr } = await runNemu(['run', '--root', 'debian', '--net', net, '--', script], {
      env,
      onOutput: (text) => {
        said += text;
        if (said.split('Server listening').length - 1 <= reports.length) return;
        listening();
        reports.push(client(...(reports.length > 0 ? ['-R'] : [])));
      },
    });
    const ends = await Promise.all(reports);
    expect(status, stderr).toBe(0);
    expect(ends.map(({ end }) => end.sum_received.bytes > 1 << 20)).toEqual([true, true]);
    const rates = ends.map(({ end }) => `${(end.sum_received.bits_per_second / 1e6).toFixed(0)} Mbit/s`);
    console.log(`iperf3 over ${net}: ${rates.join(' into the guest, ')} out of it`);
  }

  test(
    'iperf3 over user networking: from this host into the guest, both ways',
    async () => {
      const port = await freePort();
      await iperf(`user,hostfwd=tcp::${port}-:5201`, '127.0.0.1', port, '');
    },
    LIMIT_MS,
  );

  test(
    'iperf3 over tap, both ways',
    async ({ skip }) => {
      if (process.getuid?.() !== 0 || !existsSync('/dev/net/tun')) return skip('It needs root, and /dev/net/tun.');
      const tap = `nemui${process.pid}`.slice(0, 15);
      const ip = (...args: string[]) => execFileSync('busybox', ['ip', ...args]);
      let ready = false;
      const before = 'ip addr add 10.98.9.2/24 dev eth0; ip link set eth0 up';
      await iperf(`tap,ifname=${tap}`, '10.98.9.2', 5201, before, () => {
        if (ready) return;
        ready = true;
        ip('addr', 'add', '10.98.9.1/24', 'dev', tap);
        ip('link', 'set', tap, 'up');
      });
    },
    LIMIT_MS,
  );
});

const SELFTESTS = ['cpu-hotplug/cpu-on-off-test.sh', 'memory-hotplug/mem-on-off-test.sh'];

/** The kernel's source comes as Debian has it, and goes again. @param path of the archive with the tests, for a disk. */
async function packSelftests(path: string): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'nemu-source-'));
  try {
    const apt = await privateApt('amd64', false);
    const name = 'linux-source-6.1';
    const deb = await downloadPackage(apt, name, folder, () => {});
    const members = SELFTESTS.map((file) => `${name}/tools/testing/selftests/${file}`);
    const [tar, source] = ['tar', `./usr/src/${name}.tar.xz`];
    const unpack = `dpkg-deb --fsys-tarfile "$1" | ${tar} -x -O "$2" | xz -dc | ${tar} -x -C "$3" "$4" "$5"`;
    execFileSync('sh', ['-c', unpack, 'sh', deb, source, folder, ...members]);
    execFileSync(tar, ['-c', '-b', '20', '-f', path, '-C', folder, ...members]);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
