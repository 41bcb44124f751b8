import { NemuError } from './errors.ts';
import type { ConsoleStream, MachineClient } from './machine_client.ts';

/** A phase of the guest's own start: its uptime in seconds. */
export interface GuestPhase {
  readonly name: string;
  readonly uptime: number;
}

/** What a script in the guest gave. */
export interface GuestResult {
  readonly status: number;
  /** Standard output and standard error, in the order in which they came. */
  readonly output: Buffer;
}

export interface GuestRunOptions {
  /** Told of output as it comes. */
  readonly onOutput?: (bytes: Buffer) => void;
  /** Ends the script, as by SIGTERM. */
  readonly signal?: AbortSignal;
}

interface Running {
  readonly pieces: Buffer[];
  bytes: number;
  readonly onOutput: GuestRunOptions['onOutput'];
  readonly resolve: (result: GuestResult) => void;
  readonly reject: (error: Error) => void;
}

/** The longest line that the guest's side sends, with room. */
const MAX_LINE = 4096;
const MAX_OUTPUT = 64 << 20;

/**
 * The control channel of a guest that runs our init: lines on a serial port (src/lab/assets/init.sh has the
 * contract). What the guest sends is untrusted: lines that do not parse are dropped, long ones are cut.
 */
export class GuestSession {
  readonly phases: GuestPhase[] = [];
  /** Exit status of the command or shell, once reported. */
  status: number | undefined;
  onPhase: ((phase: GuestPhase) => void) | undefined;
  onStatus: ((status: number) => void) | undefined;
  readonly #console: ConsoleStream;
  readonly #running = new Map<number, Running>();
  readonly #ready = Promise.withResolvers<void>();
  readonly #settled = Promise.withResolvers<void>();
  #nextId = 1;
  #line = '';
  /** Lines that the channel has had no room for. */
  #unsent = Buffer.alloc(0);

  constructor(console: ConsoleStream) {
    this.#console = console;
    console.onData = (bytes) => this.#receive(bytes);
    console.onWritable = () => this.#flush();
    // Nobody may be waiting.
    this.#ready.promise.catch(() => {});
    this.#settled.promise.catch(() => {});
  }

  /** Opens the control channel of a machine that has one. */
  static of(machine: MachineClient): GuestSession | undefined {
    if (!machine.consoles.includes('com4')) return undefined;
    const session = new GuestSession(machine.console('com4'));
    void machine.ended().then(({ detail }) => session.#end(detail));
    machine.onEvent((event) => event.type === 'reset' && session.#abandon(`The guest was reset by ${event.cause}.`));
    return session;
  }

  #receive(bytes: Uint8Array): void {
    this.#line += Buffer.from(bytes).toString('latin1');
    for (let end = this.#line.indexOf('\n'); end >= 0; end = this.#line.indexOf('\n')) {
      this.#take(this.#line.slice(0, end).trim());
      this.#line = this.#line.slice(end + 1);
    }
    if (this.#line.length > MAX_LINE) this.#line = '';
  }

  #take(line: string): void {
    const phase = /^phase (\w{1,20}) (\d{1,10}\.\d{1,6})$/.exec(line);
    if (phase) {
      const found = { name: phase[1], uptime: Number(phase[2]) };
      this.phases.push(found);
      this.onPhase?.(found);
      if (found.name === 'ready') this.#ready.resolve();
      if (found.name === 'settled' || found.name === 'agent') this.#settled.resolve();
      return;
    }
    const exit = /^exit (\d{1,3})$/.exec(line);
    if (exit) {
      this.status = Number(exit[1]);
      this.onStatus?.(this.status);
      return;
    }
    const [, word, id, rest] = /^(out|ran) (\d{1,9}) (\S+)$/.exec(line) ?? [];
    const running = this.#running.get(Number(id));
    if (!running) return;
    if (word === 'ran') this.#ran(Number(id), running, Number(rest));
    else this.#output(Number(id), running, Buffer.from(rest, 'base64'));
  }

  #output(id: number, running: Running, bytes: Buffer): void {
    running.bytes += bytes.length;
    if (running.bytes > MAX_OUTPUT) {
      this.#running.delete(id);
      this.#send(`stop ${id}`);
      running.reject(new NemuError('GUEST_OUTPUT', `The guest printed more than ${MAX_OUTPUT >> 20} MiB.`));
      return;
    }
    running.pieces.push(bytes);
    running.onOutput?.(bytes);
  }

  #ran(id: number, running: Running, status: number): void {
    this.#running.delete(id);
    running.resolve({ status: status & 0xff, output: Buffer.concat(running.pieces) });
  }

  #abandon(why: string): void {
    for (const { reject } of this.#running.values()) reject(new NemuError('GUEST_GONE', why));
    this.#running.clear();
  }

  #end(why: string): void {
    const error = new NemuError('GUEST_GONE', why);
    this.#ready.reject(error);
    this.#settled.reject(error);
    this.#abandon(why);
  }

  /** The guest's init has set it up. @throws NemuError GUEST_GONE when it ends before. */
  get ready(): Promise<void> {
    return this.#ready.promise;
  }

  /** Modules that nobody waits for are loaded too: devices have their drivers. @throws NemuError GUEST_GONE. */
  get settled(): Promise<void> {
    return this.#settled.promise;
  }

  /**
   * Runs a shell script in the guest, as root, when the guest is ready. Several may run at the same time.
   * @throws NemuError GUEST_GONE when the guest ends or is reset first, GUEST_OUTPUT when it prints too much.
   */
  async run(script: string, { onOutput, signal }: GuestRunOptions = {}): Promise<GuestResult> {
    await this.ready;
    signal?.throwIfAborted();
    const id = this.#nextId++;
    const { promise, resolve, reject } = Promise.withResolvers<GuestResult>();
    this.#running.set(id, { pieces: [], bytes: 0, onOutput, resolve, reject });
    signal?.addEventListener('abort', () => this.#send(`stop ${id}`), { once: true });
    this.#send(`run ${id} ${Buffer.from(script).toString('base64')}`);
    return promise;
  }

  #send(line: string): void {
    this.#unsent = Buffer.concat([this.#unsent, Buffer.from(`${line}\n`)]);
    this.#flush();
  }

  #flush(): void {
    if (this.#unsent.length > 0) this.#unsent = this.#unsent.subarray(this.#console.write(this.#unsent));
  }

  resize(rows: number, columns: number): void {
    if (rows > 0 && columns > 0) this.#send(`size ${rows} ${columns}`);
  }

  /** Signals the command's process group. */
  signal(name: 'INT' | 'TERM' | 'HUP' | 'QUIT'): void {
    this.#send(`signal ${name}`);
  }
}
