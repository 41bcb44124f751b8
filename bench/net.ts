/** virtio-net on a tap from a driver in ring 3 that polls its rings: the same guest and tap for us and for QEMU. */
import { execFileSync } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { measured, type Sample } from './blk.ts';
import { type Figure, median } from './figures.ts';
import { compiledGuest } from './micro_guest.ts';
import { nemu, nemuArguments, qemuArguments } from './programs.ts';

interface Work {
  readonly what: string;
  /** Bytes of the frame. */
  readonly size: number;
  readonly depth: number;
  /** Each packet is answered by the host's kernel, and the answer is received: two packets. */
  readonly echo: boolean;
  readonly count: number;
}

const WORKS: readonly Work[] = [
  { what: 'transmit', size: 60, depth: 64, echo: false, count: 200_000 },
  { what: 'transmit', size: 1514, depth: 64, echo: false, count: 200_000 },
  { what: 'transmit and receive', size: 60, depth: 1, echo: true, count: 20_000 },
  { what: 'transmit and receive', size: 60, depth: 64, echo: true, count: 100_000 },
  { what: 'transmit and receive', size: 1514, depth: 64, echo: true, count: 100_000 },
];

/** A tap of the host with an address, whose peer is bench/guests/virtio_net.c. @returns why not, where it cannot be had. */
function openTap(name: string): { close(): void } | string {
  if (!existsSync('/dev/net/tun')) return 'there is no /dev/net/tun (modprobe tun)';
  const ip = (...args: string[]) => execFileSync('ip', args, { stdio: 'pipe' });
  try {
    ip('tuntap', 'add', 'dev', name, 'mode', 'tap', 'vnet_hdr');
  } catch (error) {
    return `a tap cannot be made: ${String((error as { stderr?: Buffer }).stderr ?? error).trim()}`;
  }
  const close = () => void ip('link', 'del', name);
  try {
    const ipv6 = `/proc/sys/net/ipv6/conf/${name}/disable_ipv6`;
    if (existsSync(ipv6)) writeFileSync(ipv6, '1');
    ip('link', 'set', 'dev', name, 'address', '02:00:00:00:00:01');
    ip('addr', 'add', '10.99.0.1/24', 'dev', name);
    ip('link', 'set', 'dev', name, 'up');
    ip('neigh', 'replace', '10.99.0.2', 'lladdr', '02:00:00:00:00:02', 'dev', name, 'nud', 'permanent');
    return { close };
  } catch (error) {
    close();
    return `a tap cannot be set up: ${String((error as { stderr?: Buffer }).stderr ?? error).trim()}`;
  }
}

const qemuTap = (name: string) => [
  ...['-netdev', `tap,id=net,ifname=${name},script=no,downscript=no`],
  ...['-device', 'virtio-net-pci,netdev=net,disable-legacy=on,romfile=,addr=5'],
];

export async function netFigures(folder: string, { runs = 3 } = {}): Promise<Figure[]> {
  const name = `nemubench${process.pid % 100_000}`.slice(0, 15);
  const tap = openTap(name);
  if (typeof tap === 'string') {
    process.stderr.write(`bench: net is skipped: ${tap}.\n`);
    return [];
  }
  const figures: Figure[] = [];
  try {
    for (const [index, { what, size, depth, echo, count }] of WORKS.entries()) {
      const image = join(folder, `net-${index}.elf`);
      const defines = { SIZE: size, DEPTH: depth, ECHO: Number(echo), COUNT: count };
      writeFileSync(image, compiledGuest('virtio_net.c', defines));
      const packets = count * (echo ? 2 : 1);
      const ours: Sample[] = [];
      const theirs: Sample[] = [];
      for (let turn = 0; turn < runs; turn++) {
        const args = nemuArguments(image).map((each) => (each === 'none' ? `tap,ifname=${name}` : each));
        ours.push(await measured(nemu, args, packets));
        theirs.push(await measured('qemu-system-x86_64', qemuArguments('q35', image, qemuTap(name)), packets));
      }
      const title = `${what}, ${size} bytes, ${depth} at a time`;
      const figure = (unit: string, of: (sample: Sample) => number) =>
        figures.push({
          ...{ suite: 'net', what: title, unit },
          ...{ nemu: median(ours.map(of)), qemu: { q35: median(theirs.map(of)) } },
        });
      figure('packets/s', (sample) => sample.rate);
      figure('host CPU µs/packet', (sample) => sample.cpu);
      figure('notifications/packet', (sample) => sample.notifications);
    }
  } finally {
    tap.close();
  }
  return figures;
}
