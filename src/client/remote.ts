import type { Duplex } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { keptElsewhere } from './actions.ts';
import type { BreakpointInput, DebugRunInput, RegisterValues } from './debug.ts';
import type { MachineDescription, MachineInput, ThrottleInput } from './description.ts';
import { NemuError } from './errors.ts';
import { encodeFrame, FrameDecoder } from './frames.ts';
import type { InterruptReport } from './interrupts.ts';
import type { LiveRequest, PluggedReport, PlugInput, PlugOptions, UnplugOptions } from './live.ts';
import type { DiskChangeInput, NetChangeInput } from './live_change.ts';
import type {
  BalloonReport,
  ConsoleStream,
  CountersReport,
  DevicesReport,
  DirtyRateReport,
  DiskReport,
  EndState,
  MachineClient,
  MachineEvent,
  MachineState,
  MemoryRangeReport,
  NetReport,
  VcpuReport,
} from './machine_client.ts';
import { withAbsoluteFiles, withAbsoluteMedium } from './paths.ts';
import {
  type CreateResult,
  type EncodedBytes,
  FRAME_CONTROL,
  type FromEngine,
  MAX_READ,
  type RemoteMethod,
} from './protocol.ts';
import { RemoteConsole } from './remote_console.ts';
import { type RemoteChannel, RemoteShare } from './remote_share.ts';

/** How long an engine may take to close a machine. */
const CLOSE_MS = 5000;

/** Files, pages and ports may have other names, or be refused, where an engine runs. What is left out is the same. */
export interface Adapt {
  /** The machine in the words of this host. */
  readonly description?: MachineDescription;
  /** @param engine plugs it there. */
  readonly plug?: (device: PlugInput, engine: (device: PlugInput) => Promise<LiveRequest>) => Promise<LiveRequest>;
  /** @param disk as it is now, @param engine changes it there. */
  readonly changeDisk?: (
    disk: DiskReport | undefined,
    change: DiskChangeInput,
    engine: (change: DiskChangeInput) => Promise<DiskReport>,
  ) => Promise<DiskReport>;
  readonly changeNet?: (
    net: NetReport | undefined,
    change: NetChangeInput,
    engine: (change: NetChangeInput) => Promise<NetReport>,
  ) => Promise<NetReport>;
  /** What the engine tells, in the words of this host. */
  readonly disk?: (report: DiskReport) => DiskReport;
  readonly net?: (report: NetReport) => NetReport;
}

/** Where an engine's words name files: errors, what disks report, how a machine ended. */
const WORDS = new Set(['message', 'hint', 'detail', 'text', 'reason', 'file', 'path']);

/** JSON has no number for NaN and infinity, and none of ours is beyond a double's. @throws NemuError USAGE */
function withNumbers(key: string, value: unknown): unknown {
  if (typeof value !== 'bigint' && (typeof value !== 'number' || Number.isFinite(value))) return value;
  const what = /^\d*$/.test(key) ? '' : `${key}: `;
  throw new NemuError('USAGE', `${what}${value} is no number that a machine takes.`);
}

/** A connection to an engine elsewhere, which makes machines there. */
export class EngineConnection {
  readonly #stream: Duplex;
  readonly #rename: (text: string) => string;
  readonly #calls = new Map<number, { resolve: (value: unknown) => void; reject: (error: Error) => void }>();
  readonly #machines = new Map<number, RemoteMachine>();
  readonly #channels = new Map<number, RemoteChannel>();
  readonly #earlyFrames: { readonly type: number; readonly channel: number; readonly payload: Uint8Array }[] = [];
  /** What came in one piece with the answer that made the machine known, and so before it. */
  readonly #early: Extract<FromEngine, { machine: number } | { channel: number }>[] = [];
  #nextId = 1;
  #failure: NemuError | undefined;
  /** Channels from here on have not been opened here yet: the engine counts them up. */
  #nextUnknown = 0;

