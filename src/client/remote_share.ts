/** The consoles, the guest's agent and the history of a machine that another process has. */
import { setTimeout as sleep } from 'node:timers/promises';
import { RemoteActions } from './actions.ts';
import { LEAVE_MS } from './console_input.ts';
import { NemuError } from './errors.ts';
import type { NotedEvent } from './event_history.ts';
import { MAX_PAYLOAD } from './frames.ts';
import {
  type GuestChannel,
  type GuestEvent,
  type GuestExecOptions,
  type GuestPhase,
  type GuestResult,
  type GuestRunOptions,
  type GuestSignal,
  requireScript,
} from './guest_session.ts';
import { GuestStart } from './guest_start.ts';
import {
  type CreateResult,
  FRAME_BYTES,
  FRAME_CREDIT,
  FRAME_END,
  FRAME_ERROR,
  type FromEngine,
  type OpenedConsole,
  type SharedMethod,
  WINDOW,
} from './protocol.ts';
import { RemoteConsole } from './remote_console.ts';
import {
  type ConsoleReport,
  type ConsoleRole,
  MAX_LABEL,
  MAX_SIDE,
  type OpenConsole,
  type SharedConsole,
} from './shared_console.ts';

export type ChannelMessage = Extract<FromEngine, { channel: number }>;

/** Whoever gets what comes on a channel. */
export interface RemoteChannel {
  frame(type: number, payload: Uint8Array): void;
  message?(message: ChannelMessage): void;
  /** The connection is. */
  gone?(error: NemuError): void;
}

type Call = (method: SharedMethod, parameters: unknown[]) => Promise<unknown>;
type Send = (type: number, channel: number, payload: Uint8Array) => void;
type Open = (number: number, channel: RemoteChannel) => () => void;

/** How long an engine may take to say what became of input: it waits for the guest meanwhile. */
const ANSWER_MS = LEAVE_MS + 1000;
/** Rows above the screen that a console gets which is opened by its name alone. */
const HISTORY_ROWS = 1000;
const MAX_COLLECTED = 64 << 20;

/** A size as the engine takes it; undefined for one that is none. */
function sides(rows: number, columns: number): { rows: number; columns: number } | undefined {
  const side = (value: number) => Math.min(MAX_SIDE, Math.floor(value));
  return rows >= 1 && columns >= 1 ? { rows: side(rows), columns: side(columns) } : undefined;
}

export class RemoteShare {
  /** Consoles that are handed out; undefined where none are. */
  readonly #names: Set<string> | undefined;
  readonly guest: GuestChannel | undefined;
  /** What the machine's users did; undefined where the other side keeps nothing of it. */
  readonly actions: RemoteActions | undefined;
  readonly #call: Call;
  readonly #send: Send;
  readonly #open: Open;
  readonly #label: string | undefined;
  readonly #consoles = new Map<string, RemoteSharedConsole>();
  readonly #guest: RemoteGuest | undefined;
  /** How consoles are opened that are asked for by their name alone. */
  defaults: OpenConsole = { role: 'driver', replay: true, history: HISTORY_ROWS, terminal: true };

  constructor({ shared, guest, actions }: CreateResult, call: Call, send: Send, open: Open, label: string | undefined) {
    this.#names = shared && new Set(shared);
    this.#call = call;
    this.#send = send;
    this.#open = open;
    this.#label = label;
    this.#guest = guest && new RemoteGuest(guest.phases, guest.status, call, send, open);
    this.guest = this.#guest;
    this.actions = actions && new RemoteActions(actions, call);
  }

