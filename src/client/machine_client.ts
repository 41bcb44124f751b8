/**
 * Everything that a user can do to a machine. The workstation, the command line, scripts and the tests use
 * this interface and nothing else, so that a machine in this process, in another one and in the lab look
 * the same.
 */
import type { BreakpointInput, DebugRunInput, DebugStop, RegisterValues } from './debug.ts';
import type { HostForward, MachineDescription, NetThrottleInput, ThrottleInput } from './description.ts';
import type { InterruptReport } from './interrupts.ts';
import type { LiveRequest, PluggedReport, PlugInput, PlugOptions, UnplugOptions } from './live.ts';
import type { DiskChangeInput, NetChangeInput } from './live_change.ts';

export type MachineState = 'created' | 'running' | 'paused' | 'ended' | 'closed';

/** Why a machine ended. Each has its own exit code, see docs/architecture.md. */
export type EndReason =
  | 'poweroff'
  | 'reset'
  | 'panic'
  | 'triple-fault'
  | 'internal-error'
  | 'debug-exit'
  | 'quit'
  | 'engine-error';

export interface EndState {
  readonly reason: EndReason;
  /** What happened, in a sentence. */
  readonly detail: string;
  /** Value that the guest wrote to isa-debug-exit, shifted as QEMU does: (value << 1) | 1. */
  readonly exitCode?: number;
  /** Registers of the vCPU that ended the machine, where there is one. */
  readonly registers?: Record<string, string>;
  readonly vcpu?: number;
}

/** A message from a machine. `at` is nanoseconds of guest time as a decimal string. */
export type MachineEvent =
  | { readonly type: 'state'; readonly state: MachineState }
  | { readonly type: 'reset'; readonly cause: string }
  | { readonly type: 'panic'; readonly detail: string }
  | { readonly type: 'crash-loaded' }
  | { readonly type: 'triple-fault'; readonly vcpu: number }
  | { readonly type: 'internal-error'; readonly vcpu: number; readonly detail: string }
  | { readonly type: 'guest-fault'; readonly device: string; readonly text: string }
  /** The guest did not feed its watchdog. */
  | { readonly type: 'watchdog'; readonly action: string }
  /** A request failed. One that stopped the machine is tried again by `resume`; of others, one a second is told. */
  | {
      readonly type: 'disk-error';
      readonly disk: string;
      readonly operation: string;
      readonly errno: string;
      /** Bytes from the start of the disk. */
      readonly offset: number;
      readonly action: 'ignore' | 'report' | 'stop';
    }
  /** The balloon holds another number of bytes. This and the next two are told once a second at most. */
  | { readonly type: 'balloon'; readonly actual: number }
  /** The guest has set its clock, which is so many seconds ahead of the host's. */
  | { readonly type: 'clock-set'; readonly offset: number }
  /** A program in the guest has opened or closed a console or port, or a driver has done so with it. */
  | { readonly type: 'port'; readonly name: string; readonly open: boolean }
  /** A console or port came with a device that is plugged, or went with one. */
  | { readonly type: 'console'; readonly name: string; readonly change: 'added' | 'removed' }
  /** The guest has another part of a virtio-mem device plugged: bytes. Told ten times a second at most. */
  | { readonly type: 'memory-size'; readonly device: string; readonly plugged: number; readonly requested: number }
  /** A request of `plug`, `unplug` or `resizeMemory`, or of the guest itself, has come to another stage. */
  | { readonly type: 'request'; readonly request: LiveRequest }
  /** A vCPU has come to a breakpoint of a debugger, or done its step: the machine stands still, as the next event says. */
  | ({ readonly type: 'debug' } & DebugStop)
  /** Somebody has asked for a change by another protocol: what it was, as `note` was told. */
  | { readonly type: 'action'; readonly text: string }
  | { readonly type: 'phase'; readonly name: string; readonly ms: number }
  | { readonly type: 'ended'; readonly end: EndState };

