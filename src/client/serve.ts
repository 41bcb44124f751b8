import type { Duplex } from 'node:stream';
import * as z from 'zod';
import { actionsOf } from './actions.ts';
import { parseBreakpoints, parseDebugRun, parseRegisters, parseVcpu } from './debug.ts';
import type { MachineInput } from './description.ts';
import { NemuError } from './errors.ts';
import { encodeFrame, FrameDecoder, MAX_PAYLOAD } from './frames.ts';
import { doChange, isChange } from './machine_change.ts';
import type { MachineClient } from './machine_client.ts';
import { valid } from './parameters.ts';
import {
  type CreateResult,
  type EncodedBytes,
  FRAME_BYTES,
  FRAME_CONTROL,
  FRAME_CREDIT,
  type FromEngine,
  MAX_CALLS,
  MAX_READ,
  MAX_SEARCH,
  MAX_UNREAD,
  REMOTE_METHODS,
  SHARED_METHODS,
} from './protocol.ts';
import { ServedConsole } from './served_console.ts';
import { ServedShare, type Shared } from './served_share.ts';

/** Makes the machines that a peer asks for. */
export type MachineFactory = (description: MachineInput) => Promise<MachineClient>;

const messageSchema = z.discriminatedUnion('method', [
  z.object({ id: z.number().int(), method: z.literal('create'), parameters: z.object({ description: z.unknown() }) }),
  z.object({ id: z.number().int(), method: z.literal('attach') }),
  z.object({ id: z.number().int(), method: z.enum(SHARED_METHODS), parameters: z.array(z.unknown()).max(4) }),
  z.object({
    id: z.number().int(),
    method: z.enum(REMOTE_METHODS),
    machine: z.number().int(),
    parameters: z.array(z.unknown()).max(4).default([]),
  }),
]);
const readMemorySchema = z.tuple([z.number().int().nonnegative(), z.number().int().positive().max(MAX_READ)]);
const writeMemorySchema = z.tuple([
  z.number().int().nonnegative(),
  z.object({
    base64: z
      .base64()
      .min(1)
      .max(Math.ceil(MAX_READ / 3) * 4),
  }),
]);

const resizeConsoleSchema = z.tuple([z.string().max(64), z.number(), z.number()]);
const dirtyRateSchema = z.tuple([z.number()]);
const searchMemorySchema = z.tuple([
  z.number().int().nonnegative(),
  z.number().int().positive().max(MAX_SEARCH),
  z.object({
    base64: z
      .string()
      .min(1)
      .max(MAX_PAYLOAD / 4),
  }),
  z.number().int().positive().max(1000),
]);

const encodeBytes = (bytes: Uint8Array): EncodedBytes => ({ base64: Buffer.from(bytes).toString('base64') });

/**
 * Serves machines over a byte stream until it ends; the machines that were made through it end with it.
 * The peer is untrusted: what does not parse is answered with an error, and a broken frame ends the stream.
 * @returns a promise that resolves when the stream and its machines have ended.
 */
export async function serveMachines(stream: Duplex, create: MachineFactory): Promise<void> {
  const session = new Session(stream, create, undefined);
  await session.ended;
}

/**
 * Serves a machine that is there to one more user until the stream ends. The machine goes on then. The peer is
 * untrusted in what it says, and may do with the machine all that its owner may.
 * @param shared its consoles, its guest's agent and its history, as far as they are handed out.
 * @returns a promise that resolves when the stream has ended.
 */
export async function serveMachine(stream: Duplex, machine: MachineClient, shared: Shared = {}): Promise<void> {
  const session = new Session(stream, undefined, machine, shared);
  await session.ended;
}

class Session {
  readonly ended: Promise<void>;
  readonly #stream: Duplex;
  readonly #create: MachineFactory | undefined;
  /** Another's machine, that may be attached to. */
  readonly #shared: MachineClient | undefined;
  readonly #unlisten: (() => void)[] = [];
  readonly #machines = new Map<number, MachineClient>();
  readonly #consoles = new Map<number, ServedConsole>();
  /** Of consoles, by name: a connection that makes machines has one with consoles. */
  readonly #channels = new Map<string, number>();
  /** Machines that this peer's debugger is attached to. */
  readonly #debugged = new Set<MachineClient>();
  #nextMachine = 1;
  readonly #share: ServedShare;
  #nextChannel = 16;
  #calls = 0;

