/** The guest's kernel, looked at from outside: it need not run, answer, or have a console. */
import { NemuError } from '../client/errors.ts';
import { AddressSpace, type Walk } from '../client/guest_kernel/address_space.ts';
import { type KernelSymbol, type KernelSymbols, readKernelSymbols } from '../client/guest_kernel/kallsyms.ts';
import { readKernelLog } from '../client/guest_kernel/printk.ts';
import { VmcoreInfo } from '../client/guest_kernel/vmcoreinfo.ts';
import type { MachineClient } from '../client/machine_client.ts';

const LEVELS = ['emerg', 'alert', 'crit', 'err', 'warn', 'notice', 'info', 'debug'];
/** CR4.LA57: 5-level paging (Intel SDM volume 3, 2.5). */
const CR4_LA57 = 1n << 12n;

export class Kernel {
  readonly #machine: MachineClient;
  #symbols: Promise<KernelSymbols> | undefined;

  constructor(machine: MachineClient) {
    this.#machine = machine;
    // The next kernel is elsewhere, or another one.
    machine.onEvent((event) => {
      if (event.type === 'reset') this.#symbols = undefined;
    });
  }

  async #info(): Promise<VmcoreInfo> {
    const note = await this.#machine.vmcoreinfo();
    if (!note) {
      throw new NemuError('VMCOREINFO', 'The guest has not said where its kernel is.', {
        hint: 'Its kernel needs CONFIG_FW_CFG_SYSFS (qemu_fw_cfg) and CONFIG_VMCORE_INFO; an early kernel has not come that far.',
      });
    }
    return new VmcoreInfo(note);
  }

  #space(info: VmcoreInfo): AddressSpace {
    const { root, levels } = info.pageTable;
    return new AddressSpace((address, length) => this.#machine.readMemory(address, length), root, levels);
  }

  /** The log, as dmesg(1) shows it. */
  async log(): Promise<string[]> {
    const info = await this.#info();
    const messages = await readKernelLog(info, this.#space(info));
    return messages.flatMap(({ time, level, text }) => {
      const seconds = (Number(time) / 1e9).toFixed(6).padStart(12);
      const mark = level <= 4 ? `${LEVELS[level]}: ` : '';
      return text.split('\n').map((line) => `[${seconds}] ${mark}${line}`);
    });
  }

  symbols(): Promise<KernelSymbols> {
    this.#symbols ??= this.#info().then((info) => readKernelSymbols(info, this.#space(info)));
    // What failed may work later, when the kernel has come further.
    this.#symbols.catch(() => {
      this.#symbols = undefined;
    });
    return this.#symbols;
  }

  /** @throws NemuError SYMBOL for a name that is none. */
  async symbol(name: string): Promise<KernelSymbol> {
    const symbols = await this.symbols();
    const found = symbols.find(name);
    if (found) return found;
    const near = symbols
      .search(name, 1000)
      .map((symbol) => symbol.name)
      .sort((a, b) => a.length - b.length)
      .slice(0, 5);
    throw new NemuError('SYMBOL', `The kernel has no symbol "${name}".`, {
      ...(near.length > 0 && { hint: `There are ${near.join(', ')}.` }),
    });
  }

  /** `schedule+0x12` where that can be said, else undefined. */
  async describe(address: bigint): Promise<string | undefined> {
    return this.symbols().then(
      (symbols) => symbols.describe(address),
      () => undefined,
    );
  }

  /** Kernel-virtual memory, or that of a vCPU's present address space. */
  async read(address: bigint, length: number, vcpu?: number): Promise<Uint8Array> {
    return (await this.#spaceOf(vcpu)).read(address, length);
  }

  async walk(address: bigint, vcpu?: number): Promise<Walk> {
    return (await this.#spaceOf(vcpu)).walk(address);
  }

  async #spaceOf(vcpu: number | undefined): Promise<AddressSpace> {
    if (vcpu === undefined) return this.#space(await this.#info());
    const registers = (await this.#machine.inspect()).find(({ index }) => index === vcpu)?.registers;
    if (!registers) throw new NemuError('VCPU', `There is no vCPU ${vcpu} whose registers can be read.`);
    const root = Number(BigInt(registers.cr3) & 0x000ffffffffff000n);
    return new AddressSpace(
      (from, length) => this.#machine.readMemory(from, length),
      root,
      BigInt(registers.cr4) & CR4_LA57 ? 5 : 4,
    );
  }
}