/** What one vCPU is doing. Registers are hexadecimal strings. */
export interface VcpuReport {
  readonly index: number;
  readonly apicId: number;
  readonly threadId: number;
  /** What the thread had of the host's processors, guest and all, in nanoseconds. */
  readonly cpuTime: number;
  readonly state: 'created' | 'running' | 'paused' | 'ended';
  /** KVM's multiprocessing state, when the registers were asked for. */
  readonly activity?: 'running' | 'halted' | 'waiting for SIPI' | 'uninitialised';
  readonly registers?: Record<string, string>;
  /** Exits by KVM reason. */
  readonly exits: Record<string, number>;
  /** Exits that the vCPU thread served itself, by register. */
  readonly local: Record<string, number>;
  readonly forwarded: number;
  /** Forwarded exits for which the vCPU thread slept. */
  readonly slept: number;
  readonly kicks: number;
}

export interface CountersReport {
  readonly vcpus: readonly VcpuReport[];
  readonly regions: readonly {
    readonly space: 'pio' | 'mmio';
    readonly name: string;
    readonly base: number;
    readonly size: number;
    readonly reads: number;
    readonly writes: number;
  }[];
  /** Accesses that no device answered. */
  readonly unclaimed: { readonly reads: number; readonly writes: number };
  /** Bytes that KVM gathered without an exit, and how often they were taken. */
  readonly coalesced: { readonly writes: number; readonly drains: number };
  /** All exits to user space. */
  readonly total: number;
  /** Wake-ups of the machine thread. */
  readonly wakeups: number;
  readonly host: HostReport;
}

/** What a machine takes of its host. */
export interface HostReport {
  /** KVM's: slots with memory in them, interrupt routes, and descriptors that are tied to addresses and interrupts. */
  readonly memorySlots: number;
  readonly routes: number;
  readonly ioeventfds: number;
  readonly irqfds: number;
  /** Of the engine's process, whatever else is in it: open descriptors and threads. */
  readonly descriptors: number;
  readonly threads: number;
  /** Bytes in use of the machine thread's JavaScript heap. */
  readonly heap: number;
}

/** A virtqueue as its device sees it. Addresses are guest-physical. */
export interface QueueReport {
  readonly index: number;
  readonly size: number;
  readonly enabled: boolean;
  readonly descriptors: number;
  /** Available ring, or the driver's event area of a packed queue. */
  readonly driver: number;
  /** Used ring, or the device's event area. */
  readonly device: number;
  /** Where the device goes on to read and to write: indices of a split ring; of a packed one with the wrap bit. */
  readonly available?: number;
  readonly used?: number;
  readonly inFlight: number;
}

export interface VirtioReport {
  readonly name: string;
  /** Device ID (virtio 1.2, section 5). */
  readonly type: number;
  readonly status: number;
  /** 64 bits, hexadecimal. */
  readonly offered: string;
  readonly negotiated: string;
  readonly packed: boolean;
  readonly queues: readonly QueueReport[];
}

/** A PCI function: its configuration space as it is now, and what stands behind it. */
export interface PciFunctionReport {
  readonly name: string;
  /** `00:1c.0`, with the bus as it is numbered now. */
  readonly address: string;
  /** Name of the bridge above; undefined on the root bus. */
  readonly bridge?: string;
  /** Base64 of 4096 bytes. */
  readonly config: string;
  readonly bars: readonly {
    readonly index: number;
    readonly kind: 'io' | 'memory32' | 'memory64';
    readonly size: number;
    /** Where it decodes; undefined while it does not. */
    readonly base?: number;
  }[];
  readonly msix?: readonly {
    readonly vector: number;
    readonly address: number;
    readonly data: number;
    readonly masked: boolean;
    readonly pending: boolean;
  }[];
  readonly virtio?: VirtioReport;
}

