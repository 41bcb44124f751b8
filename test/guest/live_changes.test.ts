/** Disks and network cards that change under a stock guest, through the REPL's objects: one boot for all. */
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { findSlirp } from '../../src/lab/lab_root.ts';
import { freePort, runNemu } from '../support/cli.ts';

const LIMIT_MS = 300_000;
const MIB = 1 << 20;

test(
  'size, medium, link, limits, network and forwarded ports change, and are taken back',
  async ({ skip }) => {
    if (!findSlirp()) return skip('User networking needs libslirp0.');
    const folder = mkdtempSync(join(tmpdir(), 'nemu-live-'));
    onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
    const [first, second] = [join(folder, 'first.img'), join(folder, 'second.img')];
    writeFileSync(first, Buffer.alloc(8 * MIB, 'a'));
    writeFileSync(second, Buffer.alloc(12 * MIB, 'b'));
    const port = await freePort();
    const tap = `nemu${process.pid}`;
    const code = `
      const sh = async (line) => (await vm.sh(line)).output.trim();
      const said = {};
      const { existsSync } = await import('node:fs');
      const { vda } = vm.disks;
      const { net0 } = vm.nets;
      const sectors = async () => Number(await sh('cat /sys/block/vda/size'));
      const head = () => sh('dd if=/dev/vda bs=512 count=1 iflag=direct 2>/dev/null | head -c 3');
      const refused = (promise) => promise.then(() => 'done', (error) => error.message);
      const until = async (what, wanted) => {
        for (let i = 0; i < 100; i++) {
          const now = await what();
          if (String(now) === String(wanted)) return now;
          await new Promise((resolve) => setTimeout(resolve, 100));
        }
        return what();
      };
      const carrier = () => sh('cat /sys/class/net/eth0/carrier');
      const fetched = (ms = 3000) => fetch('http://127.0.0.1:${port}/x', { signal: AbortSignal.timeout(ms) }).then((got) => got.text(), () => 'nobody');

      said.sizes = [await sectors()];
      await vda.resize('16M');
      said.sizes.push(await until(sectors, 32768));
      said.tail = await sh('echo tail | dd of=/dev/vda bs=512 seek=32767 conv=fsync,notrunc 2>/dev/null; echo $?');
      said.shrink = await refused(vda.resize('4M'));
      await vm.journal.undo();
      said.sizes.push(await until(sectors, 16384));

      said.missing = await refused(vda.change(${JSON.stringify(join(folder, 'none.img'))}));
      said.heads = [await head()];
      const other = await vda.change(${JSON.stringify(second)});
      said.medium = [other.report.file, other.report.size];
      said.sizes.push(await until(sectors, 24576));
      said.heads.push(await head());
      await sh('printf new | dd of=/dev/vda conv=fsync,notrunc 2>/dev/null');
      await vm.journal.undo();
      said.sizes.push(await until(sectors, 16384));
      said.heads.push(await head());

      said.carrier = [await carrier()];
      await net0.link(false);
      said.carrier.push(await until(carrier, 0));
      await vm.journal.undo();
      said.carrier.push(await until(carrier, 1));

      await sh('mkdir -p /tmp/www; echo "hello" >/tmp/www/x; busybox httpd -p 80 -h /tmp/www');
      said.fetched = [await fetched()];
      await net0.forward({ hostPort: ${port}, guestPort: 80 });
      said.fetched.push(await until(() => fetched(), 'hello\\n'));

      const before = (await net0.statistics()).tx;
      // An answer is several packets, one soon after the other, however busy the machine.
      await net0.throttle({ ppsTx: 4, ppsMax: 1 });
      said.slowly = await fetched(20_000);
      const { tx, throttle } = await net0.statistics();
      said.limited = { throttle, waited: tx.waited > before.waited, more: tx.packets > before.packets, lost: tx.dropped };
      await vm.journal.undo();
      said.unlimited = (await net0.statistics()).throttle;

      said.tap = await refused(net0.backend({ type: 'tap', ifname: '${tap}' }));
      said.onTap = (await net0.statistics()).type;
      if (said.tap === 'done') {
        const { execSync } = await import('node:child_process');
        execSync('busybox ip addr add 10.98.7.1/24 dev ${tap}; busybox ip link set ${tap} up');
        await sh('ip addr add 10.98.7.2/24 dev eth0');
        const there = () => fetch('http://10.98.7.2/x', { signal: AbortSignal.timeout(3000) }).then((got) => got.text(), () => 'nobody');
        said.overTap = await until(there, 'hello\\n');
        said.ping = await sh('ping -c 1 -W 5 10.98.7.1 >/dev/null; echo $?');
        await vm.journal.undo();
      }
      said.gone = existsSync('/sys/class/net/${tap}');
      said.back = [(await net0.statistics()).type, await until(() => fetched(), 'hello\\n')];
      await net0.unforward(${port});
      said.back.push(await fetched());
      said.table = (await vm.info('nets')).text;
      said.script = vm.journal.lines.map((line) => line.slice(10));
      JSON.stringify(said);
    `;
    const { status, stdout, stderr } = await runNemu(['run', '--disk', first, '--net', 'user', '-e', code]);
    expect(status, stderr).toBe(0);
    const said = JSON.parse(stdout.toString());
    expect(said).toMatchObject({
      sizes: [16384, 32768, 16384, 24576, 16384],
      tail: '0',
      medium: [second, 12 * MIB],
      heads: ['aaa', 'bbb', 'aaa'],
      carrier: ['1', '0', '1'],
      fetched: ['nobody', 'hello\n'],
      limited: { throttle: { ppsTx: 4, ppsMax: 1 }, waited: true, more: true, lost: 0 },
      slowly: 'hello\n',
      unlimited: {},
      back: ['user', 'hello\n', 'nobody'],
    });
    expect(said.shrink).toMatch(/would be lost/);
    expect(said.missing).toMatch(/cannot be opened \(ENOENT\)/);
    // A tap is the place's own: where it cannot be had, the card stays where it is.
    expect(said.tap === 'done' ? said.onTap : said.tap).toMatch(/^tap$|tun/);
    if (said.tap === 'done') expect(said).toMatchObject({ overTap: 'hello\n', ping: '0', gone: false });
    expect(said.table).toMatch(/^net0 +52:54:00:12:34:56 +up /m);
    expect([statSync(first).size, readFileSync(second).subarray(0, 4).toString()]).toEqual([8 * MIB, 'newb']);
  },
  LIMIT_MS,
);
