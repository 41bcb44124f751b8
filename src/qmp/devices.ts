import type { LiveDevice, MemoryPlug, PciDevice } from '../client/live.ts';
import type { MachineClient } from '../client/machine_client.ts';

export const CPU_TYPE = 'host-x86_64-cpu';

export interface MemoryBackend {
  readonly id: string;
  readonly type: 'memory-backend-ram' | 'memory-backend-file' | 'memory-backend-memfd';
  readonly size: number;
  /** As they were asked for: a host's dump of this process, its merging of equal pages and its swap are the host's. */
  readonly dump: boolean;
  readonly merge: boolean;
  readonly reserve: boolean;
  /** What a DIMM takes of it. */
  readonly plug: Omit<MemoryPlug, 'kind' | 'id' | 'slot' | 'address' | 'node' | 'size'>;
  /** Its properties, as they were asked for or are without. */
  readonly settings: Readonly<Record<string, unknown>>;
  /** The device that it is in, by the machine's id. */
  usedBy: string | undefined;
}

/** Something that a device may name, and that nothing more becomes of. */
export interface NamedObject {
  readonly id: string;
  readonly type: 'rng-random' | 'rng-builtin' | 'iothread';
  readonly settings: Record<string, unknown>;
}
export type QmpObject = MemoryBackend | NamedObject;

/**
 * What peers call the devices of a machine. A device that came through QMP has the id that it was given there, which
 * may differ from the machine's own; every other one has the machine's.
 */
export class DeviceNames {
  readonly #machine: MachineClient;
  /** The machine's id by the peer's. */
  readonly #given = new Map<string, string>();

  constructor(machine: MachineClient) {
    this.#machine = machine;
  }

  give(peerId: string, id: string): void {
    this.#given.set(peerId, id);
  }

  forget(id: string): void {
    for (const [peerId, own] of this.#given) if (own === id) this.#given.delete(peerId);
  }

  isGiven(peerId: string): boolean {
    return this.#given.has(peerId);
  }

  /** The machine's id, of a peer's id or a path below /machine. */
  own(name: string): string {
    const boot = /^\/machine\/unattached\/device\[(\d+)\]$/.exec(name);
    if (boot) return `cpu${boot[1]}`;
    const id = name.replace(/^\/machine\/peripheral\//, '');
    return this.#given.get(id) ?? id;
  }

  peer(id: string): string {
    for (const [peerId, own] of this.#given) if (own === id) return peerId;
    return id;
  }

  /** vCPUs that were there at boot stand where QEMU has them: they have no id. */
  isAnonymous(device: LiveDevice): boolean {
    if (device.kind !== 'cpu' || [...this.#given.values()].includes(device.id)) return false;
    return device.index < this.#machine.description.cpus.count;
  }

  path(device: LiveDevice): string {
    return this.isAnonymous(device) && device.kind === 'cpu'
      ? `/machine/unattached/device[${device.index}]`
      : `/machine/peripheral/${this.peer(device.id)}`;
  }
}

/** The kind of device, as QEMU names it. */
export function driverOf(device: LiveDevice): string {
  switch (device.kind) {
    case 'cpu':
      return CPU_TYPE;
    case 'memory':
      return 'pc-dimm';
    case 'nvdimm':
      return 'nvdimm';
    case 'virtio-mem':
      return 'virtio-mem-pci';
    case 'pci':
      return PCI_DRIVERS[device.type];
  }
}

/** Drivers of devices that are plugged into PCI, by the type that a description has. */
const PCI_DRIVERS: Readonly<Record<PciDevice['type'], string>> = {
  'virtio-blk': 'virtio-blk-pci',
  'virtio-net': 'virtio-net-pci',
  'virtio-rng': 'virtio-rng-pci',
  'virtio-balloon': 'virtio-balloon-pci',
  'virtio-console': 'virtio-serial-pci',
  'virtio-port': 'virtio-serial-pci',
  i6300esb: 'i6300esb',
  'pcie-switch': 'x3130-upstream',
  'virtio-mem': 'virtio-mem-pci',
  'pci-bridge': 'pcie-pci-bridge',
  'virtio-pmem': 'virtio-pmem-pci',
};

/** What is behind a virtio device's bus, by virtio device type. */
export const VIRTIO_BACKENDS: Readonly<Record<number, string>> = {
  1: 'virtio-net-device',
  2: 'virtio-blk-device',
  3: 'virtio-serial-device',
  4: 'virtio-rng-device',
  5: 'virtio-balloon-device',
  19: 'vhost-vsock-device',
  24: 'virtio-mem',
  26: 'vhost-user-fs-device',
  27: 'virtio-pmem',
};

/** Drivers of PCI functions, by virtio device type. */
export const VIRTIO_DRIVERS: Readonly<Record<number, string>> = {
  1: 'virtio-net-pci',
  2: 'virtio-blk-pci',
  3: 'virtio-serial-pci',
  4: 'virtio-rng-pci',
  5: 'virtio-balloon-pci',
  24: 'virtio-mem-pci',
  19: 'vhost-vsock-pci',
  26: 'vhost-user-fs-pci',
  27: 'virtio-pmem-pci',
};
