/** A QMP peer for tests: it sends what it is told to, well-formed or not, and keeps what comes back. */
import { type Duplex, duplexPair } from 'node:stream';
import { type MachineInput, parseMachine } from '../../src/client/description.ts';
import { NemuError } from '../../src/client/errors.ts';
import type { LiveRequest, PlugInput, Stage } from '../../src/client/live.ts';
import type { MachineClient, MachineEvent } from '../../src/client/machine_client.ts';
import { serveQmp } from '../../src/qmp/server.ts';
import type { Surroundings } from '../../src/qmp/surroundings.ts';
import { interruptReport } from './interrupts.ts';

export interface Message {
  readonly QMP?: { readonly version: unknown; readonly capabilities: readonly string[] };
  readonly return?: unknown;
  readonly error?: { readonly class: string; readonly desc: string };
  readonly id?: unknown;
  readonly event?: string;
  readonly data?: unknown;
  readonly timestamp?: { readonly seconds: number; readonly microseconds: number };
}

export class QmpPeer {
  readonly stream: Duplex;
  readonly events: Message[] = [];
  /** Answers and greetings that nobody has taken yet. */
  readonly #answers: Message[] = [];
  #waiting: (() => void)[] = [];
  #rest = '';
  closed = false;

  constructor(stream: Duplex) {
    this.stream = stream;
    stream.on('data', (bytes: Buffer) => {
      const lines = (this.#rest + bytes.toString()).split('\r\n');
      this.#rest = lines.pop() as string;
      for (const line of lines) {
        const message = JSON.parse(line) as Message;
        if (message.event === undefined) this.#answers.push(message);
        else this.events.push(message);
      }
      this.#wake();
    });
    stream.on('error', () => {});
    stream.once('close', () => {
      this.closed = true;
      this.#wake();
    });
  }

  #wake(): void {
    for (const wake of this.#waiting.splice(0)) wake();
  }

  async #until<T>(find: () => T | undefined): Promise<T> {
    for (;;) {
      const found = find();
      if (found !== undefined) return found;
      if (this.closed) throw new Error('The server hung up.');
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
  }

  send(text: string | Uint8Array): void {
    this.stream.write(text);
  }

  /** The next answer, whatever it answers. */
  answer(): Promise<Message> {
    return this.#until(() => this.#answers.shift());
  }

  /** The next event of this name that was not asked for yet. */
  event(name: string): Promise<Message> {
    return this.#until(() => {
      const at = this.events.findIndex(({ event }) => event === name);
      return at < 0 ? undefined : this.events.splice(at, 1)[0];
    });
  }

  ask(command: unknown): Promise<Message> {
    this.send(`${JSON.stringify(command)}\n`);
    return this.answer();
  }

  async execute(name: string, args?: object): Promise<unknown> {
    const { error, return: value } = await this.ask({ execute: name, ...(args && { arguments: args }) });
    if (error) throw new Error(`${error.class}: ${error.desc}`);
    return value;
  }

  /** Takes the greeting and ends the negotiation. */
  async negotiate(enable: readonly string[] = []): Promise<Message> {
    const greeting = await this.answer();
    await this.execute('qmp_capabilities', { enable });
    return greeting;
  }

  /** Resolves when the server has hung up. */
  async hungUp(): Promise<void> {
    while (!this.closed) await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }
}

/** A server of a machine, and what connects to it without a socket. */
export function qmpServer(machine: MachineClient, surroundings: Surroundings = {}) {
  const server = serveQmp(machine, surroundings);
  const attach = () => {
    const [ours, theirs] = duplexPair();
    return { peer: new QmpPeer(ours), served: server.connect(theirs), theirs };
  };
  const connect = async (enable: readonly string[] = []) => {
    const { peer } = attach();
    await peer.negotiate(enable);
    return peer;
  };
  return { attach, connect, close: () => server.close() };
}

/** As much of a machine as QMP touches; the test plays the guest. */
export class FakeMachine {
  readonly calls: string[] = [];
  readonly client: MachineClient;
  readonly #listeners = new Set<(event: MachineEvent) => void>();
  readonly #settles = new Map<string, PromiseWithResolvers<LiveRequest>>();
  state = 'running';
  dimms: object[] = [];
  nvdimms: object[] = [];
  readonly ports = ['rp0', 'rp1', 'rp2'];
  /** The last request about each device. */
  requests: LiveRequest[] = [];
  /** Reports of virtio-mem devices. */
  virtio: object[] = [];
  pci: object[] = [];
  /** Reports of disks and cards, and PCI functions. */
  disks: object[] = [];
  nets: object[] = [];
  functions: object[] = [];
  /** What stands in memory, from address 0 on; zeros elsewhere. */
  ram = Buffer.alloc(0);
  /** Bytes that are written to in whatever time. */
  dirty = 0;
  balloonHeld: number | undefined;
  readonly notes: string[] = [];
  /** What `pause` and `dirtyRate` wait for. */
  gate: Promise<void> = Promise.resolve();

