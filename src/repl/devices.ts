/** Devices of PCI that come and go, as the REPL and scripts have them. */
import { inspect } from 'node:util';
import { literal } from '../client/code.ts';
import { NemuError } from '../client/errors.ts';
import type { PciDevice as LivePci, PciPlugInput, PciPortReport, PlugOptions, UnplugOptions } from '../client/live.ts';
import type { PciFunctionReport } from '../client/machine_client.ts';
import { formatSize } from '../client/sizes.ts';
import { requireObject } from './arguments.ts';
import { ConfigView } from './pci_config.ts';
import { readQueues, type VirtQueue } from './queues.ts';
import { address, type Done, Text } from './values.ts';
import type { Vm } from './vm.ts';

/** Cells of a row from which on there is room for words beside the bytes. */
const SIDE_BY_SIDE = 110;
/** Cells of a row of bytes, with a gap behind it. */
const BYTES_WIDTH = 55;

/** A PCI function, as it was when it was asked for. */
export class PciDevice {
  readonly name: string;
  readonly address: string;
  readonly config: ConfigView;
  readonly report: PciFunctionReport;
  readonly #vm: Vm;

  constructor(vm: Vm, report: PciFunctionReport) {
    this.#vm = vm;
    this.report = report;
    this.name = report.name;
    this.address = report.address;
    this.config = new ConfigView(report.config);
  }

  /** Its virtqueues with their descriptors, as they are in the guest's memory. @throws NemuError DEVICE, ADDRESS */
  async queues(): Promise<VirtQueue[]> {
    const { virtio } = (await this.#vm.pci(this.name)).report;
    if (!virtio) throw new NemuError('DEVICE', `${this.name} is no virtio device: it has no queues.`);
    return readQueues(this.#vm.machine, virtio);
  }

  /**
   * Its configuration space in words and bytes, its BARs and what its MSI-X table holds.
   * @param width cells of a row: where there are enough, the words stand beside the bytes.
   */
  decode(width = 0): Text {
    const { config, report } = this;
    const bars = report.bars.map(
      ({ index, kind, size, base }) =>
        `BAR ${index}: ${kind === 'io' ? 'ports' : kind === 'memory64' ? 'memory, 64 bits' : 'memory'}, ${formatSize(size)}, ${base === undefined ? 'off' : `at ${address(base)}`}`,
    );
    // Entries that nobody has written are left out.
    const entries = (report.msix ?? [])
      .filter(({ address: to, masked }) => to !== 0 || !masked)
      .map(({ vector, address: to, data, masked, pending }) =>
        [
          `MSI-X ${vector}: ${address(to)} ← ${address(data)}`,
          ...(masked ? ['masked'] : []),
          ...(pending ? ['pending'] : []),
        ].join(', '),
      );
    const head = `${this.address} ${this.name}: ${config.className}`;
    const words = [
      ...config.identity,
      `command: ${config.command}`,
      ...(config.slot ? [config.slot] : []),
      ...config.capabilities.map(({ offset, name }) => `[${offset.toString(16)}] ${name}`),
      ...bars,
      ...entries,
    ];
    const rows = config.dump().split('\n');
    if (width < SIDE_BY_SIDE) return new Text([head, ...words, '', ...rows].join('\n'));
    const both = Array.from({ length: Math.max(words.length, rows.length) }, (_, index) =>
      `${(rows[index] ?? '').padEnd(BYTES_WIDTH)}${words[index] ?? ''}`.trimEnd(),
    );
    return new Text([head, '', ...both].join('\n'));
  }

  [inspect.custom](): string {
    return `${this.address} ${this.name} (${this.config.className})`;
  }
}

/** A device of PCI that was plugged, or that was there at boot. */
export class PluggedDevice {
  readonly device: LivePci;
  readonly #vm: Vm;

  constructor(vm: Vm, device: LivePci) {
    this.#vm = vm;
    this.device = device;
  }

  get id(): string {
    return this.device.id;
  }

  get type(): LivePci['type'] {
    return this.device.type;
  }

  /** Where it stands. */
  get port(): string {
    return this.device.port;
  }

  /** Takes it out when the guest lets go; with `force`, at once. @throws NemuError REFUSED with the guest's reason. */
  unplug(options: UnplugOptions = {}): Promise<Done> {
    return this.#vm.unplug(this.id, options);
  }

  [inspect.custom](): string {
    return `${this.id}: ${this.type} in ${this.port}`;
  }
}

type TypeName = PciPlugInput['type'];
type OptionsOf<T extends TypeName> = Omit<Extract<PciPlugInput, { type: T }>, 'kind' | 'type'>;

/** `vm.pci`: looks functions up when it is called, plugs devices, and tells what there is. */
export interface PciAccess {
  /** One function, by name or address. @throws NemuError DEVICE */
  (which: string): Promise<PciDevice>;
  /** All of them. */
  (): Promise<PciDevice[]>;
  /**
   * Plugs a device: `vm.pci.plug('virtio-blk', { file: 'a.qcow2' })`. Resolves when the guest's driver has it.
   * @throws NemuError as `MachineClient.plug` does.
   */
  plug<T extends TypeName>(type: T, options?: OptionsOf<T> & PlugOptions): Promise<PluggedDevice>;
  /** Devices that come and go, also those of the start. */
  readonly devices: readonly PluggedDevice[];
  /** Hot-plug ports and slots, and what is in them. */
  readonly ports: readonly PciPortReport[];
}

export function pciAccess(vm: Vm): PciAccess {
  const look = async (which?: string) => {
    const all = (await vm.machine.devices()).pci.map((report) => new PciDevice(vm, report));
    if (which === undefined) return all;
    const found = all.find((each) => each.name === which || each.address === which || `0000:${each.address}` === which);
    if (found) return found;
    const named = typeof which === 'string' ? `"${which}"` : literal(which);
    throw new NemuError('DEVICE', `There is no PCI function ${named}.`, {
      hint: `There are ${all.map((each) => `${each.address} ${each.name}`).join(', ') || 'none'}.`,
    });
  };
  const plug: PciAccess['plug'] = async (type, given = {} as never) => {
    requireObject(given, "vm.pci.plug('virtio-blk', { file: 'a.qcow2' })");
    const { timeoutMs, ...options } = given;
    const input = { kind: 'pci', type, ...options } as unknown as PciPlugInput;
    const { device } = await vm.plug(input, timeoutMs === undefined ? {} : { timeoutMs });
    return new PluggedDevice(vm, device as LivePci);
  };
  const access = Object.assign(look, { plug });
  Object.defineProperties(access, {
    devices: { get: () => (vm.plugged?.pci.devices ?? []).map((device) => new PluggedDevice(vm, device)) },
    ports: { get: () => vm.plugged?.pci.ports ?? [] },
    [inspect.custom]: {
      value: () =>
        (vm.plugged?.pci.ports ?? []).map(({ id, device }) => `${id}: ${device ?? 'free'}`).join('\n') ||
        'no place where devices come and go',
    },
  });
  return access as PciAccess;
}
