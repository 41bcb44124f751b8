/** The guest's kernel, looked at from outside: it need not run, answer, or have a console. */
import { literal } from '../client/code.ts';
import { NemuError } from '../client/errors.ts';
import { AddressSpace, type Walk } from '../client/guest_kernel/address_space.ts';
import { type KernelSymbol, type KernelSymbols, readKernelSymbols } from '../client/guest_kernel/kallsyms.ts';
import {
  type KernelModule,
  type ModuleLayout,
  readModuleLayout,
  readModuleSymbols,
  readModules,
} from '../client/guest_kernel/modules.ts';
import { readKernelLog } from '../client/guest_kernel/printk.ts';
import { VmcoreInfo } from '../client/guest_kernel/vmcoreinfo.ts';
import type { MachineClient } from '../client/machine_client.ts';
import { addressOf, lengthOf, requireText } from './arguments.ts';

const LEVELS = ['emerg', 'alert', 'crit', 'err', 'warn', 'notice', 'info', 'debug'];
/** CR4.LA57: 5-level paging (Intel SDM volume 3, 2.5). */
const CR4_LA57 = 1n << 12n;
/** Modules are above the kernel's image: Documentation/arch/x86/x86_64/mm.rst. */
const MODULES_START = 0xffffffffa0000000n;
/** Of all modules together: kernels have some ten thousand. */
const MAX_MODULE_SYMBOLS = 1 << 19;
/** CR0.PG, CR4.PAE, EFER.LMA (Intel SDM volume 3, 4.1.1): with all of them, page tables have four or five levels. */
const [CR0_PG, CR4_PAE, EFER_LMA] = [1n << 31n, 1n << 5n, 1n << 10n];

/** Control characters as the kernel writes them to its own console: what a guest logs may go to a terminal. */
const escaped = (line: string) =>
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is made visible
  line.replaceAll(/[\x00-\x08\x0b-\x1f\x7f-\x9f]/g, (each) => `\\x${each.charCodeAt(0).toString(16).padStart(2, '0')}`);

export class Kernel {
  readonly #machine: MachineClient;
  #symbols: Promise<KernelSymbols> | undefined;
  #moduleLayout: Promise<ModuleLayout | undefined> | undefined;
  /** By name and place: a module that comes back elsewhere is another. */
  readonly #moduleSymbols = new Map<string, KernelSymbols>();

