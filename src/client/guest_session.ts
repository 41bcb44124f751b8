import { gzipSync } from 'node:zlib';
import { NemuError } from './errors.ts';
import { type GuestPhase, GuestStart } from './guest_start.ts';
import { type GuestTerminal, type TerminalCoding, type TerminalSize, TerminalStream } from './guest_terminal.ts';
import type { ConsoleStream, MachineClient } from './machine_client.ts';
import { type OutputListener, OutputPace } from './output_pace.ts';
import { PackedOutput } from './packed_output.ts';

export type { GuestPhase };

/** What a script in the guest gave. */
export interface GuestResult {
  readonly status: number;
  /** Standard output and standard error, in the order in which they came. */
  readonly output: Buffer;
}

export interface GuestRunOptions {
  /** Told of output as it comes. */
  readonly onOutput?: OutputListener;
  /** Ends the script, as by SIGTERM. */
  readonly signal?: AbortSignal;
}

export interface GuestExecOptions {
  /** Standard input; nothing without it. */
  readonly input?: AsyncIterable<Uint8Array>;
  /** Told of standard output and standard error as they come. */
  readonly onOutput: OutputListener;
  readonly onError: OutputListener;
  /** Ends the command, as by SIGTERM. */
  readonly signal?: AbortSignal;
  /** The command gets a terminal of its own, of this size; all that it prints is output, and the input's end hangs up. */
  readonly terminal?: GuestTerminal;
}

/** What a guest says of itself. */
export type GuestEvent =
  | ({ readonly type: 'guest-phase' } & GuestPhase)
  /** The command or shell has ended. */
  | { readonly type: 'exit-status'; readonly status: number };

/** The guest's agent: that of a machine in this process, or of one that another process has. */
export interface GuestChannel {
  readonly phases: readonly GuestPhase[];
  /** Exit status of the command or shell, once reported. */
  readonly status: number | undefined;
  /** The guest's init has done its part, and maybe given way to one that the guest has. @throws NemuError GUEST_GONE. */
  readonly up: Promise<void>;
  /** The guest takes requests. @throws NemuError GUEST_GONE when it ends before. */
  readonly ready: Promise<void>;
  /** Modules that nobody waits for are loaded too: devices have their drivers. @throws NemuError GUEST_GONE. */
  readonly settled: Promise<void>;
  /** @returns the function that takes the listener off. */
  onEvent(listener: (event: GuestEvent) => void): () => void;
  /**
   * Runs a shell script in the guest, as root, when the guest is ready. Several may run at the same time.
   * @throws NemuError GUEST_GONE when the guest ends or is reset first, GUEST_OUTPUT when it prints too much.
   */
  run(script: string, options?: GuestRunOptions): Promise<GuestResult>;
  /**
   * Runs a shell script with standard input, and its two outputs apart. Nothing is kept of them.
   * @returns its exit status.
   * @throws NemuError GUEST_GONE when the guest ends or is reset first.
   */
  exec(script: string, options: GuestExecOptions): Promise<number>;
  resize(rows: number, columns: number): void;
  /** Signals the command's process group. */
  signal(name: GuestSignal): void;
}

export const GUEST_SIGNALS = ['INT', 'TERM', 'HUP', 'QUIT'] as const;
export type GuestSignal = (typeof GUEST_SIGNALS)[number];

/** The serial port of the control channel, and the port of a virtio console that takes the bulk of it off that. */
const CONTROL = 'com4';
export const BULK_PORT = 'nemu.agent';
/** Consoles that are the agent's: nobody else is to read there. */
export const isAgents = (console: string): boolean => console === CONTROL || console === BULK_PORT;

interface Running {
  /** Its outputs, where they come packed. */
  readonly zout: PackedOutput;
  readonly zerr: PackedOutput;
  readonly output: (bytes: Buffer) => void;
  readonly error: (bytes: Buffer) => void;
  /** A piece of standard input was taken. @param packed the next ones may be packed. @param lines where they go. */
  readonly took: (packed: boolean, lines: Lines) => void;
  /** The guest has what makes a terminal. */
  readonly terminal?: (coding: TerminalCoding) => void;
  readonly ended: (status: number) => void;
  readonly reject: (error: Error) => void;
}

