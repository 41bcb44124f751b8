import { inspect } from 'node:util';
import { actionsOf, requireGuestTime } from '../client/actions.ts';
import { literal } from '../client/code.ts';
import { readConfig, withAbsolutePaths } from '../client/config.ts';
import { type ConfigInput, DIMM_ALIGNMENT, diskName, withDevicesApart } from '../client/description.ts';
import { plugNow } from '../client/device_now.ts';
import type { DeviceType } from '../client/device_schema.ts';
import { NemuError } from '../client/errors.ts';
import type { GuestChannel, GuestRunOptions } from '../client/guest_session.ts';
import {
  isSettled,
  type LiveRequest,
  type PluggedReport,
  type PlugInput,
  type PlugOptions,
  type PlugRequest,
  parsePlug,
  type UnplugOptions,
} from '../client/live.ts';
import type { MachineClient, MachineState } from '../client/machine_client.ts';
import { NMI, PAUSED, POWER_BUTTON, plugNote, RESET, RESUMED, unplugNote } from '../client/notes.ts';
import { withAbsoluteFiles } from '../client/paths.ts';
import { formatSize } from '../client/sizes.ts';
import { type AcpiTable, acpiTables } from './acpi.ts';
import { doSteps, Plan } from './apply.ts';
import { addressOf, isDigits, isPlain, lengthOf, requireCount, requireObject, requireText } from './arguments.ts';
import { Cpus } from './cpus.ts';
import { describeNow } from './description.ts';
import { type PciAccess, pciAccess } from './devices.ts';
import { Disk } from './disks.ts';
import { Evaluation } from './evaluation.ts';
import { tellInfo } from './info.ts';
import { Journal } from './journal.ts';
import { Kernel } from './kernel.ts';
import { Memory } from './memory.ts';
import { Net } from './nets.ts';
import { Nvdimms } from './nvdimm.ts';
import { planSteps } from './plan.ts';
import { requireRoom } from './room.ts';
import { address, Bytes, Description, Done, ShellResult, Text } from './values.ts';

/**
 * The guest cannot use what a section of its memory is cut off from. QEMU, and so our QMP, take it all the same.
 * @throws NemuError PLUG
 */
function requireWholeSections(plug: PlugRequest): void {
  if (plug.kind !== 'pci' || plug.type !== 'virtio-mem' || plug.size % DIMM_ALIGNMENT === 0) return;
  const whole = Math.ceil(plug.size / DIMM_ALIGNMENT) * DIMM_ALIGNMENT;
  const problem = `a virtio-mem of ${plug.size} bytes is not a multiple of 128 MiB, in which Linux takes memory.`;
  throw new NemuError('PLUG', `This cannot be plugged: ${problem}`, {
    hint: `Take ${formatSize(whole)}: the size is the most that can be plugged of it, requested says how much is.`,
  });
}

export interface VmOptions {
  readonly machine: MachineClient;
  /** The guest's agent, where it has one. */
  readonly guest: GuestChannel | undefined;
}

export class Vm {
  readonly machine: MachineClient;
  readonly kernel: Kernel;
  readonly journal: Journal;
  readonly memory: Memory;
  readonly nvdimm: Nvdimms;
  readonly #guest: GuestChannel | undefined;
  readonly #pci = pciAccess(this);
  #plugged: PluggedReport | undefined;

