/** What the main thread and a machine thread say to each other. Plain data, typed in both directions. */

import type { Breakpoint, DebugRun, RegisterValues } from '../client/debug.ts';
import type { MachineDescription } from '../client/description.ts';
import type { InterruptReport } from '../client/interrupts.ts';
import type { LiveDevice, LiveRequest, PluggedReport, PlugRequest } from '../client/live.ts';
import type { DiskChange, NetChange } from '../client/live_change.ts';
import type {
  BalloonReport,
  CountersReport,
  DevicesReport,
  DiskReport,
  EndState,
  MachineEvent,
  MachineState,
  NetReport,
  VcpuReport,
} from '../client/machine_client.ts';
import type { MappedPmem } from './attach_pmem.ts';
import type { DirtySlot } from './dirty_pages.ts';
import type { BreakInstruction } from './guest_debug.ts';
import type { HostPart } from './hotplug/kind.ts';
import type { BootNvdimm } from './hotplug/nvdimms.ts';
import type { MemoryHandle } from './memory.ts';
import type { SerialRings } from './serial_channel.ts';
import type { ThrottleLimits } from './throttle.ts';

export interface MachineThreadData {
  readonly role: 'machine';
  readonly description: MachineDescription;
  readonly shared: SharedArrayBuffer;
  /** See config_pages.ts; a machine without PCI has none. */
  readonly configPages: SharedArrayBuffer | undefined;
  readonly wakeFd: number;
  readonly memory: MemoryHandle;
  /** NVDIMMs of the start; their memory is mapped. */
  readonly nvdimms: readonly BootNvdimm[];
  /** Memory of virtio-pmems; it is mapped. */
  readonly pmems: readonly MappedPmem[];
  readonly serial: Readonly<Record<string, SerialRings>>;
  readonly postMortem: string | undefined;
  /** See MachineOptions. */
  readonly oneProcessor: boolean;
  readonly breakInstruction: BreakInstruction;
  /** Makes the thread throw when this call arrives, or hang (`hang CALL`): for the tests of what a fault leaves behind. */
  readonly faultAt?: string;
}

/** Calls that the machine thread answers, by name: parameter and result. */
export interface MachineCalls {
  start: { parameter: undefined; result: undefined };
  pause: { parameter: undefined; result: undefined };
  resume: { parameter: undefined; result: undefined };
  reset: { parameter: undefined; result: undefined };
  powerButton: { parameter: undefined; result: undefined };
  nmi: { parameter: undefined; result: undefined };
  quit: { parameter: undefined; result: undefined };
  counters: { parameter: undefined; result: CountersReport };
  devices: { parameter: undefined; result: DevicesReport };
  interrupts: { parameter: undefined; result: InterruptReport };
  inspect: { parameter: undefined; result: VcpuReport[] };
  disks: { parameter: undefined; result: DiskReport[] };
  throttle: { parameter: { disk: string; limits: ThrottleLimits }; result: undefined };
  changeDisk: { parameter: { disk: string; change: DiskChange }; result: DiskReport };
  nets: { parameter: undefined; result: NetReport[] };
  changeNet: { parameter: { net: string; change: NetChange }; result: NetReport };
  resizeConsole: { parameter: { name: string; rows: number; columns: number }; result: boolean };
  balloon: { parameter: { target: number | undefined }; result: BalloonReport };
  searchMemory: {
    parameter: { address: number; length: number; bytes: Uint8Array; most: number };
    result: number[];
  };
  /** Begins to note what is written to, or says what was, and ends it. */
  dirtyPages: { parameter: { on: boolean }; result: DirtySlot[] };
  vmcoreinfo: { parameter: undefined; result: Uint8Array | undefined };
  readMemory: { parameter: { address: number; length: number }; result: Uint8Array };
  writeMemory: { parameter: { address: number; bytes: Uint8Array }; result: undefined };
  readRegisters: { parameter: { vcpu: number }; result: Record<string, string> };
  writeRegisters: { parameter: { vcpu: number; values: RegisterValues }; result: undefined };
  attachDebugger: { parameter: undefined; result: undefined };
  detachDebugger: { parameter: undefined; result: undefined };
  setBreakpoints: { parameter: { breakpoints: readonly Breakpoint[] }; result: undefined };
  debugRun: { parameter: DebugRun; result: undefined };
  /** Takes a device's place: the main thread makes what it needs and calls `prepared`. */
  plug: { parameter: { request: PlugRequest; timeoutMs: number | undefined }; result: LiveRequest };
  prepared: { parameter: { id: number; error?: string } & HostPart; result: undefined };
  unplug: { parameter: { id: string; timeoutMs: number | undefined; force: boolean }; result: LiveRequest };
  resizeMemory: { parameter: { id: string; size: number; timeoutMs: number | undefined }; result: LiveRequest };
  /** The main thread has back what it made for a device: the answer to the message `release`. */
  released: { parameter: { id: number }; result: undefined };
  requests: { parameter: undefined; result: LiveRequest[] };
  plugged: { parameter: undefined; result: PluggedReport };
}
export type CallName = keyof MachineCalls;

export interface ErrorData {
  readonly code: string;
  readonly message: string;
  readonly hint?: string;
  readonly stack?: string;
}

export type ToMachine = { readonly id: number; readonly call: CallName; readonly parameter: unknown };

export type FromMachine =
  | { readonly type: 'loaded' }
  | { readonly type: 'ready' }
  | { readonly type: 'failed'; readonly error: ErrorData }
  | { readonly type: 'reply'; readonly id: number; readonly result: unknown }
  | { readonly type: 'error'; readonly id: number; readonly error: ErrorData }
  | { readonly type: 'event'; readonly event: MachineEvent }
  | { readonly type: 'state'; readonly state: MachineState; readonly end?: EndState }
  /** A device of request `id` is no longer in the guest's hands. */
  | { readonly type: 'release'; readonly id: number; readonly device: LiveDevice }
  /** Serial port `name` has bytes to take, or room to give. */
  | { readonly type: 'serial'; readonly name: string };