export interface DevicesReport {
  /** Bridges before what is behind them; empty on a machine without PCI. */
  readonly pci: readonly PciFunctionReport[];
  /** Virtio devices in memory, of a machine without PCI. */
  readonly mmio: readonly (VirtioReport & {
    readonly base: number;
    /** Pin of the I/O APIC. */
    readonly gsi: number;
  })[];
}

export interface DiskOperationReport {
  readonly requests: number;
  readonly failed: number;
  readonly bytes: number;
  readonly totalUs: number;
  /** Requests by latency, for each bound of `DiskReport.latencyBoundsUs` and above the last. */
  readonly latency: readonly number[];
}

/** What a disk did so far. */
export interface DiskReport {
  readonly name: string;
  readonly file: string;
  readonly format: 'raw' | 'qcow2';
  /** Nobody said the format: it was told by the first bytes. */
  readonly probed: boolean;
  readonly readonly: boolean;
  /** Bytes that the guest sees. */
  readonly size: number;
  readonly throttle: ThrottleInput;
  /** Requests that wait for their turn. */
  readonly throttled: number;
  readonly latencyBoundsUs: readonly number[];
  readonly operations: Readonly<Record<'read' | 'write' | 'flush' | 'discard' | 'writeZeroes', DiskOperationReport>>;
}

export interface NetDirectionReport {
  readonly packets: number;
  readonly bytes: number;
  /** Packets for which there was no room, or no cable. */
  readonly dropped: number;
  /** Packets that were none, were too long for whoever was to have them, or that the host refused. */
  readonly errors: number;
  /** Packets that wait at a limit now: one stays in the guest's queue, or with the back end. */
  readonly throttled: boolean;
  /** Packets that had to wait here, at a limit or for room, and microseconds of all of them together. */
  readonly waited: number;
  readonly totalWaitUs: number;
  /** Packets by how long they waited, for each bound of `NetReport.waitBoundsUs` and above the last. */
  readonly wait: readonly number[];
}

/** What a network card is plugged into, and what it did so far. `rx` is what the guest receives. */
export interface NetReport {
  readonly name: string;
  readonly mac: string;
  /** Whether the cable is in. */
  readonly link: boolean;
  readonly type: 'user' | 'tap';
  readonly queues: number;
  /** tap: its name on the host. */
  readonly ifname?: string;
  /** user: its network, where it was said, and how far it reaches. */
  readonly net?: string;
  readonly hostname?: string;
  readonly restrict?: boolean;
  readonly hostForwards: readonly HostForward[];
  readonly throttle: NetThrottleInput;
  readonly waitBoundsUs: readonly number[];
  readonly rx: NetDirectionReport;
  readonly tx: NetDirectionReport;
}

/** A range of the guest's RAM as the host has it. Sizes in bytes. */
export interface MemoryRangeReport {
  /** Id of the DIMM, NVDIMM, virtio-mem or virtio-pmem device; undefined for RAM that was there at boot. */
  readonly dimm?: string;
  /** Guest-physical. */
  readonly address: number;
  readonly size: number;
  /** What of it the host has in memory. */
  readonly resident: number;
  /** What of that is in huge pages. */
  readonly huge: number;
}

/** What the guest's processors wrote to in a time. */
export interface DirtyRateReport {
  /** How long was looked at. */
  readonly milliseconds: number;
  /** By address. `dirty` is in bytes, in whole pages that were written to once or more often. */
  readonly ranges: readonly (Pick<MemoryRangeReport, 'dimm' | 'address' | 'size'> & { readonly dirty: number })[];
}

/** Sizes in bytes. */
export interface BalloonReport {
  /** What the guest was asked to put into the balloon. */
  readonly target: number;
  /** What is in it. */
  readonly actual: number;
  /** What the guest said last of its memory; asked for anew by this call. */
  readonly statistics: Readonly<Record<string, number>>;
}

