/**
 * From the command to the device online in the guest, over QMP, with the same kernel and initramfs. On a host whose KVM
 * cannot run stock kernels all of it runs in the lab: then times are the emulator's, and their ratio says something.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { hostVerdict } from '../src/cli/probe.ts';
import { writeCpio } from '../src/lab/cpio.ts';
import { findGuest } from '../src/lab/guest.ts';
import { buildInitramfs, concatenateArchives } from '../src/lab/initramfs.ts';
import { startLab } from '../src/lab/lab.ts';
import { type Execute, inLab, onHost } from './boot.ts';
import { type Figure, median } from './figures.ts';
import { nemu } from './programs.ts';

const MODULES = ['virtio_pci', 'virtio_blk', 'nfit', 'nd_pmem'];
/** Sleeps until the kernel tells of a device, and has it used at once. */
const INIT = `#!/bin/busybox sh
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
modprobe -a ${MODULES.join(' ')}
echo READY
exec /bin/busybox uevent /online
`;
const ONLINE = `#!/bin/busybox sh
case "$ACTION $SUBSYSTEM" in
"add cpu") echo 1 >/sys$DEVPATH/online && echo ONLINE cpu ;;
"online memory") echo ONLINE memory ;;
"add block") echo "ONLINE block \${DEVPATH##*/}" ;;
esac >/dev/console
`;
const CMDLINE = 'console=ttyS0 quiet panic=-1 memhp_default_state=online';
/**
 * vCPUs stand on one processor in both, those that are plugged too: the lab's emulator loses a guest's state now and
 * then when their threads move.
 */
const PINNED = `
"$@" & pid=$!
while kill -0 $pid 2>/dev/null; do
  for file in $(grep -sl "CPU ./KVM" /proc/$pid/task/*/comm); do
    task=\${file%/comm}; taskset -cp 0 "\${task##*/}" >/dev/null
  done
  sleep 0.1
done
wait $pid
`;
/** Devices of each kind that are plugged after one another. */
const ROUNDS = 6;
const PORTS = Array.from({ length: ROUNDS }, (_, index) => index);
/** The first runs code for the first time, in the guest as in the VMM; those behind the third are like any later one. */
const PARTS: readonly (readonly [string, readonly number[]])[] = [
  ['the first', [0]],
  ['the second', [1]],
  ['the fourth to sixth', [3, 4, 5]],
];
const DRIVER = fileURLToPath(new URL('hotplug_driver.ts', import.meta.url));

export async function hotplugFigures(folder: string, { runs = 3 } = {}): Promise<Figure[]> {
  const guest = await findGuest();
  const initrd = join(folder, 'hotplug.cpio');
  const script = (path: string, text: string) =>
    ({ type: 'file', path, mode: 0o755, data: Buffer.from(text) }) as const;
  const ours = writeCpio([script('init', INIT), script('online', ONLINE)]);
  const base = readFileSync(await buildInitramfs({ guest, available: MODULES }));
  writeFileSync(initrd, concatenateArchives([base, ours]));
  const lab = (await hostVerdict()).stockKernels ? undefined : await startLab();
  try {
    return await measure(lab ? inLab(lab) : onHost, folder, guest.kernel, initrd, runs, lab !== undefined);
  } finally {
    await lab?.close();
  }
}

async function measure(
  execute: Execute,
  folder: string,
  kernel: string,
  initrd: string,
  runs: number,
  isLab: boolean,
): Promise<Figure[]> {
  const nemuLine = (place: 'kvm' | 'lab') => (socket: string) => [
    ...[
      nemu,
      'run',
      '--on',
      place,
      '--pin',
      Array(1 + ROUNDS)
        .fill(0)
        .join(),
      '--cpus',
      `1,max=${1 + ROUNDS}`,
      '--memory',
      `512M,max=16G,slots=${2 * ROUNDS}`,
    ],
    ...['--pcie', String(ROUNDS), '--net', 'none', '--no-reboot', '--qmp', socket],
    ...['--initrd', initrd, '--append', CMDLINE, kernel],
  ];
  const qemuLine = (socket: string) => [
    ...['sh', '-c', PINNED, 'sh', 'qemu-system-x86_64', '-name', 'bench,debug-threads=on', '-accel', 'kvm'],
    ...[
      '-machine',
      'q35,nvdimm=on',
      '-cpu',
      'host',
      '-smp',
      `1,maxcpus=${1 + ROUNDS}`,
      '-m',
      `512M,maxmem=16G,slots=${2 * ROUNDS}`,
    ],
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-serial', 'stdio', '-no-reboot'],
    // Both plug by the ports' own registers; QEMU's q35 would take ACPI by default, with which Linux waits less.
    ...['-global', 'ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off'],
    ...PORTS.flatMap((n) => ['-device', `pcie-root-port,id=rp${n},chassis=${n + 1}`]),
    ...['-qmp', `unix:${socket},server=on,wait=off`, '-kernel', kernel, '-initrd', initrd, '-append', CMDLINE],
  ];
  /** By subject and kind, what each run took, by round. */
  const samples: Record<'nemu' | 'q35' | 'lab', Record<string, number[][]>> = { nemu: {}, q35: {}, lab: {} };
  const subjects = [
    ['nemu', execute, nemuLine('kvm')],
    ['q35', execute, qemuLine],
    // What users of the lab have: an engine that has run before the lab was saved, driven from outside.
    ...(isLab ? [['lab', onHost, nemuLine('lab')] as const] : []),
  ] as const;
  for (let turn = 0; turn < runs; turn++) {
    for (const [name, run, line] of subjects) {
      // In the lab its own memory: files of the host cannot be written there.
      const place = name === 'lab' ? join(folder, `turn-${turn}`) : `/tmp/bench-${name}-${turn}`;
      const [disks, modules] = ['disk', 'pm'].map((name) => PORTS.map((n) => `${place}/${name}${n + 1}.img`).join(' '));
      const prepare = `mkdir -p ${place} && truncate -s 16M ${disks} && truncate -s 128M ${modules}`;
      await run(['sh', '-c', prepare]);
      const socket = `${place}/qmp`;
      const { status, stdout, stderr } = await run([
        process.execPath,
        DRIVER,
        socket,
        place,
        String(ROUNDS),
        ...line(socket),
      ]);
      if (status !== 0) throw new Error(`${name} (status ${status}): ${stdout}${stderr}`);
      const took = JSON.parse(stdout.toString()) as Record<string, number[]>;
      process.stderr.write(`bench: ${name}, run ${turn + 1} of ${runs}: ${stdout}`);
      for (const [what, ms] of Object.entries(took)) {
        samples[name][what] ??= [];
        samples[name][what].push(ms);
      }
      await run(['rm', '-r', place]);
    }
  }
  const figuresOf = (name: 'nemu' | 'lab', where: string): Figure[] =>
    Object.keys(samples[name]).flatMap((what) =>
      PARTS.map(([which, rounds]) => {
        const times = (subject: 'nemu' | 'q35' | 'lab') =>
          samples[subject][what].flatMap((run) => rounds.map((round) => run[round]));
        return {
          ...{ suite: 'hotplug', what: `${what}, ${which}: command to online in the guest${where}`, unit: 'ms' },
          ...{ nemu: median(times(name)), qemu: { q35: median(times('q35')) } },
        };
      }),
    );
  return [
    ...figuresOf('nemu', isLab ? ', in the lab, an engine that has just started' : ''),
    ...figuresOf('lab', ", in the lab, the lab's own engine"),
  ];
}
