/**
 * A stock guest writes to its serial console as fast as it may: lines, as programs print them, and one long piece. On a
 * host whose KVM cannot run stock kernels all of it runs in the lab, where only the ratio says something.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { hostVerdict } from '../src/cli/probe.ts';
import { writeCpio } from '../src/lab/cpio.ts';
import { findGuest, hostArch } from '../src/lab/guest.ts';
import { busyboxInitramfs, concatenateArchives } from '../src/lab/initramfs.ts';
import { startLab } from '../src/lab/lab.ts';
import { type Execute, inLab, onHost, qemuBoot } from './boot.ts';
import { type Figure, median } from './figures.ts';
import { nemu } from './programs.ts';

const BYTES = 30_000;
const LINE = 'What a kernel or a program prints: 64 bytes, its end among them\n';
const LINES = LINE.repeat(Math.ceil(BYTES / LINE.length)).slice(0, BYTES);
/** Each part waits until what it wrote has been sent. */
const INIT = `#!/bin/busybox sh
mount -t devtmpfs dev /dev
exec >/dev/ttyS0 </dev/ttyS0 2>&1
stty -onlcr
for part in lines piece; do
	echo "BEGIN $part"
	cat /$part
	stty onlcr
	stty -onlcr
	echo "END $part"
done
poweroff -f
`;

export async function serialFigures(folder: string, { runs = 3 } = {}): Promise<Figure[]> {
  const guest = await findGuest();
  const initrd = join(folder, 'serial.cpio');
  const file = (path: string, text: string, mode = 0o644) =>
    ({ type: 'file', path, mode, data: Buffer.from(text) }) as const;
  const init = writeCpio([file('init', INIT, 0o755), file('lines', LINES), file('piece', LINES.replaceAll('\n', ' '))]);
  writeFileSync(initrd, concatenateArchives([readFileSync(await busyboxInitramfs(hostArch())), init]));
  const lab = (await hostVerdict()).stockKernels ? undefined : await startLab();
  const execute = lab ? inLab(lab) : onHost;
  const boot = ['--initrd', initrd, '--append', 'console=ttyS0 quiet panic=-1', guest.kernel];
  const programs = {
    nemu: [nemu, 'run', '--on', 'kvm', '--memory', '512M', '--net', 'none', '--no-reboot', ...boot],
    q35: qemuBoot('q35', guest.kernel, initrd),
  };
  try {
    const samples = { nemu: [] as Times[], q35: [] as Times[] };
    for (let turn = 0; turn < runs; turn++) {
      for (const name of ['nemu', 'q35'] as const) samples[name].push(await times(execute, programs[name]));
    }
    const rate = (name: 'nemu' | 'q35', part: keyof Times) =>
      BYTES / 1000 / (median(samples[name].map((each) => each[part])) / 1000);
    return (['lines', 'piece'] as const).map((part) => ({
      suite: 'serial',
      what: `${part === 'lines' ? `lines of ${LINE.length} bytes` : 'one piece'} to ttyS0${lab ? ', in the lab' : ''}`,
      unit: 'kB/s',
      nemu: rate('nemu', part),
      qemu: { q35: rate('q35', part) },
    }));
  } finally {
    await lab?.close();
  }
}

interface Times {
  readonly lines: number;
  readonly piece: number;
}

/** Milliseconds from each part's first line to its last. @throws Error when one does not come, or not whole. */
async function times(execute: Execute, argv: readonly string[]): Promise<Times> {
  let text = '';
  const at = new Map<string, number>();
  const { status, stderr } = await execute(argv, (bytes) => {
    text += bytes.toString('latin1');
    for (const mark of ['BEGIN lines', 'END lines', 'BEGIN piece', 'END piece']) {
      if (!at.has(mark) && text.includes(mark)) at.set(mark, performance.now());
    }
  });
  const took = (part: keyof Times) => {
    const [begin, end] = [at.get(`BEGIN ${part}`), at.get(`END ${part}`)];
    const sent = text.indexOf(`END ${part}`) - text.indexOf(`BEGIN ${part}`);
    if (begin === undefined || end === undefined || sent < BYTES) {
      throw new Error(
        `${argv[0]} (status ${status}) printed ${sent} bytes of ${part}:\n${text.slice(0, 500)}${stderr}`,
      );
    }
    return end - begin;
  };
  return { lines: took('lines'), piece: took('piece') };
}
