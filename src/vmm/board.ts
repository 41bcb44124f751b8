import { readFileSync } from 'node:fs';
import { type MachineDescription, possibleCpus, type UartName } from '../client/description.ts';
import { NemuError } from '../client/errors.ts';
import type { BalloonReport, DevicesReport, MachineEvent } from '../client/machine_client.ts';
import { CmosRtc } from '../devices/cmos_rtc.ts';
import type { Device, GuestFault, IrqLine, Region } from '../devices/device.ts';
import {
  FW_CFG_BOOT_MENU,
  FW_CFG_MAX_CPUS,
  FW_CFG_NB_CPUS,
  FW_CFG_NOGRAPHIC,
  FW_CFG_RAM_SIZE,
  FwCfg,
  littleEndian,
} from '../devices/fw_cfg.ts';
import { HPET_BASE, Hpet } from '../devices/hpet.ts';
import { I8042 } from '../devices/i8042.ts';
import { Ich9Pm } from '../devices/ich9_pm.ts';
import { Piix4Pm } from '../devices/piix4_pm.ts';
import {
  DebugPort,
  IsaDebugExit,
  PVPANIC_CRASH_LOADED,
  PVPANIC_PANICKED,
  PVPANIC_SHUTDOWN,
  Pvpanic,
  ResetControl,
} from '../devices/small_ports.ts';
import { Uart16550 } from '../devices/uart16550.ts';
import { VMCOREINFO_FILE, Vmcoreinfo } from '../devices/vmcoreinfo.ts';
import type { AcpiBoard } from './acpi/board.ts';
import { acpiNuma, nodeOfCpu, numaForRoom } from './acpi/numa.ts';
import { buildAcpi } from './acpi/tables.ts';
import { type AttachOptions, attachDevices } from './attach.ts';
import { attachExtra } from './attach_extra.ts';
import { type MappedPmem, Pmems } from './attach_pmem.ts';
import { type BoardDevicesOptions, connectMmio, connectPci } from './board_devices.ts';
import { type E820Entry, type EntryState, planBoot } from './boot/plan.ts';
import { Bus } from './bus.ts';
import type { CpuHotplug } from './hotplug/cpus.ts';
import type { DimmHotplug } from './hotplug/dimms.ts';
import { HINTS_BASE, type NvdimmHotplug } from './hotplug/nvdimms.ts';
import type { PciHotplug } from './hotplug/pci.ts';
import type { VirtioMemories } from './hotplug/virtio_mem.ts';
import type { KvmVm } from './kvm.ts';
import type { LiveDisks } from './live_disks.ts';
import type { LiveNets } from './live_nets.ts';
import type { MachineClock } from './machine_clock.ts';
import type { GuestMemoryView } from './memory.ts';
import { hotplugRegion, memoryEnd, type RamRange } from './memory_layout.ts';
import { Paced } from './paced.ts';
import { newConfigPages } from './pci/config_pages.ts';
import { I440fxPci, PC_PCI_IRQS } from './pci/i440fx.ts';
import { CONFIG_ADDRESS_PORT, CONFIG_DATA_PORT } from './pci/pc.ts';
import { ECAM_BASE, Q35Pci } from './pci/q35.ts';
import { ECAM_SIZE } from './pci/root.ts';
import type { Reactor } from './reactor.ts';
import { reportPci } from './report_devices.ts';
import { SerialChannel, type SerialRings } from './serial_channel.ts';
import type { SerialCoalescing } from './serial_coalescing.ts';
import { H, type LocalRegister, type SharedBlock } from './shared.ts';
import { VirtioMmioBus } from './virtio_mmio_bus.ts';
import { apicIdOf } from './x86/topology.ts';