/** One console's bytes. The reader gets every byte in order, or is told how many were lost. */
export interface ConsoleStream {
  readonly name: string;
  /** Takes what there is room for and gives how much; `onWritable` follows a short write. */
  write(bytes: Uint8Array): number;
  /** Output as it comes. Setting it starts the flow; bytes before that wait in the ring. */
  onData: ((bytes: Uint8Array) => void) | undefined;
  /** Bytes that found no reader in time, since the last call. */
  onLost: ((count: number) => void) | undefined;
  onWritable: (() => void) | undefined;
}

export interface MachineClient {
  readonly description: MachineDescription;
  readonly state: MachineState;
  /** Set once the machine has ended. */
  readonly end: EndState | undefined;
  start(): Promise<void>;
  pause(): Promise<void>;
  resume(): Promise<void>;
  /** Hard reset, as by the button. */
  reset(): Promise<void>;
  /** Presses the ACPI power button. */
  powerButton(): Promise<void>;
  /** Sends an NMI to every vCPU. */
  nmi(): Promise<void>;
  counters(): Promise<CountersReport>;
  /** Stops each vCPU for an instant and reads its registers. */
  inspect(): Promise<VcpuReport[]>;
  /** Every PCI function and virtio device, to look inside. */
  devices(): Promise<DevicesReport>;
  /** Stops the vCPUs for an instant and reads the interrupt controllers. */
  interrupts(): Promise<InterruptReport>;
  /** Guest-physical memory. @throws NemuError `ADDRESS` unless the whole range is RAM. */
  readMemory(address: number, length: number): Promise<Uint8Array>;
  /** Writes guest-physical memory. @throws NemuError `ADDRESS` unless the whole range is RAM; nothing is written then. */
  writeMemory(address: number, bytes: Uint8Array): Promise<void>;
  /** All registers of a vCPU by gdb's names, also of one that runs. @throws NemuError VCPU */
  readRegisters(vcpu: number): Promise<RegisterValues>;
  /** @throws NemuError VCPU; REGISTER for one that is none, cannot be written, or has a value that the processor refuses. */
  writeRegisters(vcpu: number, values: RegisterValues): Promise<void>;
  /** There can be one debugger; a connection that ends lets go of what it attached. @throws NemuError DEBUGGER */
  attachDebugger(): Promise<void>;
  /** Takes all breakpoints away. A machine that ran when the debugger came, or by it, goes on. */
  detachDebugger(): Promise<void>;
  /**
   * Sets all breakpoints there are to be. Memory is read as if those in software were not there; they go
   * with a reset of the machine. One that is reached stops the machine: `debug`.
   * @throws NemuError BREAKPOINT, ADDRESS; then all is as it was. DEBUGGER when none is attached.
   */
  setBreakpoints(breakpoints: readonly BreakpointInput[]): Promise<void>;
  /**
   * Lets a machine go on that stands still or has not started: all vCPUs, or some; some for one instruction, after
   * which the machine stops again. @throws NemuError VCPU, STATE, DEBUGGER.
   */
  debugRun(how?: DebugRunInput): Promise<void>;
  /** The guest's RAM as the host has it, by address. */
  memoryMap(): Promise<MemoryRangeReport[]>;
  /**
   * Watches for so long which pages the guest's processors write to. The first write to each page leaves the guest
   * meanwhile. What devices write is not among it.
   * @throws NemuError DIRTY_RATE for a time that is none.
   */
  dirtyRate(milliseconds: number): Promise<DirtyRateReport>;
  /** What each disk did so far. */
  disks(): Promise<DiskReport[]>;
  /** Sets a disk's limits, all of them. @throws NemuError DISK for a name that is none, DESCRIPTION for no limits. */
  throttle(disk: string, limits: ThrottleInput): Promise<void>;
  /**
   * Changes a disk under the running guest, which is told of its new capacity: `{action: 'resize', size: '2G'}`,
   * `{action: 'medium', file: 'other.img'}`. A size below the present one needs `shrink: true`.
   * @returns the disk as it is then.
   * @throws NemuError DISK or CHANGE with the reason; then nothing was touched.
   */
  changeDisk(disk: string, change: DiskChangeInput): Promise<DiskReport>;
  /** What each network card is plugged into, and what it did so far. */
  nets(): Promise<NetReport[]>;
  /**
   * Changes a network card under the running guest: `{action: 'throttle', limits: {…}}`, `{action: 'link', up: false}`,
   * `{action: 'backend', backend: {type: 'tap'}}`, `{action: 'forward', add: […], remove: […]}`.
   * @returns the card as it is then.
   * @throws NemuError NET or CHANGE with the reason; then nothing was touched.
   */
  changeNet(net: string, change: NetChangeInput): Promise<NetReport>;
  /**
   * The balloon, with a target: asks the guest to put so many bytes into it.
   * @throws NemuError BALLOON for a machine without one.
   */
  balloon(target?: number): Promise<BalloonReport>;
  /**
   * Looks for bytes in a range of guest-physical memory, 64 MiB at most; what of it is no RAM holds nothing.
   * @returns where they begin, at most `most` places.
   */
  searchMemory(address: number, length: number, bytes: Uint8Array, most: number): Promise<number[]>;
  /**
   * Adds a device to the running machine: `{kind: 'cpu'}`, `{kind: 'memory', size: '1G'}`,
   * `{kind: 'pci', type: 'virtio-blk', file: 'a.qcow2'}`. A console or port can be reached at once.
   * @returns the request, once the guest has the device online; its stages come as events.
   * @throws NemuError that names the limit in the way (then nothing was touched), `REFUSED` with the guest's reason,
   * or `GUEST_TIMEOUT` with what the guest did last.
   */
  plug(device: PlugInput, options?: PlugOptions): Promise<LiveRequest>;
  /**
   * Takes a device out, by its id, when the guest lets it go. A device that was refused goes on working. With `force`
   * a device of PCI goes at once: the guest loses what it had not yet written to it, and what uses it fails.
   * @throws as `plug` does.
   */
  unplug(id: string, options?: UnplugOptions): Promise<LiveRequest>;
  /**
   * Asks the guest to have so many bytes of a virtio-mem device plugged, a multiple of its block size.
   * @returns the request, once it is so; how far the guest is comes as events (`memory-size`), and in `plugged`.
   * @throws NemuError NO_DEVICE or MEMORY_SIZE (then nothing was touched), or `GUEST_TIMEOUT` with what was reached: the
   * size stays asked for.
   */
  resizeMemory(id: string, size: number | string, options?: PlugOptions): Promise<LiveRequest>;
  /** Requests so far; the oldest are forgotten once they have settled. */
  requests(): Promise<LiveRequest[]>;
  /** What there is of what can come and go, and how much room. */
  plugged(): Promise<PluggedReport>;
  /**
   * The note by which the guest kernel describes its own memory (VMCOREINFO, as in a crash dump), once it has
   * said where that is.
   */
  vmcoreinfo(): Promise<Uint8Array | undefined>;
  /**
   * A console's terminal has another size now.
   * @returns whether the guest is told: virtio consoles tell it, serial ports have no way to.
   */
  resizeConsole(name: string, rows: number, columns: number): Promise<boolean>;
  console(name: string): ConsoleStream;
  readonly consoles: readonly string[];
  /** @returns the function that takes the listener off. */
  onEvent(listener: (event: MachineEvent) => void): () => void;
  /** Tells all who listen to this machine, in an event of type `action`, what somebody has asked of it. */
  note(text: string): void;
  /** Resolves when the machine has ended, by itself or not. */
  ended(): Promise<EndState>;
  /** Ends the machine at once and frees everything it has. Can be called in any state, more than once. */
  close(): Promise<void>;
}
