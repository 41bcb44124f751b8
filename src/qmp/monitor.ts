import { actionsOf, type NotedAction } from '../client/actions.ts';
import { plugNow } from '../client/device_now.ts';
import { type LiveRequest, type PlugInput, ramSize } from '../client/live.ts';
import type { MachineClient, MachineEvent } from '../client/machine_client.ts';
import { plugNote, unplugNote, virtioMemNote } from '../client/notes.ts';
import { BlockNodes } from './block_nodes.ts';
import { Chardevs } from './chardevs.ts';
import type { Caller, Command } from './command.ts';
import type { DirtyRateState } from './commands/dirty_rate.ts';
import type { DumpStatus } from './commands/dump.ts';
import { COMMANDS } from './commands/index.ts';
import { DeviceNames, type MemoryBackend, type QmpObject } from './devices.ts';
import { QmpError, toQmpError } from './errors.ts';
import {
  EVENTS,
  type EventData,
  type EventName,
  type OspmStatus,
  ospmStatusOf,
  ostKey,
  type QmpEvent,
  type ShutdownCause,
  translate,
} from './events.ts';
import { introspect, type SchemaInfo } from './introspect.ts';
import { isObject, type Json } from './json.ts';
import { Netdevs } from './netdevs.ts';
import type { SerialBus } from './serial_drivers.ts';
import type { Surroundings } from './surroundings.ts';
import { parseArguments } from './types.ts';

/** `query-status` has these for a machine that stands still. */
type PauseReason = 'io-error' | 'watchdog' | 'guest-panicked' | 'debug';

const MAX_NOTE = 200;

/** `device_add driver=pc-dimm id=d1`, as `nemu qmp` takes it. */
function lineOf(name: string, args: Json): string {
  const words = Object.entries(isObject(args) ? args : {}).map(
    ([key, value]) => `${key}=${typeof value === 'string' ? value : JSON.stringify(value, withDigits)}`,
  );
  const line = [name, ...words].join(' ');
  return line.length > MAX_NOTE ? `${line.slice(0, MAX_NOTE)}…` : line;
}

/** JSON of the language has no whole numbers beyond 2^53. */
const withDigits = (_key: string, value: unknown) => (typeof value === 'bigint' ? String(value) : value);

/** A machine as all peers of the protocol share it: what they made, what things are called, what happens. */
export class Monitor {
  readonly machine: MachineClient;
  readonly commands: ReadonlyMap<string, Command> = new Map(COMMANDS.map((each) => [each.name, each]));
  readonly names: DeviceNames;
  /** What `object-add` made, by id. */
  readonly objects = new Map<string, QmpObject>();
  readonly nodes = new BlockNodes();
  readonly netdevs = new Netdevs();
  readonly chardevs: Chardevs;
  readonly surroundings: Surroundings;
  /** What `virtio-serial-pci` made, by the machine's ids. */
  readonly serialBuses = new Map<string, SerialBus>();
  /** Devices that have come since the machine began, by its ids. */
  readonly hotplugged = new Set<string>();
  /** Consoles and ports that the guest has open. */
  readonly openPorts = new Set<string>();
  /** `guest-stats-polling-interval` of the balloon, which peers set and read back. */
  balloonPolling = 0;
  /** What a watchdog does that is plugged through QMP. */
  watchdogAction: 'reset' | 'poweroff' | 'pause' | 'nmi' | 'none' = 'reset';
  dirtyRate: DirtyRateState = { status: 'unstarted', startedAt: 0, seconds: 0 };
  dump: DumpStatus = { status: 'none', completed: 0, total: 0 };
  /** Why the machine stands still, where nobody asked for it. */
  pausedBy: PauseReason | undefined;
  /** Disks whose failed requests stopped the machine, which will try them again; by the machine's names. */
  readonly failedDisks = new Map<string, 'failed' | 'nospace'>();
  readonly #listeners = new Set<(event: QmpEvent) => void>();
  /** Told of each stage of a request, by `action id`. */
  readonly #watchers = new Map<string, (request: LiveRequest) => void>();
  readonly #unlisten: () => void;
  /** The guest's last answer about each device. */
  readonly #ost = new Map<string, { readonly key: string | undefined; readonly status: OspmStatus | undefined }>();
  #asked: ShutdownCause | undefined;
  #running: boolean | undefined;
  #ended = false;
  #schema: SchemaInfo[] | undefined;

