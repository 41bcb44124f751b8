import type { MachineDescription } from '../../client/description.ts';
import { NemuError } from '../../client/errors.ts';
import type { CpuDevice, CpuPlug } from '../../client/live.ts';
import { AcpiCpuHotplug } from '../../devices/acpi_cpu_hotplug.ts';
import { nodeOfCpu } from '../acpi/numa.ts';
import type { Processors } from '../processors.ts';
import { apicIdOf } from '../x86/topology.ts';
import type { GuestActs, LiveKind } from './kind.ts';

export interface CpuHotplugOptions {
  readonly description: Pick<MachineDescription, 'cpus' | 'numa'>;
  readonly processors: Processors;
  readonly guest: GuestActs;
  /** Runs the guest's handler of this general purpose event. */
  readonly raiseGpe: (number: number) => void;
  /** Whether the guest has listened to it since its reset. */
  readonly knowsGpe: (number: number) => boolean;
}

const GPE = 2;

/** Processors that come and go. */
export class CpuHotplug implements LiveKind<CpuDevice, CpuPlug> {
  readonly onlineWhenAccepted = false;
  /** What the guest sees; undefined on a machine without room for more processors. */
  readonly registers: AcpiCpuHotplug | undefined;
  readonly #options: CpuHotplugOptions;
  readonly #devices: readonly CpuDevice[];
  /** `leaving` ones run until their thread has seen that it is to end. */
  readonly #states: ('absent' | 'reserved' | 'present' | 'leaving')[];
  /** What is to be done when the thread of a leaving processor has ended. */
  readonly #left = new Map<number, () => void>();
  /** Processors whose start by the guest is still to be told. */
  readonly #waiting = new Set<number>();

  constructor(options: CpuHotplugOptions) {
    this.#options = options;
    const { cpus, numa } = options.description;
    const count = cpus.max ?? cpus.count;
    this.#devices = Array.from({ length: count }, (_, index) => ({
      ...{ kind: 'cpu', id: `cpu${index}`, index, apicId: apicIdOf(index, cpus) },
      socket: Math.floor(index / (cpus.threads * cpus.cores)),
      core: Math.floor(index / cpus.threads) % cpus.cores,
      thread: index % cpus.threads,
      ...(numa && { node: nodeOfCpu(numa, index) }),
    }));
    this.#states = this.#devices.map(({ index }) => (index < cpus.count ? 'present' : 'absent'));
    if (cpus.max === undefined) return;
    const { guest } = options;
    this.registers = new AcpiCpuHotplug({
      count,
      apicId: (cpu) => this.#devices[cpu].apicId,
      present: (cpu) => this.isPresent(cpu),
      notify: () => options.raiseGpe(GPE),
      noticed: (cpu) => guest.noticed(this.#devices[cpu]),
      ost: (cpu, event, status) => guest.answered(this.#devices[cpu], event, status),
      eject: (cpu) => guest.ejected(this.#devices[cpu]),
    });
  }

  isPresent(cpu: number): boolean {
    return this.#states[cpu] === 'present';
  }

  present(): CpuDevice[] {
    return this.#devices.filter(({ index }) => this.isPresent(index));
  }

  reserve({ index }: CpuPlug): CpuDevice {
    const { count, max } = this.#options.description.cpus;
    if (max === undefined) {
      throw new NemuError('CPU_LIMIT', `This machine has no room for more than its ${count} vCPUs.`, {
        hint: `Start it with room: --cpus ${count},max=${2 * count}.`,
      });
    }
    if (index !== undefined && index >= max) {
      throw new NemuError('CPU_LIMIT', `There is no room for vCPU ${index}: this machine has 0 to ${max - 1}.`, {
        hint: `Start it with more room: --cpus ${count},max=${index + 1}.`,
      });
    }
    const free = index ?? this.#states.indexOf('absent');
    if (free < 0) {
      throw new NemuError('CPU_LIMIT', `All ${max} vCPUs that there is room for are there.`, {
        hint: `Start the machine with more room: --cpus ${count},max=${2 * max}.`,
      });
    }
    if (this.#states[free] !== 'absent') {
      const state = { reserved: 'being plugged', present: 'there already', leaving: 'still on its way out' } as const;
      throw new NemuError('BUSY', `vCPU ${free} is ${state[this.#states[free] as keyof typeof state]}.`, {
        hint: 'Leave the index out for the first one that is free.',
      });
    }
    this.#options.processors.add(free);
    this.#states[free] = 'reserved';
    return this.#devices[free];
  }

  attach({ index }: CpuDevice): void {
    this.#states[index] = 'present';
    this.#waiting.add(index);
    this.registers?.plugged(index);
  }

  listens(): boolean {
    return this.#options.knowsGpe(GPE);
  }

  requireRemovable({ id, index }: CpuDevice, force: boolean): void {
    if (!this.registers) {
      throw new NemuError('CPU_LIMIT', `The vCPUs of this machine were not made to come and go: ${id} stays.`, {
        hint: `Start it with max=: --cpus ${this.#devices.length},max=${this.#devices.length}.`,
      });
    }
    if (index === 0) throw new NemuError('BOOT_CPU', 'cpu0 is the boot processor: it stays.');
    if (!force) return;
    throw new NemuError(
      'FORCE',
      `${id} cannot be taken by force: a guest that still runs on it would hang with whatever it holds locked.`,
      { hint: `Take it offline in the guest first: echo 0 >/sys/devices/system/cpu/${id}/online` },
    );
  }

  requestRemoval({ index }: CpuDevice): void {
    this.registers?.requestRemoval(index);
  }

  detach({ index }: CpuDevice, done: () => void): void {
    this.#states[index] = 'leaving';
    this.#waiting.delete(index);
    this.registers?.gone(index);
    this.#left.set(index, done);
    this.#options.processors.dismiss(index);
    // A thread that has not yet begun has nothing to leave.
    this.poll();
  }

  vacate({ index }: CpuDevice): void {
    this.#options.processors.park(index);
    this.#states[index] = 'absent';
  }

  /** A vCPU thread said that it was started, or has ended. */
  poll(): void {
    const { processors, guest } = this.#options;
    for (const index of this.#waiting) {
      if (!processors.wasStarted(index)) continue;
      this.#waiting.delete(index);
      guest.started(this.#devices[index]);
    }
    for (const [index, done] of this.#left) {
      if (!processors.hasLeft(index)) continue;
      this.#left.delete(index);
      done();
    }
  }
}
