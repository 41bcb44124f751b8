import { existsSync } from 'node:fs';
import { NemuError } from '../client/errors.ts';
import { findProgram, runCommand } from '../lab/command.ts';
import { fetchGuest, findGuest, listGuests } from '../lab/guest.ts';
import { buildLabImage } from '../lab/lab_image.ts';
import { findSlirp } from '../lab/lab_root.ts';
import { labAgentPath } from './paths.ts';
import { hostVerdict } from './probe.ts';
import { fetchProgress, labProgress, ProgressLine } from './progress.ts';

/** A Debian package and how to see that it is there. */
interface Requirement {
  readonly package: string;
  readonly present: () => boolean;
  readonly why: string;
}

const program = (name: string) => () => findProgram(name) !== undefined;

const NETWORK: readonly Requirement[] = [
  { package: 'libslirp0', present: () => findSlirp() !== undefined, why: 'network of guests without privileges' },
];
const LAB: readonly Requirement[] = [
  { package: 'qemu-system-x86', present: program('qemu-system-x86_64'), why: 'emulates the lab' },
];
const GUEST: readonly Requirement[] = [
  { package: 'busybox-static', present: () => existsSync('/bin/busybox'), why: 'user space of the default guest' },
  { package: 'xz-utils', present: program('xz'), why: 'unpacks kernel modules' },
];
const TESTS: readonly Requirement[] = [
  { package: 'acpica-tools', present: program('iasl'), why: 'judges the ACPI tables' },
  { package: 'qemu-utils', present: program('qemu-img'), why: 'judges disk images' },
  { package: 'tmux', present: program('tmux'), why: 'drives terminal tests' },
  { package: 'gcc', present: program('gcc'), why: 'compares declarations with the kernel headers' },
  { package: 'libc6-dev', present: () => existsSync('/usr/include/linux/kvm.h'), why: 'kernel headers' },
  { package: 'gdb', present: program('gdb'), why: 'judges the GDB server, and is what nemu gdb runs' },
  { package: 'python3-minimal', present: program('python3'), why: 'drives pseudo-terminals in tests' },
];

/**
 * Brings the machine to where `npm start` or `npm test` can run: Debian packages, guest kernels and the lab.
 * Says nothing and takes no time when all is there.
 */
export async function setUp(task: 'start' | 'test'): Promise<void> {
  const line = new ProgressLine();
  await installPackages([...GUEST, ...NETWORK, ...(task === 'test' ? [...LAB, ...TESTS] : [])]);
  const verdict = await hostVerdict();
  const needsLab = task === 'test' || !verdict.stockKernels;
  if (needsLab) await installPackages(LAB);
  const onProgress = fetchProgress(line);
  if (!(await listGuests()).some(({ flavour }) => flavour === 'cloud')) {
    await fetchGuest({ flavour: 'cloud' }, onProgress);
    line.done();
  }
  await findGuest();
  if (needsLab) {
    const progress = labProgress();
    await buildLabImage({ bundle: labAgentPath(), onProgress: progress.report }).finally(progress.done);
  }
}

async function installPackages(requirements: readonly Requirement[]): Promise<void> {
  const missing = requirements.filter(({ present }) => !present());
  if (missing.length === 0) return;
  const names = missing.map((each) => each.package);
  const install = `apt-get install -y --no-install-recommends ${names.join(' ')}`;
  const list = missing.map((each) => `${each.package} (${each.why})`).join(', ');
  if (!findProgram('apt-get')) {
    throw new NemuError('SETUP', `Programs are missing that these Debian packages bring: ${list}.`, {
      hint: 'Install what brings them on this distribution and start again.',
    });
  }
  process.env.DEBIAN_FRONTEND = 'noninteractive';
  const root = process.getuid?.() === 0;
  const prefix = root ? [] : ['sudo', '-n'];
  const maySudo =
    root || (findProgram('sudo') !== undefined && (await runCommand('sudo', ['-n', 'true'])).status === 0);
  if (!maySudo) {
    throw new NemuError('SETUP', `Debian packages are missing: ${list}.`, { hint: `Run: sudo ${install}` });
  }
  process.stderr.write(`nemu: installing ${list}\n`);
  const run = (command: string[]) => {
    const [first, ...rest] = [...prefix, ...command];
    return runCommand(first, rest);
  };
  let result = await run(install.split(' '));
  if (result.status !== 0) {
    // Lists that are missing or old are the usual reason.
    const lists = await run(['apt-get', 'update']);
    if (lists.status === 0) result = await run(install.split(' '));
  }
  if (result.status !== 0) {
    throw new NemuError('SETUP', `"${install}" failed:\n${result.stderr.toString().trim()}`, {
      hint: 'Mend what APT says and start again.',
    });
  }
  const still = missing.filter(({ present }) => !present());
  if (still.length > 0) {
    throw new NemuError(
      'SETUP',
      `After the installation these are still missing: ${still.map((each) => each.package).join(', ')}.`,
    );
  }
}