/** Where a PC has its serial ports. COM3 and COM4 get lines of their own instead of sharing: ACPI tells the guest. */
const UARTS: Record<UartName, { port: number; irq: number }> = {
  com1: { port: 0x3f8, irq: 4 },
  com2: { port: 0x2f8, irq: 3 },
  com3: { port: 0x3e8, irq: 5 },
  com4: { port: 0x2e8, irq: 7 },
};
const LSR_OFFSET = 5;
/** q35's PMBASE as its firmware sets it, and the SCI that goes with it. */
const PM_BASE = 0x600;
const PM_TIMER_OFFSET = 8;
const SCI_GSI = 9;
/** Where QEMU's PC has the general purpose events, which q35 has in its PM block. */
const PC_GPE0 = { port: 0xafe0, length: 4 } as const;
const RESET_CONTROL_PORT = 0xcf9;
/** RST_CPU and SYS_RST: a hard reset. */
const RESET_CONTROL_VALUE = 0x06;
const PVPANIC_PORT = 0x505;
const FW_CFG_PORT = 0x510;
const RTC_GSI = 8;
const I8042_DATA_PORT = 0x60;
const I8042_COMMAND_PORT = 0x64;
const KBD_GSI = 1;
/** IOAPIC inputs that timers of QEMU's q35 and pc may be routed to. */
const HPET_ROUTES = { q35: 0xff0104, pc: 0x04, minimal: 0x04 } as const;
/** Input 2 of the IOAPIC is the timer's, which has the GSI 0 here. */
const TIMER_INPUT = 2;
/** Where QEMU's machines have the registers of CPU hot-plug, and of DIMMs. */
const CPU_HOTPLUG_PORT = { q35: 0xcd8, pc: 0xaf00, minimal: 0xcd8 } as const;
const MEMORY_HOTPLUG_PORT = 0xa00;
const NVDIMM_PORT = 0xa18;

export interface BoardOptions {
  readonly description: MachineDescription;
  readonly memory: GuestMemoryView;
  readonly ranges: readonly RamRange[];
  readonly clock: MachineClock;
  readonly block: SharedBlock;
  readonly vm: KvmVm;
  readonly reactor: Reactor;
  readonly configPages: SharedArrayBuffer | undefined;
  /** Width of the guest's physical addresses. */
  readonly physicalBits: number;
  readonly cpus: CpuHotplug;
  readonly dimms: DimmHotplug;
  /** Devices of PCI that come and go. */
  readonly live: PciHotplug;
  readonly nvdimms: NvdimmHotplug;
  readonly pmems: readonly MappedPmem[];
  readonly virtioMem: VirtioMemories;
  readonly serial: Readonly<Record<string, SerialRings>>;
  readonly coalescing: SerialCoalescing;
  /** Rings the main thread: serial port `name` has bytes, or room. */
  readonly bell: (name: string) => void;
  /** Sees what the guest writes to its console. */
  readonly consoleTap: (bytes: Uint8Array) => void;
  readonly event: (event: MachineEvent) => void;
  readonly powerOff: () => void;
  readonly requestReset: (cause: string) => void;
  readonly panic: () => void;
  /** Channel 0 of the PIT is to raise no interrupts, or to do so again. */
  readonly silencePit: (silent: boolean) => void;
  readonly watchdog: (action: 'reset' | 'poweroff' | 'pause' | 'nmi' | 'none') => void;
  /** The guest does not need what is there: the host may have the memory back. */
  readonly discard: (gpa: number, length: number) => void;
  /** A disk's request failed, and stops the machine if that is the action. */
  readonly diskFailed: AttachOptions['failed'];
  /** A guest did what no driver should: said at a limited rate. */
  readonly fault: GuestFault;
  readonly debugExit: (exitCode: number) => void;
}

export interface Board {
  readonly pio: Bus;
  readonly mmio: Bus;
  readonly memory: GuestMemoryView;
  readonly local: readonly LocalRegister[];
  readonly vmcoreinfo: Vmcoreinfo;
  devices(): DevicesReport;
  balloon(target: number | undefined): BalloonReport;
  resizeConsole(name: string, rows: number, columns: number): boolean;
  readonly disks: LiveDisks;
  readonly nets: LiveNets;
  /** Loads kernel, initrd and tables into memory. @returns where the boot processor starts. */
  boot(): EntryState;
  reset(): void;
  powerButton(): undefined;
  /** Has the guest run its handler of a general purpose event. */
  raiseGpe(number: number): void;
  /** Whether the guest has listened to a general purpose event since it was reset. */
  knowsGpe(number: number): boolean;
  /** The main thread rang: serial input, or room for output. */
  pollSerial(): void;
  /** The machine goes on after a pause. */
  resumed(): void;
  close(): void;
}