  constructor({ machine, guest }: VmOptions) {
    this.machine = machine;
    this.journal = new Journal(actionsOf(machine), () => this.#refresh());
    // A guest may let go of a device by itself.
    machine.onEvent((event) => {
      const settled = event.type === 'request' && isSettled(event.request.stage);
      if (settled || event.type === 'memory-size') void this.#refresh();
    });
    void this.#refresh();
    this.kernel = new Kernel(machine);
    this.memory = new Memory(this);
    this.nvdimm = new Nvdimms(this);
    this.#guest = guest;
  }

  get name(): string {
    return this.machine.description.name;
  }

  get state(): MachineState {
    return this.machine.state;
  }

  get cpus(): Cpus {
    const { count } = this.machine.description.cpus;
    return new Cpus(this, this.plugged?.cpus.present.map(({ index }) => index) ?? [...Array(count).keys()]);
  }

  /** Disks by name: `vm.disks.vda`. */
  get disks(): Readonly<Record<string, Disk>> {
    const boot = this.machine.description.disks.map(({ id }, index) => id ?? diskName(index));
    const names = this.#ofType('virtio-blk')?.map(({ id }) => id) ?? boot;
    return Object.fromEntries(names.map((name) => [name, new Disk(this, name)]));
  }

  /** Network cards by name: `vm.nets.net0`. */
  get nets(): Readonly<Record<string, Net>> {
    const boot = this.machine.description.nets.map(({ id }, index) => id ?? `net${index}`);
    const names = this.#ofType('virtio-net')?.map(({ id }) => id) ?? boot;
    return Object.fromEntries(names.map((name) => [name, new Net(this, name)]));
  }

  /** Undefined where nothing of PCI is told: before the first report, and on a machine without PCI. */
  #ofType(type: DeviceType) {
    const { pci } = this.#plugged ?? {};
    if (!pci || this.machine.description.machine === 'minimal') return undefined;
    return pci.devices.filter((each) => each.type === type);
  }

  /** What came and what can go, as it was last told. */
  get plugged(): PluggedReport | undefined {
    return this.#plugged;
  }

  /** Is a device that came or can go, by its id, in the machine? */
  has(id: string): boolean {
    const { cpus, memory, nvdimms, pci } = this.#plugged ?? {};
    const all = [cpus?.present, memory?.dimms, nvdimms, pci?.devices];
    return all.some((devices) => devices?.some((device) => device.id === id));
  }

