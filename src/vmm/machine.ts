import {
  type BreakpointInput,
  type DebugRunInput,
  parseBreakpoints,
  parseDebugRun,
  parseRegisters,
  parseVcpu,
  type RegisterValues,
} from '../client/debug.ts';
import {
  type MachineDescription,
  type MachineInput,
  parseMachine,
  possibleCpus,
  type ThrottleInput,
  throttleSchema,
} from '../client/description.ts';
import { parseConsoleSize, streams } from '../client/device_schema.ts';
import { NemuError } from '../client/errors.ts';
import { tell } from '../client/explain.ts';
import type { InterruptReport } from '../client/interrupts.ts';
import {
  type LiveDevice,
  type LiveRequest,
  type PluggedReport,
  type PlugInput,
  type PlugOptions,
  parseOptions,
  parsePlug,
  plugOptionsSchema,
  resizeMemorySchema,
  type UnplugOptions,
  unplugOptionsSchema,
} from '../client/live.ts';
import { type DiskChangeInput, type NetChangeInput, parseDiskChange, parseNetChange } from '../client/live_change.ts';
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
} from '../client/machine_client.ts';
import { close, raw } from '../ffi/libc.ts';
import { localRegisters } from './board.ts';
import { mapBootNvdimms, mapBootPmems, withPmemSize, withPmemSizes } from './boot_pmem.ts';
import { DirtyRate } from './dirty_rate.ts';
import { EngineThreads } from './engine_threads.ts';
import { HostParts } from './hotplug/host_parts.ts';
import { RequestWatch } from './hotplug/watch.ts';
import { stopVcpus } from './kick.ts';
import { installExitHandler, live } from './live_machines.ts';
import { MachineConsoles } from './machine_consoles.ts';
import type { MachineOptions } from './machine_options.ts';
import { GuestRam, virtioMemMemory } from './memory.ts';
import { virtioMemRegions } from './memory_layout.ts';
import { newConfigPages } from './pci/config_pages.ts';
import { checkPinning } from './pinning.ts';
import { PostMortem } from './post_mortem.ts';
import { newEventfd } from './reactor.ts';
import { allocateShared, H, type SharedBlock } from './shared.ts';
import { ThreadCalls } from './thread_calls.ts';
import type { CallName, FromMachine, MachineCalls, MachineThreadData } from './thread_messages.ts';
import { engineThreadStates } from './thread_states.ts';
import { ThreadPool } from './threads.ts';
import { within } from './within.ts';

/** How long a machine thread may take to answer that it is to end; serving what is under way may take a slow disk's time. */
const QUIT_TIMEOUT_MS = 10_000;
/** How long vCPU threads get to leave the guest when the process exits or a machine is torn down. */
const STOP_TIMEOUT_MS = 500;

/**
 * A machine in this process. Its devices live in a thread of their own and its vCPUs in one each; this
 * object is the main thread's handle. Nothing on the guest's path waits for the main thread.
 */