  get names(): readonly string[] {
    return [...(this.#names ?? [])];
  }

  /** A console came with a device, or went with it. */
  consoleChanged(name: string, change: 'added' | 'removed'): void {
    if (change === 'added') this.#names?.add(name);
    else {
      this.#names?.delete(name);
      this.#consoles.delete(name);
    }
  }

  guestEvent(event: GuestEvent): void {
    this.#guest?.receive(event);
  }

  /** The machine was. */
  reset(): void {
    this.#guest?.reset();
  }

  gone(error: NemuError): void {
    this.#guest?.gone(error);
  }

  /** The one that is asked for by its name: opened when it is first. */
  console(name: string): SharedConsole {
    const known = this.#consoles.get(name);
    if (known) return known;
    const console = new RemoteSharedConsole(name, this.#call, this.#send);
    this.#consoles.set(name, console);
    void this.#connect(console, this.defaults).catch(() => {});
    return console;
  }

  /** @throws NemuError CONSOLE for a name that is none. */
  async openConsole(name: string, options: OpenConsole): Promise<SharedConsole> {
    const console = new RemoteSharedConsole(name, this.#call, this.#send);
    await this.#connect(console, options);
    return console;
  }

  async #connect(console: RemoteSharedConsole, options: OpenConsole): Promise<void> {
    const { label = this.#label, rows, columns, ...others } = options;
    const wanted = {
      ...others,
      ...(label !== undefined && { label: label.slice(0, MAX_LABEL) }),
      ...(rows && columns && sides(rows, columns)),
    };
    const { channel, role } = (await this.#call('openConsole', [console.name, wanted])) as OpenedConsole;
    console.opened(channel, role, this.#open(channel, console));
  }

  /** Lines of what is kept of a console in which a text is, the newest last. @throws NemuError CONSOLE */
  searchConsole = async (name: string, text: string, most = 100): Promise<string[]> =>
    (await this.#call('searchConsole', [name, text, most])) as string[];
  consoleReports = async (): Promise<ConsoleReport[]> => (await this.#call('consoles', [])) as ConsoleReport[];
  history = async (): Promise<NotedEvent[]> => (await this.#call('history', [])) as NotedEvent[];
}

class RemoteSharedConsole extends RemoteConsole implements SharedConsole, RemoteChannel {
  onRole: ((role: ConsoleRole, why: string) => void) | undefined;
  #role: ConsoleRole = 'viewer';
  #onClosed: ((why: string) => void) | undefined;
  /** Why nothing comes any more, until that was told. */
  #over: string | undefined;
  readonly #call: Call;
  readonly #place: { channel: number | undefined };
  #forget: (() => void) | undefined;
  #size: readonly [number, number] | undefined;
  #closed = false;

  constructor(name: string, call: Call, send: Send) {
    const place: { channel: number | undefined } = { channel: undefined };
    super(name, (type, payload) => place.channel !== undefined && send(type, place.channel, payload), 0);
    this.#place = place;
    this.#call = call;
  }

  opened(channel: number, role: ConsoleRole, forget: () => void): void {
    this.#place.channel = channel;
    this.#role = role;
    this.#forget = forget;
    this.credit(WINDOW);
    if (this.#size) this.resize(...this.#size);
    if (this.#closed) void this.#leave(channel);
    else this.onRole?.(role, role === 'driver' ? 'Nobody drove the console.' : 'Others may drive the console.');
  }

  get role(): ConsoleRole {
    return this.#role;
  }

  get onClosed(): ((why: string) => void) | undefined {
    return this.#onClosed;
  }

  set onClosed(listener: ((why: string) => void) | undefined) {
    this.#onClosed = listener;
    if (listener) queueMicrotask(() => this.delivered());
  }

  gone(error: NemuError): void {
    this.#end(error.message);
  }

  /** There is nobody to type to, and what was printed is told first. */
  #end(why: string): void {
    this.#forget?.();
    this.#place.channel = undefined;
    this.#role = 'viewer';
    this.#over ??= why;
    this.credit(Number.POSITIVE_INFINITY);
    this.delivered();
  }

  protected override delivered(): void {
    const why = this.#over;
    if (why === undefined || !this.#onClosed || !this.isDelivered) return;
    this.#over = undefined;
    this.#onClosed(why);
  }

  message(message: ChannelMessage): void {
    if ('closed' in message) this.#end(message.closed);
    if (!('role' in message)) return;
    this.#role = message.role;
    this.onRole?.(message.role, message.why);
  }

  #request(method: SharedMethod, ...rest: unknown[]): void {
    if (this.#place.channel !== undefined) this.#call(method, [this.#place.channel, ...rest]).catch(() => {});
  }

  takeOver(): void {
    this.#request('takeConsole');
  }

  redraw(): void {
    this.#request('redrawConsole');
  }

  resize(rows: number, columns: number): void {
    const size = sides(rows, columns);
    if (!size) return;
    this.#size = [size.rows, size.columns];
    this.#request('sizeConsole', size.rows, size.columns);
  }

  close(): void {
    void this.leave();
  }

  async leave(): Promise<number> {
    if (this.#closed) return 0;
    this.#closed = true;
    if (this.#place.channel === undefined) return 0;
    const answer = this.#leave(this.#place.channel);
    // An engine that hangs holds nobody for nothing.
    return this.untaken === 0 ? 0 : Promise.race([answer, sleep(ANSWER_MS, this.untaken)]);
  }

  async #leave(channel: number): Promise<number> {
    this.#forget?.();
    // Of a machine that has gone there is nothing to tell.
    return (await this.#call('closeConsole', [channel]).catch(() => 0)) as number;
  }
}

class RemoteGuest implements GuestChannel {
  readonly #start = new GuestStart();
  readonly #call: Call;
  readonly #send: Send;
  readonly #open: Open;
  readonly #listeners = new Set<(event: GuestEvent) => void>();

  constructor(phases: readonly GuestPhase[], status: number | undefined, call: Call, send: Send, open: Open) {
    for (const phase of phases) this.#start.reached(phase);
    this.#start.status = status;
    this.#call = call;
    this.#send = send;
    this.#open = open;
  }

  get phases(): readonly GuestPhase[] {
    return this.#start.phases;
  }

  get status(): number | undefined {
    return this.#start.status;
  }

  get up(): Promise<void> {
    return this.#start.up;
  }

  get ready(): Promise<void> {
    return this.#start.ready;
  }

  get settled(): Promise<void> {
    return this.#start.settled;
  }

  receive(event: GuestEvent): void {
    if (event.type === 'guest-phase') {
      const { name, uptime } = event;
      if (this.#start.isAnother(event)) this.#start.renew();
      this.#start.reached({ name, uptime });
    } else this.#start.status = event.status;
    for (const listener of this.#listeners) listener(event);
  }

  /** The machine was. */
  reset(): void {
    this.#start.renew();
  }

  gone(error: NemuError): void {
    this.#start.fail(error);
  }

  onEvent(listener: (event: GuestEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async run(script: string, { onOutput, signal }: GuestRunOptions = {}): Promise<GuestResult> {
    const pieces: Buffer[] = [];
    let total = 0;
    const status = await this.#command('guestRun', script, {
      onOutput: (bytes) => {
        total += bytes.length;
        if (total <= MAX_COLLECTED) pieces.push(bytes);
        return onOutput?.(bytes);
      },
      onError: () => {},
      ...(signal && { signal }),
    });
    return { status, output: Buffer.concat(pieces) };
  }

  exec(script: string, options: GuestExecOptions): Promise<number> {
    return this.#command('guestExec', script, options);
  }

  async #command(method: 'guestRun' | 'guestExec', script: string, ends: GuestExecOptions): Promise<number> {
    requireScript(script);
    ends.signal?.throwIfAborted();
    const { terminal } = ends;
    const parameters = terminal ? [script, terminal.size] : [script];
    const { channel } = (await this.#call(method, parameters)) as { channel: number };
    const off = terminal?.onResize(({ rows, columns }) => {
      this.#call('guestTerminalSize', [channel, rows, columns]).catch(() => {});
    });
    const { promise, resolve, reject } = Promise.withResolvers<number>();
    let window = WINDOW;
    let over = false;
    let room = () => {};
    // The command waits for whoever gets its output.
    const took = (taken: void | Promise<void>, bytes: number) => {
      const credit = Buffer.alloc(4);
      credit.writeUInt32LE(bytes);
      const done = () => void (over || this.#send(FRAME_CREDIT, channel, credit));
      if (taken) taken.then(done, done);
      else done();
    };
    const forget = this.#open(channel, {
      frame: (type, payload) => {
        if (type === FRAME_BYTES) took(ends.onOutput(Buffer.from(payload)), payload.length);
        else if (type === FRAME_ERROR) took(ends.onError(Buffer.from(payload)), payload.length);
        else if (type === FRAME_CREDIT) {
          window += Buffer.from(payload).readUInt32LE(0);
          room();
        }
      },
      message: (message) => {
        if (!('ended' in message)) return;
        const { ended } = message;
        if ('error' in ended) reject(NemuError.fromJSON(ended.error));
        else resolve(ended.status);
      },
      gone: reject,
    });
    const stop = () => void this.#call('guestStop', [channel]).catch(() => {});
    ends.signal?.addEventListener('abort', stop, { once: true });
    // While the call was under way.
    if (ends.signal?.aborted) stop();
    const feed = async () => {
      for await (const bytes of ends.input ?? []) {
        for (let at = 0; at < bytes.length; ) {
          while (window === 0 && !over) {
            await new Promise<void>((resolve) => {
              room = resolve;
            });
          }
          if (over) return;
          const count = Math.min(window, bytes.length - at, MAX_PAYLOAD);
          this.#send(FRAME_BYTES, channel, bytes.subarray(at, at + count));
          window -= count;
          at += count;
        }
      }
      if (!over) this.#send(FRAME_END, channel, new Uint8Array(0));
    };
    feed().catch(reject);
    try {
      return await promise;
    } finally {
      over = true;
      room();
      off?.();
      ends.signal?.removeEventListener('abort', stop);
      forget();
    }
  }

  resize(rows: number, columns: number): void {
    if (rows > 0 && columns > 0) this.#call('guestSize', [rows, columns]).catch(() => {});
  }

  signal(name: GuestSignal): void {
    this.#call('guestSignal', [name]).catch(() => {});
  }
}
