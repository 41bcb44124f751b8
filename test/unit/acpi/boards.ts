/** Boards for tests of the tables: from nothing but what is needed to everything there is. */
import type { AcpiBoard, AcpiNuma, AcpiPci } from '../../../src/vmm/acpi/board.ts';
import { type NfitNvdimm, nfitStructures } from '../../../src/vmm/acpi/nfit.ts';

const UARTS = [
  { name: 'COM1', port: 0x3f8, irq: 4 },
  { name: 'COM2', port: 0x2f8, irq: 3 },
  { name: 'COM3', port: 0x3e8, irq: 5 },
  { name: 'COM4', port: 0x2e8, irq: 7 },
];

export const processors = (count: number, apicIdOf = (uid: number) => uid): AcpiBoard['cpus'] =>
  Array.from({ length: count }, (_, uid) => ({ uid, apicId: apicIdOf(uid), online: true }));

/** One processor and nothing else. */
export const bareBoard: AcpiBoard = {
  cpus: processors(1),
  ioapic: { id: 0, address: 0xfec00000, gsiBase: 0 },
  pmBase: 0x600,
  sci: 9,
  resetRegister: { port: 0xcf9, value: 0x06 },
  uarts: [],
  rtc: false,
  i8042: false,
  fwCfg: undefined,
  pvpanicPort: undefined,
  pci: undefined,
};

const pci: AcpiPci = {
  ecamBase: 0xb0000000,
  lastBus: 15,
  io: [
    { min: 0, max: 0xcf7 },
    { min: 0xd00, max: 0xffff },
  ],
  memory: [
    { min: 0xc0000000, max: 0xfebfffff },
    { min: 0x100000000, max: 0x10ffffffff },
  ],
  interrupts: Array.from({ length: 128 }, (_, i) => ({
    device: i >> 2,
    pin: (i & 3) + 1,
    gsi: 16 + ((i + (i >> 2)) & 7),
  })),
  ports: Array.from({ length: 4 }, (_, i) => ({ name: `RP0${i}`, device: 0x1c, function: i, slotNumber: i + 1 })),
};

export const fullBoard = (cpus: number): AcpiBoard => ({
  ...bareBoard,
  cpus: processors(cpus),
  uarts: UARTS,
  rtc: true,
  i8042: true,
  hpet: 0xfed00000,
  fwCfg: { port: 0x510, length: 12 },
  pvpanicPort: 0x505,
  pci,
});

const MiB = 2 ** 20;
const GiB = 2 ** 30;

/** Two nodes with processors and one with memory alone, around the hole of a PC; room to plug memory in the last. */
const numa: AcpiNuma = {
  memory: [
    { node: 0, base: 0, size: 2 * GiB },
    { node: 0, base: 4 * GiB, size: GiB },
    { node: 1, base: 5 * GiB, size: 512 * MiB },
    { node: 2, base: 5.5 * GiB, size: 8 * GiB },
    { node: 2, base: 16 * GiB, size: 64 * GiB, hotpluggable: true },
  ],
  distances: [
    [10, 21, 31],
    [21, 10, 41],
    [31, 41, 10],
  ],
  attributes: undefined,
};

const attributes: NonNullable<AcpiNuma['attributes']> = {
  targets: [
    { node: 0, initiator: 0 },
    { node: 1, initiator: 1 },
    { node: 2, initiator: undefined },
  ],
  initiators: [0, 1],
  localities: [
    ...[0, 1].flatMap((initiator) =>
      [0, 1, 2].map((target) => ({
        initiator,
        target,
        hierarchy: 0,
        dataType: 0,
        value: initiator === target ? 80 : 130,
      })),
    ),
    { initiator: 0, target: 2, hierarchy: 1, dataType: 4, value: 100 * 1024 },
    { initiator: 1, target: 2, hierarchy: 1, dataType: 4, value: 50 * 1024 },
  ],
  caches: [
    { node: 2, size: 64 * MiB, level: 1, levels: 2, associativity: 1, policy: 1, line: 64 },
    { node: 2, size: 256 * MiB, level: 2, levels: 2, associativity: 2, policy: 2, line: 64 },
  ],
};

