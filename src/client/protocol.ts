/**
 * What a MachineClient says over a byte stream to an engine elsewhere. Control messages are JSON on channel
 * 0; console bytes travel raw, each direction with a window, so that a stalled reader stops its own console
 * and nothing else.
 */
import type { MachineInput } from './description.ts';
import type { EndState, MachineEvent, MachineState } from './machine_client.ts';

export const FRAME_CONTROL = 1;
/** Payload: bytes of the console whose channel it is. */
export const FRAME_BYTES = 2;
/** Payload: u32, bytes that the sender of this frame has taken. */
export const FRAME_CREDIT = 3;
/** Payload: u32, bytes of this console's output that found no reader in time. */
export const FRAME_LOST = 4;

/** Bytes that may be under way without a credit, for each console and direction. */
export const WINDOW = 256 * 1024;

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
  'readMemory',
  'searchMemory',
  'balloon',
  'disks',
  'memoryMap',
  'throttle',
  'changeDisk',
  'nets',
  'changeNet',
  'plug',
  'unplug',
  'requests',
  'plugged',
  'vmcoreinfo',
  'close',
] as const;
export type RemoteMethod = (typeof REMOTE_METHODS)[number];

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
}

export type ToEngine =
  | { readonly id: number; readonly method: 'create'; readonly parameters: CreateParameters }
  /** To an engine that serves one machine, which is another's. Its consoles are not handed out. */
  | { readonly id: number; readonly method: 'attach' }
  | { readonly id: number; readonly method: RemoteMethod; readonly machine: number; readonly parameters: unknown[] };

export type FromEngine =
  | { readonly id: number; readonly result: unknown }
  | { readonly id: number; readonly error: { code: string; message: string; hint?: string } }
  | { readonly machine: number; readonly event: MachineEvent }
  | { readonly machine: number; readonly state: MachineState; readonly end?: EndState }
  /** A console came with a device, and is on this channel from now on; without a channel, it went with one. */
  | { readonly machine: number; readonly console: string; readonly channel?: number };

/** JSON has no bytes: memory travels as base64 in an object of this shape. */
export interface EncodedBytes {
  readonly base64: string;
}
