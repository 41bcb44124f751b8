/** NVDIMMs as the REPL has them. */
import { inspect } from 'node:util';
import type { PlugInput, PlugOptions, UnplugOptions } from '../client/live.ts';
import type { NvdimmReport } from '../client/nvdimm.ts';
import { formatSize } from '../client/sizes.ts';
import { requireObject } from './arguments.ts';
import { address, type Done } from './values.ts';
import type { Vm } from './vm.ts';

/** An NVDIMM, as it was when it was asked for. */
export class Nvdimm {
  readonly device: NvdimmReport;
  readonly #vm: Vm;

  constructor(vm: Vm, device: NvdimmReport) {
    this.#vm = vm;
    this.device = device;
  }

  get id(): string {
    return this.device.id;
  }

  /** Takes it out when the guest has let go; its request says what has to be done there. */
  unplug(options: UnplugOptions = {}): Promise<Done> {
    return this.#vm.unplug(this.id, options);
  }

  [inspect.custom](): string {
    const { id, size, address: at, slot, node, file, labelSize, flushes } = this.device;
    const labels = labelSize > 0 ? `, labels ${formatSize(labelSize)}` : '';
    return `${id}: ${formatSize(size)} at ${address(at)}, slot ${slot}, node ${node}, ${file}${labels}, ${flushes} flushes`;
  }
}

type NvdimmInput = Omit<Extract<PlugInput, { kind: 'nvdimm' }>, 'kind'>;

export class Nvdimms {
  readonly #vm: Vm;

  constructor(vm: Vm) {
    this.#vm = vm;
  }

  /** Those that there are. */
  get list(): Nvdimm[] {
    return (this.#vm.plugged?.nvdimms ?? []).map((device) => new Nvdimm(this.#vm, device));
  }

  /** One by its id. */
  get(id: string): Nvdimm | undefined {
    return this.list.find((each) => each.id === id);
  }

  /**
   * Plugs one: `plug({ file: 'pm.img', size: '256M' })`. Resolves when the guest knows it.
   * @throws NemuError as `MachineClient.plug` does.
   */
  async plug(wanted: NvdimmInput & PlugOptions): Promise<Nvdimm> {
    requireObject(wanted, "vm.nvdimm.plug({ file: 'pm.img', size: '256M' })");
    const { timeoutMs, ...nvdimm } = wanted;
    const options = timeoutMs === undefined ? {} : { timeoutMs };
    const { device } = await this.#vm.plug({ kind: 'nvdimm', ...nvdimm }, options);
    return this.get(device.id) as Nvdimm;
  }

  [inspect.custom](): string {
    const { list } = this;
    return list.length > 0 ? list.map((each) => inspect(each)).join('\n') : 'no NVDIMMs';
  }
}