const inNodes = (cpus: AcpiBoard['cpus']): AcpiBoard['cpus'] => cpus.map((cpu) => ({ ...cpu, node: cpu.uid % 2 }));

/** Sixteen processors in two of three nodes, and four more with wide APIC ids. */
export const numaBoard: AcpiBoard = {
  ...fullBoard(1),
  cpus: inNodes(processors(20, (uid) => (uid < 16 ? uid : 240 + uid))),
  numa: { ...numa, attributes },
};

const nvdimm = (slots: number, present: readonly NfitNvdimm[]): AcpiBoard['nvdimm'] => ({
  ...{ port: 0xa18, page: 0xff000, slots },
  structures: nfitStructures(present, 'mem-ctrl'),
});

const nvdimms: NfitNvdimm[] = [
  { slot: 0, address: 4 * GiB, size: 256 * MiB, node: 0, readonly: false, hint: 0xfef00000 },
  { slot: 255, address: 5 * GiB, size: 2 ** 40, node: 1, readonly: true, hint: undefined },
];

export const boards: readonly (readonly [string, AcpiBoard])[] = [
  ['one processor and nothing else', bareBoard],
  ['one processor and every device', fullBoard(1)],
  ['64 processors', fullBoard(64)],
  ['254 processors', fullBoard(254)],
  [
    '254 processors in packages of 3, with APIC ids above 254',
    { ...fullBoard(1), cpus: processors(254, (uid) => Math.floor(uid / 3) * 4 + (uid % 3)) },
  ],
  [
    'a PC of the nineties',
    {
      ...fullBoard(2),
      gpe0: { port: 0xafe0, length: 4 },
      levelIrqs: [10, 11],
      pci: {
        ...pci,
        ecamBase: undefined,
        lastBus: 0,
        ports: [],
        interrupts: Array.from({ length: 124 }, (_, i) => ({
          device: 1 + (i >> 2),
          pin: (i & 3) + 1,
          link: (i + (i >> 2)) & 3,
        })),
        links: { device: 1, count: 4, irqs: [10, 11] },
        hotplug: { port: 0xae00, slots: Array.from({ length: 30 }, (_, i) => 2 + i), firstSun: 0 },
      },
    },
  ],
  [
    'a machine without PCI: twelve virtio devices in memory, which share interrupts',
    {
      ...fullBoard(2),
      pci: undefined,
      virtioMmio: Array.from({ length: 12 }, (_, i) => ({
        ...{ base: 0xfeb00000 + 0x200 * i, size: 0x200, gsi: 16 + (i % 8), shared: true },
      })),
    },
  ],
  ['three NUMA nodes', { ...numaBoard, numa }],
  ['three NUMA nodes with latencies, bandwidths and caches', numaBoard],
  [
    'processors and DIMMs to be plugged, without PCI',
    {
      ...bareBoard,
      cpus: processors(8).map((cpu) => ({ ...cpu, online: cpu.uid < 2 })),
      cpuHotplug: { port: 0xcd8 },
      memoryHotplug: { port: 0xa00, slots: 8 },
      nvdimm: nvdimm(8, []),
    },
  ],
  [
    '254 processors in two nodes, wide APIC ids among them, and 256 DIMMs to be plugged',
    {
      ...fullBoard(1),
      // iasl of 2020 drops "online capable" of the wide entries: those are online here.
      cpus: inNodes(processors(254, (uid) => 2 * uid)).map((cpu) => ({
        ...cpu,
        online: cpu.uid < 2 || cpu.apicId > 254,
      })),
      cpuHotplug: { port: 0xcd8 },
      memoryHotplug: { port: 0xa00, slots: 256 },
      nvdimm: nvdimm(256, nvdimms),
      numa,
    },
  ],
];

/** Signatures of the tables that lead on from the XSDT, in order. */
export const listedTables = (board: AcpiBoard): string[] => [
  'FACP',
  'APIC',
  'WAET',
  ...(board.hpet === undefined ? [] : ['HPET']),
  ...(board.pci?.ecamBase === undefined ? [] : ['MCFG']),
  ...(board.numa ? ['SRAT', 'SLIT'] : []),
  ...(board.numa?.attributes ? ['HMAT'] : []),
  ...(board.nvdimm ? ['NFIT'] : []),
];