  constructor(more: Partial<MachineInput> = {}) {
    const description = parseMachine({
      ...{ kernel: { image: '/k' }, cpus: { count: 2, max: 4 }, memory: { size: '512M', max: '4G', slots: 4 } },
      ...more,
    });
    const call = (name: string) => async () => {
      this.calls.push(name);
    };
    const cpu = (index: number) => ({
      ...{ kind: 'cpu', id: `cpu${index}`, index, apicId: index, socket: 0, core: index, thread: 0 },
    });
    const state = () => this.state;
    this.client = {
      description,
      get state() {
        return state();
      },
      end: undefined,
      consoles: ['com1', 'com4'],
      pause: async () => {
        await this.gate;
        this.calls.push('pause');
        this.#setState('paused');
      },
      resume: async () => {
        this.calls.push('resume');
        this.#setState('running');
      },
      reset: async () => {
        this.calls.push('reset');
        this.emit({ type: 'reset', cause: 'the user' });
      },
      powerButton: call('powerButton'),
      nmi: call('nmi'),
      counters: async () => ({ vcpus: [{ index: 0, threadId: 100 }], regions: [] }),
      inspect: async () => [{ index: 0, registers: { rip: '0x1000', cr3: '0x0', cr4: '0x0' } }],
      devices: async () => ({ pci: this.functions, mmio: [] }),
      memoryMap: async () => [{ address: 0, size: description.memory.size, resident: 0, huge: 0 }],
      interrupts: async () => interruptReport(2),
      dirtyRate: async (milliseconds: number) => {
        await this.gate;
        return { milliseconds, ranges: [{ address: 0, size: description.memory.size, dirty: this.dirty }] };
      },
      readMemory: async (address: number, length: number) => {
        if (address >= 2 ** 40) throw new NemuError('ADDRESS', 'There is no RAM.');
        return Buffer.concat([this.ram.subarray(address, address + length), Buffer.alloc(length)], length);
      },
      disks: async () => this.disks,
      nets: async () => this.nets,
      throttle: async (disk: string, limits: object) => {
        this.calls.push(`throttle ${disk} ${JSON.stringify(limits)}`);
      },
      changeDisk: async (disk: string, change: object) => {
        this.calls.push(`changeDisk ${disk} ${JSON.stringify(change)}`);
        return this.disks.find((each) => (each as { name?: string }).name === disk);
      },
      changeNet: async (net: string, change: object) => {
        this.calls.push(`changeNet ${net} ${JSON.stringify(change)}`);
        return this.nets.find((each) => (each as { name?: string }).name === net);
      },
      balloon: async (target?: number) => {
        if (this.balloonHeld === undefined) throw new NemuError('BALLOON', 'This machine has no balloon.');
        if (target !== undefined) this.calls.push(`balloon ${target}`);
        return { target: target ?? 0, actual: this.balloonHeld, statistics: {} };
      },
      plug: (device: PlugInput) => this.#request('plug', device),
      unplug: (id: string) => this.#request('unplug', { kind: 'memory', id } as PlugInput),
      plugged: async () => ({
        cpus: { present: [cpu(0), cpu(1)], max: 4 },
        memory: {
          ...{ boot: description.memory.size, dimms: this.dimms, max: 4 * 2 ** 30, slots: 4 },
          virtio: this.virtio,
        },
        nvdimms: this.nvdimms,
        pci: { devices: this.pci, ports: this.ports.map((id) => ({ id, kind: 'port' as const })) },
      }),
      requests: async () => this.requests,
      note: (text: string) => void this.notes.push(text),
      onEvent: (listener: (event: MachineEvent) => void) => {
        this.#listeners.add(listener);
        return () => this.#listeners.delete(listener);
      },
      close: async () => {
        this.calls.push('close');
        this.emit({ type: 'ended', end: { reason: 'quit', detail: 'The machine was closed.' } });
      },
    } as unknown as MachineClient;
  }

  get listeners(): number {
    return this.#listeners.size;
  }

  emit(event: MachineEvent): void {
    for (const listener of this.#listeners) listener(event);
  }

  #setState(state: 'running' | 'paused'): void {
    this.state = state;
    this.emit({ type: 'state', state });
  }

  #request(action: 'plug' | 'unplug', device: PlugInput): Promise<LiveRequest> {
    const id = device.kind === 'cpu' ? `cpu${device.index}` : ((device as { id?: string }).id as string);
    this.calls.push(`${action} ${JSON.stringify(device)}`);
    const settled = Promise.withResolvers<LiveRequest>();
    this.#settles.set(`${action} ${id}`, settled);
    return settled.promise;
  }

  /** A request comes to its next stage. */
  stage(action: LiveRequest['action'], device: object, stages: readonly Stage[], more: object = {}): void {
    const request = {
      ...{ id: 1, action, origin: 'user', device, stage: stages.at(-1) },
      history: stages.map((stage) => ({ stage, at: '0' })),
      ...more,
    } as LiveRequest;
    this.requests = [...this.requests.filter((each) => each.device.id !== request.device.id), request];
    this.emit({ type: 'request', request });
    const settled = this.#settles.get(`${action} ${request.device.id}`);
    if (request.stage === 'online' || request.stage === 'removed') settled?.resolve(request);
    if (request.stage === 'refused') settled?.reject(new NemuError('REFUSED', request.reason ?? 'It was refused.'));
  }
}