/** Registers that vCPU threads serve, in the order of their counters. */
export function localRegisters(description: MachineDescription): LocalRegister[] {
  const uarts = description.serial.map(
    ({ port }, index): LocalRegister => ({
      kind: 'lsr',
      name: `${port} LSR`,
      port: UARTS[port].port + LSR_OFFSET,
      size: 1,
      word: H.REGISTERS + index,
    }),
  );
  const timer: LocalRegister = { kind: 'pm-timer', name: 'PM_TMR', port: PM_BASE + PM_TIMER_OFFSET, size: 4, word: 0 };
  if (description.machine === 'minimal') return [...uarts, timer];
  return [
    ...uarts,
    timer,
    { kind: 'pci-address', name: 'PCI config address', port: CONFIG_ADDRESS_PORT, size: 4, word: 0 },
    { kind: 'pci-data', name: 'PCI config data', port: CONFIG_DATA_PORT, size: 4, word: 0 },
  ];
}

/** Builds the machine's devices and puts each at its place. */
export function createBoard(options: BoardOptions): Board {
  const { description, block, vm } = options;
  const pio = new Bus('pio');
  const mmio = new Bus('mmio');
  const devices: Device[] = [];
  const channels = new Map<string, SerialChannel>();
  const line = (gsi: number): IrqLine => ({ set: (level) => vm.setIrq(gsi, level) });

  const channel = (name: string, flow: 'drop' | 'wait') => {
    const tap = name === 'com1' ? options.consoleTap : () => {};
    const made = new SerialChannel(flow, () => options.bell(name), tap);
    if (Object.hasOwn(options.serial, name)) made.connect(options.serial[name]);
    channels.set(name, made);
    return made;
  };

  for (const [index, { port, flow }] of description.serial.entries()) {
    const uart = new Uart16550({
      name: port,
      irq: line(UARTS[port].irq),
      channel: channel(port, flow),
      clock: options.clock,
      shared: { publish: (lsr) => void Atomics.store(block.words, H.REGISTERS + index, lsr) },
    });
    pio.insert(UARTS[port].port, options.coalescing.watch(uart, UARTS[port].port));
    devices.push(uart);
  }

  const pmOptions = { clock: options.clock, sci: line(SCI_GSI), powerOff: options.powerOff };
  const piix4 = description.machine === 'pc' ? new Piix4Pm(pmOptions) : undefined;
  const ich9 = piix4 ? undefined : new Ich9Pm(pmOptions);
  const pm = (piix4 ?? ich9) as Piix4Pm | Ich9Pm;
  const pmPorts = (piix4?.ports ?? ich9) as Region;
  let takePmAway = pio.insert(PM_BASE, pmPorts);
  if (piix4) pio.insert(PC_GPE0.port, piix4.events);
  const resetControl = new ResetControl(() => options.requestReset('the reset control register'));
  const bus = createDeviceBus(
    options,
    pio,
    mmio,
    resetControl,
    (gpe) => pm.raiseGpe(gpe),
    (base) => {
      takePmAway();
      takePmAway = () => {};
      if (base) takePmAway = pio.insert(base, pmPorts);
    },
  );
  const debugPort = new DebugPort();
  pio.insert(0x80, debugPort);
  devices.push(pm, resetControl, debugPort);
  if (description.pvpanic) {
    const pvpanic = new Pvpanic((events) => {
      if (events & PVPANIC_PANICKED) options.panic();
      if (events & PVPANIC_CRASH_LOADED) options.event({ type: 'crash-loaded' });
      if (events & PVPANIC_SHUTDOWN) options.powerOff();
    });
    pio.insert(PVPANIC_PORT, pvpanic);
    devices.push(pvpanic);
  }
  const hpet = description.hpet
    ? new Hpet({
        clock: options.clock,
        routes: HPET_ROUTES[description.machine],
        line: (gsi) => line(gsi === TIMER_INPUT ? 0 : gsi),
        legacy: options.silencePit,
      })
    : undefined;
  if (hpet) {
    mmio.insert(HPET_BASE, hpet);
    devices.push(hpet);
  }
  let rtc: CmosRtc | undefined;
  if (description.rtc) {
    const rtcLine = line(RTC_GSI);
    const clockSet = new Paced<number>(options.clock, (offset) => options.event({ type: 'clock-set', offset }));
    rtc = new CmosRtc({
      clock: options.clock,
      onSet: (offset) => clockSet.say(offset),
      irq: { set: (level) => void (hpet?.legacy || rtcLine.set(level)) },
      lowMemory: options.ranges[0].size,
      highMemory: options.ranges.slice(1).reduce((sum, { size }) => sum + size, 0),
      cpus: description.cpus.count,
    });
    pio.insert(0x70, rtc);
    devices.push(rtc);
  }
  if (description.i8042) {
    const i8042 = new I8042({
      irq: line(KBD_GSI),
      reset: () => options.requestReset('the keyboard controller'),
    });
    pio.insert(I8042_DATA_PORT, i8042.data);
    pio.insert(I8042_COMMAND_PORT, i8042.command);
    devices.push(i8042);
  }
  const vmcoreinfo = new Vmcoreinfo();
  const processors = littleEndian(description.cpus.count, 2);
  const fwCfg = createFwCfg(description, options.memory, vmcoreinfo, processors);
  pio.insert(FW_CFG_PORT, fwCfg);
  devices.push(fwCfg);
  if (description.debugExit) {
    const debugExit = new IsaDebugExit(options.debugExit);
    pio.insert(0xf4, debugExit);
    devices.push(debugExit);
  }

  if (options.cpus.registers) {
    pio.insert(CPU_HOTPLUG_PORT[description.machine], options.cpus.registers);
    devices.push(options.cpus.registers);
  }
  if (options.dimms.registers) {
    pio.insert(MEMORY_HOTPLUG_PORT, options.dimms.registers);
    devices.push(options.dimms.registers);
  }

  const { registers: nvdimmPort, hints } = options.nvdimms;
  if (nvdimmPort && hints) {
    pio.insert(NVDIMM_PORT, nvdimmPort);
    mmio.insert(HINTS_BASE, hints);
    devices.push(nvdimmPort, hints);
  }

  const attached = attachDevices({
    reactor: options.reactor,
    clock: options.clock,
    fault: options.fault,
    failed: options.diskFailed,
  });
  const extra = attachExtra({
    channel,
    endChannel: (name) => void channels.delete(name),
    clock: options.clock,
    discard: options.discard,
    event: options.event,
  });
  const { clock, fault, watchdog, virtioMem } = options;
  const pmems = new Pmems({ vm, memory: options.memory, poller: options.reactor });
  const bootPmems = options.pmems;
  try {
    bus.connect({ description, attached, extra, pmems, bootPmems, virtioMem, clock, fault, watchdog }, (rings) => {
      for (const [name, made] of Object.entries(rings)) channels.get(name)?.connect(made);
    });
  } catch (error) {
    attached.close();
    pmems.close();
    throw error;
  }

  return {
    pio,
    mmio,
    memory: options.memory,
    local: localRegisters(description),
    vmcoreinfo,
    devices: () => bus.report(),
    balloon: (target) => extra.balloon(target),
    resizeConsole: (name, rows, columns) => extra.resizeConsole(name, rows, columns),
    disks: attached.disks,
    nets: attached.nets,
    boot: () => {
      bus.assign();
      const count = options.cpus.present().length;
      processors.set(littleEndian(count, 2));
      rtc?.setProcessors(count);
      return loadKernel(options, bus);
    },
    reset: () => {
      for (const device of devices) device.reset();
      vmcoreinfo.reset();
      bus.reset();
    },
    powerButton: () => pm.pressPowerButton() as undefined,
    raiseGpe: (number) => pm.raiseGpe(number),
    knowsGpe: (number) => pm.knowsGpe(number),
    pollSerial: () => {
      for (const each of channels.values()) each.poll();
    },
    resumed: () => attached.disks.resumed(),
    close: () => {
      attached.close();
      pmems.close();
      bus.close();
    },
  };
}

