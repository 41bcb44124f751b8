/**
 * A stock kernel to its /init, with the same kernel, initrd and command line: how long, and how many exits to user
 * space until it has powered off again. On a host whose KVM cannot run stock kernels all of it runs in the lab, where
 * times are the emulator's and only their ratio says something; counts are the same everywhere.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { hostVerdict } from '../src/cli/probe.ts';
import { writeCpio } from '../src/lab/cpio.ts';
import { findGuest, hostArch } from '../src/lab/guest.ts';
import { busyboxInitramfs, concatenateArchives } from '../src/lab/initramfs.ts';
import { type Lab, startLab } from '../src/lab/lab.ts';
import { type Figure, median } from './figures.ts';
import { nemu, Run } from './programs.ts';

const INIT = `#!/bin/busybox sh
echo REACHED-INIT
poweroff -f
`;
const CMDLINE = 'console=ttyS0 quiet panic=-1';
const MEMORY = '512M';

/**
 * Runs QEMU with its vCPU on one processor, like ours: the lab's emulator loses a guest's state now and then when its
 * thread moves.
 */
const PINNED = `
"$@" & pid=$!
until file=$(grep -sl "CPU 0/KVM" /proc/$pid/task/*/comm) || ! kill -0 $pid; do :; done
task=\${file%/comm}
taskset -cp 0 "\${task##*/}" >&2
wait $pid
`;

/** Runs a program where stock kernels boot. */
export type Execute = (
  argv: readonly string[],
  onOutput?: (bytes: Buffer) => void,
) => Promise<{ status: number; stdout: Buffer; stderr: Buffer }>;

export async function bootFigures(folder: string, { runs = 3 } = {}): Promise<Figure[]> {
  const guest = await findGuest();
  const base = await busyboxInitramfs(hostArch());
  const initrd = join(folder, 'boot.cpio');
  const init = writeCpio([{ type: 'file', path: 'init', mode: 0o755, data: Buffer.from(INIT) }]);
  writeFileSync(initrd, concatenateArchives([readFileSync(base), init]));
  const lab = (await hostVerdict()).stockKernels ? undefined : await startLab();
  try {
    return await measure(lab ? inLab(lab) : onHost, folder, guest.kernel, initrd, runs, lab !== undefined);
  } finally {
    await lab?.close();
  }
}

export const onHost: Execute = async ([program, ...args], onOutput) => {
  const run = new Run(program, args);
  run.child.stdout?.on('data', (bytes: Buffer) => onOutput?.(bytes));
  return { status: await run.exited, stdout: run.output, stderr: Buffer.from(run.errors) };
};

export const inLab =
  (lab: Lab): Execute =>
  (argv, onOutput) =>
    lab.exec(argv, {
      hostRoot: true,
      env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', HOME: '/root', XDG_RUNTIME_DIR: '/tmp', XDG_STATE_HOME: '/tmp' },
      onOutput: (stream, bytes) => stream === 'stdout' && onOutput?.(bytes),
    });

/** QEMU with a kernel, on KVM, its first serial port on standard input and output. */
export const qemuBoot = (machine: string, kernel: string, initrd: string, more: readonly string[] = []): string[] => [
  ...['sh', '-c', PINNED, 'sh', 'qemu-system-x86_64', '-name', 'bench,debug-threads=on', '-accel', 'kvm'],
  ...['-machine', machine, '-cpu', 'host', '-m', MEMORY],
  ...['-nodefaults', '-no-user-config', '-display', 'none', '-serial', 'stdio', '-no-reboot'],
  ...['-kernel', kernel, '-initrd', initrd, '-append', CMDLINE, ...more],
];

async function measure(
  execute: Execute,
  folder: string,
  kernel: string,
  initrd: string,
  runs: number,
  isLab: boolean,
): Promise<Figure[]> {
  const ours = (more: readonly string[]) => [
    ...[nemu, 'run', '--pin', '0', '--on', 'kvm', '--memory', MEMORY, '--net', 'none', '--no-reboot', ...more],
    ...['--initrd', initrd, '--append', CMDLINE, kernel],
  ];
  const theirs = (machine: string, more: readonly string[]) => qemuBoot(machine, kernel, initrd, more);
  const timed = async (argv: readonly string[]) => {
    const begin = performance.now();
    let text = '';
    let reached: number | undefined;
    const { status, stderr } = await execute(argv, (bytes) => {
      text += bytes.toString('latin1');
      if (text.includes('REACHED-INIT')) reached ??= performance.now() - begin;
    });
    if (reached === undefined)
      throw new Error(`${argv.join(' ')} (status ${status}) did not reach /init:\n${text}${stderr}`);
    return reached;
  };
  const samples: Record<string, number[]> = { nemu: [], q35: [], microvm: [] };
  for (let turn = 0; turn < runs; turn++) {
    samples.nemu.push(await timed(ours([])));
    for (const machine of ['q35', 'microvm']) samples[machine].push(await timed(theirs(machine, [])));
  }
  const { stdout, stderr } = await execute(ours(['--json', '2']));
  const counters = stderr
    .toString()
    .split('\n')
    .filter((line) => line.includes('"type":"counters"'))
    .map((line) => JSON.parse(line) as { total: number })[0];
  if (!counters) throw new Error(`nemu told no counters:\n${stdout}${stderr}`);
  const qemuExits = async (machine: string) => {
    const trace = join(folder, `exits-${machine}`);
    const script = '"$@" >/dev/null; status=$?; grep -c kvm_run_exit "$0" >&2; exit $status';
    const argv = ['sh', '-c', script, trace, ...theirs(machine, ['-D', trace, '-trace', 'kvm_run_exit'])];
    const result = await execute(argv);
    return Number(result.stderr.toString().trim().split('\n').at(-1));
  };
  const where = isLab ? ', in the lab' : '';
  return [
    {
      suite: 'boot',
      what: `exec to /init${where}`,
      unit: 'ms',
      nemu: median(samples.nemu),
      qemu: { q35: median(samples.q35), microvm: median(samples.microvm) },
    },
    {
      suite: 'boot',
      what: 'exits to user space, first instruction to power-off by /init',
      unit: '',
      nemu: counters.total,
      qemu: { q35: await qemuExits('q35'), microvm: await qemuExits('microvm') },
      note: "QEMU's exits are with its firmware's, which is where its first instruction stands.",
    },
  ];
}