  constructor(machine: MachineClient) {
    this.#machine = machine;
    // The next kernel is elsewhere, or another one.
    machine.onEvent((event) => {
      if (event.type !== 'reset') return;
      this.#symbols = undefined;
      this.#moduleLayout = undefined;
      this.#moduleSymbols.clear();
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
      return text.split('\n').map((line) => `[${seconds}] ${mark}${escaped(line)}`);
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

  /** The modules that are loaded now, by address; none when the kernel does not tell its types (BTF). */
  async modules(): Promise<KernelModule[]> {
    return (await this.#modules()).list;
  }

  /** All that have symbols of their own; one whose table cannot be read, as of a module that goes meanwhile, has none. */
  async moduleSymbols(): Promise<KernelSymbol[]> {
    const { list, symbols } = await this.#modules();
    const found: KernelSymbol[] = [];
    for (const module of list) {
      try {
        found.push(...(await symbols(module)).all);
      } catch (error) {
        if (!(error instanceof NemuError)) throw error;
      }
    }
    return found;
  }

  async #modules(): Promise<{ list: KernelModule[]; symbols: (module: KernelModule) => Promise<KernelSymbols> }> {
    const kernel = await this.symbols();
    const memory = this.#space(await this.#info());
    this.#moduleLayout ??= readModuleLayout(kernel, memory);
    this.#moduleLayout.catch(() => {
      this.#moduleLayout = undefined;
    });
    const layout = await this.#moduleLayout;
    const head = kernel.find('modules');
    if (!layout || !head) return { list: [], symbols: async () => kernel };
    const symbols = async (module: KernelModule) => {
      const key = `${module.name}@${module.base}+${module.size}`;
      const known = this.#moduleSymbols.get(key) ?? (await readModuleSymbols(module, layout, memory));
      this.#moduleSymbols.set(key, known);
      const kept = [...this.#moduleSymbols.values()].reduce((sum, { size }) => sum + size, 0);
      if (kept > MAX_MODULE_SYMBOLS) {
        this.#moduleSymbols.clear();
        throw new NemuError('KALLSYMS', `The kernel's modules have more than ${MAX_MODULE_SYMBOLS} symbols.`);
      }
      return known;
    };
    return { list: await readModules(head.address, layout, memory), symbols };
  }

  /**
   * A symbol of the kernel, or of a module.
   * @throws NemuError SYMBOL for a name that is none.
   */
  async symbol(name: string): Promise<KernelSymbol> {
    requireText(name, "a symbol's name", "vm.kernel.symbol('schedule')");
    const kernel = await this.symbols();
    const found = kernel.find(name) ?? (await this.#moduleSymbol(name));
    if (found) return found;
    const near = kernel
      .search(name, 1000)
      .map((symbol) => symbol.name)
      .sort((a, b) => a.length - b.length)
      .slice(0, 5);
    throw new NemuError('SYMBOL', `Neither the kernel nor a module of it has a symbol "${name}".`, {
      ...(near.length > 0 && { hint: `There are ${near.join(', ')}.` }),
    });
  }

  async #moduleSymbol(name: string): Promise<KernelSymbol | undefined> {
    const { list, symbols } = await this.#modules();
    for (const module of list) {
      const found = (await symbols(module)).find(name);
      if (found) return found;
    }
    return undefined;
  }

  /** `schedule+0x12`, or `virtblk_done+0x12 [virtio_blk]`, where that can be said, else undefined. */
  async describe(address: bigint | number): Promise<string | undefined> {
    const at = addressOf(address);
    try {
      return (await this.symbols()).describe(at) ?? (await this.#describeInModule(at));
    } catch {
      return undefined;
    }
  }

  async #describeInModule(address: bigint): Promise<string | undefined> {
    if (address < MODULES_START) return undefined;
    const { list, symbols } = await this.#modules();
    const module = list.find(({ base, size }) => address >= base && address < base + BigInt(size));
    if (!module) return undefined;
    const end = module.base + BigInt(module.size);
    return `${(await symbols(module)).describe(address, end) ?? `0x${address.toString(16)}`} [${module.name}]`;
  }

  /** Kernel-virtual memory, or that of a vCPU's present address space. */
  async read(address: bigint | number, length: number, vcpu?: number): Promise<Uint8Array> {
    const [from, count] = [addressOf(address), lengthOf(length)];
    return (await this.#spaceOf(vcpu)).read(from, count);
  }

  async walk(address: bigint | number, vcpu?: number): Promise<Walk> {
    const at = addressOf(address);
    return (await this.#spaceOf(vcpu)).walk(at);
  }

  async #spaceOf(vcpu: number | undefined): Promise<AddressSpace> {
    if (vcpu === undefined) return this.#space(await this.#info());
    const registers = (await this.#machine.inspect()).find(({ index }) => index === vcpu)?.registers;
    if (!registers) throw new NemuError('VCPU', `There is no vCPU ${literal(vcpu)} whose registers can be read.`);
    const [cr0, cr4, efer] = [registers.cr0, registers.cr4, registers.efer].map((each) => BigInt(each ?? 0));
    if (!(cr0 & CR0_PG && cr4 & CR4_PAE && efer & EFER_LMA)) {
      throw new NemuError('ADDRESS', `vCPU ${vcpu} has no page tables of 64-bit mode now: it is in another mode.`, {
        hint: 'vm.memory.read() and xp read by guest-physical addresses.',
      });
    }
    const root = Number(BigInt(registers.cr3) & 0x000ffffffffff000n);
    return new AddressSpace((from, length) => this.#machine.readMemory(from, length), root, cr4 & CR4_LA57 ? 5 : 4);
  }
}