/** What of a board depends on where its devices are. */
interface DeviceBus {
  /** Puts the devices of the start in their places. @throws NemuError for what cannot be had. */
  connect(devices: BoardDevicesOptions, addStreams: (rings: Readonly<Record<string, SerialRings>>) => void): void;
  /** Firmware's part, for a kernel that is started without one. */
  assign(): void;
  reset(): void;
  close(): void;
  report(): DevicesReport;
  /** Address ranges besides RAM that a guest is told of early. */
  readonly reserved: readonly E820Entry[];
  acpi(): Pick<AcpiBoard, 'pci' | 'virtioMmio' | 'gpe0' | 'levelIrqs'>;
}

function createDeviceBus(
  options: BoardOptions,
  pio: Bus,
  mmio: Bus,
  resetControl: ResetControl,
  raiseGpe: (number: number) => void,
  pmMoved: (base: number | undefined) => void,
): DeviceBus {
  const { description, memory, ranges, vm, reactor, block, physicalBits, fault } = options;
  if (description.machine === 'minimal') {
    pio.insert(RESET_CONTROL_PORT, resetControl);
    const bus = new VirtioMmioBus({ mmio, memory, vm, reactor });
    return {
      connect: (devices) => connectMmio(devices, bus),
      assign: () => {},
      reset: () => bus.reset(),
      close: () => bus.close(),
      report: () => ({ pci: [], mmio: bus.report() }),
      reserved: [],
      acpi: () => ({ pci: undefined, virtioMmio: bus.acpi() }),
    };
  }
  const common = {
    ...{ pio, mmio, memory, ranges, vm, reactor, block, physicalBits, resetControl, pmMoved, raiseGpe, fault },
    configPages: options.configPages ?? newConfigPages(),
    pmBase: PM_BASE,
    memoryEnd: memoryEnd(description, ranges),
  };
  if (description.machine === 'pc') {
    const pci = new I440fxPci({ ...common, sci: SCI_GSI });
    return {
      connect: (devices, addStreams) => connectPci(devices, pci, options.live, addStreams),
      assign: () => pci.assign(),
      reset: () => pci.reset(),
      close: () => {},
      report: () => ({ pci: reportPci(pci.root), mmio: [] }),
      reserved: [],
      acpi: () => ({ pci: pci.acpi(), gpe0: PC_GPE0, levelIrqs: PC_PCI_IRQS }),
    };
  }
  const pci = new Q35Pci({ ...common, rootPorts: description.pcie.rootPorts, buses: description.pcie.buses });
  return {
    connect: (devices, addStreams) => connectPci(devices, pci, options.live, addStreams),
    assign: () => pci.assign(),
    reset: () => pci.reset(),
    close: () => {},
    report: () => ({ pci: reportPci(pci.root), mmio: [] }),
    reserved: [{ gpa: ECAM_BASE, size: ECAM_SIZE, type: 'reserved' }],
    acpi: () => ({ pci: pci.acpi() }),
  };
}

