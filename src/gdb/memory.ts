/** Memory as a debugger addresses it: by the page tables of a vCPU, or by guest-physical address. */
import type { RegisterValues } from '../client/debug.ts';
import { NemuError } from '../client/errors.ts';
import { AddressSpace } from '../client/guest_kernel/address_space.ts';
import { VmcoreInfo } from '../client/guest_kernel/vmcoreinfo.ts';
import type { MachineClient } from '../client/machine_client.ts';

/** Intel SDM volume 3, 4.1.1. */
const CR0_PG = 1n << 31n;
const CR4_LA57 = 1n << 12n;
const EFER_LMA = 1n << 10n;
const CR3_ADDRESS = 0x000ffffffffff000n;
const KERNEL_HALF = 1n << 63n;
const PAGE = 4096n;

const hex = (value: bigint) => `0x${BigInt.asUintN(64, value).toString(16)}`;

/** One look: page tables are read once. */
export class DebuggerMemory {
  readonly #machine: MachineClient;
  readonly #registers: RegisterValues | undefined;
  readonly #space: AddressSpace | undefined;
  #kernel: Promise<AddressSpace | undefined> | undefined;

  /** @param registers of the vCPU whose page tables are meant; guest-physical addresses without. */
  constructor(machine: MachineClient, registers: RegisterValues | undefined) {
    this.#machine = machine;
    this.#registers = registers;
    if (!registers || !(BigInt(registers.cr0) & CR0_PG)) return;
    if (!(BigInt(registers.efer) & EFER_LMA)) return;
    const levels = BigInt(registers.cr4) & CR4_LA57 ? 5 : 4;
    this.#space = this.#spaceAt(Number(BigInt(registers.cr3) & CR3_ADDRESS), levels);
  }

  #spaceAt(root: number, levels: 4 | 5): AddressSpace {
    return new AddressSpace((at, length) => this.#machine.readMemory(at, length), root, levels);
  }

  /** @throws NemuError ADDRESS for what is not mapped. */
  async physical(address: bigint): Promise<number> {
    const registers = this.#registers;
    if (!this.#space) {
      if (registers && BigInt(registers.cr0) & CR0_PG) {
        throw new NemuError('ADDRESS', 'The vCPU has page tables of 32 bits, which are not walked here.', {
          hint: 'Physical addresses can be had: maint packet Qqemu.PhyMemMode:1',
        });
      }
      if (address >= 1n << 52n) throw new NemuError('ADDRESS', `${hex(address)} is no physical address.`);
      return Number(address);
    }
    const found =
      (await this.#walk(this.#space, address)) ??
      // In user mode the kernel is out of sight (page-table isolation); its own table has all of it.
      (address >= KERNEL_HALF ? await this.#walk(await this.#kernelSpace(), address) : undefined);
    if (found === undefined) throw new NemuError('ADDRESS', `The guest's address ${hex(address)} is not mapped.`);
    return found;
  }

  async #walk(space: AddressSpace | undefined, address: bigint): Promise<number | undefined> {
    const bits = BigInt(this.#registers?.cr4 ?? 0) & CR4_LA57 ? 57 : 48;
    if (!space || BigInt.asUintN(64, BigInt.asIntN(bits, address)) !== address) return undefined;
    return (await space.walk(address)).physical;
  }

  #kernelSpace(): Promise<AddressSpace | undefined> {
    this.#kernel ??= (async () => {
      try {
        const note = await this.#machine.vmcoreinfo();
        if (!note) return undefined;
        const { root, levels } = new VmcoreInfo(note).pageTable;
        return this.#spaceAt(root, levels);
      } catch {
        // A note that contradicts itself is none.
        return undefined;
      }
    })();
    return this.#kernel;
  }

  /** Calls `action` with the physical place of each page's part of a range. */
  async #pages(address: bigint, length: number, action: (at: number, from: number, count: number) => Promise<void>) {
    for (let done = 0; done < length; ) {
      const virtual = BigInt.asUintN(64, address + BigInt(done));
      const count = Math.min(length - done, Number(PAGE - (virtual % PAGE)));
      await action(await this.physical(virtual), done, count);
      done += count;
    }
  }

  /** @returns as much as can be read from there on, at least a byte. @throws NemuError ADDRESS */
  async read(address: bigint, length: number): Promise<Buffer> {
    const pieces: Uint8Array[] = [];
    try {
      await this.#pages(address, length, async (at, _, count) => {
        pieces.push(await this.#machine.readMemory(at, count));
      });
    } catch (error) {
      if (pieces.length === 0) throw error;
    }
    return Buffer.concat(pieces);
  }

  /** @throws NemuError ADDRESS; then nothing was written. */
  async write(address: bigint, bytes: Uint8Array): Promise<void> {
    const places: { at: number; from: number; count: number }[] = [];
    await this.#pages(address, bytes.length, async (at, from, count) => {
      await this.#machine.readMemory(at, count);
      places.push({ at, from, count });
    });
    for (const { at, from, count } of places) {
      await this.#machine.writeMemory(at, bytes.subarray(from, from + count));
    }
  }
}
