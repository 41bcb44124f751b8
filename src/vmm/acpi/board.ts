/** What the ACPI tables say about a machine: plain data, made by the board. */
export interface AcpiCpu {
  readonly uid: number;
  readonly apicId: number;
  readonly online: boolean;
  /** NUMA node, on a machine that has such. */
  readonly node?: number;
}

/** NUMA as the tables have it; numbers of nodes are proximity domains. */
export interface AcpiNuma {
  readonly memory: readonly {
    readonly node: number;
    readonly base: number;
    readonly size: number;
    /** Room for memory that may be plugged. */
    readonly hotpluggable?: boolean;
  }[];
  /** By source and destination. */
  readonly distances: readonly (readonly number[])[];
  /** Undefined without latencies, bandwidths and the like: then there is no HMAT. */
  readonly attributes: AcpiMemoryAttributes | undefined;
}

export interface AcpiMemoryAttributes {
  /** Nodes with memory, and the node with processors that is nearest, if one is. */
  readonly targets: readonly { readonly node: number; readonly initiator: number | undefined }[];
  /** Nodes with processors. */
  readonly initiators: readonly number[];
  readonly localities: readonly {
    readonly initiator: number;
    readonly target: number;
    /** Numbers of table 5.147's memory hierarchy and data type. */
    readonly hierarchy: number;
    readonly dataType: number;
    /** Nanoseconds, or MiB a second. */
    readonly value: number;
  }[];
  readonly caches: readonly {
    readonly node: number;
    readonly size: number;
    readonly level: number;
    /** How many levels the node has. */
    readonly levels: number;
    readonly associativity: number;
    readonly policy: number;
    readonly line: number;
  }[];
}

export interface AcpiUart {
  /** Name below \_SB: COM1 … COM4. */
  readonly name: string;
  readonly port: number;
  readonly irq: number;
}

export interface AcpiRange {
  /** First and last address. */
  readonly min: number;
  readonly max: number;
}

export interface AcpiPci {
  /** Undefined without PCI Express. */
  readonly ecamBase: number | undefined;
  /** Highest bus number that the root hands on: a guest may look at every place of every bus up to it. */
  readonly lastBus: number;
  /** Ports and memory that the root hands on; memory above 4 GiB is prefetchable. */
  readonly io: readonly AcpiRange[];
  readonly memory: readonly AcpiRange[];
  /** Which GSI a pin (1 to 4) of a device on the root bus raises, or which link decides that. */
  readonly interrupts: readonly ({ readonly device: number; readonly pin: number } & (
    | { readonly gsi: number }
    | { readonly link: number }
  ))[];
  /** Registers of a PIIX3, function 0 of a device, that say which ISA interrupt each link drives. */
  readonly links?: { readonly device: number; readonly count: number; readonly irqs: readonly number[] };
  /**
   * Registers of docs/specs/acpi_pci_hotplug in QEMU, for these devices of the root bus; the slot of device 0 would
   * have the number `firstSun`.
   */
  readonly hotplug?: { readonly port: number; readonly slots: readonly number[]; readonly firstSun: number };
  readonly ports: readonly {
    readonly name: string;
    readonly device: number;
    readonly function: number;
    readonly slotNumber: number;
  }[];
}

/** A virtio device in memory, with an interrupt of its own or one that others have too. */
export interface AcpiVirtioMmio {
  readonly base: number;
  readonly size: number;
  readonly gsi: number;
  readonly shared: boolean;
}

export interface AcpiBoard {
  /** A machine without PCI has none. */
  readonly pci: AcpiPci | undefined;
  readonly virtioMmio?: readonly AcpiVirtioMmio[];
  /** Every processor that there is room for. */
  readonly cpus: readonly AcpiCpu[];
  /** Registers of docs/specs/acpi_cpu_hotplug in QEMU, where processors can come and go. */
  readonly cpuHotplug?: { readonly port: number } | undefined;
  /** Registers of docs/specs/acpi_mem_hotplug in QEMU, where DIMMs can. */
  readonly memoryHotplug?: { readonly port: number; readonly slots: number } | undefined;
  /** Port and page of docs/specs/acpi_nvdimm in QEMU, and the NFIT's structures as they are at boot. */
  readonly nvdimm?:
    | { readonly port: number; readonly page: number; readonly slots: number; readonly structures: Uint8Array }
    | undefined;
  readonly numa?: AcpiNuma | undefined;
  readonly ioapic: { readonly id: number; readonly address: number; readonly gsiBase: number };
  /** ICH9 power management block: PM1a_EVT, PM1a_CNT, PM_TMR and GPE0 at their offsets from it. */
  readonly pmBase: number;
  /** GPE0 where it is not in that block. */
  readonly gpe0?: { readonly port: number; readonly length: number };
  readonly sci: number;
  /** ISA interrupts that devices of PCI hold high, as the SCI is. */
  readonly levelIrqs?: readonly number[];
  readonly resetRegister: { readonly port: number; readonly value: number };
  readonly uarts: readonly AcpiUart[];
  /** MC146818 at 0x70, irq 8, with a century byte at 0x32. */
  readonly rtc: boolean;
  readonly i8042: boolean;
  /** Address of an HPET's registers. */
  readonly hpet?: number | undefined;
  readonly fwCfg: { readonly port: number; readonly length: number } | undefined;
  readonly pvpanicPort: number | undefined;
}
