/** The consoles, the guest's agent and the history of a machine, to one peer that shares it. */
import type { Duplex } from 'node:stream';
import { PassThrough } from 'node:stream';
import * as z from 'zod';
import { type Actions, actionSchema } from './actions.ts';
import { NemuError } from './errors.ts';
import type { EventHistory } from './event_history.ts';
import { encodeFrame, MAX_PAYLOAD } from './frames.ts';
import { GUEST_SIGNALS, type GuestChannel } from './guest_session.ts';
import type { TerminalSize } from './guest_terminal.ts';
import type { OutputListener } from './output_pace.ts';
import { valid } from './parameters.ts';
import {
  type CreateResult,
  FRAME_BYTES,
  FRAME_CREDIT,
  FRAME_END,
  FRAME_ERROR,
  FRAME_SCREEN,
  type FromEngine,
  type GuestEnd,
  MAX_UNREAD,
  type SharedMethod,
  WINDOW,
} from './protocol.ts';
import { ServedConsole } from './served_console.ts';
import { type ConsoleProvider, MAX_LABEL, MAX_SIDE, type SharedConsole } from './shared_console.ts';

/** What a machine has beside the machine, as far as it is handed out. */
export interface Shared {
  readonly consoles?: ConsoleProvider;
  readonly guest?: GuestChannel | undefined;
  readonly history?: EventHistory;
}

/** Consoles and commands that one peer may have open. */
const MAX_CHANNELS = 64;

const side = z.number().int().min(1).max(MAX_SIDE);
const openSchema = z.tuple([
  z.string().max(64),
  z.strictObject({
    role: z.enum(['driver', 'viewer', 'takeover']),
    label: z.string().max(MAX_LABEL).optional(),
    replay: z.boolean().optional(),
    history: z.number().int().min(0).max(100_000).optional(),
    terminal: z.boolean().optional(),
    rows: side.optional(),
    columns: side.optional(),
  }),
]);
const channelSchema = z.tuple([z.number().int()]);
const sizeSchema = z.tuple([z.number().int(), side, side]);
const script = z.string().max(MAX_PAYLOAD / 2);
const runSchema = z.tuple([script]);
const execSchema = z.tuple([script, z.strictObject({ rows: side, columns: side }).optional()]);
const searchSchema = z.tuple([z.string().max(64), z.string().min(1).max(1000), z.number().int().min(1).max(1000)]);
const guestSizeSchema = z.tuple([side, side]);
const addActionSchema = z.tuple([actionSchema]);
const signalSchema = z.tuple([z.enum(GUEST_SIGNALS)]);

interface OpenConsoleChannel {
  readonly served: ServedConsole;
  readonly console: SharedConsole;
}

interface Command {
  readonly input: PassThrough;
  readonly stop: AbortController;
  /** Bytes of its input that the peer may still send. */
  window: number;
  /** Bytes of its output that the peer has room for; what the guest had under way goes beyond. */
  outputWindow: number;
  /** While there is none: kept when there is again. */
  room: PromiseWithResolvers<void> | undefined;
  /** Told of the size of the peer's terminal. */
  resized: ((size: TerminalSize) => void) | undefined;
}

export class ServedShare {
  readonly #stream: Duplex;
  readonly #shared: Shared;
  readonly #actions: Actions | undefined;
  readonly #send: (message: FromEngine) => void;
  readonly #nextChannel: () => number;
  readonly #consoles = new Map<number, OpenConsoleChannel>();
  readonly #commands = new Map<number, Command>();
  readonly #off: (() => void)[] = [];

  /** @param actions of the machine's users; undefined for a connection that makes its machines itself. */
  constructor(
    stream: Duplex,
    shared: Shared,
    actions: Actions | undefined,
    send: (message: FromEngine) => void,
    nextChannel: () => number,
  ) {
    this.#actions = actions;
    this.#stream = stream;
    this.#shared = shared;
    this.#send = send;
    this.#nextChannel = nextChannel;
  }

  /** What a peer that attaches is told of it. */
  offer(): Pick<CreateResult, 'shared' | 'guest' | 'actions'> {
    const { consoles, guest } = this.#shared;
    const { done, undone } = this.#actions ?? {};
    return {
      ...(consoles && { shared: consoles.names }),
      ...(guest && { guest: { phases: guest.phases, ...(guest.status !== undefined && { status: guest.status }) } }),
      ...(done && undone && { actions: { done, undone } }),
    };
  }