/** @throws NemuError USAGE for what is no text, as a caller without types may give. */
export function requireScript(script: unknown): asserts script is string {
  if (typeof script === 'string') return;
  throw new NemuError('USAGE', `A command for the guest is text, not ${script === null ? 'null' : typeof script}.`);
}

function encode(script: string): string {
  requireScript(script);
  return Buffer.from(script).toString('base64');
}

/** The longest line that the guest's side sends, with room. */
const MAX_LINE = 4096;
const MAX_OUTPUT = 64 << 20;
/** From these phases on the guest reads the channel: our init, or the agent beside another. */
const LISTENS = new Set(['ready', 'agent']);
/** Bytes of standard input in one line, and lines that the guest has not taken: less than a pipe of Linux holds. */
const INPUT_PIECE = 1500;
const BULK_PIECE = 11_000;
const INPUT_PIECES = 16;
const BULK_PIECES = 4;
/** Bytes that are packed together, where they get as small as a piece: so many pieces. */
const PACKED_PIECES = 4;

/** The beginning of an input as the guest takes it in one line, and how many bytes that is. */
function inputPiece(bytes: Uint8Array, most: number, stream: TerminalStream | undefined, mayPack: boolean) {
  if (!stream && mayPack && bytes.length > most) {
    const packed = gzipSync(bytes.subarray(0, PACKED_PIECES * most));
    if (packed.length <= most) {
      return { text: `=${packed.toString('base64')}`, length: Math.min(bytes.length, PACKED_PIECES * most) };
    }
  }
  const piece = bytes.subarray(0, most);
  return { text: (stream?.encode(piece) ?? Buffer.from(piece)).toString('base64'), length: piece.length };
}

/** Lines in both directions on a console. What the guest sends is cut where no line of its agent would go on. */
class Lines {
  readonly #console: ConsoleStream;
  #partial = '';
  /** Lines that the console has had no room for. */
  #unsent = Buffer.alloc(0);

  constructor(console: ConsoleStream, take: (line: string) => void) {
    this.#console = console;
    console.onData = (bytes) => {
      this.#partial += Buffer.from(bytes).toString('latin1');
      for (let end = this.#partial.indexOf('\n'); end >= 0; end = this.#partial.indexOf('\n')) {
        const line = this.#partial.slice(0, end).trim();
        this.#partial = this.#partial.slice(end + 1);
        take(line);
      }
      if (this.#partial.length > MAX_LINE) this.#partial = '';
    };
    console.onWritable = () => this.#flush();
  }

  send(line: string): void {
    this.#unsent = Buffer.concat([this.#unsent, Buffer.from(`${line}\n`)]);
    this.#flush();
  }

  #flush(): void {
    if (this.#unsent.length > 0) this.#unsent = this.#unsent.subarray(this.#console.write(this.#unsent));
  }

  /** What was on its way is for nobody. */
  forget(): void {
    this.#partial = '';
    this.#unsent = Buffer.alloc(0);
  }
}

/**
 * The control channel of a guest that runs our init: lines on a serial port (src/lab/assets/init.sh has the
 * contract). A port of a virtio console, where there is one, has what commands read and print: there a kilobyte costs the
 * guest what a byte costs on the serial port. What the guest sends is untrusted: lines that do not parse are dropped,
 * long ones are cut.
 */
export class GuestSession implements GuestChannel {
  onPhase: ((phase: GuestPhase) => void) | undefined;
  onStatus: ((status: number) => void) | undefined;
  readonly #listeners = new Set<(event: GuestEvent) => void>();
  readonly #control: Lines;
  readonly #bulk: Lines | undefined;
  readonly #running = new Map<number, Running>();
  readonly #start = new GuestStart();
  #nextId = 1;
  /** The last size of the terminal, for a guest that comes up, or comes up again. */
  #size: readonly [rows: number, columns: number] | undefined;

