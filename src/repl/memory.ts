/** The machine's memory as the REPL and scripts have it. */
import { inspect, types } from 'node:util';
import { literal } from '../client/code.ts';
import { NemuError } from '../client/errors.ts';
import type { MemoryDevice, PlugInput, PlugOptions, UnplugOptions } from '../client/live.ts';
import { inflate } from '../client/machine_change.ts';
import type { BalloonReport, DirtyRateReport } from '../client/machine_client.ts';
import { balloonNote } from '../client/notes.ts';
import { formatSize } from '../client/sizes.ts';
import { bytesOf, lengthOf, requireCount, requireObject } from './arguments.ts';
import { address, Bytes, type Done } from './values.ts';
import { resizeMemory, VirtioMem } from './virtio_mem.ts';
import type { Vm } from './vm.ts';

/** A DIMM that was plugged. */
export class Dimm {
  readonly device: MemoryDevice;
  readonly #vm: Vm;

  constructor(vm: Vm, device: MemoryDevice) {
    this.#vm = vm;
    this.device = device;
  }

  get id(): string {
    return this.device.id;
  }

  /** Takes it out when the guest lets go. @throws NemuError REFUSED with the guest's reason. */
  unplug(options: UnplugOptions = {}): Promise<Done> {
    return this.#vm.unplug(this.id, options);
  }

  [inspect.custom](): string {
    const { id, size, address: at, slot, node } = this.device;
    return `${id}: ${formatSize(size)} at ${address(at)}, slot ${slot}, node ${node}`;
  }
}

type MemoryInput = Extract<PlugInput, { kind: 'memory' }>;

/** Pages that were written to in a time. Sizes in bytes. */
export class DirtyRate {
  readonly milliseconds: number;
  readonly ranges: DirtyRateReport['ranges'];

  constructor({ milliseconds, ranges }: DirtyRateReport) {
    this.milliseconds = milliseconds;
    this.ranges = ranges;
  }

  /** In pages that were written to. */
  get dirty(): number {
    return this.ranges.reduce((sum, { dirty }) => sum + dirty, 0);
  }

  get bytesPerSecond(): number {
    return Math.round((this.dirty * 1000) / this.milliseconds);
  }

  [inspect.custom](): string {
    const { dirty, bytesPerSecond, milliseconds } = this;
    return `${formatSize(dirty)} written to in ${milliseconds / 1000} s: ${formatSize(bytesPerSecond)}/s`;
  }
}

const HOLE = 2 * 2 ** 30;
const SEARCH_PIECE = 32 << 20;

export class Memory {
  readonly #vm: Vm;

  constructor(vm: Vm) {
    this.#vm = vm;
  }

  /** Bytes, with the DIMMs that are plugged and what is plugged of virtio-mem devices. */
  get size(): number {
    const { memory, dimms: atStart } = this.#vm.machine.description;
    // Until the machine has told of them, those of its start are there.
    const present = this.#vm.plugged?.memory.dimms ?? atStart;
    const dimms = present.reduce((sum, { size }) => sum + size, 0);
    return memory.size + dimms + this.virtio.reduce((sum, { plugged }) => sum + plugged, 0);
  }

  /** Memory that the guest plugs and unplugs by blocks. */
  get virtio(): VirtioMem[] {
    return (this.#vm.plugged?.memory.virtio ?? []).map((report) => new VirtioMem(this.#vm, report));
  }

  get dimms(): Dimm[] {
    return (this.#vm.plugged?.memory.dimms ?? []).map((device) => new Dimm(this.#vm, device));
  }

  /**
   * Plugs a DIMM: `plug('1G', { node: 1 })`. Resolves when the guest has taken it.
   * @throws NemuError as `MachineClient.plug` does.
   */
  async plug(size: string | number, options: Omit<MemoryInput, 'kind' | 'size'> & PlugOptions = {}): Promise<Dimm> {
    requireObject(options, "vm.memory.plug('1G', { node: 1 })");
    const { timeoutMs, ...dimm } = options;
    const patience = timeoutMs === undefined ? {} : { timeoutMs };
    const { device } = await this.#vm.plug({ kind: 'memory', size, ...dimm }, patience);
    return new Dimm(this.#vm, device as MemoryDevice);
  }

  /**
   * Asks the guest to have so much of a virtio-mem device plugged: `resize('vm0', '512M')`. Resolves when it is so.
   * @throws NemuError as `MachineClient.resizeMemory` does.
   */
  resize(id: string, size: string | number, options: PlugOptions = {}): Promise<Done> {
    return resizeMemory(this.#vm, id, size, options);
  }

  /**
   * The balloon: asks the guest to leave so many bytes in it, or tells what it holds.
   * @throws NemuError USAGE for what would leave the guest nothing; BALLOON for a machine without one.
   */
  async balloon(size?: string | number): Promise<BalloonReport> {
    const { machine } = this.#vm;
    if (size === undefined) return machine.balloon();
    const bytes = bytesOf(size);
    if (bytes >= this.size) {
      throw new NemuError(
        'USAGE',
        `A balloon of ${formatSize(bytes)} leaves nothing of the ${formatSize(this.size)} that the guest has.`,
        { hint: 'The size is what it gives up, not what it keeps.' },
      );
    }
    const before = (await machine.balloon()).target;
    return this.#vm.journal.do({ ...balloonNote({ size, bytes }, before), run: () => inflate(machine, bytes) });
  }

  /**
   * How fast the guest's processors write to memory: watches for so many seconds which pages they touch. Devices'
   * writes are not among it.
   * @throws NemuError DIRTY_RATE for a time that is none.
   */
  async dirtyRate(seconds = 1): Promise<DirtyRate> {
    const time = Number(seconds);
    if (!Number.isFinite(time)) throw new NemuError('DIRTY_RATE', `${literal(seconds)} is no number of seconds.`);
    return new DirtyRate(await this.#vm.machine.dirtyRate(time * 1000));
  }

  /** Guest-physical memory. */
  async read(physical: number | bigint, length = 64): Promise<Bytes> {
    const from = typeof physical === 'bigint' ? Number(physical) : physical;
    if (!Number.isSafeInteger(from) || from < 0) {
      throw new NemuError('USAGE', `${literal(physical)} is not a guest-physical address.`, {
        hint: 'vm.read takes kernel-virtual addresses and symbols.',
      });
    }
    return new Bytes(await this.#vm.machine.readMemory(from, lengthOf(length)), BigInt(from));
  }

  /**
   * Looks for bytes or text in RAM.
   * @returns guest-physical addresses, 32 at most.
   */
  async search(what: string | Uint8Array, most = 32): Promise<string[]> {
    if (typeof what !== 'string' && !types.isUint8Array(what)) {
      throw new NemuError('USAGE', `What is looked for is text or bytes, not ${literal(what)}.`);
    }
    requireCount(most, 'addresses');
    const wanted = Buffer.from(what as string);
    if (wanted.length === 0) throw new NemuError('USAGE', 'There is nothing to look for.');
    const found: number[] = [];
    // RAM has a hole below 4 GiB, which is 2 GiB at most.
    const above = [...this.dimms.map(({ device }) => device), ...this.virtio.map(({ report }) => report)];
    const end = Math.max(this.size + HOLE, ...above.map((each) => each.address + each.size));
    for (let at = 0; at < end && found.length < most; at += SEARCH_PIECE) {
      found.push(...(await this.#vm.machine.searchMemory(at, SEARCH_PIECE, wanted, most - found.length)));
    }
    return found.map(address);
  }

  [inspect.custom](): string {
    return `${formatSize(this.size)} of RAM`;
  }
}