  /**
   * @param describeLoss says why the other side is gone, once the stream has ended (the lab's last words).
   * @param rename makes of names of files where the engine runs, in a text, what they are here.
   */
  constructor(
    stream: Duplex,
    describeLoss: () => NemuError = lostConnection,
    rename: (text: string) => string = (text) => text,
  ) {
    this.#stream = stream;
    this.#rename = rename;
    const decoder = new FrameDecoder();
    stream.on('data', (bytes: Buffer) => {
      try {
        for (const frame of decoder.push(bytes)) this.#frame(frame.type, frame.channel, frame.payload);
      } catch (error) {
        stream.destroy(error as Error);
      }
    });
    stream.on('error', () => stream.destroy());
    stream.once('end', () => stream.destroy());
    stream.once('close', () => this.#lost(describeLoss()));
  }

  /**
   * @param adapt makes of a device to be plugged what it is where the engine runs.
   * @throws NemuError as the engine gave it.
   */
  async create(description: MachineInput | MachineDescription, adapt?: Adapt): Promise<RemoteMachine> {
    return this.#add((await this.#request({ method: 'create', parameters: { description } })) as CreateResult, adapt);
  }

  /**
   * The machine that an engine serves at a control socket, with the consoles that it hands out.
   * @param label what the others at its consoles know this one by.
   * @throws NemuError as the engine gave it.
   */
  async attach(label?: string): Promise<RemoteMachine> {
    const result = (await this.#request({ method: 'attach' })) as CreateResult;
    const share = new RemoteShare(
      result,
      (method, parameters) => this.#request({ method, parameters }),
      (type, channel, payload) => this.#write(type, channel, payload),
      (number, channel) => this.#open(number, channel),
      label,
    );
    const machine = this.#add(result, NAMED_FROM_ROOT, share);
    if (share.actions) keptElsewhere(machine, share.actions);
    return machine;
  }

  /** From now on the channel's frames and messages are this one's, and those that came before. */
  #open(number: number, channel: RemoteChannel): () => void {
    this.#channels.set(number, channel);
    this.#nextUnknown = Math.max(this.#nextUnknown, number + 1);
    const early = this.#earlyFrames.filter((frame) => frame.channel === number);
    const others = this.#earlyFrames.filter((frame) => frame.channel !== number);
    this.#earlyFrames.splice(0, Infinity, ...others);
    for (const { type, payload } of early) channel.frame(type, payload);
    for (const message of this.#early.splice(0)) this.#control(message);
    return () => this.#channels.delete(number);
  }

  #add(result: CreateResult, adapt?: Adapt, share?: RemoteShare): RemoteMachine {
    const consoles = result.consoles.map(({ name, channel }) => this.#openConsole(name, channel));
    const call = (method: RemoteMethod, parameters: unknown[]) =>
      this.#request({ method, machine: result.machine, parameters });
    const description = adapt?.description ?? (result.description as MachineDescription);
    const machine = new RemoteMachine(description, consoles, call, adapt, share);
    this.#machines.set(result.machine, machine);
    if (result.state) machine.setState(result.state, result.end);
    for (const message of this.#early.splice(0)) this.#control(message);
    return machine;
  }

  #openConsole(name: string, channel: number): RemoteConsole {
    const console = new RemoteConsole(name, (type, payload) => this.#write(type, channel, payload));
    this.#channels.set(channel, console);
    return console;
  }

  #consoleChanged(machine: RemoteMachine, name: string, channel: number | undefined): void {
    if (channel !== undefined) {
      machine.addConsole(this.#openConsole(name, channel));
      return;
    }
    const gone = machine.removeConsole(name);
    for (const [number, console] of this.#channels) if (console === gone) this.#channels.delete(number);
  }

  /** Leaves; what was written before goes out yet. */
  close(): void {
    if (this.#stream.writableLength === 0) this.#stream.destroy();
    else this.#stream.end(() => this.#stream.destroy());
  }

  #write(type: number, channel: number, payload: Uint8Array): void {
    if (!this.#stream.destroyed) this.#stream.write(encodeFrame(type, channel, payload));
  }

  async #request(message: object): Promise<unknown> {
    if (this.#failure) throw this.#failure;
    const id = this.#nextId++;
    const payload = Buffer.from(JSON.stringify({ id, ...message }, withNumbers));
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    this.#calls.set(id, { resolve, reject });
    this.#write(FRAME_CONTROL, 0, payload);
    return promise;
  }

  #frame(type: number, channel: number, payload: Uint8Array): void {
    if (type === FRAME_CONTROL) {
      const words = (key: string, value: unknown) =>
        typeof value === 'string' && WORDS.has(key) ? this.#rename(value) : value;
      this.#control(JSON.parse(Buffer.from(payload).toString(), words) as FromEngine);
      return;
    }
    const found = this.#channels.get(channel);
    if (found) found.frame(type, payload);
    else if (channel >= this.#nextUnknown) this.#earlyFrames.push({ type, channel, payload });
  }

  #control(message: FromEngine): void {
    if ('machine' in message) {
      const machine = this.#machines.get(message.machine);
      if (!machine) this.#early.push(message);
      else if ('guest' in message) machine.share?.guestEvent(message.guest);
      else if ('console' in message) this.#consoleChanged(machine, message.console, message.channel);
      else if ('event' in message) machine.receive(message.event);
      else if ('actions' in message) machine.share?.actions?.receive(message.actions);
      else machine.setState(message.state, message.end);
      return;
    }
    if ('channel' in message) {
      const channel = this.#channels.get(message.channel);
      if (channel) channel.message?.(message);
      else if (message.channel >= this.#nextUnknown) this.#early.push(message);
      return;
    }
    const call = this.#calls.get(message.id);
    this.#calls.delete(message.id);
    if ('error' in message) call?.reject(NemuError.fromJSON(message.error));
    else call?.resolve(message.result);
  }

  #lost(error: NemuError): void {
    this.#failure = error;
    for (const { reject } of this.#calls.values()) reject(error);
    this.#calls.clear();
    for (const channel of this.#channels.values()) channel.gone?.(error);
    for (const machine of this.#machines.values()) {
      machine.share?.gone(error);
      if (machine.state !== 'closed') machine.setState('closed', { reason: 'engine-error', detail: error.message });
    }
  }
}

/** The engine has another folder: files are named from the root. */
const NAMED_FROM_ROOT: Adapt = {
  plug: (device, engine) => engine(withAbsoluteFiles(device)),
  changeDisk: (_, change, engine) => engine(withAbsoluteMedium(change)),
};

const lostConnection = () => new NemuError('CONNECTION', 'The connection to the engine ended.');

/** A machine in another process, or in the lab. */
export class RemoteMachine implements MachineClient {
  readonly description: MachineDescription;
  /** What is shared of a machine that this one is attached to. */
  readonly share: RemoteShare | undefined;
  readonly #consoles: Map<string, RemoteConsole>;
  readonly #call: (method: RemoteMethod, parameters: unknown[]) => Promise<unknown>;
  readonly #adapt: Adapt;
  readonly #listeners = new Set<(event: MachineEvent) => void>();
  readonly #ended = Promise.withResolvers<EndState>();
  #state: MachineState = 'created';
  #end: EndState | undefined;

  constructor(
    description: MachineDescription,
    consoles: RemoteConsole[],
    call: (method: RemoteMethod, parameters: unknown[]) => Promise<unknown>,
    adapt: Adapt = {},
    share?: RemoteShare,
  ) {
    this.share = share;
    this.#adapt = adapt;
    this.description = description;
    this.#consoles = new Map(consoles.map((console) => [console.name, console]));
    this.#call = call;
  }

  get state(): MachineState {
    return this.#state;
  }

  get end(): EndState | undefined {
    return this.#end;
  }

  get consoles(): readonly string[] {
    return this.share ? this.share.names : [...this.#consoles.keys()];
  }

  start = async (): Promise<void> => void (await this.#call('start', []));
  pause = async (): Promise<void> => void (await this.#call('pause', []));
  resume = async (): Promise<void> => void (await this.#call('resume', []));
  reset = async (): Promise<void> => void (await this.#call('reset', []));
  powerButton = async (): Promise<void> => void (await this.#call('powerButton', []));
  nmi = async (): Promise<void> => void (await this.#call('nmi', []));
  counters = async (): Promise<CountersReport> => (await this.#call('counters', [])) as CountersReport;
  inspect = async (): Promise<VcpuReport[]> => (await this.#call('inspect', [])) as VcpuReport[];

  requests = async (): Promise<LiveRequest[]> => (await this.#call('requests', [])) as LiveRequest[];
  plugged = async (): Promise<PluggedReport> => (await this.#call('plugged', [])) as PluggedReport;

  async plug(device: PlugInput, options: PlugOptions = {}): Promise<LiveRequest> {
    const engine = async (wanted: PlugInput) => (await this.#call('plug', [wanted, options])) as LiveRequest;
    return this.#adapt.plug ? this.#adapt.plug(device, engine) : engine(device);
  }

  async unplug(id: string, options: UnplugOptions = {}): Promise<LiveRequest> {
    return (await this.#call('unplug', [id, options])) as LiveRequest;
  }

  resizeMemory = async (id: string, size: number | string, options: PlugOptions = {}): Promise<LiveRequest> =>
    (await this.#call('resizeMemory', [id, size, options])) as LiveRequest;
  devices = async (): Promise<DevicesReport> => (await this.#call('devices', [])) as DevicesReport;
  interrupts = async (): Promise<InterruptReport> => (await this.#call('interrupts', [])) as InterruptReport;

  async readMemory(address: number, length: number): Promise<Uint8Array> {
    const pieces: Uint8Array[] = [];
    for (let at = 0; at < length || at === 0; at += MAX_READ) {
      const { base64 } = (await this.#call('readMemory', [
        address + at,
        Math.min(MAX_READ, length - at),
      ])) as EncodedBytes;
      pieces.push(Buffer.from(base64, 'base64'));
    }
    return pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces);
  }

  async writeMemory(address: number, bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length; at += MAX_READ) {
      const piece: EncodedBytes = { base64: Buffer.from(bytes.subarray(at, at + MAX_READ)).toString('base64') };
      await this.#call('writeMemory', [address + at, piece]);
    }
  }

  readRegisters = async (vcpu: number): Promise<RegisterValues> =>
    (await this.#call('readRegisters', [vcpu])) as RegisterValues;
  writeRegisters = async (vcpu: number, values: RegisterValues): Promise<void> =>
    void (await this.#call('writeRegisters', [vcpu, values]));
  attachDebugger = async (): Promise<void> => void (await this.#call('attachDebugger', []));
  detachDebugger = async (): Promise<void> => void (await this.#call('detachDebugger', []));
  setBreakpoints = async (breakpoints: readonly BreakpointInput[]): Promise<void> =>
    void (await this.#call('setBreakpoints', [breakpoints]));
  debugRun = async (how: DebugRunInput = {}): Promise<void> => void (await this.#call('debugRun', [how]));

  memoryMap = async (): Promise<MemoryRangeReport[]> => (await this.#call('memoryMap', [])) as MemoryRangeReport[];
  dirtyRate = async (milliseconds: number): Promise<DirtyRateReport> =>
    (await this.#call('dirtyRate', [milliseconds])) as DirtyRateReport;
  disks = async (): Promise<DiskReport[]> => {
    const { disk = (report) => report } = this.#adapt;
    return ((await this.#call('disks', [])) as DiskReport[]).map(disk);
  };
  nets = async (): Promise<NetReport[]> => {
    const { net = (report) => report } = this.#adapt;
    return ((await this.#call('nets', [])) as NetReport[]).map(net);
  };

  async changeDisk(disk: string, change: DiskChangeInput): Promise<DiskReport> {
    const { changeDisk, disk: told = (report) => report } = this.#adapt;
    const engine = async (wanted: DiskChangeInput) =>
      told((await this.#call('changeDisk', [disk, wanted])) as DiskReport);
    if (!changeDisk) return engine(change);
    const now = (await this.disks()).find(({ name }) => name === disk);
    return changeDisk(now, change, engine);
  }

  async changeNet(net: string, change: NetChangeInput): Promise<NetReport> {
    const { changeNet, net: told = (report) => report } = this.#adapt;
    const engine = async (wanted: NetChangeInput) => told((await this.#call('changeNet', [net, wanted])) as NetReport);
    if (!changeNet) return engine(change);
    const now = (await this.nets()).find(({ name }) => name === net);
    return changeNet(now, change, engine);
  }

  resizeConsole = async (name: string, rows: number, columns: number): Promise<boolean> =>
    (await this.#call('resizeConsole', [name, rows, columns])) as boolean;
  throttle = async (disk: string, limits: ThrottleInput): Promise<void> =>
    void (await this.#call('throttle', [disk, limits]));

  async balloon(target?: number): Promise<BalloonReport> {
    return (await this.#call('balloon', target === undefined ? [] : [target])) as BalloonReport;
  }

  async searchMemory(address: number, length: number, bytes: Uint8Array, most: number): Promise<number[]> {
    const pattern: EncodedBytes = { base64: Buffer.from(bytes).toString('base64') };
    return (await this.#call('searchMemory', [address, length, pattern, most])) as number[];
  }

  async vmcoreinfo(): Promise<Uint8Array | undefined> {
    const note = (await this.#call('vmcoreinfo', [])) as EncodedBytes | null;
    return note === null ? undefined : Buffer.from(note.base64, 'base64');
  }

  console(name: string): ConsoleStream {
    const console = this.share?.names.includes(name) ? this.share.console(name) : this.#consoles.get(name);
    if (!console) {
      throw new NemuError('CONSOLE', `The machine ${this.description.name} has no console "${name}".`, {
        hint: `It has ${this.consoles.join(', ') || 'none'}.`,
      });
    }
    return console;
  }

  onEvent(listener: (event: MachineEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  note(text: string): void {
    for (const listener of this.#listeners) listener({ type: 'action', text });
  }

  ended(): Promise<EndState> {
    return this.#ended.promise;
  }

  async close(): Promise<void> {
    if (this.#state === 'closed') return;
    try {
      // An engine that hangs does not answer: whoever closes the machine goes on and ends the engine's host.
      await Promise.race([this.#call('close', []), sleep(CLOSE_MS, undefined, { ref: false })]);
    } catch (error) {
      // A connection that is gone has taken the machine with it.
      if (!(error instanceof NemuError && error.code === 'CONNECTION')) throw error;
    }
    this.setState('closed', { reason: 'quit', detail: 'The machine was closed.' });
  }

  /** A console that came with a device. */
  addConsole(console: RemoteConsole): void {
    this.#consoles.set(console.name, console);
  }

  /** @returns the console that went with its device. */
  removeConsole(name: string): RemoteConsole | undefined {
    const console = this.#consoles.get(name);
    this.#consoles.delete(name);
    return console;
  }

  receive(event: MachineEvent): void {
    if (event.type === 'console') this.share?.consoleChanged(event.name, event.change);
    if (event.type === 'reset') this.share?.reset();
    for (const listener of this.#listeners) listener(event);
  }

  setState(state: MachineState, end: EndState | undefined): void {
    const changed = this.#state !== state;
    this.#state = state;
    if (end) {
      this.#end ??= end;
      this.#ended.resolve(this.#end);
    }
    // Its end is the engine's to tell, and ours when that no longer can.
    if (changed) this.receive({ type: 'state', state });
  }
}
