import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { release } from 'node:os';
import { join } from 'node:path';
import type { NemuError } from '../client/errors.ts';
import { Machine } from '../vmm/machine.ts';
import { cacheFolder, runFolder } from './paths.ts';
import { PROBE_READS, PROBE_STEPS, probeGuest } from './probe_guest.ts';

/** What the probe guest found out about this host's KVM. */
export interface HostVerdict {
  /** /dev/kvm opens and has what we need. */
  readonly kvm: boolean;
  /** Stock kernels can run. */
  readonly stockKernels: boolean;
  /** Why not. */
  readonly reason: string;
  /** What KVM said when the probe stopped. */
  readonly detail?: string | undefined;
  /** What to do about it. */
  readonly hint: string | undefined;
  /** Names of the steps that the probe passed, and the one where it stopped. */
  readonly passed: readonly string[];
  readonly failed: string | undefined;
  /** Microseconds for one exit, in the probe. */
  readonly localExitUs: number | undefined;
  readonly forwardedExitUs: number | undefined;
}

/** Long for a guest of some thousand instructions, even where each is emulated. */
const PROBE_TIMEOUT_MS = 5000;
const VERSION = 2;

/** Runs the probe guest. Never throws: whatever goes wrong is the verdict. */
export async function probeHost(): Promise<HostVerdict> {
  const nothing = { passed: [], failed: undefined, localExitUs: undefined, forwardedExitUs: undefined };
  const kernel = join(runFolder(), 'probe.elf');
  writeFileSync(kernel, probeGuest());
  let machine: Machine;
  try {
    machine = await Machine.create({
      name: 'probe',
      memory: { size: 16 * 2 ** 20 },
      kernel: { image: kernel },
      serial: [{ port: 'com1', flow: 'drop' }],
      debugExit: true,
      pvpanic: false,
      onReset: 'stop',
    });
  } catch (error) {
    const { message, hint } = error as NemuError;
    return { ...nothing, kvm: false, stockKernels: false, reason: message.replace(/\.$/, ''), hint };
  }
  const marks = new Map<string, number>();
  const timer = setTimeout(() => void machine.close(), PROBE_TIMEOUT_MS);
  try {
    machine.console('com1').onData = (bytes) => {
      for (const letter of Buffer.from(bytes).toString('latin1')) marks.set(letter, performance.now());
    };
    await machine.start();
    const end = await machine.ended();
    // The last letters may still be in the ring.
    await new Promise((resolve) => setTimeout(resolve, 5));
    const stopped = PROBE_STEPS.find(({ letter }) => !marks.has(letter));
    const passed = PROBE_STEPS.filter(({ letter }) => marks.has(letter)).map(({ name }) => name);
    const between = (from: string, to: string) => {
      const [a, b] = [marks.get(from), marks.get(to)];
      return a === undefined || b === undefined ? undefined : ((b - a) * 1000) / PROBE_READS;
    };
    const timing = { localExitUs: between('D', 'E'), forwardedExitUs: between('E', 'F') };
    if (!stopped) {
      return { kvm: true, stockKernels: true, reason: '', hint: undefined, passed, failed: undefined, ...timing };
    }
    return {
      kvm: true,
      stockKernels: false,
      reason: stopped.lack,
      detail: end.reason === 'internal-error' || end.reason === 'triple-fault' ? end.detail : undefined,
      hint: 'Use --on lab (nemu run does so by itself), or a host with hardware virtualization.',
      passed,
      failed: stopped.name,
      ...timing,
    };
  } finally {
    clearTimeout(timer);
    await machine.close();
  }
}

/** What decides whether an earlier verdict still holds: this boot of this kernel, and access to /dev/kvm. */
function hostIdentity(): string {
  const bootId = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  return JSON.stringify([VERSION, bootId, release(), existsSync('/dev/kvm'), process.getuid?.()]);
}

/** The verdict for this boot of the host: from the cache, or by running the probe (about 0.2 s). */
export async function hostVerdict(): Promise<HostVerdict> {
  const path = join(cacheFolder(), 'host.json');
  const identity = hostIdentity();
  try {
    const cached = JSON.parse(readFileSync(path, 'utf8')) as { identity: string; verdict: HostVerdict };
    if (cached.identity === identity) return cached.verdict;
  } catch {
    // None yet, or none that can be read: the probe tells anew.
  }
  const verdict = await probeHost();
  try {
    mkdirSync(cacheFolder(), { recursive: true });
    writeFileSync(path, JSON.stringify({ identity, verdict }));
  } catch {
    // A cache that cannot be written costs the next start a probe, and nothing else.
  }
  return verdict;
}