  async #refresh(): Promise<void> {
    this.#plugged = await this.machine.plugged().catch(() => this.#plugged);
  }

  /**
   * Asks the machine for something that the guest has to hear of, as part of an action.
   * @param force it does not wait for the guest.
   * @throws NemuError STATE while the machine is paused: the guest has no time to answer in, and none to be late in.
   */
  async change<T>(ask: (machine: MachineClient) => Promise<T>, force = false): Promise<T> {
    Evaluation.current?.requireWanted();
    if (typeof ask !== 'function') {
      throw new NemuError('USAGE', `vm.change takes a function, not ${literal(ask)}.`, {
        hint: "vm.change((machine) => machine.plug({ kind: 'cpu' }))",
      });
    }
    if (!force) requireGuestTime(this.machine);
    try {
      return await ask(this.machine);
    } finally {
      await this.#refresh();
    }
  }

  /**
   * Plugs a device: `{ kind: 'cpu' }`, `{ kind: 'memory', size: '1G' }`, `{ kind: 'pci', type: 'virtio-rng' }`. Resolves
   * when the guest has it online.
   * @throws NemuError as `MachineClient.plug` does.
   */
  async plug(device: PlugInput, options: PlugOptions = {}): Promise<Done> {
    requireWholeSections(parsePlug(device));
    requireObject(options, "vm.plug({ kind: 'cpu' }, { timeoutMs: 5000 })");
    // The machine has files by names that mean the same from any folder; a list of one's own, as they were given.
    const absolute = withAbsoluteFiles(device);
    const asked = actionsOf(this.machine).shared ? absolute : device;
    return this.journal.do({
      run: async () => new Done(await this.change((machine) => machine.plug(absolute, options))),
      note: ({ device: plugged }) => plugNote(asked, plugged, options),
    });
  }

  /**
   * Takes a device out, by its id, when the guest lets it go; one that was refused goes on working.
   * @throws NemuError as `MachineClient.unplug` does.
   */
  async unplug(id: string, options: UnplugOptions = {}): Promise<Done> {
    requireText(id, "a device's id", "vm.unplug('dimm0')");
    requireObject(options, "vm.unplug('dimm0', { timeoutMs: 5000 })");
    let again: PlugInput | undefined;
    return this.journal.do({
      // What is taken by force does not wait for the guest.
      run: async () => {
        again = await plugNow(this.machine, id);
        return new Done(await this.change((machine) => machine.unplug(id, options), options.force));
      },
      note: () => unplugNote(id, again, options),
    });
  }

  /** Requests so far, with their stages. */
  requests(): Promise<LiveRequest[]> {
    return this.machine.requests();
  }

  /** The machine as it is now, as `machine.yaml` has it: what makes it again. */
  async describe(): Promise<Description> {
    const description = await describeNow(this.machine);
    const { stringify } = await import('../client/yaml.ts');
    return new Description(description, stringify(description, { lineWidth: 0 }));
  }

  /**
   * Has the machine become what a file, or a description, says: `apply('machine.yaml')`. What it does not say stays as
   * it is, and a list that it has (disks, nets, dimms, nvdimms, devices) is the whole list. What needs a new start is
   * told and not done.
   * @param options `dryRun` plans and touches nothing.
   * @throws NemuError DESCRIPTION for one that could not be, APPLY for a step that failed, with how far it came.
   */
  async apply(wanted: string | ConfigInput, options: { readonly dryRun?: boolean } = {}): Promise<Plan> {
    requireObject(options, "vm.apply('machine.yaml', { dryRun: true })");
    if (typeof wanted !== 'string' && !isPlain(wanted)) {
      throw new NemuError('USAGE', `vm.apply takes a file or a description, not ${literal(wanted)}.`, {
        hint: "vm.apply('machine.yaml'), or vm.apply({ cpus: { count: 4 } }); vm.describe() has all fields.",
      });
    }
    const config = typeof wanted === 'string' ? await readConfig(wanted) : undefined;
    const input = config?.input ?? withDevicesApart(wanted as ConfigInput);
    const now = await describeNow(this.machine, { formats: true });
    const plugged = await this.machine.plugged();
    const together = plugged.pci.devices.filter(({ plug }) => !plug).flatMap(({ streams }) => streams);
    const fixed = new Set(together.map(({ name }) => name));
    const steps = planSteps(now, withAbsolutePaths(input), (path) => config?.locate(path), fixed);
    const { numa, nvdimms } = this.machine.description;
    requireRoom(steps, plugged, numa?.nodes.length ?? 1, nvdimms.length);
    return options.dryRun ? new Plan(steps, false) : doSteps(this, steps);
  }

  /** PCI: `vm.pci('vda')` looks a function up, `vm.pci.plug('virtio-rng')` plugs a device. */
  get pci(): PciAccess {
    return this.#pci;
  }

  /** The ACPI tables as the guest has them; one by its signature with an argument. */
  async acpi(signature: string): Promise<AcpiTable>;
  async acpi(): Promise<AcpiTable[]>;
  async acpi(signature?: string): Promise<AcpiTable | AcpiTable[]> {
    const all = await acpiTables(this.machine);
    if (signature === undefined) return all;
    requireText(signature, "a table's signature", "vm.acpi('DSDT')");
    // Kernels name files by what the specification names otherwise.
    const wanted = { FADT: 'FACP', MADT: 'APIC' }[signature.toUpperCase()] ?? signature.toUpperCase();
    const found = all.find((table) => table.signature === wanted);
    if (found) return found;
    throw new NemuError('ACPI', `There is no ACPI table "${signature}".`, {
      hint: `There are ${all.map((table) => table.signature).join(', ')}.`,
    });
  }

  /** Tables: `info('cpus')`, and so on; of one device `info('queues', 'vda')`. */
  async info(topic = 'status', name?: string): Promise<Text> {
    return new Text(
      await tellInfo(typeof topic === 'string' ? topic : literal(topic), this.machine, this.kernel, name),
    );
  }

  pause(): Promise<void> {
    return this.journal.do({ ...PAUSED, run: () => this.machine.pause() });
  }

  resume(): Promise<void> {
    return this.journal.do({ ...RESUMED, run: () => this.machine.resume() });
  }

  /** Hard reset, as by the button. */
  reset(): Promise<void> {
    return this.journal.do({ ...RESET, run: () => this.machine.reset() });
  }

  /** Presses the ACPI power button, and does not wait for what the guest makes of it. */
  async powerButton(): Promise<Text> {
    await this.journal.do({ ...POWER_BUTTON, run: () => this.machine.powerButton() });
    return new Text(
      'The power button was pressed. What comes of it is up to the guest: vm.state tells. quit ends the machine at once.',
    );
  }

  /** Sends an NMI to every vCPU. */
  nmi(): Promise<void> {
    return this.journal.do({ ...NMI, run: () => this.machine.nmi() });
  }

  /** Ends the machine at once. */
  quit(): Promise<void> {
    return this.machine.close();
  }

  /**
   * Runs a shell command in the guest, as root.
   * @throws NemuError GUEST_AGENT for a guest that has none.
   */
  async sh(command: string, options: GuestRunOptions = {}): Promise<ShellResult> {
    requireText(command, 'a command', "vm.sh('lscpu')");
    requireObject(options, "vm.sh('lscpu', {…})");
    if (!this.#guest) {
      throw new NemuError('GUEST_AGENT', 'The guest has no agent that could run a command.', {
        hint: 'It has one when it runs our initramfs: nemu run without --initrd.',
      });
    }
    if (this.state !== 'running') throw new NemuError('STATE', `The machine is ${this.state}: nothing runs in it.`);
    const guest = this.#guest;
    const { current } = Evaluation;
    if (!current) return new ShellResult(await guest.run(command, options));
    const result = await current.command((interrupted) => {
      const signal = options.signal ? AbortSignal.any([options.signal, interrupted]) : interrupted;
      return guest.run(command, { ...options, signal });
    });
    return new ShellResult(result);
  }

  /** The kernel's log, read from its memory: the guest need not answer. @param last lines, all without. */
  async dmesg(last?: number): Promise<Text> {
    if (last !== undefined) requireCount(last, 'lines');
    const lines = await this.kernel.log();
    return new Text((last === undefined ? lines : lines.slice(-last)).join('\n'));
  }

  /** A symbol's address by its name, or the symbol at an address. */
  async symbol(which: string | bigint | number): Promise<Text> {
    if (typeof which === 'string' && !isDigits(which)) {
      const { name, type, address: at } = await this.kernel.symbol(which);
      return new Text(`${at.toString(16)} ${type} ${name}`);
    }
    const at = addressOf(which);
    return new Text((await this.kernel.describe(at)) ?? `${address(at)} is in no symbol`);
  }

  /** A kernel-virtual address; that of a symbol by its name. @throws NemuError SYMBOL */
  async #addressOf(which: string | bigint | number): Promise<bigint> {
    return typeof which === 'string' && !isDigits(which) ? (await this.kernel.symbol(which)).address : addressOf(which);
  }

  /** Kernel-virtual memory; a name is a symbol's address. */
  async read(virtual: string | bigint | number, length = 64): Promise<Bytes> {
    const count = lengthOf(length);
    const from = await this.#addressOf(virtual);
    return new Bytes(await this.kernel.read(from, count), from);
  }

  /** The steps through the page tables to an address: the kernel's, or those of a vCPU. */
  async walk(virtual: bigint | number | string, vcpu?: number): Promise<Text> {
    const from = await this.#addressOf(virtual);
    const { steps, physical, pageSize } = await this.kernel.walk(from, vcpu);
    const lines = steps.map(({ level, address: at, entry }) => `${level.padEnd(4)} ${address(at)}: ${address(entry)}`);
    lines.push(
      physical === undefined ? 'not mapped' : `physical ${address(physical)}, in a page of ${formatSize(pageSize)}`,
    );
    return new Text(lines.join('\n'));
  }

  [inspect.custom](): string {
    return `${this.name}: ${this.state}, ${this.cpus.count} vCPUs, ${formatSize(this.memory.size)}`;
  }
}
