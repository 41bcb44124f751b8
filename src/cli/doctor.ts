import { accessSync, constants, existsSync, readFileSync } from 'node:fs';
import { availableParallelism, freemem, totalmem } from 'node:os';
import { getrlimit, RLIMIT_MEMLOCK, RLIMIT_NOFILE } from '../ffi/libc.ts';
import { findProgram } from '../lab/command.ts';
import { listGuests } from '../lab/guest.ts';
import { type HostVerdict, probeHost } from './probe.ts';

/** One thing that was looked at. */
export interface Finding {
  readonly name: string;
  readonly status: 'ok' | 'missing' | 'note';
  readonly text: string;
  /** What mends it: a command where there is one. */
  readonly fix?: string;
}

export interface DoctorReport {
  readonly verdict: HostVerdict;
  /** Where `--on auto` runs machines. */
  readonly place: 'kvm' | 'lab' | 'none';
  readonly findings: readonly Finding[];
}

const MiB = 2 ** 20;
const mib = (bytes: number) => (Number.isFinite(bytes) ? `${Math.round(bytes / MiB)} MiB` : 'unlimited');

/** Looks at everything that a run may need, with the probe guest run anew. */
export async function examine(): Promise<DoctorReport> {
  const verdict = await probeHost();
  const findings: Finding[] = [device(), probe(verdict), ...timing(verdict)];
  const qemu = process.arch === 'arm64' ? 'qemu-system-aarch64' : 'qemu-system-x86_64';
  findings.push(
    program(
      qemu,
      'the lab',
      `apt-get install ${process.arch === 'arm64' ? 'qemu-system-arm' : 'qemu-system-x86'}`,
      verdict.stockKernels,
    ),
    program('busybox', "the default guest's user space", 'apt-get install busybox-static'),
    await kernels(),
    ...limits(),
    hugepages(),
  );
  const labPossible = findProgram(qemu) !== undefined;
  return { verdict, place: verdict.stockKernels ? 'kvm' : labPossible ? 'lab' : 'none', findings };
}

function device(): Finding {
  const name = '/dev/kvm';
  if (!existsSync(name)) {
    const flags = readFileSync('/proc/cpuinfo', 'utf8');
    const capable = /\b(vmx|svm)\b/.test(flags);
    return {
      name,
      status: 'missing',
      text: 'does not exist',
      fix: capable
        ? 'modprobe kvm_intel || modprobe kvm_amd'
        : 'this processor offers no virtualization here: use --on lab',
    };
  }
  try {
    accessSync(name, constants.R_OK | constants.W_OK);
    return { name, status: 'ok', text: 'can be opened' };
  } catch {
    return {
      name,
      status: 'missing',
      text: 'may not be opened by this user',
      fix: 'sudo usermod -aG kvm "$USER", then log in again',
    };
  }
}

function probe(verdict: HostVerdict): Finding {
  const name = 'probe guest';
  if (verdict.stockKernels) return { name, status: 'ok', text: `passed: ${verdict.passed.join('; ')}` };
  const passed = verdict.passed.length > 0 ? ` It passed: ${verdict.passed.join('; ')}.` : '';
  return {
    name,
    status: 'missing',
    text: `stock kernels cannot run: ${verdict.reason}.${verdict.detail ? ` ${verdict.detail}` : ''}${passed}`,
    ...(verdict.hint && { fix: verdict.hint }),
  };
}

function timing({ localExitUs, forwardedExitUs }: HostVerdict): Finding[] {
  if (localExitUs === undefined || forwardedExitUs === undefined) return [];
  const text = `${localExitUs.toFixed(1)} µs served on the vCPU thread, ${forwardedExitUs.toFixed(1)} µs forwarded`;
  return [{ name: 'one exit', status: 'note', text }];
}

function program(name: string, purpose: string, fix: string, optional = false): Finding {
  const path = findProgram(name);
  if (path) return { name, status: 'ok', text: `${path}, for ${purpose}` };
  return { name, status: optional ? 'note' : 'missing', text: `not installed; needed for ${purpose}`, fix };
}

async function kernels(): Promise<Finding> {
  const guests = await listGuests();
  const name = 'guest kernels';
  if (guests.length > 0) return { name, status: 'ok', text: guests.map((guest) => guest.name).join(', ') };
  return { name, status: 'missing', text: 'none fetched', fix: 'nemu guest fetch' };
}

function limits(): Finding[] {
  const files = getrlimit(RLIMIT_NOFILE);
  return [
    { name: 'processors', status: 'note', text: `${availableParallelism()} for vCPU threads` },
    { name: 'memory', status: 'note', text: `${mib(freemem())} free of ${mib(totalmem())}` },
    { name: 'locked memory', status: 'note', text: `${mib(getrlimit(RLIMIT_MEMLOCK))} may be locked (memory lock=on)` },
    files < 1024
      ? { name: 'open files', status: 'missing', text: `only ${files} allowed`, fix: 'ulimit -n 4096' }
      : { name: 'open files', status: 'ok', text: `${files} allowed` },
  ];
}

function hugepages(): Finding {
  const folder = '/sys/kernel/mm/hugepages/hugepages-2048kB';
  const name = 'huge pages';
  if (!existsSync(folder)) return { name, status: 'note', text: 'this kernel has none of 2 MiB' };
  const read = (file: string) => readFileSync(`${folder}/${file}`, 'utf8').trim();
  return { name, status: 'note', text: `${read('free_hugepages')} free of ${read('nr_hugepages')} (2 MiB)` };
}

const MARK = { ok: 'ok     ', missing: 'MISSING', note: 'note   ' } as const;

export function formatReport({ place, findings }: DoctorReport): string {
  const width = Math.max(...findings.map(({ name }) => name.length));
  const lines = findings.flatMap(({ name, status, text, fix }) => [
    `${MARK[status]}  ${name.padEnd(width)}  ${text}`,
    ...(fix ? [`${' '.repeat(9 + width)}  fix: ${fix}`] : []),
  ]);
  const verdict = {
    kvm: "Machines run under this host's own KVM.",
    lab: 'Machines run in the lab: KVM inside an emulated host.',
    none: 'Machines cannot run here yet; see the fixes above.',
  }[place];
  return `${lines.join('\n')}\n\n${verdict}\n`;
}