  constructor(control: ConsoleStream, bulk?: ConsoleStream) {
    this.#control = new Lines(control, (line) => this.#take(line, this.#control));
    this.#bulk = bulk && new Lines(bulk, (line) => this.#bulk && this.#take(line, this.#bulk));
  }

  /** Opens the control channel of a machine that has one. */
  static of(machine: MachineClient): GuestSession | undefined {
    if (!machine.consoles.includes(CONTROL)) return undefined;
    const bulk = machine.consoles.includes(BULK_PORT) ? machine.console(BULK_PORT) : undefined;
    const session = new GuestSession(machine.console(CONTROL), bulk);
    void machine.ended().then(({ detail }) => session.#end(detail));
    machine.onEvent((event) => event.type === 'reset' && session.#renew(`The guest was reset by ${event.cause}.`));
    return session;
  }

  #take(line: string, from: Lines): void {
    const phase = /^phase (\w{1,20}) (\d{1,10}\.\d{1,6})$/.exec(line);
    if (phase) {
      const found = { name: phase[1], uptime: Number(phase[2]) };
      // Another kernel runs, of which nothing else has told: kexec, or what came late of a guest that was reset.
      if (this.#start.isAnother(found)) this.#renew('The guest started anew.');
      this.#start.reached(found);
      this.onPhase?.(found);
      this.#tell({ type: 'guest-phase', ...found });
      if (LISTENS.has(found.name)) this.#tellSize();
      return;
    }
    const exit = /^exit (\d{1,3})$/.exec(line);
    if (exit) {
      const status = Number(exit[1]);
      this.#start.status = status;
      this.onStatus?.(status);
      this.#tell({ type: 'exit-status', status });
      return;
    }
    const [, word, id, rest] = /^(z?out|z?err|ran|took|tty) (\d{1,9}) (\S+)$/.exec(line) ?? [];
    const running = this.#running.get(Number(id));
    if (!running) return;
    if (word === 'out') running.output(Buffer.from(rest, 'base64'));
    else if (word === 'err') running.error(Buffer.from(rest, 'base64'));
    else if (word === 'zout' || word === 'zerr') {
      const bytes = running[word].take(rest);
      if (bytes) running[word === 'zout' ? 'output' : 'error'](bytes);
    } else if (word === 'took') running.took(rest === 'z', from);
    else if (word === 'tty') running.terminal?.(rest === 'telnet' ? 'telnet' : 'plain');
    else {
      this.#running.delete(Number(id));
      running.ended(Number(rest) & 0xff);
    }
  }

  #tell(event: GuestEvent): void {
    for (const listener of this.#listeners) listener(event);
  }

  onEvent(listener: (event: GuestEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #abandon(why: string): void {
    for (const { reject } of this.#running.values()) reject(new NemuError('GUEST_GONE', why));
    this.#running.clear();
  }

  /** Nobody reads the channel until the next guest does: what was on its way to the last one is not for it. */
  #renew(why: string): void {
    this.#start.renew();
    this.#control.forget();
    this.#bulk?.forget();
    this.#abandon(why);
  }

  #end(why: string): void {
    this.#start.fail(new NemuError('GUEST_GONE', why));
    this.#abandon(why);
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

  async run(script: string, { onOutput, signal }: GuestRunOptions = {}): Promise<GuestResult> {
    const encoded = encode(script);
    await this.ready;
    signal?.throwIfAborted();
    const id = this.#nextId++;
    const { promise, resolve, reject } = Promise.withResolvers<GuestResult>();
    const pieces: Buffer[] = [];
    let total = 0;
    const pace = this.#pace(id);
    this.#running.set(id, {
      ...{ zout: new PackedOutput(), zerr: new PackedOutput() },
      output: (bytes) => {
        total += bytes.length;
        if (total > MAX_OUTPUT) {
          this.#running.delete(id);
          this.#send(`stop ${id}`);
          reject(new NemuError('GUEST_OUTPUT', `The guest printed more than ${MAX_OUTPUT >> 20} MiB.`));
          return;
        }
        pieces.push(bytes);
        pace.took(onOutput?.(bytes));
      },
      error: () => {},
      took: () => {},
      ended: (status) => resolve({ status, output: Buffer.concat(pieces) }),
      reject,
    });
    this.#stopAt(signal, id, pace);
    this.#send(`run ${id} ${encoded}`);
    return promise;
  }

  async exec(script: string, options: GuestExecOptions): Promise<number> {
    const { input, onOutput, onError, signal, terminal } = options;
    const encoded = encode(script);
    await this.ready;
    signal?.throwIfAborted();
    const id = this.#nextId++;
    const { promise, resolve, reject } = Promise.withResolvers<number>();
    // None before the guest has said the first time that it takes some.
    let free = 0;
    let open = false;
    let mayPack = false;
    let inputs = this.#control;
    let room = () => {};
    let stream: TerminalStream | undefined;
    const pace = this.#pace(id);
    const hangUp = () => this.#running.has(id) && inputs.send(`in ${id} .`);
    this.#running.set(id, {
      ...{ zout: new PackedOutput(), zerr: new PackedOutput() },
      output: (bytes) => {
        const said = stream ? stream.decode(bytes) : bytes;
        if (said.length > 0) pace.took(onOutput(said));
        if (stream?.ended) hangUp();
      },
      error: (bytes) => pace.took(onError(bytes)),
      took: (packed, lines) => {
        if (!open) inputs = lines;
        free += open ? 1 : inputs === this.#bulk ? BULK_PIECES : INPUT_PIECES;
        open = true;
        mayPack = packed;
        room();
      },
      terminal: (coding) => {
        stream = new TerminalStream(id, coding);
      },
      ended: resolve,
      reject,
    });
    this.#stopAt(signal, id, pace);
    const sized = (word: string, { rows, columns }: TerminalSize) => `${word} ${id} ${rows} ${columns}`;
    this.#send(terminal ? `${sized('terminal', terminal.size)} ${encoded}` : `exec ${id} ${encoded}`);
    const off = terminal?.onResize((size) => this.#running.has(id) && this.#send(sized('winsize', size)));
    const mayWrite = async () => {
      while (free === 0 && this.#running.has(id)) {
        await new Promise<void>((resolve) => {
          room = resolve;
        });
      }
      return this.#running.has(id) && !stream?.ended;
    };
    const feed = async () => {
      for await (const bytes of input ?? []) {
        for (let at = 0; at < bytes.length; ) {
          if (!(await mayWrite())) return;
          free--;
          const most = inputs === this.#bulk ? BULK_PIECE : INPUT_PIECE;
          const { text, length } = inputPiece(bytes.subarray(at), most, stream, mayPack);
          inputs.send(`in ${id} ${text}`);
          at += length;
        }
      }
      if (await mayWrite()) hangUp();
    };
    feed().catch(reject);
    return promise.finally(() => {
      off?.();
      room();
    });
  }

  /** A guest whose agent is older does not know of it, and does not wait. */
  #pace(id: number): OutputPace {
    const say = (word: string) => this.#running.has(id) && this.#send(`${word} ${id}`);
    return new OutputPace(
      () => say('hold'),
      () => say('go'),
    );
  }

  #stopAt(signal: AbortSignal | undefined, id: number, pace: OutputPace): void {
    const stop = () => {
      pace.release();
      this.#send(`stop ${id}`);
    };
    signal?.addEventListener('abort', stop, { once: true });
  }

  #send(line: string): void {
    this.#control.send(line);
  }

  /** Who listens to the channel has heard of no size before: what was sent to a port that nobody has open is lost. */
  #tellSize(): void {
    if (this.#size) this.#send(`size ${this.#size.join(' ')}`);
  }

  resize(rows: number, columns: number): void {
    if (!(rows > 0 && columns > 0)) return;
    this.#size = [rows, columns];
    if (this.phases.some(({ name }) => LISTENS.has(name))) this.#tellSize();
  }

  signal(name: GuestSignal): void {
    this.#send(`signal ${name}`);
  }
}
