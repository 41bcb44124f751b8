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
