/**
 * The engine's side of the lab: the lab's loader imports it before the lab is saved (`prepare`) and starts it after the
 * lab was restored (`start`).
 */
import { createReadStream, createWriteStream, openSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { Duplex } from 'node:stream';
import { type MachineDescription, type MachineInput, parseMachine, possibleCpus } from '../client/description.ts';
import { serveMachines } from '../client/serve.ts';
import { KVM_CREATE_IRQCHIP } from '../ffi/kvm/common.ts';
import { KVM_GET_SREGS, KVM_SET_SREGS, kvm_sregs } from '../ffi/kvm/x86.ts';
import { Kvm } from '../vmm/kvm.ts';
import { Machine } from '../vmm/machine.ts';
import { ThreadPool } from '../vmm/threads.ts';
import { playGuest, type RehearsalGuest } from './lab_rehearsal.ts';

/** vCPU threads that are in the saved lab: each takes about half a second to start there. */
const SPARE_VCPUS = 16;

let pool: ThreadPool | undefined;

/**
 * KVM patches its own code when the first local APIC becomes disabled and when the last one stops being so.
 * Emulated processors now and then run into such a patch half done, and the lab's kernel dies of it. Two
 * vCPUs that never run keep both conditions true, so that nothing is patched. Their descriptors are never
 * closed.
 */
function holdStaticKeys(): void {
  const vm = new Kvm().createVm();
  vm.ioctl(KVM_CREATE_IRQCHIP, 'KVM_CREATE_IRQCHIP');
  vm.createVcpu(0);
  const hardwareDisabled = vm.createVcpu(1);
  const sregs = hardwareDisabled.arena.struct(kvm_sregs);
  hardwareDisabled.ioctl(KVM_GET_SREGS, 'KVM_GET_SREGS', sregs);
  const APIC_BASE_ENABLE = 1n << 11n;
  sregs.fields.apic_base &= ~APIC_BASE_ENABLE;
  hardwareDisabled.ioctl(KVM_SET_SREGS, 'KVM_SET_SREGS', sregs);
}

/**
 * Keeps the lab's kernel from moving guest memory behind the guest's back. An emulated processor loses the
 * interrupt that it was delivering when the page it needs for that has just been unmapped, and the guest
 * triple-faults; khugepaged and compaction unmap pages all the time.
 */
function keepGuestMemoryStill(): void {
  for (const [path, value] of [
    ['/sys/kernel/mm/transparent_hugepage/khugepaged/scan_sleep_millisecs', '4294967295'],
    ['/sys/kernel/mm/transparent_hugepage/khugepaged/defrag', '0'],
    ['/proc/sys/vm/compaction_proactiveness', '0'],
  ]) {
    writeFileSync(path, value);
  }
}

/** Starts threads ahead, so that they are in the saved lab. */
export async function prepare(): Promise<void> {
  if (!pool) {
    keepGuestMemoryStill();
    holdStaticKeys();
    pool = new ThreadPool();
  }
  pool.prepare('machine', 1);
  pool.prepare('vcpu', SPARE_VCPUS);
  await pool.ready();
}

/** vCPUs from which on a guest's ticks are a load that the lab cannot carry. */
const MANY_VCPUS = 4;
/** The shortest period of a local APIC's timer, in microseconds: 50 ticks a second. KVM's own limit is 200. */
const SLOW_TICK = '20000';

/**
 * Makes a machine's description one for the lab.
 *
 * Each vCPU stays on one of the lab's processors. When a vCPU moves, the emulated processor that it left may once more
 * write its own registers over the guest's, and the guest never comes back from that.
 *
 * Many vCPUs tick slowly until they need not tick. A stock kernel ticks 250 times a second on every vCPU, idle or not,
 * until it has chosen its clocksource. A tick costs 0.2 ms here, so that sixteen vCPUs leave nothing for the boot. KVM
 * can be told of a shortest period, which holds for a local APIC's periodic mode; a guest with a TSC deadline timer
 * does not use that.
 */
function forLab(input: MachineInput): MachineDescription {
  const description = parseMachine(input);
  const { cpus } = description;
  const processors = availableParallelism();
  const pin = cpus.pin ?? Array.from({ length: possibleCpus(cpus) }, (_, index) => [(index + 1) % processors]);
  if (cpus.count < MANY_VCPUS) return { ...description, cpus: { ...cpus, pin } };
  writeFileSync('/sys/module/kvm/parameters/min_timer_period_us', SLOW_TICK);
  const without = [
    ...cpus.without.filter((feature) => feature !== 'tsc_deadline_timer'),
    'tsc_deadline_timer' as const,
  ];
  return { ...description, cpus: { ...cpus, pin, without } };
}

const createMachine = (description: MachineInput) =>
  Machine.create(forLab(description), {
    ...{ pool, oneProcessor: availableParallelism() === 1 },
    // The emulated processor looks at other interception bits than KVM sets for int3.
    breakInstruction: 'out',
  });

/** Runs a guest of these files before the lab is saved; the threads that it ran on are those of the next machine. */
export async function rehearse(files: RehearsalGuest): Promise<void> {
  await prepare();
  const threads = pool as ThreadPool;
  threads.rehearsing = true;
  try {
    await playGuest(files, createMachine);
  } finally {
    threads.rehearsing = false;
  }
  await prepare();
}

/** Serves machines on a virtio-serial port until the lab ends. */
export async function start({ portPath }: { portPath: string }): Promise<void> {
  await prepare();
  const fd = openSync(portPath, 'r+');
  const stream = Duplex.from({
    readable: createReadStream('', { fd, autoClose: false, highWaterMark: 64 * 1024 }),
    writable: createWriteStream('', { fd, autoClose: false }),
  });
  void serveMachines(stream, createMachine);
}
