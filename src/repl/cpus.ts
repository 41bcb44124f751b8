/** The machine's vCPUs as the REPL and scripts have them. */
import { inspect } from 'node:util';
import { given, literal } from '../client/code.ts';
import { NemuError } from '../client/errors.ts';
import type { CpuDevice, PlugOptions, UnplugOptions } from '../client/live.ts';
import { plugChange, unplugChange } from '../client/machine_change.ts';
import type { VcpuReport } from '../client/machine_client.ts';
import { addressOf, requireCount, requireObject } from './arguments.ts';
import { Bytes, type Done, type Text } from './values.ts';
import type { Vm } from './vm.ts';

export class Cpu {
  readonly index: number;
  readonly #vm: Vm;

  constructor(vm: Vm, index: number) {
    this.#vm = vm;
    this.index = index;
  }

  /** What it is doing now; its registers are hexadecimal strings. */
  async report(): Promise<VcpuReport> {
    const found = (await this.#vm.machine.inspect()).find(({ index }) => index === this.index);
    if (found) return found;
    throw new NemuError('VCPU', `vCPU ${this.index} is not in the machine.`);
  }

  async registers(): Promise<Record<string, string>> {
    return (await this.report()).registers ?? {};
  }

  /** Where it is: a symbol of the kernel, or an address. */
  async where(): Promise<string> {
    const { rip } = await this.registers();
    return (await this.#vm.kernel.describe(BigInt(rip))) ?? rip;
  }

  /** Memory as this vCPU's present address space has it. */
  async read(virtual: bigint | number, length = 64): Promise<Bytes> {
    const from = addressOf(virtual);
    return new Bytes(await this.#vm.kernel.read(from, length, this.index), from);
  }

  /** The steps through its page tables to an address. */
  walk(virtual: bigint | number): Promise<Text> {
    return this.#vm.walk(virtual, this.index);
  }

  /** Takes it out when the guest lets go. @throws NemuError REFUSED with the guest's reason. */
  unplug(options: UnplugOptions = {}): Promise<Done> {
    return this.#vm.unplug(`cpu${this.index}`, options);
  }

  [inspect.custom](): string {
    return `vCPU ${this.index}`;
  }
}

/** The most that a description can ask for. */
const MAX_CPUS = 254;

/** All vCPUs that are there, by index: one that was taken out leaves a hole. */
export class Cpus extends Array<Cpu> {
  readonly #vm: Vm;

  constructor(vm: Vm, present: readonly number[]) {
    super();
    this.#vm = vm;
    for (const index of present) this[index] = new Cpu(vm, index);
  }

  // What map and filter make is no list of vCPUs.
  static override get [Symbol.species](): ArrayConstructor {
    return Array;
  }

  get count(): number {
    return Object.keys(this).length;
  }

  /**
   * Plugs vCPUs, one after the other, as one action. Resolves when the guest has them online.
   * @throws NemuError USAGE or CPU_LIMIT, before anything is touched; else as `MachineClient.plug` does: those before
   * the one that failed stay, and are written down.
   */
  async add(count = 1, options: PlugOptions = {}): Promise<Cpu[]> {
    const vm = this.#vm;
    const { count: atStart, max = atStart } = vm.machine.description.cpus;
    requireCount(count, 'vCPUs');
    requireObject(options, 'vm.cpus.add(2, { timeoutMs: 5000 })');
    if (count > max - this.count) {
      const here = `${this.count} vCPU${this.count === 1 ? ' is' : 's are'} there, and there is room for ${max}`;
      const wanted = this.count + count;
      throw new NemuError('CPU_LIMIT', `${here}: not for ${count} more.`, {
        hint:
          wanted > MAX_CPUS
            ? `A machine has ${MAX_CPUS} at most.`
            : `Start the machine with more room: --cpus ${atStart},max=${wanted}.`,
      });
    }
    const added: CpuDevice[] = [];
    let goal = count;
    let failure: unknown;
    await vm.journal.do({
      get code() {
        return `vm.cpus.add(${goal}${given(options)})`;
      },
      get steps() {
        return added.map(({ index }) => `vm.plug({ kind: 'cpu', index: ${index} }${given(options)})`);
      },
      run: async () => {
        added.length = 0;
        while (added.length < goal) {
          try {
            const { device } = await vm.change((machine) => machine.plug({ kind: 'cpu' }, options));
            added.push(device as CpuDevice);
          } catch (error) {
            if (added.length === 0) throw error;
            failure = error;
            goal = added.length;
          }
        }
      },
      get holds() {
        return added.map(({ id }) => `vm.has(${literal(id)})`).join(' && ');
      },
      get redo() {
        return added.map(({ index }) => plugChange({ kind: 'cpu', index }, options));
      },
      get undo() {
        const code = added.map(({ id }) => `vm.unplug(${literal(id)})`).join(', ');
        return { code, changes: added.toReversed().map(({ id }) => unplugChange(id)) };
      },
    });
    if (failure !== undefined) throw failure;
    return added.map(({ index }) => new Cpu(vm, index));
  }

  /**
   * Takes vCPUs out, the last ones first, as one action.
   * @throws NemuError USAGE or CPU_LIMIT, before anything is touched; else as `MachineClient.unplug` does: those before
   * the one that failed are out, which is written down.
   */
  async remove(count = 1, options: UnplugOptions = {}): Promise<void> {
    const vm = this.#vm;
    requireCount(count, 'vCPUs');
    requireObject(options, 'vm.cpus.remove(1, { timeoutMs: 5000 })');
    // The boot processor stays.
    const removable = Object.keys(this).map(Number).slice(1);
    if (count > removable.length) {
      throw new NemuError(
        'CPU_LIMIT',
        `${this.count} vCPU${this.count === 1 ? ' is' : 's are'} there, and cpu0 stays: ${count} cannot be taken out.`,
        { hint: removable.length > 0 ? `${removable.length} can.` : 'cpu add N plugs some.' },
      );
    }
    const wanted = removable.slice(-count).reverse();
    const gone: number[] = [];
    let failure: unknown;
    await vm.journal.do({
      get code() {
        return `vm.cpus.remove(${wanted.length}${given(options)})`;
      },
      run: async () => {
        gone.length = 0;
        while (gone.length < wanted.length) {
          const index = wanted[gone.length];
          try {
            await vm.change((machine) => machine.unplug(`cpu${index}`, options));
            gone.push(index);
          } catch (error) {
            if (gone.length === 0) throw error;
            failure = error;
            wanted.length = gone.length;
          }
        }
      },
      get holds() {
        return gone.map((index) => `!vm.has('cpu${index}')`).join(' && ');
      },
      get redo() {
        return gone.map((index) => unplugChange(`cpu${index}`, options));
      },
      get undo() {
        const code = gone.map((index) => `vm.plug({ kind: 'cpu', index: ${index} })`).join(', ');
        return { code, changes: gone.toReversed().map((index) => plugChange({ kind: 'cpu', index })) };
      },
    });
    if (failure !== undefined) throw failure;
  }

  [inspect.custom](): string {
    const { count } = this;
    return `${count} vCPU${count === 1 ? '' : 's'}: ${Object.keys(this).join(', ')}`;
  }
}
