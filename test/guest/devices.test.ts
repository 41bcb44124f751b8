/** Disks, network and entropy of the default guest, as `--help` says they work: one boot for all of them. */
import { createHash, randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { findSlirp } from '../../src/lab/lab_root.ts';
import { freePort, runNemu } from '../support/cli.ts';
import { expectNoWarnings, PRINT_WARNINGS } from '../support/dmesg.ts';

const LIMIT_MS = 300_000;
const MIB = 1 << 20;

describe('devices in a guest', () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'nemu-devices-'));
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  test(
    'disks are vda and vdb, what is written is there; a forwarded port reaches a server; entropy comes',
    async ({ skip }) => {
      if (!findSlirp()) return skip('User networking needs libslirp0.');
      const source = randomBytes(2 * MIB);
      const [from, to] = [join(folder, 'from.img'), join(folder, 'to,odd name.img')];
      writeFileSync(from, source);
      writeFileSync(to, new Uint8Array(4 * MIB));
      const port = await freePort();
      let fetched: string | undefined;
      let said = '';
      let polling = false;
      const script = [
        PRINT_WARNINGS,
        'cat /sys/block/vda/ro /sys/block/vdb/ro /sys/block/vdb/serial /sys/class/misc/hw_random/rng_current',
        'dd if=/dev/vda of=/dev/vdb bs=1M seek=1 conv=fsync 2>/dev/null',
        'dd if=/dev/hwrng bs=64 count=1 2>/dev/null | wc -c',
        'ip -o -4 addr show eth0 | busybox awk "{print \\$4}"',
        'mkdir /tmp/www; echo "hello from the guest" >/tmp/www/x; busybox httpd -p 80 -h /tmp/www',
        'echo listening >&2; read -r line; echo "$line"',
      ].join('\n');
      const { status, stdout, stderr } = await runNemu(
        [
          'run',
          ...['--timeout', '90'],
          ...['--disk', `${from},readonly=on`, '--disk', `file=${to.replace(',', ',,')},serial=S-42`, '--rng'],
          ...['--net', `user,net=192.168.77.0/24,hostfwd=tcp::${port}-:80`, '--', script],
        ],
        {
          keepInput: true,
          onOutput: (text, input) => {
            said += text;
            if (!said.includes('listening') || polling) return;
            polling = true;
            fetch(`http://127.0.0.1:${port}/x`)
              .then((response) => response.text())
              .then((text) => {
                fetched = text;
              })
              .finally(() => input.end('bye\n'));
          },
        },
      );
      expect({ status, stdout: stdout.toString() }, stderr).toEqual({
        status: 0,
        stdout: '1\n0\nS-42virtio_rng.0\n64\n192.168.77.15/24\nbye\n',
      });
      expectNoWarnings(stderr);
      expect(fetched).toBe('hello from the guest\n');
      const hash = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');
      expect(hash(readFileSync(to).subarray(MIB, 3 * MIB))).toBe(hash(source));
      expect(hash(readFileSync(from))).toBe(hash(source));
    },
    LIMIT_MS,
  );
});