  constructor(machine: MachineClient, surroundings: Surroundings = {}) {
    this.machine = machine;
    this.surroundings = surroundings;
    this.chardevs = new Chardevs(surroundings);
    this.names = new DeviceNames(machine);
    this.#running = machine.state === 'created' ? undefined : machine.state === 'running';
    this.#unlisten = machine.onEvent((event) => this.#happened(event));
  }

  /** Objects that are memory. */
  get memory(): MemoryBackend[] {
    return [...this.objects.values()].flatMap((object) => ('plug' in object ? [object] : []));
  }

  get schema(): SchemaInfo[] {
    this.#schema ??= introspect(COMMANDS, EVENTS);
    return this.#schema;
  }

  /** The guest's last answer about a device. @param id the machine's. */
  ospmStatus(id: string): OspmStatus | undefined {
    return this.#ost.get(id)?.status;
  }

  /** @returns the function that takes the listener off. */
  subscribe(listener: (event: QmpEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  emit<N extends EventName>(event: N, data: EventData<N>): void {
    this.#tell({ event, data } as QmpEvent);
  }

  #tell(event: QmpEvent): void {
    for (const listener of this.#listeners) listener(event);
  }

  /**
   * Runs a command.
   * @throws QmpError
   */
  async execute(name: string, args: Json, caller: Caller): Promise<unknown> {
    const command = this.commands.get(name);
    if (!command) throw new QmpError(`The command ${name} has not been found`, 'CommandNotFound');
    const noted = command.changes && !caller.inner;
    try {
      const parsed = parseArguments(command.args, args);
      if (noted) this.machine.note(`QMP: ${lineOf(name, args)}`);
      return await command.run(this, parsed, caller);
    } catch (error) {
      const told = toQmpError(error);
      if (noted) this.machine.note(`QMP: ${name} was refused: ${told.message}`);
      throw told;
    }
  }

  /** What the next reset or end is told to be for, while `action` asks the machine for it. */
  async asking(cause: ShutdownCause, action: () => Promise<void>): Promise<void> {
    this.#asked = cause;
    try {
      await action();
    } finally {
      this.#asked = undefined;
    }
  }

  /**
   * Plugs a device, and does not wait for what the guest makes of it.
   * @param id the machine's id, which the device must come to have.
   * @throws NemuError when the host refuses.
   */
  async plug(device: PlugInput, id: string): Promise<void> {
    const note = (request: LiveRequest) => plugNote(device, request.device);
    await this.#untilNotified(`plug ${id}`, () => this.machine.plug(device), note);
  }

  /** Asks the guest to let go of a device, and does not wait for it. @throws NemuError when it cannot be asked. */
  async unplug(id: string): Promise<void> {
    const again = await plugNow(this.machine, id);
    const note = () => unplugNote(id, again);
    await this.#untilNotified(`unplug ${id}`, () => this.machine.unplug(id), note);
  }

  /** Asks the guest for another size of a virtio-mem device, and does not wait for it. @throws NemuError for none it can have. */
  async resizeMemory(id: string, size: number): Promise<void> {
    const { memory } = await this.machine.plugged();
    const before = memory.virtio.find((each) => each.id === id)?.requested ?? 0;
    const note = () => virtioMemNote(id, { size, bytes: size }, before);
    await this.#untilNotified(`resize ${id}`, () => this.machine.resizeMemory(id, size), note);
  }

  /** Writes down what was done to the machine: who uses it sees that, and may take it back. */
  did(note: NotedAction): Promise<void> {
    return actionsOf(this.machine).add(note);
  }

  async #untilNotified(
    key: string,
    action: () => Promise<LiveRequest>,
    note: (request: LiveRequest) => NotedAction,
  ): Promise<void> {
    if (this.#watchers.has(key)) throw new QmpError(`${key.split(' ')[1]} is busy with another request.`);
    const notified = Promise.withResolvers<void>();
    this.#watchers.set(key, ({ stage }) => {
      // A refusal before that is the caller's error.
      if (stage !== 'reserved' && stage !== 'refused') notified.resolve();
    });
    // Later failures are told in events.
    action()
      .then((request) => this.did(note(request)))
      .then(notified.resolve, notified.reject);
    try {
      await notified.promise;
    } finally {
      this.#watchers.delete(key);
    }
  }