  constructor(
    stream: Duplex,
    create: MachineFactory | undefined,
    shared: MachineClient | undefined,
    parts: Shared = {},
  ) {
    this.#stream = stream;
    this.#create = create;
    this.#shared = shared;
    this.#share = new ServedShare(
      stream,
      parts,
      shared && actionsOf(shared),
      (message) => this.#send(message),
      () => this.#nextChannel++,
    );
    const decoder = new FrameDecoder();
    this.ended = new Promise((resolve) => {
      const end = async () => {
        for (const unlisten of this.#unlisten) unlisten();
        this.#share.close();
        // A machine that has closed meanwhile has nothing to let go of.
        for (const machine of this.#debugged) await this.#letGo(machine).catch(() => {});
        const made = [...this.#machines.values()].filter((machine) => machine !== this.#shared);
        await Promise.all(made.map((machine) => machine.close()));
        resolve();
      };
      stream.once('close', end);
      stream.on('error', () => stream.destroy());
      stream.once('end', () => stream.destroy());
      stream.on('data', (bytes: Buffer) => {
        try {
          for (const frame of decoder.push(bytes)) this.#frame(frame.type, frame.channel, frame.payload);
        } catch (error) {
          stream.destroy(error as Error);
        }
      });
    });
  }

  #send(message: FromEngine): void {
    if (this.#stream.destroyed) return;
    this.#stream.write(encodeFrame(FRAME_CONTROL, 0, Buffer.from(JSON.stringify(message))));
    if (this.#stream.writableLength > MAX_UNREAD) this.#stream.destroy();
  }

  #frame(type: number, channel: number, payload: Uint8Array): void {
    if (type === FRAME_CONTROL) void this.#counted(payload);
    else if (this.#share.frame(type, channel, payload)) return;
    else if (type === FRAME_BYTES) this.#consoles.get(channel)?.input(payload);
    else if (type === FRAME_CREDIT && payload.length === 4) {
      this.#consoles.get(channel)?.credit(Buffer.from(payload).readUInt32LE(0));
    }
  }

  /** A peer that calls faster than is answered waits. */
  async #counted(payload: Uint8Array): Promise<void> {
    if (++this.#calls >= MAX_CALLS) this.#stream.pause();
    await this.#control(payload);
    if (--this.#calls < MAX_CALLS / 2 && this.#stream.isPaused()) this.#stream.resume();
  }

  async #control(payload: Uint8Array): Promise<void> {
    let id = -1;
    try {
      const json: unknown = JSON.parse(Buffer.from(payload).toString());
      id = Number((json as { id?: unknown } | null)?.id ?? -1);
      const message = valid(messageSchema, json);
      if (message.method === 'create') {
        this.#send({ id, result: await this.#createMachine(message.parameters.description as MachineInput) });
        return;
      }
      if (message.method === 'attach') {
        this.#send({ id, result: this.#attach() });
        return;
      }
      if (!('machine' in message)) {
        this.#send({ id, result: await this.#share.call(message.method, message.parameters) });
        return;
      }
      const machine = this.#machines.get(message.machine);
      if (!machine) throw this.#unknown(message.machine, message.method);
      this.#send({ id, result: await this.#call(machine, message.machine, message.method, message.parameters) });
    } catch (error) {
      const { code, message, hint } =
        error instanceof NemuError
          ? error
          : { code: 'ENGINE', message: String((error as Error).message), hint: undefined };
      this.#send({ id, error: { code, message, ...(hint && { hint }) } });
    }
  }

  async #call(
    machine: MachineClient,
    number: number,
    method: (typeof REMOTE_METHODS)[number],
    parameters: unknown[],
  ): Promise<unknown> {
    if (isChange(method)) return (await doChange(machine, { method, parameters })) ?? null;
    if (method === 'readMemory') {
      const [address, length] = valid(readMemorySchema, parameters, ['address', 'length']);
      return encodeBytes(await machine.readMemory(address, length));
    }
    if (method === 'writeMemory') {
      const [address, { base64 }] = valid(writeMemorySchema, parameters, ['address', 'bytes']);
      await machine.writeMemory(address, Buffer.from(base64, 'base64'));
      return null;
    }
    if (method === 'readRegisters') return machine.readRegisters(parseVcpu(parameters[0]));
    if (method === 'writeRegisters') {
      await machine.writeRegisters(parseVcpu(parameters[0]), parseRegisters(parameters[1]));
      return null;
    }
    if (method === 'setBreakpoints') {
      await machine.setBreakpoints(parseBreakpoints(parameters[0]));
      return null;
    }
    if (method === 'debugRun') {
      await machine.debugRun(parseDebugRun(parameters[0] ?? {}));
      return null;
    }
    if (method === 'attachDebugger') {
      await machine.attachDebugger();
      this.#debugged.add(machine);
      // It may have left while it was waited for.
      if (this.#stream.destroyed) await this.#letGo(machine);
      return null;
    }
    if (method === 'detachDebugger') {
      await this.#letGo(machine);
      return null;
    }
    if (method === 'resizeConsole') return machine.resizeConsole(...valid(resizeConsoleSchema, parameters));
    if (method === 'dirtyRate') return machine.dirtyRate(...valid(dirtyRateSchema, parameters, ['milliseconds']));
    if (method === 'searchMemory') {
      const [address, length, { base64 }, most] = valid(searchMemorySchema, parameters, [
        'address',
        'length',
        'bytes',
        'most',
      ]);
      return machine.searchMemory(address, length, Buffer.from(base64, 'base64'), most);
    }
    const result = await machine[method]();
    if (method === 'close') this.#machines.delete(number);
    if (result instanceof Uint8Array) return encodeBytes(result);
    return result ?? null;
  }

  /** Ends what this peer's debugger did, and nobody else's. */
  async #letGo(machine: MachineClient): Promise<void> {
    if (this.#debugged.delete(machine)) await machine.detachDebugger();
  }

  #attach(): CreateResult {
    const machine = this.#shared;
    if (!machine) throw new NemuError('PROTOCOL', 'This connection makes machines; there is none to attach to.');
    const { description, state, end } = machine;
    const number = this.#add(machine);
    this.#share.listen(number);
    return { machine: number, description, consoles: [], state, ...(end && { end }), ...this.#share.offer() };
  }

  async #createMachine(description: MachineInput): Promise<CreateResult> {
    if (!this.#create) throw new NemuError('PROTOCOL', 'This connection is for the machine that there is.');
    const machine = await this.#create(description);
    if (this.#stream.destroyed) {
      await machine.close();
      throw new NemuError('PROTOCOL', 'The connection ended while the machine was made.');
    }
    const number = this.#add(machine);
    const consoles = machine.consoles.map((name) => ({ name, channel: this.#openConsole(machine, name) }));
    return { machine: number, description: machine.description, consoles };
  }

  /** @returns its channel. */
  #openConsole(machine: MachineClient, name: string): number {
    const channel = this.#nextChannel++;
    this.#consoles.set(channel, new ServedConsole(this.#stream, channel, machine.console(name)));
    this.#channels.set(name, channel);
    return channel;
  }

  /** Consoles come and go with devices. They are their owner's. */
  #consoleChanged(machine: MachineClient, number: number, name: string, added: boolean): void {
    if (machine === this.#shared) return;
    if (added) {
      this.#send({ machine: number, console: name, channel: this.#openConsole(machine, name) });
      return;
    }
    const channel = this.#channels.get(name);
    this.#channels.delete(name);
    if (channel !== undefined) this.#consoles.delete(channel);
    this.#send({ machine: number, console: name });
  }

  /** What a call of a machine that is not there fails with. */
  #unknown(number: number, method: string): NemuError {
    const wasHere = Number.isInteger(number) && number >= 1 && number < this.#nextMachine;
    return wasHere
      ? new NemuError('STATE', `Cannot ${method} a machine that is closed.`)
      : new NemuError('PROTOCOL', `There is no machine ${number} on this connection.`);
  }

  /** @returns the number by which the peer speaks of the machine. */
  #add(machine: MachineClient): number {
    const number = this.#nextMachine++;
    this.#machines.set(number, machine);
    const unlisten = machine.onEvent((event) => {
      if (event.type === 'console') this.#consoleChanged(machine, number, event.name, event.change === 'added');
      if (event.type === 'state') {
        this.#send({ machine: number, state: event.state, ...(machine.end && { end: machine.end }) });
      } else this.#send({ machine: number, event });
    });
    this.#unlisten.push(unlisten);
    return number;
  }
}