/** fw_cfg with the items that QEMU gives a PC, and the user's files. */
function createFwCfg(
  description: MachineDescription,
  memory: GuestMemoryView,
  vmcoreinfo: Vmcoreinfo,
  processors: Uint8Array,
): FwCfg {
  const fwCfg = new FwCfg({ memory });
  fwCfg.addItem(FW_CFG_RAM_SIZE, littleEndian(description.memory.size, 8));
  fwCfg.addItem(FW_CFG_NOGRAPHIC, littleEndian(1, 2));
  fwCfg.addItem(FW_CFG_NB_CPUS, processors);
  fwCfg.addItem(FW_CFG_BOOT_MENU, littleEndian(0, 2));
  // The name is older than sparse APIC ids: firmware wants the first id that no processor has.
  fwCfg.addItem(FW_CFG_MAX_CPUS, littleEndian(apicIdOf(possibleCpus(description.cpus) - 1, description.cpus) + 1, 2));
  fwCfg.addFile(VMCOREINFO_FILE, vmcoreinfo.bytes, () => {});
  for (const { name, string, file } of description.fwCfg) {
    const bytes = file === undefined ? new TextEncoder().encode(string) : readFile(file, 'fw_cfg item');
    try {
      fwCfg.addFile(name, bytes);
    } catch (cause) {
      throw new NemuError('FW_CFG_ITEM', (cause as Error).message, {
        hint: 'Name the item like opt/org.example/item, once.',
      });
    }
  }
  return fwCfg;
}

const EBDA = 0x9fc00;
const BIOS_AREA = 0xe0000;
/** The page through which _DSM calls go: the last one of the BIOS area, which no guest takes for RAM. */
const DSM_PAGE_ADDRESS = 0xff000;
const MiB = 2 ** 20;

