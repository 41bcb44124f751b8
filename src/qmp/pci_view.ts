import type { PciFunctionReport } from '../client/machine_client.ts';

/** Classes that have a name in `query-pci`, by base class and subclass (PCI Code and ID Assignment 1.11). */
const CLASSES: Readonly<Record<number, string>> = {
  256: 'SCSI controller',
  262: 'SATA controller',
  264: 'NVMe controller',
  512: 'Ethernet controller',
  768: 'VGA controller',
  1536: 'Host bridge',
  1537: 'ISA bridge',
  1540: 'PCI bridge',
  3077: 'SMBus',
};

interface Window {
  readonly base: number;
  readonly limit: number;
}

/** A function's configuration space as `query-pci` tells it (PCI 3.0 chapter 6, PCI-to-PCI Bridge 1.2 chapter 3). */
export class PciView {
  readonly report: PciFunctionReport;
  readonly #config: Buffer;

  constructor(report: PciFunctionReport) {
    this.report = report;
    this.#config = Buffer.from(report.config, 'base64');
  }

  get bus(): number {
    return Number.parseInt(this.report.address.slice(0, 2), 16);
  }

  get slot(): number {
    return Number.parseInt(this.report.address.slice(3, 5), 16);
  }

  get function(): number {
    return Number(this.report.address.slice(6));
  }

  get id() {
    const bridge = this.isBridge;
    return {
      vendor: this.#config.readUInt16LE(0),
      device: this.#config.readUInt16LE(2),
      ...(!bridge && {
        'subsystem-vendor': this.#config.readUInt16LE(0x2c),
        subsystem: this.#config.readUInt16LE(0x2e),
      }),
    };
  }

  get class(): number {
    return this.#config.readUInt16LE(0x0a);
  }

  get className(): string | undefined {
    return CLASSES[this.class];
  }

  get irqPin(): number {
    return this.#config[0x3d];
  }

  get irq(): number {
    return this.#config[0x3c];
  }

  get isBridge(): boolean {
    return (this.#config[0x0e] & 0x7f) === 1;
  }

  get secondary(): number {
    return this.#config[0x19];
  }

  get regions() {
    return this.report.bars.map(({ index, kind, size, base }) => ({
      ...{ bar: index, type: kind === 'io' ? 'io' : 'memory', address: base ?? -1, size },
      ...(kind !== 'io' && {
        prefetch: (this.#config.readUInt32LE(0x10 + 4 * index) & 8) !== 0,
        mem_type_64: kind === 'memory64',
      }),
    }));
  }

  /** Numbers of the buses of a bridge, and what it lets through. */
  get bridge() {
    const config = this.#config;
    const upper = (base: number, limit: number, low: Window): Window => ({
      base: low.base + config.readUInt32LE(base) * 2 ** 32,
      limit: low.limit + config.readUInt32LE(limit) * 2 ** 32,
    });
    const memory = (at: number): Window => ({
      base: (config.readUInt16LE(at) & 0xfff0) * 65536,
      limit: (config.readUInt16LE(at + 2) & 0xfff0) * 65536 + 0xf_ffff,
    });
    return {
      ...{ number: config[0x18], secondary: config[0x19], subordinate: config[0x1a] },
      io_range: { base: (config[0x1c] & 0xf0) << 8, limit: ((config[0x1d] & 0xf0) << 8) + 0xfff },
      memory_range: memory(0x20),
      prefetchable_range: upper(0x28, 0x2c, memory(0x24)),
    };
  }
}