  listen(machine: number): void {
    const off = this.#shared.guest?.onEvent((guest) => this.#send({ machine, guest }));
    if (off) this.#off.push(off);
    const unlisten = this.#actions?.onChange((actions) => this.#send({ machine, actions }));
    if (unlisten) this.#off.push(unlisten);
  }

  close(): void {
    for (const off of this.#off) off();
    for (const channel of this.#consoles.keys()) void this.#leave(channel);
    for (const { stop } of this.#commands.values()) stop.abort();
    this.#commands.clear();
  }

  /** Closes a console once the guest has what was typed there. @returns bytes of it that went nowhere. */
  async #leave(channel: number): Promise<number> {
    const { served, console } = this.#consoles.get(channel)!;
    const dropped = await served.leave();
    console.close();
    this.#consoles.delete(channel);
    return dropped;
  }

  #write(type: number, channel: number, payload: Uint8Array): void {
    if (this.#stream.destroyed) return;
    this.#stream.write(encodeFrame(type, channel, payload));
    if (this.#stream.writableLength > MAX_UNREAD) this.#stream.destroy();
  }

  /** @returns whether the channel is one of these. */
  frame(type: number, channel: number, payload: Uint8Array): boolean {
    const console = this.#consoles.get(channel);
    if (console) {
      if (type === FRAME_BYTES) console.served.input(payload);
      else if (type === FRAME_CREDIT && payload.length === 4) {
        console.served.credit(Buffer.from(payload).readUInt32LE(0));
      }
      return true;
    }
    const command = this.#commands.get(channel);
    if (!command) return false;
    if (type === FRAME_END) command.input.end();
    if (type === FRAME_CREDIT && payload.length === 4) {
      command.outputWindow = Math.min(WINDOW, command.outputWindow + Buffer.from(payload).readUInt32LE(0));
      // Not for each piece anew: to hold a command and to let it on costs the guest something.
      if (command.outputWindow >= WINDOW / 2) {
        command.room?.resolve();
        command.room = undefined;
      }
    }
    if (type !== FRAME_BYTES || command.input.writableEnded) return true;
    command.window -= payload.length;
    if (command.window < 0) {
      this.#stream.destroy(new NemuError('PROTOCOL', 'The peer sent more input than its window allows.'));
      return true;
    }
    command.input.write(payload);
    return true;
  }

  async call(method: SharedMethod, parameters: unknown[]): Promise<unknown> {
    switch (method) {
      case 'openConsole':
        return this.#open(...valid(openSchema, parameters));
      case 'takeConsole':
        this.#console(valid(channelSchema, parameters)[0]).takeOver();
        return null;
      case 'redrawConsole':
        this.#console(valid(channelSchema, parameters)[0]).redraw();
        return null;
      case 'sizeConsole': {
        const [channel, rows, columns] = valid(sizeSchema, parameters);
        this.#console(channel).resize(rows, columns);
        return null;
      }
      case 'closeConsole': {
        const [channel] = valid(channelSchema, parameters);
        this.#console(channel);
        return this.#leave(channel);
      }
      case 'consoles':
        return this.#shared.consoles?.report() ?? [];
      case 'searchConsole':
        return this.#provider.search(...valid(searchSchema, parameters));
      case 'guestRun':
        return this.#run(valid(runSchema, parameters)[0]);
      case 'guestExec':
        return this.#exec(...valid(execSchema, parameters));
      case 'guestTerminalSize': {
        const [channel, rows, columns] = valid(sizeSchema, parameters);
        this.#commands.get(channel)?.resized?.({ rows, columns });
        return null;
      }
      case 'guestStop':
        this.#commands.get(valid(channelSchema, parameters)[0])?.stop.abort();
        return null;
      case 'guestSize':
        this.#guest.resize(...valid(guestSizeSchema, parameters));
        return null;
      case 'guestSignal':
        this.#guest.signal(...valid(signalSchema, parameters));
        return null;
      case 'history':
        return this.#shared.history?.events ?? [];
      case 'addAction':
        await this.#noted.add(valid(addActionSchema, parameters)[0]);
        return null;
      case 'undoAction':
        return this.#noted.undo();
      case 'redoAction':
        return this.#noted.redo();
    }
  }

  get #provider(): ConsoleProvider {
    if (this.#shared.consoles) return this.#shared.consoles;
    throw new NemuError('CONSOLE', 'The consoles of this machine are not handed out.');
  }

  get #noted(): Actions {
    if (this.#actions) return this.#actions;
    throw new NemuError('PROTOCOL', 'This connection makes machines; what is done to them is not written down here.');
  }

  get #guest(): GuestChannel {
    if (this.#shared.guest) return this.#shared.guest;
    throw new NemuError('NO_AGENT', "The machine's guest has no agent: nothing can be run in it from outside.", {
      hint: 'Guests that NEMU boots with its own initramfs have one; type on the console of others.',
    });
  }

  #console(channel: number): SharedConsole {
    const found = this.#consoles.get(channel);
    if (!found) throw new NemuError('PROTOCOL', `No console is open on channel ${channel}.`);
    return found.console;
  }

  #newChannel(): number {
    if (this.#consoles.size + this.#commands.size >= MAX_CHANNELS) {
      throw new NemuError(
        'PROTOCOL',
        `This connection has ${MAX_CHANNELS} consoles and commands open, which is the most.`,
      );
    }
    return this.#nextChannel();
  }

  #open(name: string, options: z.output<typeof openSchema>[1]) {
    const consoles = this.#provider;
    const channel = this.#newChannel();
    const { label, replay, history, terminal, rows, columns, role } = options;
    const console = consoles.open(name, {
      role,
      ...(label !== undefined && { label: label.replaceAll(/[^\x20-\x7e]/g, '?') }),
      ...(replay !== undefined && { replay }),
      ...(history !== undefined && { history }),
      ...(terminal !== undefined && { terminal }),
      ...(rows !== undefined && { rows }),
      ...(columns !== undefined && { columns }),
    });
    const served = new ServedConsole(this.#stream, channel, console);
    this.#consoles.set(channel, { served, console });
    console.onScreen = (screen) => this.#write(FRAME_SCREEN, channel, screen.subarray(0, MAX_PAYLOAD));
    console.onRole = (role, why) => {
      // What waits would be the next driver's otherwise, or seem to have been taken.
      if (role === 'viewer') served.drop();
      this.#send({ channel, role, why });
    };
    console.onClosed = (why) => {
      served.drop();
      this.#consoles.delete(channel);
      this.#send({ channel, closed: why });
    };
    return { channel, role: console.role };
  }

  #run(script: string) {
    return this.#started((channel, command) =>
      this.#guest
        .run(script, { onOutput: this.#output(FRAME_BYTES, channel, command), signal: command.stop.signal })
        .then((result) => result.status),
    );
  }

  #exec(script: string, size: TerminalSize | undefined) {
    return this.#started((channel, command) => {
      const onResize = (listener: (size: TerminalSize) => void) => {
        command.resized = listener;
        return () => {
          command.resized = undefined;
        };
      };
      return this.#guest.exec(script, {
        input: this.#input(channel, command),
        onOutput: this.#output(FRAME_BYTES, channel, command),
        onError: this.#output(FRAME_ERROR, channel, command),
        signal: command.stop.signal,
        ...(size && { terminal: { size, onResize } }),
      });
    });
  }

  /** @param start of a command, whose status it gives. @returns the channel on which its streams are. */
  #started(start: (channel: number, command: Command) => Promise<number>) {
    const channel = this.#newChannel();
    const command: Command = {
      input: new PassThrough({ highWaterMark: WINDOW }),
      stop: new AbortController(),
      window: WINDOW,
      outputWindow: WINDOW,
      room: undefined,
      resized: undefined,
    };
    const status = start(channel, command);
    this.#commands.set(channel, command);
    const end = (ended: GuestEnd) => {
      this.#commands.delete(channel);
      this.#send({ channel, ended });
    };
    status.then(
      (value) => end({ status: value }),
      (error: Error) => {
        const { code, message, hint } =
          error instanceof NemuError ? error : { code: 'GUEST_RUN', message: error.message, hint: undefined };
        end({ error: { code, message, ...(hint && { hint }) } });
      },
    );
    return { channel };
  }

  /** What the command prints; it waits while the peer has no room. */
  #output(type: number, channel: number, command: Command): OutputListener {
    return (bytes) => {
      this.#write(type, channel, bytes);
      command.outputWindow -= bytes.length;
      if (command.outputWindow > 0) return;
      command.room ??= Promise.withResolvers<void>();
      return command.room.promise;
    };
  }

  /** What the peer sends, with credit for what the guest has taken. */
  async *#input(channel: number, command: Command): AsyncGenerator<Uint8Array> {
    for await (const bytes of command.input) {
      yield bytes;
      const credit = Buffer.alloc(4);
      credit.writeUInt32LE(bytes.length);
      command.window += bytes.length;
      this.#write(FRAME_CREDIT, channel, credit);
    }
  }
}