  #happened(event: MachineEvent): void {
    if (event.type === 'ended') {
      if (this.#ended) return;
      this.#ended = true;
    } else if (event.type === 'balloon') {
      // Nobody is told of a machine that ends meanwhile.
      this.#ramSize().then(
        (all) => this.emit('BALLOON_CHANGE', { actual: all - event.actual }),
        () => {},
      );
    }
    const events = translate(event, {
      onPanic: this.machine.description.onPanic,
      asked: this.#asked,
      wasRunning: this.#running,
      peer: (id) => this.names.peer(id),
      node: (disk) => this.nodes.all.find(({ usedBy }) => usedBy === disk)?.name,
      nameOf: ({ device }) => {
        const path = this.names.path(device);
        return this.names.isAnonymous(device) ? { path } : { device: this.names.peer(device.id), path };
      },
      lastOst: ({ device }) => this.#ost.get(device.id)?.key,
    });
    this.#remember(event);
    for (const each of events) this.#tell(each);
  }

  #remember(event: MachineEvent): void {
    if (event.type === 'state') {
      if (event.state === 'running') {
        this.pausedBy = undefined;
        this.failedDisks.clear();
      }
      this.#running = event.state === 'running';
    } else if (event.type === 'disk-error' && event.action === 'stop') {
      this.pausedBy = 'io-error';
      this.failedDisks.set(event.disk, event.errno === 'ENOSPC' ? 'nospace' : 'failed');
    } else if (event.type === 'watchdog' && event.action === 'pause') this.pausedBy = 'watchdog';
    else if (event.type === 'panic' && this.machine.description.onPanic === 'pause') this.pausedBy = 'guest-panicked';
    else if (event.type === 'debug') this.pausedBy = 'debug';
    else if (event.type === 'port') this.openPorts[event.open ? 'add' : 'delete'](event.name);
    else if (event.type === 'console') this.chardevs.changed(event.name, event.change);
    else if (event.type === 'request') this.#rememberRequest(event.request);
  }

  #rememberRequest(request: LiveRequest): void {
    const { action, device, stage } = request;
    this.#watchers.get(`${action} ${device.id}`)?.(request);
    if (action === 'plug' && stage === 'reserved') this.hotplugged.add(device.id);
    if (request.ost) {
      const peer = this.names.isAnonymous(device) ? undefined : this.names.peer(device.id);
      this.#ost.set(device.id, { key: ostKey(request), status: ospmStatusOf(request, peer) });
    }
    if (stage === 'removed' || (stage === 'refused' && action === 'plug')) this.forget(device.id);
  }

  /** Bytes of RAM that the guest has, the balloon's among them. */
  async #ramSize(): Promise<number> {
    const { memory } = await this.machine.plugged();
    return ramSize(memory);
  }

  /** Is there a device of this id or path, that could go? */
  async hasDevice(name: string): Promise<boolean> {
    const own = this.names.own(name);
    const { cpus, memory, nvdimms, pci } = await this.machine.plugged();
    const present = [...cpus.present, ...memory.dimms, ...nvdimms, ...pci.devices];
    return this.names.isGiven(name) || present.some(({ id }) => id === own);
  }

  /** A device is gone, or did not come: its names and what it used are free. */
  forget(id: string): void {
    this.names.forget(id);
    this.hotplugged.delete(id);
    this.#ost.delete(id);
    for (const object of this.memory) if (object.usedBy === id) object.usedBy = undefined;
    this.nodes.release(id);
    this.netdevs.release(id);
    this.chardevs.release(id);
    this.openPorts.delete(id);
    this.serialBuses.delete(id);
    for (const { ports } of this.serialBuses.values()) ports.delete(id);
  }

  close(): void {
    this.#unlisten();
    this.#listeners.clear();
    this.chardevs.close();
  }
}