function memoryMap(ranges: readonly RamRange[], reserved: readonly E820Entry[]): E820Entry[] {
  const [low, ...high] = ranges;
  return [
    { gpa: 0, size: EBDA, type: 'ram' },
    { gpa: BIOS_AREA, size: MiB - BIOS_AREA, type: 'reserved' },
    { gpa: MiB, size: low.size - MiB, type: 'ram' },
    ...reserved,
    ...high.map(({ gpa, size }): E820Entry => ({ gpa, size, type: 'ram' })),
  ];
}

function readFile(path: string, what: string): Uint8Array {
  try {
    return readFileSync(path);
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    throw new NemuError(
      `${what.toUpperCase().replaceAll(' ', '_')}_FILE`,
      `The ${what} ${path} cannot be read (${code}).`,
      { cause },
    );
  }
}

/** What the tables say; each value is the one that `createBoard` used. */
function acpiBoard({ description, ranges, ...options }: BoardOptions, bus: DeviceBus): AcpiBoard {
  const { cpus } = description;
  const room = hotplugRegion(description, ranges);
  const numa = description.numa ?? (room && numaForRoom(description));
  return {
    ...bus.acpi(),
    cpus: Array.from({ length: possibleCpus(cpus) }, (_, uid) => ({
      uid,
      apicId: apicIdOf(uid, cpus),
      online: options.cpus.isPresent(uid),
      ...(numa && { node: nodeOfCpu(numa, uid) }),
    })),
    cpuHotplug: options.cpus.registers && { port: CPU_HOTPLUG_PORT[description.machine] },
    memoryHotplug: options.dimms.registers && { port: MEMORY_HOTPLUG_PORT, slots: options.dimms.slots },
    nvdimm: options.nvdimms.registers && {
      ...{ port: NVDIMM_PORT, page: DSM_PAGE_ADDRESS, slots: options.nvdimms.slots },
      structures: options.nvdimms.structures(),
    },
    numa: numa && acpiNuma(numa, ranges, room),
    ioapic: { id: 0, address: 0xfec00000, gsiBase: 0 },
    pmBase: PM_BASE,
    sci: SCI_GSI,
    resetRegister: { port: RESET_CONTROL_PORT, value: RESET_CONTROL_VALUE },
    uarts: description.serial.map(({ port }) => ({ name: port.toUpperCase(), ...UARTS[port] })),
    rtc: description.rtc,
    i8042: description.i8042,
    hpet: description.hpet ? HPET_BASE : undefined,
    fwCfg: { port: FW_CFG_PORT, length: 12 },
    pvpanicPort: description.pvpanic ? PVPANIC_PORT : undefined,
  };
}

function loadKernel(options: BoardOptions, bus: DeviceBus): EntryState {
  const { memory, ranges } = options;
  const { kernel } = options.description;
  const acpi = buildAcpi(acpiBoard(options, bus), BIOS_AREA, DSM_PAGE_ADDRESS - BIOS_AREA);
  const initrds = kernel.initrd.map((path) => readFile(path, 'initrd'));
  const plan = planBoot({
    kernel: readFile(kernel.image, 'kernel'),
    kernelName: kernel.image,
    ...(initrds.length > 0 && { initrd: joinInitrds(initrds) }),
    cmdline: kernel.cmdline,
    memoryMap: memoryMap(ranges, bus.reserved),
    rsdp: acpi.rsdp,
  });
  for (const { gpa, size } of plan.zeroes) memory.slice(gpa, size)?.fill(0);
  for (const { gpa, bytes } of [...plan.writes, { gpa: BIOS_AREA, bytes: acpi.bytes }]) {
    if (!memory.write(gpa, bytes)) {
      throw new NemuError(
        'MEMORY_LIMIT',
        `${bytes.length} bytes at 0x${gpa.toString(16)} are outside of the guest's memory.`,
      );
    }
  }
  return plan.entry;
}

/** Archives stand behind each other, each at a multiple of four bytes. */
function joinInitrds(files: readonly Uint8Array[]): Uint8Array {
  if (files.length === 1) return files[0];
  return Buffer.concat(files.flatMap((file) => [file, Buffer.alloc(-file.length & 3)]));
}
