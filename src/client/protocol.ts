/**
 * What a MachineClient says over a byte stream to an engine elsewhere. Control messages are JSON on channel
 * 0; console bytes travel raw, each direction with a window, so that a stalled reader stops its own console
 * and nothing else.
 */
import { ACTION_METHODS, type ActionsChange, type ActionsReport } from './actions.ts';
import type { MachineInput } from './description.ts';
import { MAX_PAYLOAD } from './frames.ts';
import type { GuestEvent, GuestPhase } from './guest_session.ts';
import type { EndState, MachineEvent, MachineState } from './machine_client.ts';
import type { ConsoleRole } from './shared_console.ts';

export const FRAME_CONTROL = 1;
/** Payload: bytes of the console whose channel it is. */
export const FRAME_BYTES = 2;
/** Payload: u32, bytes that the sender of this frame has taken. */
export const FRAME_CREDIT = 3;
/** Payload: u32, bytes of this console's output that found no reader in time. */
export const FRAME_LOST = 4;

/** Payload: what draws a shared console's screen; its bytes go on from there. */
export const FRAME_SCREEN = 5;
/** Payload: standard error of a command in the guest, whose channel it is; FRAME_BYTES are its other two streams. */
export const FRAME_ERROR = 6;
/** The end of a command's standard input. */
export const FRAME_END = 7;

/** Bytes that may be under way without a credit, for each console and command, and direction. */
export const WINDOW = 256 * 1024;

/** Bytes that a peer may leave unread before it is let go: its consoles have windows, so that the rest alone piles up. */
export const MAX_UNREAD = 16 << 20;
/** Calls of a peer that are under way before what it sends further waits in its socket. */
export const MAX_CALLS = 256;

/** Bytes of guest memory in one message: with their encoding they fit into a frame. */
export const MAX_READ = MAX_PAYLOAD / 2;

/** Methods of a machine that go over the wire as they are. */
export const REMOTE_METHODS = [
  'start',
  'pause',
  'resume',
  'reset',
  'powerButton',
  'nmi',
  'counters',
  'inspect',
  'devices',
  'interrupts',
  'readMemory',
  'searchMemory',
  'balloon',
  'disks',
  'memoryMap',
  'dirtyRate',
  'throttle',
  'changeDisk',
  'nets',
  'changeNet',
  'plug',
  'unplug',
  'resizeMemory',
  'requests',
  'plugged',
  'vmcoreinfo',
  'writeMemory',
  'readRegisters',
  'writeRegisters',
  'attachDebugger',
  'detachDebugger',
  'setBreakpoints',
  'debugRun',
  'resizeConsole',
  'close',
] as const;
export type RemoteMethod = (typeof REMOTE_METHODS)[number];

/** Calls to what a shared machine has beside the machine: its consoles, its guest's agent, what happened so far. */
export const SHARED_METHODS = [
  'openConsole',
  'takeConsole',
  'redrawConsole',
  'sizeConsole',
  'closeConsole',
  'consoles',
  'searchConsole',
  'guestRun',
  'guestExec',
  'guestTerminalSize',
  'guestStop',
  'guestSize',
  'guestSignal',
  'history',
  ...ACTION_METHODS,
] as const;
export type SharedMethod = (typeof SHARED_METHODS)[number];

/** Bytes that one call looks through: the machine's thread does nothing else meanwhile. */
export const MAX_SEARCH = 64 << 20;

export interface CreateParameters {
  readonly description: MachineInput;
}

export interface CreateResult {
  readonly machine: number;
  readonly description: unknown;
  readonly consoles: readonly { readonly name: string; readonly channel: number }[];
  /** Of a machine that was there before: what it came to. */
  readonly state?: MachineState;
  readonly end?: EndState;
  /** Consoles that are opened one by one, by name. */
  readonly shared?: readonly string[];
  /** What the guest's agent has said, where there is one. */
  readonly guest?: { readonly phases: readonly GuestPhase[]; readonly status?: number };
  /** What its users did. */
  readonly actions?: ActionsReport;
}

export interface OpenedConsole {
  readonly channel: number;
  readonly role: ConsoleRole;
}

/** How a command in the guest ended, on its channel. */
export type GuestEnd =
  | { readonly status: number }
  | { readonly error: { readonly code: string; readonly message: string; readonly hint?: string } };

export type ToEngine =
  | { readonly id: number; readonly method: 'create'; readonly parameters: CreateParameters }
  /** To an engine that serves one machine, which is another's. */
  | { readonly id: number; readonly method: 'attach' }
  | { readonly id: number; readonly method: SharedMethod; readonly parameters: unknown[] }
  | { readonly id: number; readonly method: RemoteMethod; readonly machine: number; readonly parameters: unknown[] };

export type FromEngine =
  | { readonly id: number; readonly result: unknown }
  | { readonly id: number; readonly error: { code: string; message: string; hint?: string } }
  | { readonly channel: number; readonly role: ConsoleRole; readonly why: string }
  /** The console on this channel has gone: nothing comes behind this. */
  | { readonly channel: number; readonly closed: string }
  | { readonly channel: number; readonly ended: GuestEnd }
  | { readonly machine: number; readonly guest: GuestEvent }
  | { readonly machine: number; readonly event: MachineEvent }
  | { readonly machine: number; readonly actions: ActionsChange }
  | { readonly machine: number; readonly state: MachineState; readonly end?: EndState }
  /** A console came with a device, and is on this channel from now on; without a channel, it went with one. */
  | { readonly machine: number; readonly console: string; readonly channel?: number };

/** JSON has no bytes: memory travels as base64 in an object of this shape. */
export interface EncodedBytes {
  readonly base64: string;
}