export class Machine implements MachineClient {
  readonly description: MachineDescription;
  readonly #ram: GuestRam;
  readonly #block: SharedBlock;
  readonly #wakeFd = newEventfd();
  readonly #pool: ThreadPool;
  readonly #ownPool: boolean;
  readonly #quitTimeoutMs: number;
  readonly #listeners = new Set<(event: MachineEvent) => void>();
  readonly #calls = new ThreadCalls();
  readonly #threads: EngineThreads;
  readonly #consoles: MachineConsoles;
  readonly #hostParts: HostParts;
  readonly #requests = new RequestWatch();
  readonly #dirtyRate = new DirtyRate(
    (on) => this.#call('dirtyPages', { on }),
    () => this.memoryMap(),
  );
  readonly #bell = new Uint8Array(new BigUint64Array([1n]).buffer);
  readonly #ended = Promise.withResolvers<EndState>();
  readonly #ready = Promise.withResolvers<void>();
  readonly #postMortem: PostMortem | undefined;
  readonly #configPages: SharedArrayBuffer | undefined;
  #state: MachineState = 'created';
  #end: EndState | undefined;
  #closing: Promise<void> | undefined;

  private constructor(description: MachineDescription, ram: GuestRam, options: MachineOptions) {
    this.description = description;
    this.#ram = ram;
    this.#pool = options.pool ?? new ThreadPool();
    this.#ownPool = options.pool === undefined;
    this.#quitTimeoutMs = options.quitTimeoutMs ?? QUIT_TIMEOUT_MS;
    this.#block = allocateShared(possibleCpus(description.cpus));
    Atomics.store(this.#block.words, H.PAUSE, 1);
    this.#configPages = description.machine !== 'minimal' ? newConfigPages() : undefined;
    this.#postMortem = options.postMortem ? PostMortem.create(options.postMortem) : undefined;
    this.#postMortem?.setDescription(description);
    const names = [
      ...description.serial.map(({ port }) => port),
      ...streams(description.devices).map(({ name }) => name),
    ];
    this.#consoles = new MachineConsoles(
      names,
      () => this.#wake(),
      (event) => this.#emit(event),
    );
    this.#threads = new EngineThreads({
      pool: this.#pool,
      block: this.#block,
      wakeFd: this.#wakeFd,
      local: localRegisters(description),
      configPages: this.#configPages,
      pin: description.cpus.pin,
      fault: options.fault,
      onFailure: (error) => this.#fail(error),
    });
    this.#hostParts = new HostParts(ram, this.#threads, this.#consoles);
    this.#ready.promise.catch(() => {});
  }

  /**
   * Makes a machine: maps its memory, starts its threads and loads its kernel. It does not run yet.
   * @throws NemuError for a description, file or host that does not do.
   */
  static async create(input: MachineInput | MachineDescription, options: MachineOptions = {}): Promise<Machine> {
    const description = withPmemSizes(parseMachine(input));
    checkPinning(description.cpus.pin);
    const ram = await GuestRam.allocate(description, options.onPrealloc);
    const machine = new Machine(description, ram, options);
    live.add(machine);
    installExitHandler();
    try {
      await machine.#mapVirtioMem();
      machine.#startThreads(options);
      await machine.#ready.promise;
      for (const dimm of description.dimms) await machine.plug({ kind: 'memory', ...dimm });
    } catch (error) {
      await machine.close();
      throw error;
    }
    return machine;
  }

  #startThreads(options: MachineOptions): void {
    const { description } = this;
    const data: MachineThreadData = {
      role: 'machine',
      description,
      shared: this.#block.buffer,
      configPages: this.#configPages,
      wakeFd: this.#wakeFd,
      memory: this.#ram.handle,
      nvdimms: mapBootNvdimms(description, this.#ram),
      pmems: mapBootPmems(description, this.#ram),
      serial: this.#consoles.rings,
      postMortem: options.postMortem,
      oneProcessor: options.oneProcessor ?? false,
      breakInstruction: options.breakInstruction ?? 'int3',
      ...(options.fault && { faultAt: options.fault }),
    };
    this.#threads.startMachine(data).on('message', (message: FromMachine) => this.#receive(message));
    for (let index = 0; index < description.cpus.count; index++) this.#threads.startVcpu(index);
  }

  /** Maps the regions of virtio-mem devices, which take no memory until the guest plugs some. @throws NemuError MEMORY_… */
  async #mapVirtioMem(): Promise<void> {
    for (const { address, size, description } of virtioMemRegions(this.description, this.#ram.handle.ranges)) {
      await this.#ram.plug({ address, size }, virtioMemMemory(description));
    }
  }

  /** The next vCPU that is plugged need not wait for its thread to start. */
  #keepSpare(): void {
    if (this.description.cpus.max === undefined || this.#closing || this.#end) return;
    this.#threads.keepSpare();
  }

  /** Asks the machine thread to end; one that hangs must not keep those who close it. */
  async #quit(): Promise<void> {
    const answered = this.#call('quit').then(
      () => true,
      () => true,
    );
    if (await within(this.#quitTimeoutMs, answered)) return;
    const seconds = this.#quitTimeoutMs / 1000;
    this.#fail(
      new NemuError(
        'ENGINE',
        `The engine failed: the machine thread has not answered for ${seconds} s (${engineThreadStates()}).`,
      ),
    );
  }

  /** The engine itself broke: everything stops, callers hear why. */
  #fail(error: NemuError): void {
    if (this.#end?.reason === 'engine-error' || this.#state === 'closed') return;
    this.#postMortem?.setError(error.cause instanceof Error ? (error.cause.stack ?? error.message) : error.message);
    const known = this.#end !== undefined;
    this.#setEnd({ reason: 'engine-error', detail: error.message });
    if (!known) {
      this.#emit({ type: 'state', state: 'ended' });
      this.#emit({ type: 'ended', end: this.#end as EndState });
    }
    this.#ready.reject(error);
    this.#calls.fail(error);
    this.#requests.fail(error);
    this.stopNow();
  }

  #setEnd(end: EndState): void {
    this.#end ??= end;
    this.#state = 'ended';
    this.#ended.resolve(this.#end);
    this.#requests.fail(new NemuError('STATE', `The machine ended meanwhile. ${this.#end.detail}`));
  }

  #receive(message: FromMachine): void {
    switch (message.type) {
      case 'loaded':
        break;
      case 'ready':
        this.#ready.resolve();
        break;
      case 'failed': {
        const error = NemuError.fromJSON(message.error);
        if (message.error.stack) this.#postMortem?.setError(message.error.stack);
        Atomics.store(this.#block.words, H.STOP, 1);
        this.#ready.reject(error);
        break;
      }
      case 'reply':
      case 'error':
        this.#calls.take(message);
        break;
      case 'event':
        this.#consoles.drain();
        if (message.event.type === 'request') this.#requests.take(message.event.request);
        this.#emit(message.event);
        break;
      case 'release':
        void this.#release(message.id, message.device);
        break;
      case 'state':
        this.#consoles.drain();
        this.#state = message.state;
        if (message.end) this.#setEnd(message.end);
        this.#emit({ type: 'state', state: message.state });
        break;
      case 'serial':
        this.#consoles.rung(message.name);
        break;
    }
  }

  #emit(event: MachineEvent): void {
    for (const listener of this.#listeners) listener(event);
  }

  #wake(): void {
    Atomics.store(this.#block.words, H.CONTROL, 1);
    if (Atomics.exchange(this.#block.words, H.SLEEPING, 0) === 1) raw.write(this.#wakeFd, this.#bell, 8);
  }

  #call<N extends CallName>(
    call: N,
    ...parameter: MachineCalls[N]['parameter'] extends undefined ? [] : [MachineCalls[N]['parameter']]
  ): Promise<MachineCalls[N]['result']> {
    const thread = this.#threads.machine;
    if (!thread || this.#state === 'closed') {
      return Promise.reject(new NemuError('STATE', `Cannot ${call} a machine that is ${this.#state}.`));
    }
    const answer = this.#calls.post(thread, call, parameter[0] as MachineCalls[N]['parameter']);
    this.#wake();
    return answer;
  }

  get state(): MachineState {
    return this.#state;
  }

  get end(): EndState | undefined {
    return this.#end;
  }

  get consoles(): readonly string[] {
    return this.#consoles.names;
  }

  async start(): Promise<void> {
    await this.#call('start');
    this.#keepSpare();
  }

  pause = (): Promise<void> => this.#call('pause');
  resume = (): Promise<void> => this.#call('resume');
  reset = (): Promise<void> => this.#call('reset');
  powerButton = (): Promise<void> => this.#call('powerButton');
  nmi = (): Promise<void> => this.#call('nmi');
  counters = (): Promise<CountersReport> => this.#call('counters');
  devices = (): Promise<DevicesReport> => this.#call('devices');
  interrupts = (): Promise<InterruptReport> => this.#call('interrupts');
  inspect = (): Promise<VcpuReport[]> => this.#call('inspect');
  memoryMap = async (): Promise<MemoryRangeReport[]> => {
    const { memory, nvdimms, pci } = await this.plugged();
    const names = new Map([
      ...[...memory.dimms, ...nvdimms, ...memory.virtio].map(({ id, address }) => [address, id] as const),
      ...pci.devices.flatMap((device) => (device.memory ? [[device.memory.address, device.id] as const] : [])),
    ]);
    return this.#ram.residence().map((range) => {
      const dimm = names.get(range.address);
      return dimm === undefined ? range : { ...range, dimm };
    });
  };
  dirtyRate = (milliseconds: number): Promise<DirtyRateReport> => this.#dirtyRate.measure(milliseconds);
  disks = (): Promise<DiskReport[]> => this.#call('disks');
  throttle = async (disk: string, limits: ThrottleInput): Promise<void> => {
    const parsed = throttleSchema.safeParse(limits);
    if (!parsed.success)
      throw new NemuError('DESCRIPTION', `These are no limits: ${tell(throttleSchema, limits, parsed.error.issues)}`);
    await this.#call('throttle', { disk, limits: parsed.data });
  };
  changeDisk = async (disk: string, change: DiskChangeInput): Promise<DiskReport> =>
    this.#call('changeDisk', { disk, change: parseDiskChange(change) });
  nets = (): Promise<NetReport[]> => this.#call('nets');
  changeNet = async (net: string, change: NetChangeInput): Promise<NetReport> =>
    this.#call('changeNet', { net, change: parseNetChange(change) });
  resizeConsole = async (name: string, rows: number, columns: number): Promise<boolean> =>
    this.#call('resizeConsole', { name, ...parseConsoleSize(rows, columns) });
  balloon = (target?: number): Promise<BalloonReport> => this.#call('balloon', { target });
  searchMemory = (address: number, length: number, bytes: Uint8Array, most: number): Promise<number[]> =>
    this.#call('searchMemory', { address, length, bytes, most });
  vmcoreinfo = (): Promise<Uint8Array | undefined> => this.#call('vmcoreinfo');
  readMemory = (address: number, length: number): Promise<Uint8Array> => this.#call('readMemory', { address, length });

  writeMemory = (address: number, bytes: Uint8Array): Promise<void> => this.#call('writeMemory', { address, bytes });
  readRegisters = async (vcpu: number): Promise<RegisterValues> =>
    this.#call('readRegisters', { vcpu: parseVcpu(vcpu) });
  writeRegisters = async (vcpu: number, values: RegisterValues): Promise<void> =>
    this.#call('writeRegisters', { vcpu: parseVcpu(vcpu), values: parseRegisters(values) });
  attachDebugger = (): Promise<void> => this.#call('attachDebugger');
  detachDebugger = (): Promise<void> => this.#call('detachDebugger');
  setBreakpoints = async (breakpoints: readonly BreakpointInput[]): Promise<void> =>
    this.#call('setBreakpoints', { breakpoints: parseBreakpoints(breakpoints) });
  debugRun = async (how: DebugRunInput = {}): Promise<void> => {
    await this.#call('debugRun', parseDebugRun(how));
    this.#keepSpare();
  };

  requests = (): Promise<LiveRequest[]> => this.#call('requests');
  plugged = (): Promise<PluggedReport> => this.#call('plugged');

  async plug(input: PlugInput, options: PlugOptions = {}): Promise<LiveRequest> {
    const request = withPmemSize(parsePlug(input));
    const { timeoutMs } = parseOptions(plugOptionsSchema, options);
    const live = await this.#call('plug', { request, timeoutMs });
    const settled = this.#requests.settled(live);
    // Whoever plugs hears of a failure through the request.
    settled.catch(() => {});
    const host = await this.#hostParts.prepare(request, live.device);
    await this.#call('prepared', { id: live.id, ...host });
    // A thread that starts would take time from the guest, which has a device to take up.
    const rested = () => this.#keepSpare();
    settled.then(rested, rested);
    return settled;
  }

  /** Takes back what was made for a device that the guest has let go. */
  async #release(id: number, device: LiveDevice): Promise<void> {
    await this.#hostParts.release(device);
    // A machine that is closed meanwhile needs no answer.
    await this.#call('released', { id }).catch(() => {});
  }

  async unplug(id: string, options: UnplugOptions = {}): Promise<LiveRequest> {
    const { timeoutMs, force = false } = parseOptions(unplugOptionsSchema, options);
    const live = await this.#call('unplug', { id, timeoutMs, force });
    return this.#requests.settled(live);
  }

  async resizeMemory(id: string, size: number | string, options: PlugOptions = {}): Promise<LiveRequest> {
    const [device, bytes, { timeoutMs } = {}] = parseOptions(resizeMemorySchema, [id, size, options]);
    const live = await this.#call('resizeMemory', { id: device, size: bytes, timeoutMs });
    return this.#requests.settled(live);
  }

  console(name: string): ConsoleStream {
    return this.#consoles.get(name, this.description.name);
  }

  onEvent(listener: (event: MachineEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  note(text: string): void {
    this.#emit({ type: 'action', text });
  }

  ended(): Promise<EndState> {
    return this.#ended.promise;
  }

  /** Stops the vCPU threads and wakes the machine thread, synchronously and from any state: for a dying process. */
  stopNow(): void {
    stopVcpus(this.#block, STOP_TIMEOUT_MS);
    raw.write(this.#wakeFd, this.#bell, 8);
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    const preparing = this.#hostParts.close();
    if (this.#threads.machine && !Atomics.load(this.#block.words, H.STOP)) await this.#quit();
    this.stopNow();
    await this.#threads.end(this.description.name, preparing);
    this.#setEnd({ reason: 'quit', detail: 'The machine was closed.' });
    this.#state = 'closed';
    this.#calls.fail(new NemuError('STATE', 'The machine was closed.'));
    this.#consoles.drain();
    live.delete(this);
    this.#ram.free();
    close(this.#wakeFd);
    if (this.#ownPool) await this.#pool.close();
  }
}
